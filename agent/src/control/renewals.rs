//! Requests and answers about certificates that are renewed by themselves.

use std::path::PathBuf;

use async_trait::async_trait;
use axum::{
    Extension, Json, Router,
    extract::{State, rejection::JsonRejection},
    routing::post,
};
use serde::{Deserialize, Serialize};

use super::{
    api::ControlError,
    client::{Answer, Client},
    server::{self, Caller, Shared},
};
use crate::host::UnixTime;

/// What the running agent can be asked about renewals.
#[async_trait]
pub trait Renewals: Send + Sync {
    /// Has a certificate that is in its files renewed from now on, as `uid`
    /// wishes; in place of what was asked for the same files before.
    ///
    /// # Errors
    /// [`super::ErrorCode::Invalid`]; that it can't be renewed as things are
    /// now is no error.
    async fn renewal_add(&self, wish: RenewalWish, uid: u32) -> Result<RenewalRow, ControlError>;
    /// Renews now.
    ///
    /// # Errors
    /// Why it wasn't; the files are as they were.
    async fn renewal_now(&self, request: RenewNow) -> Result<RenewalRow, ControlError>;
    /// Renews no more. The files stay.
    ///
    /// # Errors
    /// [`super::ErrorCode::NotFound`].
    async fn renewal_rm(&self, which: WhichRenewal) -> Result<RenewalRow, ControlError>;
}

/// A certificate in its files, and how to renew it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewalWish {
    /// Full names, the first one first.
    pub names: Vec<String>,
    /// Life of each certificate, in days.
    pub days: u32,
    /// The folder of its files, absolute.
    pub folder: PathBuf,
    /// What their names begin with.
    pub stem: String,
    /// Id of the user that the key's files belong to; null for the agent's.
    pub owner: Option<u32>,
    /// As `owner`, of the group.
    pub group: Option<u32>,
    /// Permission bits of the key's files.
    pub mode: u32,
    /// Whether each certificate is for a new key.
    pub new_key: bool,
    /// How long before its end to renew, in seconds; null for two thirds of
    /// the life.
    pub renew_before_s: Option<u64>,
    /// What to run after each renewal, by `sh -c`.
    pub exec: Option<String>,
    /// Whether to run that now too.
    pub exec_now: bool,
}

/// One of this machine's renewals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhichRenewal {
    /// As it was issued, or a full name.
    pub name: String,
    /// The folder of its files, where several are of that name.
    pub folder: Option<PathBuf>,
}

/// What to renew now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewNow {
    /// Which.
    pub which: WhichRenewal,
    /// Whether to make a new key, this time.
    pub new_key: bool,
}

/// How a renewal stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalRow {
    /// As it was issued.
    pub name: String,
    /// Its full names.
    pub names: Vec<String>,
    /// Serial number of the certificate in its files, in hexadecimal.
    pub serial: String,
    /// When that ends.
    pub not_after: UnixTime,
    /// The certificate and its issuer.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
    /// The issuer and the root.
    pub chain: PathBuf,
    /// Certificate, issuer and key.
    pub pem: PathBuf,
    /// The root.
    pub ca: PathBuf,
    /// When it is renewed, or that is tried again; null when it can't be.
    pub next: Option<UnixTime>,
    /// Whether each certificate is for a new key.
    pub new_key: bool,
    /// How often in a row it could not be renewed.
    pub failures: u32,
    /// Why the last attempt failed, or why there can be none.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<UnixTime>,
    /// What is run after each renewal.
    pub exec: Option<String>,
    /// Whether that is yet to be run, again where it failed.
    pub exec_pending: bool,
    /// How it failed the last time, if it did.
    pub exec_error: Option<String>,
    /// When that was.
    pub exec_error_at: Option<UnixTime>,
}

pub(super) fn changing() -> Router<Shared> {
    Router::new()
        .route("/v1/renewals", post(add))
        .route("/v1/renewals/now", post(now))
        .route("/v1/renewals/remove", post(remove))
}

type Served = Result<Json<RenewalRow>, ControlError>;
type Body<T> = Result<Json<T>, JsonRejection>;

async fn add(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    request: Body<RenewalWish>,
) -> Served {
    let wish = server::body(request)?;
    shared.control.renewal_add(wish, caller.uid).await.map(Json)
}

async fn now(State(shared): State<Shared>, request: Body<RenewNow>) -> Served {
    let request = server::body(request)?;
    shared.control.renewal_now(request).await.map(Json)
}

async fn remove(State(shared): State<Shared>, request: Body<WhichRenewal>) -> Served {
    let which = server::body(request)?;
    shared.control.renewal_rm(which).await.map(Json)
}

impl Client {
    /// Has a certificate renewed from now on.
    ///
    /// # Errors
    /// [`super::ClientError`], here and below.
    pub async fn renewal_add(&self, wish: &RenewalWish) -> Answer<RenewalRow> {
        self.post("/v1/renewals", wish).await
    }

    /// Renews one now.
    ///
    /// # Errors
    /// [`super::ClientError`].
    pub async fn renewal_now(&self, request: &RenewNow) -> Answer<RenewalRow> {
        self.post("/v1/renewals/now", request).await
    }

    /// Renews one no more.
    ///
    /// # Errors
    /// [`super::ClientError`].
    pub async fn renewal_rm(&self, which: &WhichRenewal) -> Answer<RenewalRow> {
        self.post("/v1/renewals/remove", which).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::tests::{FakeAgent, served},
        renewal::{kept::tests as kept, told},
    };

    #[async_trait]
    impl Renewals for FakeAgent {
        async fn renewal_add(
            &self,
            wish: RenewalWish,
            uid: u32,
        ) -> Result<RenewalRow, ControlError> {
            let mut kept = kept::kept();
            (kept.wish, kept.uid) = (wish, uid);
            kept.serial = uid.to_string();
            Ok(told::row(&kept, None))
        }
        async fn renewal_now(&self, request: RenewNow) -> Result<RenewalRow, ControlError> {
            let mut kept = kept::kept();
            (kept.wish.stem, kept.wish.new_key) = (request.which.name, request.new_key);
            Ok(told::row(&kept, None))
        }
        async fn renewal_rm(&self, which: WhichRenewal) -> Result<RenewalRow, ControlError> {
            Err(ControlError::new(
                crate::control::ErrorCode::NotFound,
                which.name,
            ))
        }
    }

    #[tokio::test]
    async fn a_wish_arrives_as_it_was_written_and_with_who_wishes() {
        let served = served(FakeAgent::default()).await;
        let client = &served.client;
        let row = client.renewal_add(&kept::wish()).await.unwrap();
        assert_eq!(row.names, kept::wish().names);
        assert_eq!(
            row.pem,
            std::path::Path::new("/etc/innermesh/certs/photos.pem")
        );
        assert_eq!(row.serial, nix::unistd::geteuid().to_string());
        let which = WhichRenewal {
            name: "photos".into(),
            folder: None,
        };
        let refused = client.renewal_rm(&which).await.unwrap_err();
        assert_eq!(refused.to_string(), "photos");
        let request = RenewNow {
            which,
            new_key: true,
        };
        let row = client.renewal_now(&request).await.unwrap();
        assert_eq!((row.name.as_str(), row.new_key), ("photos", true));
    }
}
