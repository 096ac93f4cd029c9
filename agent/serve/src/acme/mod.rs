//! ACME (RFC 8555): certificates for whatever speaks the protocol on this
//! machine, without anything to set up. Accounts and orders are this agent's
//! own; it validates by itself, as who may have which name is the ledger's
//! word and not a challenge's, and asks the ledger for each certificate. So an
//! order outlives whoever leads.
//!
//! This module is the protocol; [`server`] is TLS and HTTP, [`mesh`] what it
//! asks of the rest of the agent.

#![allow(missing_docs, reason = "the names say it")]

mod absent;
mod account_store;
mod accounts;
pub mod ari;
mod challenges;
mod client_tls;
mod finalize;
mod http;
pub mod jwk;
pub mod jws;
mod keep;
pub mod mesh;
mod nonce;
pub mod order;
mod orders;
pub mod problem;
mod revoke;
mod routes;
pub mod server;
mod target;
mod turns;
mod validate;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicU64},
};

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use tokio::sync::watch;

pub use self::{account_store::Binding, validate::check_certificate};
use self::{
    account_store::{AccountStatus, AccountStore},
    jws::{Jws, Signer},
    mesh::Mesh,
    nonce::Nonces,
    problem::{Kind, Problem},
    turns::Turns,
};
use innermesh_host::Host;
use innermesh_proto::limits;

/// The port that it is served on.
pub const PORT: u16 = 7443;
/// The largest request, in bytes.
pub const BODY_BYTES: usize = 64 * 1024;
/// Profiles (draft-ietf-acme-profiles): name, description, days.
const PROFILES: [(&str, &str, u32); 2] = [
    (
        "default",
        "90 days, for servers that renew by themselves",
        90,
    ),
    (
        "shortlived",
        "7 days, for servers that surely renew by themselves",
        7,
    ),
];

#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// What its body is said to be.
    pub content_type: Option<String>,
    pub body: Vec<u8>,
    /// Whether it comes from this machine or a network that counts as it.
    pub is_local: bool,
    /// The user of this machine that it comes from, where that can be told.
    pub user: Option<u32>,
}

#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Answer {
    fn json(status: u16, value: &Value) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content_type: "application/json",
            body: value.to_string().into_bytes(),
        }
    }

    fn with(mut self, header: &'static str, value: impl ToString) -> Self {
        self.headers.push((header, value.to_string()));
        self
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| *header == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        let body = serde_json::to_value(&problem).unwrap_or_default();
        let answer = Self {
            content_type: "application/problem+json",
            ..Self::json(problem.status, &body)
        };
        let answer = match problem.retry_after_s {
            Some(seconds) => answer.with("retry-after", seconds),
            None => answer,
        };
        match problem.allow {
            Some(methods) => answer.with("allow", methods),
            None => answer,
        }
    }
}

pub struct Acme {
    host: Host,
    mesh: Arc<dyn Mesh>,
    base: String,
    nonces: Mutex<Nonces>,
    store: Mutex<AccountStore>,
    /// How many writes were asked for.
    asked: AtomicU64,
    /// Of which accounts what was asked for up to when is written. Held while a
    /// file is, so that the newest state is written last.
    written: tokio::sync::Mutex<BTreeMap<String, u64>>,
    /// Told whenever an order changes.
    changes: watch::Sender<()>,
    /// Challenges that are looked at.
    validations: Turns,
    /// Certificates that the ledger is asked for.
    issues: Turns,
}

/// A request that is signed by an account's key.
struct Signed {
    jws: Jws,
    account: String,
}

impl Acme {
    /// One with what is kept on the disk.
    ///
    /// # Errors
    /// The disk's.
    pub async fn open(host: &Host, mesh: Arc<dyn Mesh>, port: u16) -> std::io::Result<Arc<Self>> {
        let mut key = [0; 32];
        host.keys.random(&mut key);
        let store = AccountStore::load(&*host.disk).await?;
        Ok(Arc::new(Self {
            host: host.clone(),
            base: format!("https://acme.{}:{port}", mesh.domain()),
            mesh,
            nonces: Mutex::new(Nonces::new(&key)),
            store: Mutex::new(store),
            asked: AtomicU64::new(0),
            written: tokio::sync::Mutex::default(),
            changes: watch::Sender::new(()),
            validations: Turns::new(limits::ACME_VALIDATIONS),
            issues: Turns::new(limits::ACME_ISSUES),
        }))
    }

