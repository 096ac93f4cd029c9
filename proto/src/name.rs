//! Names, parsed at the edge: past this module nothing is a bare string that
//! still needs a check.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a name isn't one. The text is for the person who typed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a host name label (RFC 1123 §2.1).
    #[error(
        "\"{0}\" is not a name: 1 to 63 letters, digits and hyphens, with no hyphen at either end"
    )]
    Label(String),
    /// An international name, in whichever of its forms (RFC 5890 §2.3.2).
    #[error(
        "\"{0}\" is an international name, and names here are of the letters a to z, digits and \
         hyphens alone, also as xn--: others can look just like one that somebody else has"
    )]
    International(String),
    /// Reserved for the mesh itself or dangerous on a LAN.
    #[error("\"{0}\" is reserved: {1}")]
    Reserved(String, &'static str),
    /// Not a domain that a mesh may have.
    #[error("\"{0}\" can't be the mesh's domain: {1}")]
    Domain(String, &'static str),
    /// Not a pattern: a name with at most one `*`.
    #[error("\"{0}\" is not a pattern: a name in which * stands for any run of characters")]
    Pattern(String),
}

/// Names that nobody may be granted, and why.
const RESERVED: [(&str, &str); 7] = [
    ("acme", "every agent answers ACME there"),
    (
        "ca",
        "every agent hands out the root and the revocation list there",
    ),
    ("mesh", "it is kept for the mesh itself"),
    ("ns", "it names the mesh's own name servers"),
    ("wpad", "browsers would take proxy settings from it"),
    ("isatap", "old hosts would route through it"),
    ("localhost", "it is every host's own"),
];

/// One DNS label, lower case: letters, digits, hyphens (RFC 1123 §2.1, 63
/// octets by RFC 1035 §2.3.4). Nodes and services share one namespace of these.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

impl Label {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This name, if it may be granted to a node or a service.
    ///
    /// # Errors
    /// [`NameError::Reserved`] for a name that is kept for the mesh.
    pub fn grantable(self) -> Result<Self, NameError> {
        match RESERVED.iter().find(|(name, _)| *name == self.0) {
            Some((name, why)) => Err(NameError::Reserved(name.to_string(), why)),
            None => Ok(self),
        }
    }
}

impl FromStr for Label {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let lower = s.to_ascii_lowercase();
        // One that we would show or certify unread.
        if is_international(&lower) {
            return Err(NameError::International(s.chars().take(80).collect()));
        }
        let good = (1..=63).contains(&lower.len())
            && lower
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !lower.starts_with('-')
            && !lower.ends_with('-')
            // Reserved for forms such as xn-- (RFC 5890 §2.3.1).
            && lower.get(2..4) != Some("--");
        if good {
            Ok(Self(lower))
        } else {
            Err(NameError::Label(s.chars().take(80).collect()))
        }
    }
}

/// Whether a label is of other letters than ASCII's, or is the ASCII form of one.
fn is_international(lower: &str) -> bool {
    lower.starts_with("xn--") || lower.chars().any(|c| !c.is_ascii() && c.is_alphanumeric())
}

impl TryFrom<String> for Label {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        let label: Self = s.parse()?;
        // On the wire there is one spelling, so that equal names are equal bytes.
        if label.0 == s {
            Ok(label)
        } else {
            Err(NameError::Label(s))
        }
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The domain under which all names of a mesh stand: lower case, no trailing
/// dot, such as `in.example.org`, `home.arpa` or `lab.internal`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MeshDomain(String);

impl MeshDomain {
    /// As text, without a trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `<label>.<domain>`.
    pub fn join(&self, label: &Label) -> String {
        format!("{label}.{}", self.0)
    }

    /// Whether `name` (lower case, no trailing dot) is the domain or below it.
    pub fn contains(&self, name: &str) -> bool {
        name.strip_suffix(&self.0)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

/// Longest domain: leaves room for `_service._proto.` and two labels within
/// the 253 octets of a name.
const DOMAIN_OCTETS: usize = 100;

impl FromStr for MeshDomain {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let lower = s.trim_end_matches('.').to_ascii_lowercase();
        let no = |why| Err(NameError::Domain(s.chars().take(80).collect(), why));
        if lower.len() > DOMAIN_OCTETS {
            return no("it is longer than 100 characters");
        }
        for label in lower.split('.') {
            match label.parse::<Label>() {
                Ok(_) => {}
                Err(NameError::International(_)) => {
                    return no(
                        "it is an international domain name, and the mesh's names and certificates \
                         have the letters a to z, digits and hyphens alone, also as xn--: others \
                         can look just like a domain that somebody else has; use a domain in plain \
                         ASCII",
                    );
                }
                Err(_) => return no("it is not a domain name"),
            }
        }
        let labels: Vec<&str> = lower.split('.').collect();
        match labels[..] {
            [.., "local"] => no(
                ".local belongs to multicast DNS (RFC 6762), and hosts would not ask the mesh; \
                 use a name under a domain that you own, home.arpa, or one under .internal",
            ),
            [
                ..,
                "localhost" | "test" | "invalid" | "example" | "onion" | "alt",
            ] => no("its top-level domain has a special meaning (RFC 6761)"),
            ["home", "arpa"] | [.., "home", "arpa"] => Ok(Self(lower)),
            // Programs take such a name for an address (RFC 3696 §2).
            [.., last] if last.bytes().all(|b| b.is_ascii_digit()) => {
                no("its last part is a number, as an address has")
            }
            [.., "arpa"] => no("under .arpa only home.arpa is for private use (RFC 8375)"),
            ["internal"] => no("use a name below .internal, such as lab.internal"),
            [.., "internal"] => Ok(Self(lower)),
            [_] => no(
                "it is a top-level domain; use a name under a domain that you own \
                 (in.example.org), home.arpa, or one under .internal",
            ),
            [
                ..,
                "lan" | "home" | "corp" | "intranet" | "private" | "mesh" | "vpn" | "localdomain"
                | "mail" | "lab" | "internal0",
            ] => no(
                "its top-level domain is invented and may be sold tomorrow; use a name under a \
                 domain that you own (in.example.org), home.arpa, or one under .internal",
            ),
            _ => Ok(Self(lower)),
        }
    }
}

impl TryFrom<String> for MeshDomain {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<MeshDomain> for String {
    fn from(domain: MeshDomain) -> Self {
        domain.0
    }
}

impl fmt::Display for MeshDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MeshDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which names a node may be granted: a label in which `*` stands for any run
/// of characters, at most one of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamePattern(String);

impl NamePattern {
    /// The pattern that every name matches.
    pub fn any() -> Self {
        Self("*".into())
    }

