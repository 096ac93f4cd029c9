//! Accounts (RFC 8555 §7.3).

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Acme, Answer, Signed,
    absent::null_is_absent,
    account_store::{Account, AccountStatus, Owner, account_id},
    jwk::Jwk,
    jws::{Jws, Signer},
    order::Status,
    problem::{Kind, Problem},
};

/// Contacts of one account, and characters of one.
const CONTACTS: usize = 10;
const CONTACT_LENGTH: usize = 320;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct NewAccount {
    #[serde(deserialize_with = "null_is_absent")]
    contact: Vec<String>,
    #[serde(deserialize_with = "null_is_absent")]
    only_return_existing: bool,
    external_account_binding: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AccountUpdate {
    contact: Option<Vec<String>>,
    status: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyChange {
    account: String,
    old_key: Value,
}

impl Acme {
    pub(super) async fn new_account(
        &self,
        jws: &Jws,
        key: Jwk,
        is_local: bool,
        user: Option<u32>,
    ) -> Result<Answer, Problem> {
        let wanted: NewAccount = jws.json()?;
        if let Some(answer) = self.existing(&key, 200)? {
            return Ok(answer);
        }
        if wanted.only_return_existing {
            return Err(Problem::new(
                Kind::AccountDoesNotExist,
                "there is no account with this key",
            ));
        }
        check_contacts(&wanted.contact)?;
        let binding = match &wanted.external_account_binding {
            Some(inner) => Some(self.bound(inner, &key)?),
            None if is_local => None,
            None => {
                return Err(Problem::new(
                    Kind::ExternalAccountRequired,
                    "this isn't the agent's own machine: `agent ca eab NAME` there gives a key \
                     for binding an account",
                ));
            }
        };
        let id = account_id(&key);
        let idle = {
            let mut store = self.store();
            if store.accounts.contains_key(&id) {
                // It began with this key, and has another one by now.
                return Err(Problem::unauthorized(
                    "this key was an account's before; use another one",
                ));
            }
            let owner = Owner::of(user, binding.as_ref());
            let gone = store.room_for_account(&owner, self.now_ms())?;
            let account = Account {
                key,
                status: AccountStatus::Valid,
                contact: wanted.contact,
                binding,
                bound: wanted.external_account_binding,
                orders: Default::default(),
                user,
                created_ms: self.now_ms(),
            };
            store.accounts.insert(id.clone(), account);
            gone
        };
        if let Some(idle) = idle {
            self.forget(&idle).await;
        }
        if let Err(problem) = self.save(&id).await {
            self.store().accounts.remove(&id);
            return Err(problem);
        }
        self.told(&id, 201)
    }

    /// The account that has this key already.
    fn existing(&self, key: &Jwk, status: u16) -> Result<Option<Answer>, Problem> {
        let found = {
            let store = self.store();
            store
                .by_key(key)
                .map(|(id, account)| (id.clone(), account.status))
        };
        match found {
            Some((_, AccountStatus::Deactivated)) => Err(Problem::unauthorized(
                "the account with this key is deactivated",
            )),
            Some((id, AccountStatus::Valid)) => self.told(&id, status).map(Some),
            None => Ok(None),
        }
    }

    /// Checks a binding (RFC 8555 §7.3.4); gives its id.
    fn bound(&self, inner: &Value, key: &Jwk) -> Result<String, Problem> {
        let inner = Jws::inner(inner)?;
        let Signer::Id(id) = inner.signer.clone() else {
            return Err(Problem::malformed("a binding names its key by \"kid\""));
        };
        let secret = self
            .store()
            .bindings
            .get(&id)
            .map(|bound| bound.key.clone());
        let secret =
            secret.and_then(|key| data_encoding::BASE64URL_NOPAD.decode(key.as_bytes()).ok());
        let secret =
            secret.ok_or_else(|| Problem::unauthorized("no such key for binding was made here"))?;
        inner.check_mac(&secret)?;
        if inner.nonce.is_some() || inner.url != Some(format!("{}/new-account", self.base)) {
            return Err(Problem::malformed(
                "a binding is for the URL of its request and has no nonce",
            ));
        }
        let named: Value = inner.json()?;
        if Jwk::parse(&named)? != *key {
            return Err(Problem::malformed("a binding has the account's key in it"));
        }
        Ok(id)
    }

    fn told(&self, id: &str, status: u16) -> Result<Answer, Problem> {
        let store = self.store();
        let account = store
            .accounts
            .get(id)
            .ok_or_else(|| Problem::not_found("there is no such account"))?;
        let url = format!("{}/account/{id}", self.base);
        let mut object = json!({
            "status": account.status,
            "contact": account.contact,
            "orders": format!("{url}/orders"),
        });
        if let Some(bound) = &account.bound {
            object["externalAccountBinding"] = bound.clone();
        }
        Ok(Answer::json(status, &object).with("location", url))
    }

    pub(super) async fn account(&self, signed: &Signed, id: &str) -> Result<Answer, Problem> {
        self.check_own(signed, id)?;
        if signed.jws.reads() {
            return self.told(id, 200);
        }
        let update: AccountUpdate = signed.jws.json()?;
        if let Some(contact) = &update.contact {
            check_contacts(contact)?;
        }
        {
            let mut store = self.store();
            let Some(account) = store.accounts.get_mut(id) else {
                return Err(Problem::not_found("there is no such account"));
            };
            match update.status.as_deref() {
                None | Some("valid") => {
                    if let Some(contact) = update.contact {
                        account.contact = contact;
                    }
                }
                Some("deactivated") => {
                    account.status = AccountStatus::Deactivated;
                    for order in account.orders.values_mut() {
                        if order.is_open() {
                            order.status = Status::Invalid;
                            order.error =
                                Some(Problem::unauthorized("the account was deactivated"));
                        }
                    }
                }
                Some(_) => {
                    return Err(Problem::malformed("an account can only be \"deactivated\""));
                }
            }
        }
        self.save(id).await?;
        self.told(id, 200)
    }

    pub(super) fn account_orders(&self, signed: &Signed, id: &str) -> Result<Answer, Problem> {
        self.check_own(signed, id)?;
        let store = self.store();
        let orders = store.accounts.get(id).map(|account| &account.orders);
        let urls = orders.into_iter().flatten();
        let urls = urls.map(|(order, _)| format!("{}/order/{order}", self.base));
        Ok(Answer::json(
            200,
            &json!({ "orders": urls.collect::<Vec<_>>() }),
        ))
    }

    fn check_own(&self, signed: &Signed, id: &str) -> Result<(), Problem> {
        if signed.account == id {
            Ok(())
        } else {
            Err(Problem::unauthorized("this is another account's"))
        }
    }

    /// Gives an account another key (RFC 8555 §7.3.5).
    pub(super) async fn key_change(&self, signed: &Signed) -> Result<Answer, Problem> {
        let inner = Jws::inner(&signed.jws.json::<Value>()?)?;
        let Signer::Key(new) = inner.signer.clone() else {
            return Err(Problem::malformed(
                "the new key stands in the inner \"jwk\"",
            ));
        };
        inner.check(&new)?;
        if inner.url != signed.jws.url || inner.nonce.is_some() {
            return Err(Problem::malformed(
                "the inner request is for the same URL as the outer one, and has no nonce",
            ));
        }
        let change: KeyChange = inner.json()?;
        let id = &signed.account;
        let old = {
            let store = self.store();
            let Some(account) = store.accounts.get(id) else {
                return Err(Problem::not_found("there is no such account"));
            };
            let is_right = change.account == format!("{}/account/{id}", self.base)
                && Jwk::parse(&change.old_key).is_ok_and(|key| key == account.key);
            if !is_right {
                return Err(Problem::malformed(
                    "the inner request names another account, or another old key",
                ));
            }
            account.key.clone()
        };
        if *new == old {
            return self.told(id, 200);
        }
        if let Some(mut answer) = self.existing(&new, 409)? {
            answer.content_type = "application/problem+json";
            answer.body = serde_json::to_vec(
                &Problem::malformed("another account has this key").with_status(409),
            )
            .unwrap_or_default();
            return Ok(answer);
        }
        self.set_key(id, *new);
        if let Err(problem) = self.save(id).await {
            self.set_key(id, old);
            return Err(problem);
        }
        self.told(id, 200)
    }

    fn set_key(&self, id: &str, key: Jwk) {
        if let Some(account) = self.store().accounts.get_mut(id) {
            account.key = key;
        }
    }
}

/// RFC 8555 §7.3: `mailto:` with one address and nothing else.
fn check_contacts(contacts: &[String]) -> Result<(), Problem> {
    let invalid = |detail: &str| Err(Problem::new(Kind::InvalidContact, detail));
    if contacts.len() > CONTACTS {
        return invalid("an account has at most ten contacts");
    }
    for contact in contacts {
        let Some(address) = contact.strip_prefix("mailto:") else {
            return Err(Problem::new(
                Kind::UnsupportedContact,
                "a contact is a \"mailto:\" URL",
            ));
        };
        let is_address = address
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
        let is_plain = address.bytes().all(|b| b.is_ascii_graphic())
            && !address.contains([',', '?', '<', '>'])
            && address.matches('@').count() == 1;
        if !is_address || !is_plain || contact.len() > CONTACT_LENGTH {
            return invalid("a contact is one mail address, without anything behind it");
        }
    }
    Ok(())
}