    pub fn directory_url(&self) -> String {
        format!("{}/directory", self.base)
    }

    pub async fn handle(self: &Arc<Self>, request: &Request) -> Answer {
        match self.answer(request).await {
            Ok(answer) => self.finished(answer, &request.method, &request.path),
            Err(problem) => self.refuse(problem, &request.method, &request.path),
        }
    }

    /// The answer to a request that is refused.
    pub fn refuse(&self, problem: Problem, method: &str, path: &str) -> Answer {
        tracing::info!(
            path,
            r#type = ?problem.r#type,
            detail = %problem.detail,
            "an ACME request was refused"
        );
        self.finished(problem.into(), method, path)
    }

    /// With the headers that all answers have.
    fn finished(&self, mut answer: Answer, method: &str, path: &str) -> Answer {
        if method == "POST" || path == "/new-nonce" {
            let nonce = self
                .nonces
                .lock()
                .unwrap_or_else(|e| e.into_inner())
                .issue();
            answer = answer.with("replay-nonce", nonce);
        }
        if path != "/directory" {
            let link = format!("<{}>;rel=\"index\"", self.directory_url());
            answer = answer.with("link", link);
        }
        answer.with("cache-control", "no-store")
    }

    async fn answer(self: &Arc<Self>, request: &Request) -> Result<Answer, Problem> {
        let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        let Some(methods) = routes::methods(&parts) else {
            return Err(Problem::not_found(format!(
                "nothing is at this path; clients begin at {}",
                self.directory_url()
            )));
        };
        if !methods.split(", ").any(|method| method == request.method) {
            return Err(Problem::not_allowed(methods));
        }
        match parts[..] {
            ["directory"] => Ok(self.directory(request.is_local)),
            ["new-nonce"] => Ok(Answer {
                status: if request.method == "HEAD" { 200 } else { 204 },
                ..Answer::default()
            }),
            ["renewal-info", id] => self.renewal_info(id),
            _ => self.signed(request, &parts).await,
        }
    }

    fn directory(&self, is_local: bool) -> Answer {
        let at = |path: &str| format!("{}/{path}", self.base);
        let profiles: serde_json::Map<String, Value> = PROFILES
            .iter()
            .map(|(name, says, _)| ((*name).to_owned(), json!(says)))
            .collect();
        Answer::json(
            200,
            &json!({
                "newNonce": at("new-nonce"),
                "newAccount": at("new-account"),
                "newOrder": at("new-order"),
                "revokeCert": at("revoke-cert"),
                "keyChange": at("key-change"),
                "renewalInfo": at("renewal-info"),
                "meta": {
                    "website": format!("http://ca.{}:7480/", self.mesh.domain()),
                    "caaIdentities": [self.mesh.domain()],
                    "externalAccountRequired": !is_local,
                    "profiles": profiles,
                },
            }),
        )
    }

    /// Whatever is asked with a signature (RFC 8555 §6.2).
    async fn signed(
        self: &Arc<Self>,
        request: &Request,
        parts: &[&str],
    ) -> Result<Answer, Problem> {
        let is_jose = request
            .content_type
            .as_deref()
            .and_then(|text| text.split(';').next())
            .is_some_and(|text| text.trim().eq_ignore_ascii_case("application/jose+json"));
        if !is_jose {
            let detail = "a request has the type application/jose+json";
            return Err(Problem::malformed(detail).with_status(415));
        }
        let jws = Jws::parse(&request.body)?;
        jws.check_algorithm()?;
        let url = format!("{}{}", self.base, request.path);
        match (parts, jws.signer.clone()) {
            (["new-account"], Signer::Key(key)) => {
                self.check(&jws, &key, &url)?;
                self.new_account(&jws, *key, request.is_local, request.user)
                    .await
            }
            (["new-account"], Signer::Id(_)) => Err(Problem::malformed(
                "an account is asked for with its key as \"jwk\"",
            )),
            (["revoke-cert"], Signer::Key(key)) => {
                self.check(&jws, &key, &url)?;
                self.revoke_by_key(&jws, &key).await
            }
            (_, Signer::Key(_)) => Err(Problem::malformed(
                "this is asked with the account's URL as \"kid\"",
            )),
            (_, Signer::Id(id)) => {
                let account = self.account_named(&id)?;
                let key = self.key_of(&account, request.is_local)?;
                self.check(&jws, &key, &url)?;
                let signed = Signed { jws, account };
                self.by_account(&signed, parts).await
            }
        }
    }

