//! The same domain outside and in: names of it that the mesh doesn't have and that a
//! rule lists are asked of the public DNS.

#![allow(missing_docs, reason = "the names say it")]

use std::fmt;

use hickory_server::proto::op::ResponseCode;
use innermesh_proto::zone::{DomainName, RecordType};
use serde::{Deserialize, Serialize};

use super::reply::Reply;

/// One rule: a name below the mesh's domain and a type, such as `www`, `@ MX` or
/// `*._domainkey TXT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FallThroughRule {
    /// Relative to the mesh's domain; the root for `@`.
    name: DomainName,
    /// Whether it is about all names below that instead.
    is_below: bool,
    /// All types without one.
    rtype: Option<RecordType>,
}

/// Not such a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FallThroughError {
    #[error(
        "\"{0}\" can't be a rule of `fall_through`: give a name below the mesh's domain and, \
         where one is meant, a type, such as \"www\", \"@ MX\" or \"*._domainkey TXT\""
    )]
    Form(String),
    #[error(
        "\"@\" in `fall_through` needs a type, such as \"@ MX\": the mesh always knows its own domain"
    )]
    Apex,
    #[error(
        "\"*\" in `fall_through` would have each mistyped name asked outside; list the names, or \
         give what is before it, such as \"*.shop\""
    )]
    All,
}

impl TryFrom<String> for FallThroughRule {
    type Error = FallThroughError;

    fn try_from(text: String) -> Result<Self, FallThroughError> {
        let form = || FallThroughError::Form(text.chars().take(80).collect());
        let words: Vec<&str> = text.split_whitespace().collect();
        let (name, rtype) = match words[..] {
            [name] => (name, None),
            [name, rtype] => (name, Some(rtype.parse().map_err(|_| form())?)),
            _ => return Err(form()),
        };
        let (name, is_below) = match (name, name.strip_prefix("*.")) {
            ("@", _) => (".", false),
            ("*", _) => return Err(FallThroughError::All),
            (_, Some(below)) => (below, true),
            (name, None) => (name, false),
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !name.bytes().all(is_plain) || name.is_empty() {
            return Err(form());
        }
        let name: DomainName = name.parse().map_err(|_| form())?;
        if rtype.is_none() && name.is_root() {
            return Err(FallThroughError::Apex);
        }
        Ok(Self {
            name,
            is_below,
            rtype,
        })
    }
}

impl From<FallThroughRule> for String {
    fn from(rule: FallThroughRule) -> Self {
        rule.to_string()
    }
}

impl fmt::Display for FallThroughRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.to_string();
        let name = match name.strip_suffix('.') {
            Some("") | None => "@",
            Some(name) => name,
        };
        let below = if self.is_below { "*." } else { "" };
        write!(f, "{below}{name}")?;
        match self.rtype {
            Some(rtype) => write!(f, " {rtype}"),
            None => Ok(()),
        }
    }
}

impl FallThroughRule {
    fn lists(&self, relative: &DomainName, rtype: RecordType) -> bool {
        let is_name = if self.is_below {
            relative.is_within(&self.name) && *relative != self.name
        } else {
            *relative == self.name
        };
        is_name && self.rtype.is_none_or(|listed| listed == rtype)
    }
}

/// The rules, and the domain that they are about.
#[derive(Clone, Debug)]
pub struct FallThrough {
    apex: DomainName,
    rules: Vec<FallThroughRule>,
}

impl FallThrough {
    pub fn new(apex: DomainName, rules: Vec<FallThroughRule>) -> Self {
        Self { apex, rules }
    }

    /// Whether a rule lists a name and type, whatever the mesh has.
    pub(super) fn lists(&self, name: &DomainName, rtype: RecordType) -> bool {
        if self.rules.is_empty() || !name.is_within(&self.apex) {
            return false;
        }
        let own = name.wire().len() - self.apex.wire().len();
        let relative = name.wire().get(..own).unwrap_or_default();
        DomainName::try_from(relative.to_vec())
            .is_ok_and(|relative| self.rules.iter().any(|rule| rule.lists(&relative, rtype)))
    }

    /// Whether what the zone says to a listed question leaves it to the public DNS: the
    /// mesh hasn't the name at all, or the name is the domain itself, which it always
    /// has, without this type.
    pub(super) fn leaves(&self, name: &DomainName, reply: &Reply) -> bool {
        reply.answers.is_empty()
            && match reply.rcode {
                ResponseCode::NXDomain => true,
                ResponseCode::NoError => *name == self.apex,
                _ => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> FallThroughRule {
        text.to_owned().try_into().unwrap()
    }

    #[test]
    fn rules_list_names_and_types() {
        let rules = ["www", "@ MX", "_dmarc txt", "*._domainkey TXT", "a.b AAAA"].map(rule);
        let all = FallThrough::new("in.example.org".parse().unwrap(), rules.into());
        let lists = |name: &str, rtype: &str| {
            let name = format!("{name}in.example.org").parse().unwrap();
            all.lists(&name, rtype.parse().unwrap())
        };
        for (name, rtype) in [
            ("www.", "A"),
            ("WWW.", "TXT"),
            ("", "MX"),
            ("_dmarc.", "TXT"),
            ("s1._domainkey.", "TXT"),
            ("x.s1._domainkey.", "TXT"),
            ("a.b.", "AAAA"),
        ] {
            assert!(lists(name, rtype), "{name} {rtype}");
        }
        for (name, rtype) in [
            ("x.www.", "A"),
            ("", "A"),
            ("_dmarc.", "A"),
            ("_domainkey.", "TXT"),
            ("a.b.", "A"),
            ("b.", "AAAA"),
            ("photos.", "A"),
        ] {
            assert!(!lists(name, rtype), "{name} {rtype}");
        }
        let elsewhere = "www.example.org".parse().unwrap();
        assert!(!all.lists(&elsewhere, RecordType::A));
    }

    #[test]
    fn rules_are_written_as_they_are_read_and_bad_ones_are_refused() {
        for text in ["www", "@ MX", "*._domainkey TXT", "a.b AAAA", "x TYPE65280"] {
            assert_eq!(rule(text).to_string(), text);
        }
        let error = |text: &str| FallThroughRule::try_from(text.to_owned()).unwrap_err();
        assert_eq!(error("@"), FallThroughError::Apex);
        assert_eq!(error("*"), FallThroughError::All);
        assert_eq!(error("* TXT"), FallThroughError::All);
        for text in ["", "www A B", "www NOPE", "a..b", "a*b", "*.", "\u{e9}"] {
            assert!(matches!(error(text), FallThroughError::Form(_)), "{text}");
        }
    }
}