    /// Whether `name` matches.
    pub fn matches(&self, name: &Label) -> bool {
        let name = name.as_str();
        match self.0.split_once('*') {
            None => self.0 == name,
            Some((head, tail)) => {
                name.len() >= head.len() + tail.len()
                    && name.starts_with(head)
                    && name.ends_with(tail)
            }
        }
    }

    /// Whether every name that `other` matches is matched by this one too.
    pub fn covers(&self, other: &Self) -> bool {
        match (self.0.split_once('*'), other.0.split_once('*')) {
            (None, _) => self == other,
            (Some((head, tail)), None) => {
                other.0.len() >= head.len() + tail.len()
                    && other.0.starts_with(head)
                    && other.0.ends_with(tail)
            }
            (Some((head, tail)), Some((other_head, other_tail))) => {
                other_head.starts_with(head) && other_tail.ends_with(tail)
            }
        }
    }
}

impl FromStr for NamePattern {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let lower = s.to_ascii_lowercase();
        let good = (1..=63).contains(&lower.len())
            && lower.matches('*').count() <= 1
            && lower
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'*');
        if good {
            Ok(Self(lower))
        } else {
            Err(NameError::Pattern(s.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for NamePattern {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<NamePattern> for String {
    fn from(pattern: NamePattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_host_names_in_lower_case() {
        assert_eq!("Nextcloud".parse::<Label>().unwrap().as_str(), "nextcloud");
        for bad in [
            "",
            "-a",
            "a-",
            "a.b",
            "a_b",
            "ü",
            "xn--bcher-kva",
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
    }

    #[test]
    fn reserved_names_are_refused_with_the_reason() {
        let error = "wpad".parse::<Label>().unwrap().grantable().unwrap_err();
        assert!(error.to_string().contains("proxy settings"));
        assert!("photos".parse::<Label>().unwrap().grantable().is_ok());
    }

    #[test]
    fn a_mesh_lives_under_a_domain_that_can_be_its_own() {
        for good in [
            "in.example.org",
            "home.arpa",
            "x.home.arpa",
            "lab.internal",
            "In.Example.Org.",
        ] {
            assert!(good.parse::<MeshDomain>().is_ok(), "{good}");
        }
        for bad in [
            "foo.local",
            "local",
            "lan",
            "x.lan",
            "internal",
            "arpa",
            "a..b",
            "",
            "x.test",
            "in-addr.arpa",
            "1.2.3.4",
        ] {
            assert!(bad.parse::<MeshDomain>().is_err(), "{bad}");
        }
    }

    #[test]
    fn international_names_are_refused_with_the_reason() {
        for name in ["bücher", "xn--bcher-kva", "XN--bcher-kva", "日本"] {
            let error = name.parse::<Label>().unwrap_err().to_string();
            assert!(error.contains("international"), "{error}");
            let domain = format!("in.{name}.example.org");
            let error = domain.parse::<MeshDomain>().unwrap_err().to_string();
            assert!(error.contains("international"), "{error}");
        }
        let other = "ab--c".parse::<Label>().unwrap_err();
        assert!(matches!(other, NameError::Label(_)));
        let error = "in.a_b.org".parse::<MeshDomain>().unwrap_err().to_string();
        assert!(error.contains("not a domain name"), "{error}");
    }

    #[test]
    fn a_domain_contains_itself_and_what_is_below_it() {
        let domain: MeshDomain = "in.example.org".parse().unwrap();
        assert!(domain.contains("in.example.org"));
        assert!(domain.contains("a.b.in.example.org"));
        assert!(!domain.contains("xin.example.org"));
        assert!(!domain.contains("example.org"));
    }

    #[test]
    fn a_pattern_covers_another_only_if_it_matches_all_that_the_other_does() {
        let p = |s: &str| s.parse::<NamePattern>().unwrap();
        assert!(p("*").covers(&p("web-*")));
        assert!(p("web-*").covers(&p("web-1")));
        assert!(!p("web-*").covers(&p("*")));
        assert!(!p("web-*").covers(&p("we*")));
        assert!(p("a*b").matches(&"aab".parse().unwrap()));
        assert!(!p("ab*ba").matches(&"aba".parse().unwrap()));
    }
}
