//! A question in the form that nearly all have: one name of class IN, at most an
//! OPT record with no other options than a cookie and padding, and nothing else. All
//! others are for the careful path.

use hickory_server::net::xfer::Protocol;
use innermesh_proto::{
    limits,
    zone::{DomainName, RecordType},
};

use super::super::{
    cookies::WholeCookie,
    padding::PADDING,
    wire::{self, HEADER},
};

/// Longest name with its type and flags, in bytes.
const KEY: usize = 254 + 3;

/// In the third byte of a header: recursion is desired.
pub(super) const RD: u8 = 0x01;
/// In the fourth: the answer is authentic, and nothing need be checked.
pub(super) const AD: u8 = 0x20;
pub(super) const CD: u8 = 0x10;
/// In the third byte of an OPT record's TTL: signatures are wanted (RFC 3225).
pub(super) const DO: u8 = 0x80;

const OPT: [u8; 3] = [0, 0, 41];
const CLASS_IN: [u8; 2] = [0, 1];
const COOKIE: u16 = 10;

/// Such a question.
#[derive(Clone, Debug)]
pub(in crate::dns) struct Plain<'q> {
    /// As it came.
    pub id: [u8; 2],
    pub recursion_desired: bool,
    pub authentic_data: bool,
    pub checking_disabled: bool,
    /// Name, type and class as they came.
    pub question: &'q [u8],
    pub rtype: RecordType,
    pub edns: Option<PlainEdns>,
    /// A client's, of 8 or of 16 to 40 octets.
    pub cookie: Option<&'q [u8]>,
    /// What goes back for it.
    pub answered_cookie: Option<WholeCookie>,
    key: [u8; KEY],
    /// Bytes of the name in `key`.
    name: usize,
}

/// What an OPT record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dns) struct PlainEdns {
    pub payload: u16,
    pub dnssec_ok: bool,
}

impl<'q> Plain<'q> {
    pub fn read(message: &'q [u8]) -> Option<Self> {
        let (header, body) = message.split_first_chunk::<HEADER>()?;
        let [id0, id1, high, low, 0, 1, 0, 0, 0, 0, 0, opts @ 0..=1] = *header else {
            return None;
        };
        if high & !RD != 0 || low & !(AD | CD) != 0 {
            return None;
        }
        let mut key = [0; KEY];
        let name = lower_name(body, &mut key)?;
        let question = body.get(..name + 5)?;
        let (rtype, class) = question.get(name + 1..)?.split_first_chunk::<2>()?;
        if *class != CLASS_IN {
            return None;
        }
        key.get_mut(name..name + 2)?.copy_from_slice(rtype);
        let (edns, cookie) = match (opts, body.get(name + 5..)?) {
            (0, []) => (None, None),
            (1, opt) => {
                let (edns, cookie) = PlainEdns::read(opt)?;
                (Some(edns), cookie)
            }
            _ => return None,
        };
        let dnssec_ok = edns.is_some_and(|edns| edns.dnssec_ok);
        *key.get_mut(name + 2)? = upstream_flags(dnssec_ok, low & CD != 0);
        Some(Self {
            id: [id0, id1],
            recursion_desired: high & RD != 0,
            authentic_data: low & AD != 0,
            checking_disabled: low & CD != 0,
            question,
            rtype: RecordType(u16::from_be_bytes(*rtype)),
            edns,
            cookie,
            answered_cookie: None,
            key,
            name,
        })
    }

    /// Name and type: the same for every case of the name.
    pub fn key(&self) -> &[u8] {
        self.key.get(..self.name + 2).unwrap_or_default()
    }

    /// Those, and what makes answers from upstream differ: see
    /// [`super::super::cache::Key::bytes`].
    pub fn upstream_key(&self) -> &[u8] {
        self.key.get(..self.name + 3).unwrap_or_default()
    }

    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// The name in lower case, without the root's zero octet.
    pub fn lower_name(&self) -> &[u8] {
        self.key.get(..self.name).unwrap_or_default()
    }

    /// The same as a value.
    pub fn name(&self) -> Option<DomainName> {
        DomainName::try_from(self.lower_name().to_vec()).ok()
    }

    /// Bytes of the OPT record of its reply.
    pub fn opt(&self) -> usize {
        let cookie = self.answered_cookie.map_or(0, |cookie| 4 + cookie.len());
        if self.edns.is_some() { 11 + cookie } else { 0 }
    }

    /// Longest reply, in bytes.
    pub fn limit(&self, protocol: Protocol) -> usize {
        if protocol == Protocol::Udp {
            let theirs = self.edns.map_or(512, |edns| edns.payload);
            theirs.clamp(512, limits::DNS_UDP_BYTES).into()
        } else {
            u16::MAX.into()
        }
    }
}

/// The last byte of a key of the upstream cache.
pub(in crate::dns) fn upstream_flags(dnssec_ok: bool, checking_disabled: bool) -> u8 {
    u8::from(dnssec_ok) | u8::from(checking_disabled) << 1
}

/// Copies the name at the beginning of `body` in lower case, without the root's
/// zero octet; gives its length. `None` where it isn't whole, too long, or
/// compressed.
fn lower_name(body: &[u8], key: &mut [u8; KEY]) -> Option<usize> {
    let mut end = 0;
    loop {
        match *body.get(end)? {
            0 => break,
            length @ 1..=63 => end += 1 + usize::from(length),
            _ => return None,
        }
        // With the root's octet a name has 255 (RFC 1035 §2.3.4).
        if end > 254 {
            return None;
        }
    }
    for (place, octet) in key.iter_mut().zip(body.get(..end)?) {
        // No length is a letter.
        *place = octet.to_ascii_lowercase();
    }
    Some(end)
}

impl PlainEdns {
    /// Reads an OPT record and nothing behind it; with the one option that it may have.
    fn read(record: &[u8]) -> Option<(Self, Option<&[u8]>)> {
        let (fixed, options) = record.split_first_chunk::<11>()?;
        let [root, t0, t1, size0, size1, 0, 0, flags, 0, len0, len1] = *fixed else {
            return None;
        };
        let is_whole = usize::from(u16::from_be_bytes([len0, len1])) == options.len();
        if [root, t0, t1] != OPT || flags & !DO != 0 || !is_whole {
            return None;
        }
        let edns = Self {
            payload: u16::from_be_bytes([size0, size1]),
            dnssec_ok: flags & DO != 0,
        };
        Some((edns, cookie(options)?))
    }
}

/// The cookie, where beside it is padding at most (RFC 7873 §5.2, RFC 7830 §4); none for
/// others, and what isn't whole.
fn cookie(options: &[u8]) -> Option<Option<&[u8]>> {
    let (mut cookie, mut paddings, mut length) = (None, 0, 0);
    for (code, value) in wire::options(options) {
        length += 4 + value.len();
        match code {
            COOKIE if value.len() == 8 || (16..=40).contains(&value.len()) => {
                if cookie.replace(value).is_some() {
                    return None;
                }
            }
            PADDING => paddings += 1,
            _ => return None,
        }
    }
    (length == options.len() && paddings <= 1).then_some(cookie)
}
