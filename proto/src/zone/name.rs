//! Domain names as DNS has them (RFC 1035 §3.1): any octets, compared without
//! regard to ASCII case. A query may carry any of them, so unlike
//! [`crate::name::Label`] nothing here is limited to host names.

use std::{borrow::Borrow, fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::character_string::escape;

/// Longest name in octets, without the root's zero octet (RFC 1035 §2.3.4).
const NAME_OCTETS: usize = 254;
/// Longest label in octets (RFC 1035 §2.3.4).
const LABEL_OCTETS: usize = 63;

/// A fully qualified domain name: lower case, in wire form (each label behind
/// its length) without the root's zero octet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct DomainName(Box<[u8]>);

impl DomainName {
    /// From its labels, leftmost first; `None` when a label is empty or longer
    /// than 63 octets, or the whole is longer than a name may be.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut wire = Vec::with_capacity(64);
        for label in labels {
            push(&mut wire, label)?;
        }
        Some(Self(wire.into()))
    }

    /// The root.
    pub fn root() -> Self {
        Self(Box::default())
    }

    /// The labels, leftmost first.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        suffixes(&self.0).filter_map(|wire| {
            let (length, rest) = wire.split_first()?;
            rest.get(..usize::from(*length))
        })
    }

    /// `<label>.<self>`, unless that is too long.
    pub fn child(&self, label: &[u8]) -> Option<Self> {
        let mut wire = Vec::with_capacity(1 + label.len() + self.0.len());
        push(&mut wire, label)?;
        wire.extend_from_slice(&self.0);
        (wire.len() <= NAME_OCTETS).then(|| Self(wire.into()))
    }

    /// The name under which an address is looked up: below `in-addr.arpa`
    /// (RFC 1035 §3.5) or `ip6.arpa` (RFC 3596 §2.5).
    pub fn reverse(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::reverse_prefix(&v4.octets(), 32, 8),
            IpAddr::V6(v6) => Self::reverse_prefix(&v6.octets(), 128, 4),
        }
    }

    /// The reverse name of the first `bits` bits of an address, `step` bits to
    /// a label: 8 and decimal for IPv4, 4 and hexadecimal for IPv6.
    pub(super) fn reverse_prefix(octets: &[u8], bits: usize, step: usize) -> Self {
        let mut wire = Vec::with_capacity(74);
        for unit in (0..bits / step).rev() {
            let octet = octets.get(unit * step / 8).copied().unwrap_or(0);
            let text = match (step, unit % 2) {
                (8, _) => octet.to_string(),
                (_, 0) => format!("{:x}", octet >> 4),
                _ => format!("{:x}", octet & 0xf),
            };
            // Three digits at most, and 32 labels of one digit fit a name.
            wire.push(text.len() as u8);
            wire.extend_from_slice(text.as_bytes());
        }
        wire.extend_from_slice(if step == 8 {
            b"\x07in-addr"
        } else {
            b"\x03ip6"
        });
        wire.extend_from_slice(b"\x04arpa");
        Self(wire.into())
    }

    /// In wire form, without the root's zero octet.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The name above it; none above the root.
    pub fn parent(&self) -> Option<Self> {
        let (length, rest) = self.0.split_first()?;
        let above = rest.get(usize::from(*length)..)?;
        Some(Self(above.into()))
    }

    /// Whether this is `other` or below it.
    pub fn is_within(&self, other: &Self) -> bool {
        suffixes(&self.0).any(|suffix| suffix == &*other.0) || other.0.is_empty()
    }

    /// This name and its ancestors, nearest first, without the root.
    pub(super) fn lineage(&self) -> impl Iterator<Item = &[u8]> {
        suffixes(&self.0)
    }

    /// What is between this name and `origin`, which it is within, nearest
    /// first, and `origin` last; nothing without an origin.
    pub(super) fn ancestors_below(&self, origin: Option<&Self>) -> impl Iterator<Item = Self> {
        let shortest = origin.map_or(usize::MAX, |origin| origin.0.len());
        suffixes(&self.0)
            .skip(1)
            .take_while(move |suffix| suffix.len() >= shortest)
            .map(|suffix| Self(suffix.into()))
    }

    /// The canonical DNS name order compares from the rightmost label
    /// (RFC 4034 §6.1).
    pub(super) fn canonical_key(&self) -> Vec<&[u8]> {
        let mut labels: Vec<&[u8]> = self.labels().collect();
        labels.reverse();
        labels
    }
}

fn push(wire: &mut Vec<u8>, label: &[u8]) -> Option<()> {
    let length = u8::try_from(label.len()).ok()?;
    if length == 0 || label.len() > LABEL_OCTETS || wire.len() + 1 + label.len() > NAME_OCTETS {
        return None;
    }
    wire.push(length);
    wire.extend(label.iter().map(u8::to_ascii_lowercase));
    Some(())
}

