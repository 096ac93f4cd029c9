//! Orders as clients make and see them (RFC 8555 §7.4).

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use innermesh_proto::{certificate::is_dns_name, limits};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Acme, Answer, PROFILES, Signed,
    ari::CertificateId,
    order::{Identifier, Order, Status},
    problem::{Kind, Problem, Subproblem},
};
use innermesh_host::UnixTime;

/// How long a client waits for what is under way, before it is told to ask
/// again.
pub(super) const AT_ONCE: Duration = Duration::from_secs(5);
/// When a client should ask again, in seconds.
pub(super) const RETRY_S: u64 = 1;
/// The same where its open orders have to come to an end first.
const CROWDED_S: u64 = 60;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewOrder {
    identifiers: Vec<Named>,
    #[serde(default)]
    not_before: Option<String>,
    #[serde(default)]
    not_after: Option<String>,
    #[serde(default)]
    profile: Option<String>,
    #[serde(default)]
    replaces: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    r#type: String,
    value: String,
}

impl Acme {
    pub(super) async fn new_order(&self, signed: &Signed) -> Result<Answer, Problem> {
        let wanted: NewOrder = signed.jws.json()?;
        let is_set = |time: &Option<String>| {
            // Go's zero time is sent by clients that mean nothing by it.
            time.as_ref()
                .is_some_and(|time| !time.is_empty() && !time.starts_with("0001-01-01"))
        };
        if is_set(&wanted.not_before) || is_set(&wanted.not_after) {
            return Err(Problem::malformed(
                "how long a certificate is good follows from the profile; leave notBefore and \
                 notAfter out",
            ));
        }
        let profile = wanted.profile.as_deref();
        let chosen = PROFILES
            .iter()
            .find(|(name, ..)| *name == profile.unwrap_or("default"));
        let Some((_, _, days)) = chosen else {
            let names: Vec<&str> = PROFILES.iter().map(|(name, ..)| *name).collect();
            return Err(Problem::new(
                Kind::InvalidProfile,
                format!("there is no such profile; there are {}", names.join(", ")),
            ));
        };
        let identifiers = self.identifiers(&wanted.identifiers, &signed.account)?;
        if let Some(replaced) = &wanted.replaces {
            self.check_replaced(&signed.account, replaced, &identifiers)?;
        }
        let now_ms = self.now_ms();
        let mut order = Order::new(identifiers, *days, now_ms, || self.random_token());
        order.profile = wanted.profile;
        order.replaces = wanted.replaces;
        let id = self.random_id();
        let gave_way = {
            let mut store = self.store();
            let Some(account) = store.accounts.get_mut(&signed.account) else {
                return Err(Problem::not_found("there is no such account"));
            };
            for order in account.orders.values_mut() {
                order.refresh(now_ms);
            }
            account.tidy(now_ms);
            let open = account.orders.values().filter(|order| order.is_open());
            if open.count() >= limits::ACME_OPEN_ORDERS {
                let detail = format!(
                    "{} orders of this account are open; finish some first",
                    limits::ACME_OPEN_ORDERS
                );
                return Err(Problem::new(Kind::RateLimited, detail).with_retry(CROWDED_S));
            }
            let Some(gave_way) = store.room_for_order(&signed.account, order.bytes()) else {
                let detail =
                    "the open orders of this account take all that they may; finish some first";
                return Err(Problem::new(Kind::RateLimited, detail).with_retry(CROWDED_S));
            };
            if let Some(account) = store.accounts.get_mut(&signed.account) {
                account.orders.insert(id.clone(), order);
            }
            gave_way
        };
        // Should it fail, they are there again after a restart.
        for account in gave_way {
            let _ = self.save(&account).await;
        }
        if let Err(problem) = self.save(&signed.account).await {
            if let Some(account) = self.store().accounts.get_mut(&signed.account) {
                account.orders.remove(&id);
            }
            return Err(problem);
        }
        self.order_json(&signed.account, &id, 201)
    }

