//! Authorizations and their challenges, as clients see them (RFC 8555 §7.5).

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Acme, Answer, Signed,
    order::{Authorization, Challenge, Method, Status},
    orders::{AT_ONCE, RETRY_S},
    problem::Problem,
};
use innermesh_host::UnixTime;

#[derive(Deserialize)]
struct AuthorizationUpdate {
    status: Option<String>,
}

impl Acme {
    pub(super) async fn authorization(
        &self,
        signed: &Signed,
        order: &str,
        number: &str,
    ) -> Result<Answer, Problem> {
        let number = read_number(number)?;
        if !signed.jws.reads() {
            let update: AuthorizationUpdate = signed.jws.json()?;
            if update.status.as_deref() != Some("deactivated") {
                return Err(Problem::malformed(
                    "an authorization can only be \"deactivated\"",
                ));
            }
            let ended = self.change_order(&signed.account, order, |order| {
                let authorization = order.authorizations.get_mut(number)?;
                if matches!(authorization.status, Status::Pending | Status::Valid) {
                    authorization.status = Status::Deactivated;
                }
                Some(authorization.status)
            })?;
            match ended {
                Some(Status::Deactivated) => self.save(&signed.account).await?,
                Some(_) => {
                    return Err(Problem::malformed("this authorization is over already"));
                }
                None => {}
            }
        }
        self.change_order(&signed.account, order, |_| ())?;
        let store = self.store();
        let kept = store.order(&signed.account, order);
        let kept = kept.and_then(|kept| Some((kept, kept.authorizations.get(number)?)));
        let (kept, authorization) =
            kept.ok_or_else(|| Problem::not_found("this account has no such authorization"))?;
        let told = self.authorization_json(order, number, kept.expires_ms, authorization);
        let answer = Answer::json(200, &told);
        // RFC 8555 §7.5.1.
        let mut challenges = authorization.challenges.iter();
        let is_under_way = authorization.status == Status::Pending
            && challenges.any(|challenge| challenge.status == Status::Processing);
        Ok(if is_under_way {
            answer.with("retry-after", RETRY_S)
        } else {
            answer
        })
    }

    fn authorization_json(
        &self,
        order: &str,
        number: usize,
        expires_ms: u64,
        authorization: &Authorization,
    ) -> Value {
        let shown = authorization.challenges.iter().filter(|challenge| {
            // Once one is done, the others are of no use.
            authorization.status == Status::Pending || challenge.status != Status::Pending
        });
        let shown: Vec<Value> = shown
            .map(|challenge| self.challenge_json(order, number, &authorization.token, challenge))
            .collect();
        let mut object = json!({
            "identifier": authorization.identifier,
            "status": authorization.status,
            "expires": UnixTime::from_ms(expires_ms).to_string(),
            "challenges": shown,
        });
        if authorization.wildcard {
            object["wildcard"] = json!(true);
        }
        object
    }

    fn challenge_json(
        &self,
        order: &str,
        number: usize,
        token: &str,
        challenge: &Challenge,
    ) -> Value {
        let method = challenge.method.as_str();
        let mut object = json!({
            "type": method,
            "url": format!("{}/challenge/{order}/{number}/{method}", self.base),
            "token": token,
            "status": challenge.status,
        });
        if let Some(at_ms) = challenge.validated_ms {
            object["validated"] = json!(UnixTime::from_ms(at_ms).to_string());
        }
        if let Some(error) = &challenge.error {
            object["error"] = json!(error);
        }
        object
    }

