//! The kinds of names that certificates may have, encoded by hand: also such
//! as no library would write.

use std::net::IpAddr;

use crate::authority::{Authority, DOMAIN};

/// What a client wanted to reach.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    Host(&'static str),
    Ip(IpAddr),
    /// The address of [`Authority::ipv6`].
    Inside,
}

/// One subject alternative name.
#[derive(Clone, Copy, Debug)]
pub enum Name {
    Dns(&'static [u8]),
    Ip(&'static [u8]),
    /// The address of [`Authority::ipv6`].
    Inside,
    Uri(&'static str),
    Mail(&'static str),
    /// A directory name with this as its common name.
    Directory(&'static str),
    /// RFC 4985.
    Service(&'static str),
    /// RFC 9598.
    Utf8Mail(&'static str),
    Registered,
}

impl Target {
    /// The text that a client is given.
    pub fn text(self, authority: &Authority) -> String {
        match self {
            Self::Host(host) => host.into(),
            Self::Ip(address) => address.to_string(),
            Self::Inside => authority.ipv6().to_string(),
        }
    }

    /// Whether it is within the domain and the ranges of the mesh.
    pub fn is_of_mesh(self) -> bool {
        match self {
            Self::Host(host) => host
                .strip_suffix(DOMAIN)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
            Self::Ip(IpAddr::V4(address)) => address.octets().starts_with(&[10, 77]),
            Self::Ip(IpAddr::V6(_)) => false,
            Self::Inside => true,
        }
    }

    /// As it stands in the table.
    pub fn shown(self) -> String {
        match self {
            Self::Host(host) => host.into(),
            Self::Ip(address) => address.to_string(),
            Self::Inside => OVERLAY.into(),
        }
    }
}

/// The mesh's IPv6 range follows from its root's key, so it is another in
/// each run.
const OVERLAY: &str = "overlay::9";

impl Name {
    /// A GeneralName (RFC 5280 §4.2.1.6).
    pub fn der(&self, authority: &Authority) -> Vec<u8> {
        match *self {
            Self::Mail(text) => tlv(0x81, text.as_bytes()),
            Self::Dns(text) => tlv(0x82, text),
            Self::Directory(text) => {
                let attribute = [tlv(6, &[0x55, 4, 3]), tlv(0x0c, text.as_bytes())].concat();
                tlv(0xa4, &tlv(0x30, &tlv(0x31, &tlv(0x30, &attribute))))
            }
            Self::Uri(text) => tlv(0x86, text.as_bytes()),
            Self::Ip(octets) => tlv(0x87, octets),
            Self::Inside => tlv(0x87, &authority.ipv6().octets()),
            // 1.2.3.4
            Self::Registered => tlv(0x88, &[0x2a, 3, 4]),
            // id-on-dnsSRV, an IA5String.
            Self::Service(text) => other(7, &tlv(0x16, text.as_bytes())),
            // id-on-SmtpUTF8Mailbox, a UTF8String.
            Self::Utf8Mail(text) => other(9, &tlv(0x0c, text.as_bytes())),
        }
    }

    /// As it stands in the table.
    pub fn shown(&self) -> String {
        match *self {
            Self::Dns(text) => match std::str::from_utf8(text) {
                Ok(text) if text.len() > 40 => format!("DNS:{}…", &text[..20]),
                Ok(text) => format!("DNS:{}", text.escape_debug()),
                Err(_) => format!("DNS:{}", text.escape_ascii()),
            },
            Self::Ip(octets) => match (<[u8; 4]>::try_from(octets), <[u8; 16]>::try_from(octets)) {
                (Ok(four), _) => format!("IP:{}", IpAddr::from(four)),
                (_, Ok(sixteen)) => format!("IP:{}", IpAddr::from(sixteen)),
                _ => format!("IP:{octets:?}"),
            },
            Self::Inside => format!("IP:{OVERLAY}"),
            Self::Uri(text) => format!("URI:{text}"),
            Self::Mail(text) => format!("email:{text}"),
            Self::Directory(text) => format!("dirName:CN={text}"),
            Self::Service(text) => format!("SRVName:{text}"),
            Self::Utf8Mail(text) => format!("SmtpUTF8Mailbox:{text}"),
            Self::Registered => "RID:1.2.3.4".into(),
        }
    }
}

/// An otherName of kind 1.3.6.1.5.5.7.8.`kind`.
fn other(kind: u8, value: &[u8]) -> Vec<u8> {
    let id = tlv(6, &[0x2b, 6, 1, 5, 5, 7, 8, kind]);
    tlv(0xa0, &[id, tlv(0xa0, value)].concat())
}

/// One element of DER.
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("short");
    let [high, low] = length.to_be_bytes();
    let head = match length {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head, content.to_vec()].concat()
}