    async fn by_account(
        self: &Arc<Self>,
        signed: &Signed,
        parts: &[&str],
    ) -> Result<Answer, Problem> {
        match parts {
            ["account", id] => self.account(signed, id).await,
            ["account", id, "orders"] => self.account_orders(signed, id),
            ["key-change"] => self.key_change(signed).await,
            ["new-order"] => self.new_order(signed).await,
            ["order", id] => self.order(signed, id),
            ["order", id, "finalize"] => self.finalize(signed, id).await,
            ["authorization", order, number] => self.authorization(signed, order, number).await,
            ["challenge", order, number, method] => {
                self.challenge(signed, order, number, method).await
            }
            ["certificate", order] => self.certificate(signed, order),
            ["revoke-cert"] => self.revoke_by_account(signed).await,
            _ => Err(Problem::not_found("nothing is at this path")),
        }
    }

    /// Checks signature, URL and nonce.
    fn check(&self, jws: &Jws, key: &jwk::Jwk, url: &str) -> Result<(), Problem> {
        jws.check(key)?;
        if jws.url.as_deref() != Some(url) {
            return Err(Problem::unauthorized(format!(
                "the request is signed for another URL than {url}"
            )));
        }
        let nonce = jws.nonce.as_deref().unwrap_or_default();
        let mut nonces = self.nonces.lock().unwrap_or_else(|e| e.into_inner());
        if nonces.take(nonce) {
            Ok(())
        } else {
            Err(Problem::new(
                Kind::BadNonce,
                "the nonce was used, or isn't one of this server's; ask again with the new one",
            ))
        }
    }

    /// The id in an account's URL.
    fn account_named(&self, url: &str) -> Result<String, Problem> {
        let id = url
            .strip_prefix(self.base.as_str())
            .and_then(|path| path.strip_prefix("/account/"));
        let store = self.store();
        match id.filter(|id| store.accounts.contains_key(*id)) {
            Some(id) => Ok(id.to_owned()),
            None => Err(Problem::new(
                Kind::AccountDoesNotExist,
                "there is no such account at this agent; make a new one",
            )),
        }
    }

    /// The key of an account that may be used from there.
    fn key_of(&self, id: &str, is_local: bool) -> Result<jwk::Jwk, Problem> {
        let store = self.store();
        let account = store
            .accounts
            .get(id)
            .ok_or_else(|| Problem::not_found("there is no such account"))?;
        if account.status != AccountStatus::Valid {
            return Err(Problem::unauthorized("the account is deactivated"));
        }
        if account.binding.is_none() && !is_local {
            return Err(Problem::unauthorized(
                "this account is for programs on the agent's own machine",
            ));
        }
        let bound = account.binding.as_ref();
        if bound.is_some_and(|id| !store.bindings.contains_key(id)) {
            return Err(Problem::unauthorized(
                "the key that this account was bound with was taken back",
            ));
        }
        Ok(account.key.clone())
    }

    fn store(&self) -> MutexGuard<'_, AccountStore> {
        self.store.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn now_ms(&self) -> u64 {
        self.host.clock.wall_ms()
    }

    /// 128 random bits.
    fn random_id(&self) -> String {
        let mut bytes = [0; 16];
        self.host.keys.random(&mut bytes);
        HEXLOWER.encode(&bytes)
    }
}

#[cfg(test)]
mod tests;
