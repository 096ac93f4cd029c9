//! Which function answers which request.

use std::{future::ready, sync::Arc};

use async_trait::async_trait;

use crate::{
    control::{
        AnyRequest, Control, ControlError, Done, Reply,
        acme::AcmeRequest,
        answer,
        ca::CaRequest,
        certificates::CertificatesRequest,
        dns::{DnsRequest, ZoneText},
        members::MembersRequest,
        node::NodeRequest,
        records::RecordsRequest,
        renewals::RenewalsRequest,
        services::ServicesRequest,
    },
    node::{
        Inner,
        commands::{
            acme, admit, ca_status, certificates, dns, evict, invite, leave, peers, records,
            recovery, services, status, voters,
        },
        follow::{program_certs, tunnel_keys},
    },
};

type Answered = Result<Reply, ControlError>;

/// An agent, as far as it can be asked.
pub struct AgentControl(pub Arc<Inner>);

#[async_trait]
impl Control for AgentControl {
    async fn answer(&self, request: AnyRequest, uid: u32) -> Answered {
        match request {
            AnyRequest::Node(request) => self.node(request).await,
            AnyRequest::Members(request) => self.members(request).await,
            AnyRequest::Services(request) => self.services(request).await,
            AnyRequest::Certificates(request) => self.certificates(request).await,
            AnyRequest::Renewals(request) => self.renewals(request, uid).await,
            AnyRequest::Records(request) => self.records(request).await,
            AnyRequest::Ca(request) => self.ca(request).await,
            AnyRequest::Acme(request) => self.acme(request).await,
            AnyRequest::Dns(request) => self.dns(request).await,
        }
    }
}

impl AgentControl {
    async fn node(&self, request: NodeRequest) -> Answered {
        let inner = &self.0;
        match request {
            NodeRequest::Status(it) => answer(it, |_| certain(status::status(inner))).await,
            NodeRequest::Peers(it) => answer(it, |_| ready(Ok(peers::peers(inner)))).await,
            NodeRequest::Ping(it) => answer(it, |it| peers::ping(inner, it.node, it.count)).await,
            NodeRequest::Rekey(it) => answer(it, |_| tunnel_keys::rekey(inner)).await,
            NodeRequest::Leave(it) => answer(it, |_| leave::leave(inner)).await,
        }
    }

    async fn members(&self, request: MembersRequest) -> Answered {
        let inner = &self.0;
        match request {
            MembersRequest::Invite(it) => answer(it, |it| ready(invite::invite(inner, it))).await,
            MembersRequest::Evict(it) => answer(it, |it| evict::evict(inner, it)).await,
            MembersRequest::EvictUndo(it) => {
                answer(it, async |it| done(evict::undo(inner, &it.node)).await).await
            }
            MembersRequest::Admissions(it) => answer(it, |_| admit::list(inner)).await,
            MembersRequest::Approve(it) => answer(it, |it| admit::approve(inner, it)).await,
            MembersRequest::Deny(it) => {
                answer(it, async |it| admit::deny(inner, &it.which).await).await
            }
        }
    }

    async fn services(&self, request: ServicesRequest) -> Answered {
        let inner = &self.0;
        match request {
            ServicesRequest::List(it) => answer(it, |_| ready(Ok(services::list(inner)))).await,
            ServicesRequest::Add(it) => answer(it, |it| services::add(inner, it.0)).await,
            ServicesRequest::Rm(it) => {
                answer(it, |it| done(services::rm(inner, it.name, it.release))).await
            }
        }
    }

    async fn certificates(&self, request: CertificatesRequest) -> Answered {
        let inner = &self.0;
        match request {
            CertificatesRequest::List(it) => {
                let mut rows = certificates::list(&inner.ledger.state());
                program_certs::join(inner, &mut rows);
                answer(it, |_| ready(Ok(rows))).await
            }
            CertificatesRequest::Issue(it) => answer(it, |it| certificates::issue(inner, it)).await,
            CertificatesRequest::Revoke(it) => {
                answer(it, |it| certificates::revoke(inner, it.serial)).await
            }
        }
    }

    async fn renewals(&self, request: RenewalsRequest, uid: u32) -> Answered {
        let inner = &self.0;
        match request {
            RenewalsRequest::Add(it) => answer(it, |it| program_certs::add(inner, it.0, uid)).await,
            RenewalsRequest::Now(it) => answer(it, |it| program_certs::now(inner, it)).await,
            RenewalsRequest::Rm(it) => answer(it, |it| program_certs::remove(inner, it.0)).await,
        }
    }

    async fn records(&self, request: RecordsRequest) -> Answered {
        let inner = &self.0;
        match request {
            RecordsRequest::List(it) => answer(it, |_| ready(Ok(records::list(inner)))).await,
            RecordsRequest::Add(it) => answer(it, |it| records::add(inner, it)).await,
            RecordsRequest::Rm(it) => {
                answer(it, async |it| {
                    done(records::rm(inner, &it.name, &it.rtype)).await
                })
                .await
            }
        }
    }

    async fn ca(&self, request: CaRequest) -> Answered {
        let inner = &self.0;
        match request {
            CaRequest::Status(it) => answer(it, |_| certain(ca_status::status(inner))).await,
            CaRequest::Root(it) => answer(it, |_| ready(Ok(ca_status::root(inner)))).await,
            CaRequest::Keys(it) => answer(it, |it| voters::keys(inner, it.node)).await,
            CaRequest::Promote(it) => answer(it, |it| done(voters::promote(inner, it))).await,
            CaRequest::Demote(it) => answer(it, |it| done(voters::demote(inner, it.node))).await,
            CaRequest::Recovery(it) => answer(it, |_| recovery::asked(inner)).await,
            CaRequest::Recover(it) => {
                answer(it, |it| done(recovery::recover(inner, it.signed))).await
            }
        }
    }

    async fn acme(&self, request: AcmeRequest) -> Answered {
        let inner = &self.0;
        match request {
            AcmeRequest::Add(it) => answer(it, |it| acme::eab_add(inner, it.name)).await,
            AcmeRequest::Rm(it) => answer(it, |it| done(acme::eab_rm(inner, it.name))).await,
        }
    }

    async fn dns(&self, request: DnsRequest) -> Answered {
        let inner = &self.0;
        match request {
            DnsRequest::Query(it) => answer(it, |it| dns::query(inner, it.name, it.rtype)).await,
            DnsRequest::Zone(it) => {
                let zone = dns::zone(inner);
                answer(it, |_| ready(Ok(ZoneText { zone }))).await
            }
        }
    }
}

/// What is never refused.
async fn certain<T>(answer: impl Future<Output = T>) -> Result<T, ControlError> {
    Ok(answer.await)
}

/// What has nothing to say.
async fn done(
    answer: impl Future<Output = Result<(), ControlError>>,
) -> Result<Done, ControlError> {
    answer.await.map(|()| Done {})
}