/// `wire` and what is left of it after each label, but for the empty rest.
pub(super) fn suffixes(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(wire), |wire| {
        let (length, rest) = wire.split_first()?;
        rest.get(usize::from(*length)..)
    })
    .filter(|suffix| !suffix.is_empty())
}

impl TryFrom<Vec<u8>> for DomainName {
    type Error = DomainNameError;

    /// From the wire form, in lower case: equal names are equal bytes.
    fn try_from(wire: Vec<u8>) -> Result<Self, DomainNameError> {
        let labels = suffixes(&wire).map_while(|wire| {
            let (length, rest) = wire.split_first()?;
            rest.get(..usize::from(*length))
        });
        Self::from_labels(labels)
            .filter(|name| *name.0 == *wire)
            .ok_or_else(|| DomainNameError(data_encoding::HEXLOWER.encode(&wire)))
    }
}

impl From<DomainName> for Vec<u8> {
    fn from(name: DomainName) -> Self {
        name.0.into()
    }
}

impl Borrow<[u8]> for DomainName {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Not a domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a domain name: labels of 1 to 63 characters with dots between, 253 in all")]
pub struct DomainNameError(String);

impl FromStr for DomainName {
    type Err = DomainNameError;

    /// Takes names with and without the trailing dot; both are fully
    /// qualified. Escapes are those of master files (RFC 1035 §5.1).
    fn from_str(s: &str) -> Result<Self, DomainNameError> {
        if s == "." {
            return Ok(Self::root());
        }
        labels(s.as_bytes())
            .and_then(|labels| Self::from_labels(labels.iter().map(Vec::as_slice)))
            .ok_or_else(|| DomainNameError(s.chars().take(80).collect()))
    }
}

/// The labels of a name as written; none where an escape is none. The dot at the
/// end begins no label.
fn labels(mut text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut labels = vec![Vec::new()];
    while let Some((octet, mut rest)) = text.split_first() {
        let octet = match octet {
            b'.' if rest.is_empty() => break,
            b'.' => {
                labels.push(Vec::new());
                text = rest;
                continue;
            }
            b'\\' => {
                let (octet, after) = escape(rest)?;
                rest = after;
                octet
            }
            other => *other,
        };
        labels.last_mut()?.push(octet);
        text = rest;
    }
    Some(labels)
}

impl fmt::Display for DomainName {
    /// With the trailing dot, and with escapes for what is not plain text
    /// (RFC 1035 §5.1), so that a name from a stranger is safe in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(octet))?;
                    }
                    0x21..=0x7e => write!(f, "{}", char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(s: &str) -> DomainName {
        s.parse().unwrap()
    }

    #[test]
    fn names_are_compared_without_case_and_without_the_trailing_dot() {
        assert_eq!(name("WWW.Example.ORG"), name("www.example.org."));
        assert_eq!(name(".").to_string(), ".");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("{0}.{0}.{0}.{0}", "a".repeat(63));
        for bad in ["", "..", "a..b", &"a".repeat(64), &long, "a\\", "a\\256"] {
            assert!(bad.parse::<DomainName>().is_err(), "{bad}");
        }
        assert!(name("b.c").child(&[b'x'; 64]).is_none());
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for text in [
            "a\\.b.lab.internal.",
            "sp\\032ace.org.",
            "\\195\\188.org.",
            "*.org.",
        ] {
            assert_eq!(name(text).to_string(), text);
        }
        assert_eq!(name("a\\046b.org"), name("a\\.b.org."));
        // A dot at the end that is escaped is a part of the name.
        assert_eq!(name("org\\.").labels().count(), 1);
    }

    #[test]
    fn a_dot_inside_a_label_is_no_boundary() {
        let tricky = DomainName::from_labels([b"a.lab".as_slice(), b"internal"]).unwrap();
        assert_eq!(tricky.to_string(), "a\\.lab.internal.");
        assert!(!tricky.is_within(&name("lab.internal")));
        // A label whose octets look like the wire form of the domain.
        let wire = DomainName::from_labels([b"x\x03lab\x08internal".as_slice()]).unwrap();
        assert!(!wire.is_within(&name("lab.internal")));
        assert!(name("a.lab.internal").is_within(&name("lab.internal")));
    }

    #[test]
    fn addresses_have_reverse_names() {
        assert_eq!(
            DomainName::reverse("10.77.0.53".parse().unwrap()),
            name("53.0.77.10.in-addr.arpa")
        );
        assert_eq!(
            DomainName::reverse("2001:db8::1".parse().unwrap()).to_string(),
            format!("1.{}8.b.d.0.1.0.0.2.ip6.arpa.", "0.".repeat(23))
        );
    }
}
