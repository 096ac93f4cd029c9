//! Orders, and what has to be shown for each of their names (RFC 8555 §7.1).

#![allow(missing_docs, reason = "the names say it")]

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::problem::{Kind, Problem, Subproblem};

/// How long an order may take, in milliseconds.
const PENDING_MS: u64 = 24 * 3600 * 1000;
/// How long an order is kept at least whose certificate is there, so that it
/// can be fetched.
const KEPT_MS: u64 = 30 * 24 * 3600 * 1000;

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "lowercase")]
pub enum Identifier {
    /// A DNS name, lower case, perhaps with `*` as its first label.
    Dns(String),
    /// An IP address (RFC 8738).
    Ip(IpAddr),
}

impl Identifier {
    /// As names stand in a certificate's request.
    pub fn name(&self) -> String {
        match self {
            Self::Dns(name) => name.clone(),
            Self::Ip(ip) => ip.to_string(),
        }
    }

    /// Whether it is a wildcard, and the name below which it is.
    pub fn base(&self) -> (bool, Self) {
        match self {
            Self::Dns(name) => match name.strip_prefix("*.") {
                Some(base) => (true, Self::Dns(base.into())),
                None => (false, self.clone()),
            },
            Self::Ip(_) => (false, self.clone()),
        }
    }
}

/// How far an order, an authorization or a challenge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The client has to do something.
    Pending,
    /// The order waits for its signing request.
    Ready,
    /// The server is at it.
    Processing,
    Valid,
    /// It came to nothing.
    Invalid,
    /// The client gave it up.
    Deactivated,
    /// It is too late.
    Expired,
}

/// How control of a name is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// A file of the web server (RFC 8555 §8.3).
    #[serde(rename = "http-01")]
    Http,
    /// A certificate of the TLS server (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
    /// A TXT record (RFC 8555 §8.4).
    #[serde(rename = "dns-01")]
    Dns,
}

impl Method {
    /// As it stands in URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http-01",
            Self::TlsAlpn => "tls-alpn-01",
            Self::Dns => "dns-01",
        }
    }
}

/// One way to show control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    pub method: Method,
    /// How far it is.
    pub status: Status,
    /// When it was found right, in milliseconds since 1970.
    pub validated_ms: Option<u64>,
    pub error: Option<Problem>,
}

/// What has to be shown for one identifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorization {
    /// The identifier, without a wildcard's star.
    pub identifier: Identifier,
    /// Whether it is for a wildcard.
    pub wildcard: bool,
    /// How far it is.
    pub status: Status,
    /// What all of its challenges have in common: 128 random bits.
    pub token: String,
    /// The ways to show it.
    pub challenges: Vec<Challenge>,
}

impl Authorization {
    fn new(identifier: &Identifier, token: String) -> Self {
        let (wildcard, base) = identifier.base();
        let methods: &[Method] = match (&base, wildcard) {
            (_, true) => &[Method::Dns],
            (Identifier::Dns(_), false) => &[Method::Http, Method::TlsAlpn, Method::Dns],
            (Identifier::Ip(_), _) => &[Method::Http, Method::TlsAlpn],
        };
        let challenge = |method: &Method| Challenge {
            method: *method,
            status: Status::Pending,
            validated_ms: None,
            error: None,
        };
        Self {
            identifier: base,
            wildcard,
            status: Status::Pending,
            token,
            challenges: methods.iter().map(challenge).collect(),
        }
    }
}

/// A certificate that came of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certified {
    /// Itself and its issuer, PEM.
    pub chain: String,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// When it ends, in milliseconds since 1970.
    pub not_after_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub identifiers: BTreeSet<Identifier>,
    /// What has to be shown, in the order of the identifiers.
    pub authorizations: Vec<Authorization>,
    /// How far it is.
    pub status: Status,
    /// How long the certificate is to be good, in days.
    pub days: u32,
    /// The profile that the client chose.
    pub profile: Option<String>,
    /// The certificate that this one is to replace (RFC 9773 §5).
    pub replaces: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// Until when it can be brought to an end.
    pub expires_ms: u64,
    /// Why it came to nothing.
    pub error: Option<Problem>,
    /// What came of it.
    pub certified: Option<Certified>,
}

impl Order {
    /// One that has just been asked for; `tokens` are random.
    pub fn new(
        identifiers: BTreeSet<Identifier>,
        days: u32,
        now_ms: u64,
        mut token: impl FnMut() -> String,
    ) -> Self {
        let authorizations = identifiers
            .iter()
            .map(|identifier| Authorization::new(identifier, token()))
            .collect();
        Self {
            identifiers,
            authorizations,
            status: Status::Pending,
            days,
            profile: None,
            replaces: None,
            created_ms: now_ms,
            expires_ms: now_ms.saturating_add(PENDING_MS),
            error: None,
            certified: None,
        }
    }

    /// Whether it still counts among those that are under way.
    pub fn is_open(&self) -> bool {
        matches!(
            self.status,
            Status::Pending | Status::Ready | Status::Processing
        )
    }

    /// What it takes, in bytes: at least its file's, and about what it takes in
    /// memory.
    pub fn bytes(&self) -> usize {
        const ORDER: usize = 1024;
        const AUTHORIZATION: usize = 1024;
        let problem = |problem: &Problem| {
            let below = problem.subproblems.iter();
            let below = below.map(|p| 512 + 2 * p.detail.len() + p.identifier.name().len());
            256 + 2 * problem.detail.len() + below.sum::<usize>()
        };
        let authorizations = self.authorizations.iter().map(|authorization| {
            let errors = authorization.challenges.iter();
            let errors = errors.filter_map(|challenge| challenge.error.as_ref());
            let name = authorization.identifier.name().len();
            AUTHORIZATION + 2 * name + errors.map(problem).sum::<usize>()
        });
        ORDER
            + authorizations.sum::<usize>()
            + self.error.as_ref().map_or(0, problem)
            + self.replaces.as_ref().map_or(0, String::len)
            + self.certified.as_ref().map_or(0, |c| 2 * c.chain.len())
    }

