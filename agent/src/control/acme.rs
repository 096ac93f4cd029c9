//! Requests about ACME: keys by which sources that are no local process may
//! have accounts.

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::{State, rejection::JsonRejection},
    routing::post,
};
use serde::{Deserialize, Serialize};

use super::{
    api::ControlError,
    client::{Answer, Client},
    server::{self, Shared},
};

/// What the running agent can be asked about ACME.
#[async_trait]
pub trait AcmeControl: Send + Sync {
    /// Makes a key for binding an account (RFC 8555 §7.3.4) that may have
    /// certificates for `name` and what is below it.
    ///
    /// # Errors
    /// [`super::ErrorCode::Refused`] when this node may not have them itself.
    async fn eab_add(&self, name: String) -> Result<ExternalAccount, ControlError>;
    /// Takes all keys for `name` back; accounts bound with them get nothing
    /// more.
    ///
    /// # Errors
    /// [`super::ErrorCode::NotFound`] when there is none.
    async fn eab_rm(&self, name: String) -> Result<(), ControlError>;
}

/// The answer to `ca eab`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalAccount {
    /// What its account may have certificates for.
    pub name: String,
    /// The key's id.
    pub kid: String,
    /// The key, base64url: for HMAC-SHA256.
    pub hmac_key: String,
    /// Where the client begins.
    pub directory: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfName {
    name: String,
}

/// What only root and the agent's user may ask.
pub(super) fn changing() -> Router<Shared> {
    Router::new()
        .route("/v1/acme/eab", post(eab_add))
        .route("/v1/acme/eab/rm", post(eab_rm))
}

type Body<T> = Result<Json<T>, JsonRejection>;

async fn eab_add(
    State(shared): State<Shared>,
    request: Body<OfName>,
) -> Result<Json<ExternalAccount>, ControlError> {
    let OfName { name } = server::body(request)?;
    shared.control.eab_add(name).await.map(Json)
}

async fn eab_rm(
    State(shared): State<Shared>,
    request: Body<OfName>,
) -> Result<Json<server::Done>, ControlError> {
    let OfName { name } = server::body(request)?;
    shared.control.eab_rm(name).await?;
    Ok(Json(server::Done {}))
}

impl Client {
    /// See [`AcmeControl::eab_add`].
    ///
    /// # Errors
    /// [`super::ClientError`].
    pub async fn eab_add(&self, name: &str) -> Answer<ExternalAccount> {
        let name = name.to_owned();
        self.post("/v1/acme/eab", &OfName { name }).await
    }

    /// See [`AcmeControl::eab_rm`].
    ///
    /// # Errors
    /// [`super::ClientError`].
    pub async fn eab_rm(&self, name: &str) -> Answer<()> {
        let name = name.to_owned();
        let server::Done {} = self.post("/v1/acme/eab/rm", &OfName { name }).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{
        ErrorCode,
        tests::{FakeAgent, served},
    };

    #[async_trait]
    impl AcmeControl for FakeAgent {
        async fn eab_add(&self, name: String) -> Result<ExternalAccount, ControlError> {
            Ok(ExternalAccount {
                name,
                kid: "k".into(),
                hmac_key: "h".into(),
                directory: "https://acme.in.example.org:7443/directory".into(),
            })
        }
        async fn eab_rm(&self, name: String) -> Result<(), ControlError> {
            Err(ControlError::new(ErrorCode::NotFound, name))
        }
    }

    #[tokio::test]
    async fn keys_for_external_accounts_come_and_go() {
        let served = served(FakeAgent::default()).await;
        let made = served.client.eab_add("tv.in.example.org").await.unwrap();
        assert_eq!((&*made.name, &*made.kid), ("tv.in.example.org", "k"));
        let refused = served.client.eab_rm("x").await.unwrap_err();
        assert!(refused.to_string().contains('x'), "{refused}");
    }
}