    /// 128 bits, as RFC 8555 §8.1 wants at least.
    fn random_token(&self) -> String {
        let mut bytes = [0; 16];
        self.host.keys.random(&mut bytes);
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// What an order is for, each of which this node, and this account, may
    /// have.
    fn identifiers(
        &self,
        wanted: &[Named],
        account: &str,
    ) -> Result<BTreeSet<Identifier>, Problem> {
        if wanted.is_empty() || wanted.len() > limits::CERTIFICATE_NAMES {
            return Err(Problem::malformed(format!(
                "an order is for 1 to {} names",
                limits::CERTIFICATE_NAMES
            )));
        }
        let bound = {
            let store = self.store();
            let binding = store.accounts.get(account).and_then(|a| a.binding.clone());
            binding.map(|id| store.bindings.get(&id).map(|bound| bound.name.clone()))
        };
        let mut identifiers = BTreeSet::new();
        let mut refused = Vec::new();
        for named in wanted {
            let identifier = read_identifier(named)?;
            let may = self.mesh.may_have(&identifier)
                && match &bound {
                    None => true,
                    Some(name) => name
                        .as_ref()
                        .is_some_and(|name| is_below(&identifier, name)),
                };
            if may {
                identifiers.insert(identifier);
            } else {
                refused.push(identifier);
            }
        }
        if refused.is_empty() {
            return Ok(identifiers);
        }
        let why = |identifier: &Identifier| self.why_refused(identifier, bound.is_some());
        let mut problem = Problem::new(Kind::RejectedIdentifier, why(&refused[0]));
        problem.subproblems = refused
            .into_iter()
            .map(|identifier| Subproblem {
                r#type: Kind::RejectedIdentifier,
                detail: why(&identifier),
                identifier,
            })
            .collect();
        Err(problem)
    }

    fn why_refused(&self, identifier: &Identifier, is_bound: bool) -> String {
        let domain = self.mesh.domain();
        let name = match identifier.base() {
            (_, Identifier::Dns(name)) => name,
            (_, Identifier::Ip(ip)) if is_bound => {
                return format!(
                    "the key that this account is bound with is for a name and not for {ip}"
                );
            }
            (_, Identifier::Ip(ip)) => {
                return format!(
                    "{ip} is no overlay address of this machine, and a machine has certificates \
                     for its own addresses only"
                );
            }
        };
        match name.strip_suffix(&format!(".{domain}")) {
            None => format!("{name} is not below {domain}, and this CA certifies nothing else"),
            Some(_) if is_bound => {
                format!("the key that this account is bound with isn't for {name}")
            }
            Some(label) => format!(
                "this machine doesn't hold the name {name}; get it with `agent service add {} \
                 --port PORT`",
                label.rsplit('.').next().unwrap_or(label)
            ),
        }
    }

    /// RFC 9773 §5: what is to be replaced is no other account's, for one of the
    /// same names, and no other order has replaced it or is about to.
    fn check_replaced(
        &self,
        account: &str,
        replaced: &str,
        identifiers: &BTreeSet<Identifier>,
    ) -> Result<(), Problem> {
        let id: CertificateId = replaced.parse()?;
        let known = self.mesh.certificate(&id.serial).filter(|it| it.is_own);
        let serial = id.serial.to_string();
        let store = self.store();
        let orders = store.accounts.iter().flat_map(|(owner, kept)| {
            let orders = kept.orders.values();
            orders.map(move |order| (owner.as_str(), order))
        });
        let of = orders.clone().find(|(_, order)| {
            let certified = order.certified.as_ref();
            certified.is_some_and(|certified| certified.serial == serial)
        });
        let names: BTreeSet<String> = match (of, known) {
            (Some((owner, order)), _) if owner == account => {
                order.identifiers.iter().map(Identifier::name).collect()
            }
            // Its order is forgotten, as is perhaps the account that it was for.
            (None, Some(known)) => known.names.into_iter().collect(),
            _ => {
                return Err(Problem::malformed(
                    "the certificate to be replaced isn't one of this account's",
                ));
            }
        };
        if !identifiers.iter().any(|one| names.contains(&one.name())) {
            return Err(Problem::malformed(
                "the certificate to be replaced has none of these names",
            ));
        }
        // One that is never finished keeps nobody from renewing.
        let mut own = orders.filter(|(owner, _)| *owner == account);
        let is_taken = own.any(|(_, order)| {
            matches!(order.status, Status::Processing | Status::Valid)
                && order.replaces.as_deref() == Some(replaced)
        });
        if is_taken {
            Err(Problem::new(
                Kind::AlreadyReplaced,
                "another order replaces this certificate; leave \"replaces\" out",
            ))
        } else {
            Ok(())
        }
    }

    pub(super) fn order(&self, signed: &Signed, id: &str) -> Result<Answer, Problem> {
        self.change_order(&signed.account, id, |_| ())?;
        self.order_json(&signed.account, id, 200)
    }

    /// Changes an order, after what follows from the time.
    pub(super) fn change_order<T>(
        &self,
        account: &str,
        id: &str,
        change: impl FnOnce(&mut Order) -> T,
    ) -> Result<T, Problem> {
        let now_ms = self.now_ms();
        let mut store = self.store();
        let order = store
            .order_mut(account, id)
            .ok_or_else(|| Problem::not_found("this account has no such order"))?;
        order.refresh(now_ms);
        let changed = change(order);
        order.refresh(now_ms);
        drop(store);
        self.changes.send_replace(());
        Ok(changed)
    }

    pub(super) fn order_json(
        &self,
        account: &str,
        id: &str,
        status: u16,
    ) -> Result<Answer, Problem> {
        let store = self.store();
        let order = store
            .order(account, id)
            .ok_or_else(|| Problem::not_found("this account has no such order"))?;
        let authorizations = 0..order.authorizations.len();
        let authorizations =
            authorizations.map(|n| format!("{}/authorization/{id}/{n}", self.base));
        let url = format!("{}/order/{id}", self.base);
        let mut object = json!({
            "status": order.status,
            "expires": UnixTime::from_ms(order.expires_ms).to_string(),
            "identifiers": order.identifiers,
            "authorizations": authorizations.collect::<Vec<_>>(),
            "finalize": format!("{url}/finalize"),
        });
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                object[name] = value;
            }
        };
        put(
            "profile",
            order.profile.as_ref().map(|profile| json!(profile)),
        );
        put(
            "replaces",
            order.replaces.as_ref().map(|replaced| json!(replaced)),
        );
        put("error", order.error.as_ref().map(|error| json!(error)));
        let certificate = order.certified.as_ref();
        put(
            "certificate",
            certificate.map(|_| json!(format!("{}/certificate/{id}", self.base))),
        );
        let answer = Answer::json(status, &object).with("location", url);
        Ok(match order.status {
            Status::Processing => answer.with("retry-after", RETRY_S),
            _ => answer,
        })
    }

    /// Waits until `done` after some change of an order, but not longer.
    pub(super) async fn until(&self, most: Duration, done: impl Fn() -> bool) {
        let mut changes = self.changes.subscribe();
        let waiting = async {
            while !done() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = waiting => {}
            () = self.host.clock.sleep(most) => {}
        }
    }
}

fn read_identifier(named: &Named) -> Result<Identifier, Problem> {
    let shown: String = named.value.chars().take(255).collect();
    let bad = |why: &str| Err(Problem::malformed(format!("\"{shown}\" {why}")));
    match named.r#type.as_str() {
        "dns" => {
            let name = named.value.to_ascii_lowercase();
            if !is_dns_name(&name) {
                return bad("is not a DNS name");
            }
            if name.parse::<IpAddr>().is_ok() {
                return bad("is an address: its type is \"ip\"");
            }
            Ok(Identifier::Dns(name))
        }
        "ip" => match named.value.parse() {
            Ok(ip) => Ok(Identifier::Ip(ip)),
            Err(_) => bad("is not an address"),
        },
        _ => Err(Problem::new(
            Kind::UnsupportedIdentifier,
            "identifiers have the type \"dns\" or \"ip\"",
        )),
    }
}

fn is_below(identifier: &Identifier, name: &str) -> bool {
    match identifier.base() {
        (_, Identifier::Dns(base)) => {
            base == name
                || base
                    .strip_suffix(name)
                    .is_some_and(|rest| rest.ends_with('.'))
        }
        (_, Identifier::Ip(_)) => false,
    }
}