    pub(super) async fn challenge(
        self: &Arc<Self>,
        signed: &Signed,
        order: &str,
        number: &str,
        method: &str,
    ) -> Result<Answer, Problem> {
        let at = read_number(number)?;
        let account = &signed.account;
        if !signed.jws.reads() {
            let _: serde_json::Map<String, Value> = signed.jws.json()?;
            self.answer_challenge(account, order, at, method).await?;
        }
        let store = self.store();
        let authorization = store
            .order(account, order)
            .and_then(|order| order.authorizations.get(at));
        let told = authorization.and_then(|authorization| {
            let mut challenges = authorization.challenges.iter();
            let challenge = challenges.find(|c| c.method.as_str() == method)?;
            Some((
                self.challenge_json(order, at, &authorization.token, challenge),
                challenge.status,
            ))
        });
        let (told, status) =
            told.ok_or_else(|| Problem::not_found("this account has no such challenge"))?;
        let up = format!("<{}/authorization/{order}/{at}>;rel=\"up\"", self.base);
        let answer = Answer::json(200, &told).with("link", up);
        Ok(match status {
            Status::Processing => answer.with("retry-after", RETRY_S),
            _ => answer,
        })
    }

    /// Begins a validation, unless that was begun before, and waits a little for
    /// what comes of it.
    async fn answer_challenge(
        self: &Arc<Self>,
        account: &str,
        order: &str,
        at: usize,
        method: &str,
    ) -> Result<(), Problem> {
        let begun = self.change_order(account, order, |order| {
            let authorization = order.authorizations.get_mut(at)?;
            let is_open = authorization.status == Status::Pending;
            let mut challenges = authorization.challenges.iter_mut();
            let challenge = challenges.find(|c| c.method.as_str() == method)?;
            let begins = is_open && challenge.status == Status::Pending;
            if begins {
                challenge.status = Status::Processing;
            }
            Some(begins.then(|| {
                let method = challenge.method;
                (
                    method,
                    authorization.identifier.clone(),
                    authorization.token.clone(),
                )
            }))
        })?;
        let begun =
            begun.ok_or_else(|| Problem::not_found("this account has no such challenge"))?;
        if let Some((method, identifier, token)) = begun {
            let (owner, thumbprint) = {
                let store = self.store();
                let kept = store.accounts.get(account);
                let kept = kept.map(|kept| (kept.owner(), kept.key.thumbprint()));
                kept.ok_or_else(|| Problem::not_found("there is no such account"))?
            };
            let key_authorization = format!("{token}.{}", BASE64URL_NOPAD.encode(&thumbprint));
            let (acme, account, order) = (self.clone(), account.to_owned(), order.to_owned());
            self.host.tasks.spawn(async move {
                let _turn = acme.validations.take(&owner).await;
                let shown = acme
                    .validate(method, &identifier, &token, &key_authorization)
                    .await;
                acme.validated(&account, &order, at, method, shown).await;
            });
        }
        self.until(AT_ONCE, || {
            let store = self.store();
            let order = store.order(account, order);
            let authorization = order.and_then(|order| order.authorizations.get(at));
            authorization.is_none_or(|authorization| {
                let mut challenges = authorization.challenges.iter();
                !challenges.any(|challenge| challenge.status == Status::Processing)
            })
        })
        .await;
        Ok(())
    }

    /// Notes what came of a validation.
    async fn validated(
        &self,
        account: &str,
        order: &str,
        at: usize,
        method: Method,
        shown: Result<(), Problem>,
    ) {
        if let Err(problem) = &shown {
            tracing::info!(detail = %problem.detail, "an ACME challenge was not met");
        }
        let now_ms = self.now_ms();
        let changed = self.change_order(account, order, |order| {
            let Some(authorization) = order.authorizations.get_mut(at) else {
                return;
            };
            let is_open = authorization.status == Status::Pending;
            let mut challenges = authorization.challenges.iter_mut();
            let Some(challenge) = challenges.find(|c| c.method == method) else {
                return;
            };
            let status = match &shown {
                Ok(()) => Status::Valid,
                Err(_) => Status::Invalid,
            };
            challenge.status = status;
            challenge.validated_ms = shown.is_ok().then_some(now_ms);
            challenge.error = shown.err();
            if is_open {
                authorization.status = status;
            }
        });
        // An order that is gone needs no writing.
        if changed.is_ok() {
            let _ = self.save(account).await;
        }
    }
}

fn read_number(text: &str) -> Result<usize, Problem> {
    text.parse()
        .map_err(|_| Problem::not_found("this account has no such authorization"))
}
