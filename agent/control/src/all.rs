//! All requests, by subject, and who answers them.

use std::sync::Arc;

use async_trait::async_trait;
use hyper::Method;

use super::{
    acme::AcmeRequest,
    ca::CaRequest,
    certificates::CertificatesRequest,
    devices::DevicesRequest,
    dns::DnsRequest,
    error::ControlError,
    exits::ExitsRequest,
    log::LogsRequest,
    members::MembersRequest,
    node::NodeRequest,
    policy::PolicyRequest,
    publish::PublishRequests,
    records::RecordsRequest,
    renewals::RenewalsRequest,
    request::{Received, Reply, Request},
    routes::RoutesRequest,
    secondaries::SecondariesRequest,
    services::ServicesRequest,
};

/// The running agent, as far as it can be asked.
#[async_trait]
pub trait Control: Send + Sync {
    /// Answers a request of the user `uid`, who may ask it.
    ///
    /// # Errors
    /// A refusal.
    async fn answer(&self, request: AnyRequest, uid: u32) -> Result<Reply, ControlError>;

    /// Whether anything can be changed now.
    ///
    /// # Errors
    /// Why not.
    async fn may_change(&self) -> Result<(), ControlError> {
        Ok(())
    }
}

impl dyn Control {
    /// Asks within this process, as root would over the socket.
    ///
    /// # Errors
    /// A refusal.
    pub async fn ask<R: Request>(&self, request: R) -> Result<R::Answer, ControlError>
    where
        AnyRequest: From<R::Subject>,
    {
        const ROOT: u32 = 0;
        if R::CHANGES {
            self.may_change().await?;
        }
        let request = AnyRequest::from(R::Subject::from(request));
        self.answer(request, ROOT).await?.read::<R>()
    }
}

/// A request, as the server has to know it.
pub(super) struct Route {
    pub method: Method,
    pub path: &'static str,
    pub changes: bool,
    pub body_bytes: usize,
    pub read: Arc<ReadRequest>,
}

type ReadRequest = dyn Fn(&Received<'_>) -> Result<AnyRequest, ControlError> + Send + Sync;

macro_rules! subjects {
    ($($subject:ident($requests:ident),)*) => {
        #[derive(Debug)]
        #[allow(missing_docs, reason = "a subject's type says what it is")]
        pub enum AnyRequest { $($subject($requests),)* }

        $(
            impl From<$requests> for AnyRequest {
                fn from(request: $requests) -> Self {
                    Self::$subject(request)
                }
            }
        )*

        /// How each request is asked.
        pub(super) fn routes() -> Vec<Route> {
            let mut routes = Vec::new();
            $(
                routes.extend($requests::entries().into_iter().map(|entry| Route {
                    method: entry.method,
                    path: entry.path,
                    changes: entry.changes,
                    body_bytes: entry.body_bytes,
                    read: Arc::new(move |received| (entry.read)(received).map(AnyRequest::$subject)),
                }));
            )*
            routes
        }
    };
}

subjects! {
    Node(NodeRequest),
    Members(MembersRequest),
    Services(ServicesRequest),
    Certificates(CertificatesRequest),
    Renewals(RenewalsRequest),
    Records(RecordsRequest),
    Routes(RoutesRequest),
    Publish(PublishRequests),
    Exits(ExitsRequest),
    Policy(PolicyRequest),
    Ca(CaRequest),
    Acme(AcmeRequest),
    Dns(DnsRequest),
    Secondaries(SecondariesRequest),
    Log(LogsRequest),
    Devices(DevicesRequest),
}
