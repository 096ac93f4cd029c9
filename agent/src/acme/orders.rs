//! What clients do with orders (RFC 8555 §7.4, §7.5).

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use innermesh_proto::{certificate::is_dns_name, limits, zone::Caa};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Acme, Answer, PROFILES, Signed,
    book::OPEN_ORDERS,
    jwk::Jwk,
    mesh::{NotDone, Wanted},
    order::{Authorization, Challenge, Identifier, Method, Order, Status},
    problem::{Kind, Problem, Subproblem},
    renewal::CertificateId,
};
use crate::{
    ca::csr::{Csr, CsrError},
    control::UnixTime,
};

/// How long a client waits for what is under way, before it is told to ask
/// again.
const AT_ONCE: Duration = Duration::from_secs(5);
/// How long the ledger is asked for a certificate: whoever leads may have died.
const PATIENCE: Duration = Duration::from_secs(30);
/// When a client should ask again, in seconds.
const RETRY_S: u32 = 1;

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

#[derive(Deserialize)]
struct Finalize {
    csr: String,
}

#[derive(Deserialize)]
struct Update {
    status: Option<String>,
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
        {
            let mut book = self.book();
            let Some(account) = book.accounts.get_mut(&signed.account) else {
                return Err(Problem::not_found("there is no such account"));
            };
            for order in account.orders.values_mut() {
                order.refresh(now_ms);
            }
            account.tidy(now_ms);
            let open = account.orders.values().filter(|order| order.is_open());
            if open.count() >= OPEN_ORDERS {
                return Err(Problem::new(
                    Kind::RateLimited,
                    format!("{OPEN_ORDERS} orders of this account are open; finish some first"),
                ));
            }
            account.orders.insert(id.clone(), order);
        }
        if let Err(problem) = self.save(&signed.account).await {
            if let Some(account) = self.book().accounts.get_mut(&signed.account) {
                account.orders.remove(&id);
            }
            return Err(problem);
        }
        self.told_order(&signed.account, &id, 201)
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
            let book = self.book();
            let binding = book.accounts.get(account).and_then(|a| a.binding.clone());
            binding.map(|id| book.bindings.get(&id).map(|bound| bound.name.clone()))
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
        let why = |identifier: &Identifier| {
            let (_, base) = identifier.base();
            let name = base.name();
            let suffix = format!(".{}", self.mesh.domain());
            match name.strip_suffix(&suffix) {
                None => format!(
                    "{name} is not below {}, and this CA certifies nothing else",
                    self.mesh.domain()
                ),
                Some(_) if bound.is_some() => {
                    format!("the key that this account is bound with isn't for {name}")
                }
                Some(label) => format!(
                    "this machine doesn't hold the name {name}; get it with `agent service add {} \
                     --port PORT`",
                    label.rsplit('.').next().unwrap_or(label)
                ),
            }
        };
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

    /// RFC 9773 §5: what is to be replaced is this account's, for one of the
    /// same names, and wasn't replaced before.
    fn check_replaced(
        &self,
        account: &str,
        replaced: &str,
        identifiers: &BTreeSet<Identifier>,
    ) -> Result<(), Problem> {
        let id: CertificateId = replaced.parse()?;
        let serial = id.serial.to_string();
        let book = self.book();
        let orders = || {
            book.accounts
                .get(account)
                .into_iter()
                .flat_map(|a| a.orders.values())
        };
        let of = orders().find(|order| {
            order
                .certified
                .as_ref()
                .is_some_and(|certified| certified.serial == serial)
        });
        let Some(of) = of else {
            return Err(Problem::malformed(
                "the certificate to be replaced isn't one of this account's",
            ));
        };
        if of.identifiers.is_disjoint(identifiers) {
            return Err(Problem::malformed(
                "the certificate to be replaced has none of these names",
            ));
        }
        let taken = orders().any(|order| {
            order.status != Status::Invalid && order.replaces.as_deref() == Some(replaced)
        });
        match taken {
            true => Err(Problem::new(
                Kind::AlreadyReplaced,
                "another order replaces this certificate; leave \"replaces\" out",
            )),
            false => Ok(()),
        }
    }

    pub(super) fn order(&self, signed: &Signed, id: &str) -> Result<Answer, Problem> {
        self.change_order(&signed.account, id, |_| ())?;
        self.told_order(&signed.account, id, 200)
    }

    /// Changes an order, after what follows from the time.
    fn change_order<T>(
        &self,
        account: &str,
        id: &str,
        change: impl FnOnce(&mut Order) -> T,
    ) -> Result<T, Problem> {
        let now_ms = self.now_ms();
        let mut book = self.book();
        let order = book
            .order_mut(account, id)
            .ok_or_else(|| Problem::not_found("this account has no such order"))?;
        order.refresh(now_ms);
        let changed = change(order);
        order.refresh(now_ms);
        drop(book);
        self.changes.send_replace(());
        Ok(changed)
    }