    /// Whether nobody will ask for it any more.
    pub fn is_over(&self, now_ms: u64) -> bool {
        let until = match &self.certified {
            // For as long as its certificate can be revoked and replaced.
            Some(certified) => {
                let kept_ms = self.created_ms.saturating_add(KEPT_MS);
                kept_ms.max(certified.not_after_ms)
            }
            None => self.expires_ms,
        };
        now_ms > until
    }

    /// What follows from the authorizations and the time.
    pub fn refresh(&mut self, now_ms: u64) {
        if !self.is_open() {
            return;
        }
        if now_ms > self.expires_ms && self.status != Status::Processing {
            self.status = Status::Invalid;
            self.error = Some(Problem::malformed("the order wasn't finished within a day"));
            for authorization in &mut self.authorizations {
                if authorization.status == Status::Pending {
                    authorization.status = Status::Expired;
                }
            }
            return;
        }
        if self.status == Status::Processing {
            return;
        }
        let is = |status: Status| move |a: &Authorization| a.status == status;
        if self.authorizations.iter().all(is(Status::Valid)) {
            self.status = Status::Ready;
        } else if !self
            .authorizations
            .iter()
            .all(|a| matches!(a.status, Status::Valid | Status::Pending))
        {
            // Also of one that was ready (RFC 8555 §7.1.6).
            self.status = Status::Invalid;
            self.error = Some(self.failure());
        }
    }

    /// Why it came to nothing, by its authorizations.
    fn failure(&self) -> Problem {
        let failed = self.authorizations.iter().filter_map(|authorization| {
            let mut errors = authorization.challenges.iter();
            let error = errors.find_map(|challenge| challenge.error.as_ref());
            let (r#type, detail) = match (authorization.status, error) {
                (Status::Deactivated, _) => (
                    Kind::Unauthorized,
                    "the authorization was deactivated".into(),
                ),
                (_, Some(error)) => (error.r#type, error.detail.clone()),
                (_, None) => return None,
            };
            Some(Subproblem {
                r#type,
                detail,
                identifier: authorization.identifier.clone(),
            })
        });
        let mut problem = Problem::new(Kind::Unauthorized, "control of a name was not shown");
        problem.subproblems = failed.collect();
        if let [only] = &problem.subproblems[..] {
            problem.detail = format!("{}: {}", only.identifier.name(), only.detail);
        }
        problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(names: &[&str]) -> Order {
        let names = names.iter().map(|name| Identifier::Dns((*name).into()));
        Order::new(names.collect(), 90, 1000, || "t".into())
    }

    #[test]
    fn an_order_is_ready_when_all_is_shown_and_invalid_when_something_is_not() {
        let mut one = order(&["a.x", "*.a.x"]);
        assert!(one.authorizations[0].wildcard);
        assert_eq!(one.authorizations[0].challenges.len(), 1);
        assert_eq!(one.authorizations[1].challenges.len(), 3);
        one.authorizations[0].status = Status::Valid;
        one.refresh(2000);
        assert_eq!(one.status, Status::Pending);
        one.authorizations[1].status = Status::Valid;
        one.refresh(2000);
        assert_eq!(one.status, Status::Ready);

        let mut two = order(&["a.x"]);
        two.authorizations[0].status = Status::Invalid;
        two.authorizations[0].challenges[0].error = Some(Problem::malformed("why"));
        two.refresh(2000);
        assert_eq!(two.status, Status::Invalid);
        assert_eq!(two.error.unwrap().detail, "a.x: why");
    }

    #[test]
    fn a_deactivated_authorization_takes_an_order_with_it_until_its_certificate_is_made() {
        let mut one = order(&["a.x", "b.x"]);
        for authorization in &mut one.authorizations {
            authorization.status = Status::Valid;
        }
        one.refresh(2000);
        assert_eq!(one.status, Status::Ready);
        let mut processing = Order {
            status: Status::Processing,
            ..one.clone()
        };
        for order in [&mut one, &mut processing] {
            order.authorizations[1].status = Status::Deactivated;
            order.refresh(2000);
        }
        assert_eq!(one.status, Status::Invalid);
        let detail = one.error.unwrap().detail;
        assert_eq!(detail, "b.x: the authorization was deactivated");
        assert_eq!(processing.status, Status::Processing);
    }

    #[test]
    fn an_order_is_kept_for_as_long_as_its_certificate_counts() {
        let day = 24 * 3600 * 1000;
        let mut one = order(&["a.x"]);
        one.certified = Some(Certified {
            chain: String::new(),
            serial: String::new(),
            not_after_ms: 90 * day,
        });
        assert!(!one.is_over(60 * day) && one.is_over(91 * day));
        // One of seven days can be fetched for a month.
        one.certified.as_mut().unwrap().not_after_ms = 7 * day;
        assert!(!one.is_over(29 * day) && one.is_over(31 * day));
    }

    #[test]
    fn an_order_ends_a_day_later_but_not_in_the_middle_of_its_issue() {
        let mut one = order(&["a.x"]);
        one.refresh(1000 + PENDING_MS + 1);
        assert_eq!(one.status, Status::Invalid);
        assert_eq!(one.authorizations[0].status, Status::Expired);
        let mut two = order(&["a.x"]);
        two.status = Status::Processing;
        two.refresh(1000 + PENDING_MS + 1);
        assert_eq!(two.status, Status::Processing);
    }
}