    fn told_order(&self, account: &str, id: &str, status: u16) -> Result<Answer, Problem> {
        let book = self.book();
        let order = book
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

    pub(super) async fn authorization(
        &self,
        signed: &Signed,
        order: &str,
        number: &str,
    ) -> Result<Answer, Problem> {
        let number = read_number(number)?;
        if !signed.jws.reads() {
            let update: Update = signed.jws.json()?;
            if update.status.as_deref() != Some("deactivated") {
                return Err(Problem::malformed(
                    "an authorization can only be \"deactivated\"",
                ));
            }
            self.change_order(&signed.account, order, |order| {
                if let Some(authorization) = order.authorizations.get_mut(number) {
                    authorization.status = Status::Deactivated;
                }
            })?;
            self.save(&signed.account).await?;
        }
        self.change_order(&signed.account, order, |_| ())?;
        let book = self.book();
        let kept = book.order(&signed.account, order);
        let kept = kept.and_then(|kept| Some((kept, kept.authorizations.get(number)?)));
        let (kept, authorization) =
            kept.ok_or_else(|| Problem::not_found("this account has no such authorization"))?;
        Ok(Answer::json(
            200,
            &self.told_authorization(order, number, kept.expires_ms, authorization),
        ))
    }

    fn told_authorization(
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
            .map(|challenge| self.told_challenge(order, number, &authorization.token, challenge))
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

    fn told_challenge(
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
                let thumbprint = {
                    let book = self.book();
                    book.accounts
                        .get(account)
                        .map(|account| account.key.thumbprint())
                };
                let key_authorization = format!(
                    "{token}.{}",
                    BASE64URL_NOPAD.encode(&thumbprint.unwrap_or_default())
                );
                let (acme, account, order) = (self.clone(), account.clone(), order.to_owned());
                self.host.tasks.spawn(async move {
                    let shown = acme
                        .validate(method, &identifier, &token, &key_authorization)
                        .await;
                    acme.validated(&account, &order, at, method, shown).await;
                });
            }
            self.until(AT_ONCE, || {
                let book = self.book();
                let order = book.order(account, order);
                let authorization = order.and_then(|order| order.authorizations.get(at));
                authorization.is_none_or(|authorization| {
                    let mut challenges = authorization.challenges.iter();
                    !challenges.any(|challenge| challenge.status == Status::Processing)
                })
            })
            .await;
        }
        let book = self.book();
        let authorization = book
            .order(account, order)
            .and_then(|order| order.authorizations.get(at));
        let told = authorization.and_then(|authorization| {
            let mut challenges = authorization.challenges.iter();
            let challenge = challenges.find(|c| c.method.as_str() == method)?;
            Some((
                self.told_challenge(order, at, &authorization.token, challenge),
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

    /// Waits until `done` after some change of an order, but not longer.
    async fn until(&self, most: Duration, done: impl Fn() -> bool) {
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

    pub(super) async fn finalize(
        self: &Arc<Self>,
        signed: &Signed,
        id: &str,
    ) -> Result<Answer, Problem> {
        let account = &signed.account;
        let wanted: Finalize = signed.jws.json()?;
        let (status, identifiers, days) = self.change_order(account, id, |order| {
            (order.status, order.identifiers.clone(), order.days)
        })?;
        if status != Status::Ready {
            return Err(Problem::new(
                Kind::OrderNotReady,
                match status {
                    Status::Pending => "control of its names has not been shown yet",
                    Status::Processing => "its certificate is being issued; ask for the order",
                    Status::Valid => "it has its certificate; ask for the order",
                    _ => "it came to nothing; make a new order",
                },
            ));
        }
        let der = BASE64URL_NOPAD
            .decode(wanted.csr.as_bytes())
            .map_err(|_| Problem::new(Kind::BadCsr, "the request is not base64url of DER"))?;
        let csr = Csr::parse(&der).map_err(|error| csr_problem(&error))?;
        let named = csr.dns.iter().cloned().map(Identifier::Dns);
        let named: BTreeSet<Identifier> = named
            .chain(csr.ips.iter().copied().map(Identifier::Ip))
            .collect();
        if named != identifiers {
            return Err(Problem::new(
                Kind::BadCsr,
                "the signing request is for other names than the order",
            ));
        }
        let is_accounts = {
            let book = self.book();
            let key = book
                .accounts
                .get(account)
                .map(|account| account.key.clone());
            key.is_some_and(|key: Jwk| key.spki() == csr.spki)
        };
        if is_accounts {
            return Err(Problem::new(
                Kind::BadCsr,
                "the account's key can't be a certificate's too (RFC 8555 section 11.1)",
            ));
        }
        for identifier in &identifiers {
            self.check_caa(identifier)?;
        }
        let begun = self.change_order(account, id, |order| {
            let begins = order.status == Status::Ready;
            if begins {
                order.status = Status::Processing;
            }
            begins
        })?;
        if begun {
            let request = Wanted {
                spki: csr.spki,
                names: identifiers.iter().map(Identifier::name).collect(),
                days,
            };
            let (acme, account, id) = (self.clone(), account.clone(), id.to_owned());
            self.host
                .tasks
                .spawn(async move { acme.issue(&account, &id, request).await });
        }
        self.until(AT_ONCE, || {
            let book = self.book();
            book.order(account, id)
                .is_none_or(|order| order.status != Status::Processing)
        })
        .await;
        // It may be ready again, with the reason: that is told as one.
        let again = {
            let book = self.book();
            let order = book.order(account, id);
            order.and_then(|order| match order.status {
                Status::Ready => order.error.clone(),
                _ => None,
            })
        };
        match again {
            Some(problem) => Err(problem),
            None => self.told_order(account, id, 200),
        }
    }

    async fn issue(&self, account: &str, id: &str, wanted: Wanted) {
        let certified = self.mesh.certify(wanted, PATIENCE).await;
        let changed = self.change_order(account, id, |order| match certified {
            Ok(certified) => {
                order.status = Status::Valid;
                order.error = None;
                order.certified = Some(certified);
            }
            Err(not_done) => {
                tracing::warn!(%not_done, "an ACME order came to nothing");
                order.status = Status::Invalid;
                order.error = Some(match not_done {
                    NotDone::Refused(why) => Problem::unauthorized(why),
                    NotDone::Unavailable(why) => Problem::internal(why).with_status(503),
                });
            }
        });
        if changed.is_ok() {
            let _ = self.save(account).await;
        }
    }

    /// RFC 8659 §3: the records closest to the name say who may issue.
    fn check_caa(&self, identifier: &Identifier) -> Result<(), Problem> {
        let (wildcard, Identifier::Dns(name)) = identifier.base() else {
            return Ok(());
        };
        let domain = self.mesh.domain();
        let mut at = name.as_str();
        let records = loop {
            let records = self.mesh.caa(at);
            if !records.is_empty() {
                break records;
            }
            match at.split_once('.') {
                Some((_, parent)) if at != domain => at = parent,
                _ => return Ok(()),
            }
        };
        match allows(&records, wildcard, &domain) {
            true => Ok(()),
            false => Err(Problem::new(
                Kind::Caa,
                format!(
                    "a CAA record at {at} keeps this CA from it; `issue \"{domain}\"` there would \
                     let it"
                ),
            )),
        }
    }

    pub(super) fn certificate(&self, signed: &Signed, order: &str) -> Result<Answer, Problem> {
        let book = self.book();
        let certified = book
            .order(&signed.account, order)
            .and_then(|order| order.certified.as_ref());
        let certified =
            certified.ok_or_else(|| Problem::not_found("this account has no such certificate"))?;
        Ok(Answer {
            status: 200,
            headers: Vec::new(),
            content_type: "application/pem-certificate-chain",
            body: certified.chain.clone().into_bytes(),
        })
    }
}

/// Whether these records let a CA with this domain issue.
fn allows(records: &[Caa], wildcard: bool, domain: &str) -> bool {
    const CRITICAL: u8 = 0x80;
    const KNOWN: [&str; 6] = [
        "issue",
        "issuewild",
        "iodef",
        "contactemail",
        "contactphone",
        "issuemail",
    ];
    let unknown = |caa: &&Caa| caa.flags & CRITICAL != 0 && !KNOWN.contains(&caa.tag.as_str());
    if records.iter().find(unknown).is_some() {
        return false;
    }
    let of = |tag: &'static str| records.iter().filter(move |caa| caa.tag == tag);
    let tag = match wildcard && of("issuewild").next().is_some() {
        true => "issuewild",
        false => "issue",
    };
    let is_ours = |caa: &Caa| {
        let text = String::from_utf8_lossy(&caa.value);
        let named = text
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        named == domain
    };
    of(tag).next().is_none() || of(tag).any(is_ours)
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

fn read_number(text: &str) -> Result<usize, Problem> {
    text.parse()
        .map_err(|_| Problem::not_found("this account has no such authorization"))
}

fn csr_problem(error: &CsrError) -> Problem {
    let kind = match error {
        CsrError::Key(_) => Kind::BadPublicKey,
        _ => Kind::BadCsr,
    };
    Problem::new(kind, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caa(flags: u8, tag: &str, value: &str) -> Caa {
        Caa {
            flags,
            tag: tag.into(),
            value: value.as_bytes().to_vec(),
        }
    }

    #[test]
    fn caa_records_are_read_as_rfc_8659_says() {
        let d = "home.example.com";
        let ours = [caa(0, "issue", "Home.Example.com; x=1")];
        assert!(allows(&ours, false, d) && allows(&ours, true, d));
        assert!(!allows(&[caa(0, "issue", ";")], false, d));
        assert!(!allows(&[caa(0, "issue", "other.example")], false, d));
        assert!(allows(&[caa(0, "iodef", "mailto:a@b")], false, d));
        let wild = [caa(0, "issue", "other.example"), caa(0, "issuewild", d)];
        assert!(allows(&wild, true, d) && !allows(&wild, false, d));
        assert!(!allows(
            &[caa(128, "unknown", "x"), caa(0, "issue", d)],
            false,
            d
        ));
    }
}
