//! What names a node in gossip.
//!
//! chitchat's digests name every node, so a name's length decides how many
//! nodes a mesh may have: with the whole id of 26 characters and an IPv6
//! address, a digest is full at 750 nodes. The first eight bytes of the id, and
//! the next six as an address that is never bound, leave room for 1,100.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
};

use data_encoding::BASE32HEX_NOPAD;

use super::GossipId;
use crate::id::NodeId;

/// The first bytes of a node id: enough to name a member of one mesh. Should
/// two members ever share them, the later one's gossip travels by pushes alone.
pub type Short = [u8; 8];

/// The short name of a node.
pub fn short(node: &NodeId) -> Short {
    let mut out = [0; 8];
    out.copy_from_slice(&node.0[..8]);
    out
}

/// The gossip id of a node.
pub fn gossip_id(node: &NodeId, generation: u64) -> GossipId {
    GossipId {
        node: Name::of(&short(node)),
        generation,
        address: gossip_address(node),
    }
}

/// The address that stands for a node in gossip, whatever addresses its machine
/// has: no packet goes there, the transport maps it to a connection.
pub fn gossip_address(node: &NodeId) -> SocketAddr {
    let [.., a, b, c, d, e, f, _, _] = node.0;
    SocketAddr::from((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([e, f])))
}

/// A node's name as chitchat has it. Ordered as the text is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    bytes: [u8; Self::LONGEST],
    length: u8,
}

impl Name {
    /// Longest name that one can hold, in bytes.
    pub const LONGEST: usize = 31;

    /// A name with this text, unless that is too long.
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; Self::LONGEST];
        bytes
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        Some(Self {
            bytes,
            length: text.len() as u8,
        })
    }

    /// A short name as text: 13 characters of lower-case base32hex, in the
    /// same order (RFC 4648 §7).
    pub fn of(short: &Short) -> Self {
        let mut bytes = [0; Self::LONGEST];
        BASE32HEX_NOPAD.encode_mut(short, &mut bytes[..TEXT]);
        bytes.make_ascii_lowercase();
        Self {
            bytes,
            length: TEXT as u8,
        }
    }

    /// The short name whose text this is.
    pub fn short(&self) -> Option<Short> {
        let mut text: [u8; TEXT] = self.as_bytes().try_into().ok()?;
        if text.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        text.make_ascii_uppercase();
        let mut out = [0; 8];
        let length = BASE32HEX_NOPAD.decode_mut(&text, &mut out).ok()?;
        (length == out.len()).then_some(out)
    }
}

/// Characters of a short name.
const TEXT: usize = 13;

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        // Made from a text, and never cut.
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_survives_as_text_and_no_other_text_is_one() {
        for short in [[0; 8], [255; 8], *b"innermes"] {
            let name = Name::of(&short);
            assert_eq!(name.len(), TEXT);
            assert_eq!(name.short(), Some(short));
            assert_eq!(Name::new(&name), Some(name));
        }
        let name = Name::of(b"innermes").to_string();
        // The last character stands for one bit more than there is.
        let beyond = name[..12].to_owned() + "7";
        for no in ["", "a", &name.to_uppercase(), &beyond, &(name + "a")] {
            assert_eq!(Name::new(no).unwrap().short(), None, "{no}");
        }
    }

    #[test]
    fn names_are_ordered_as_their_texts_are() {
        let texts = ["", "a", "a\0", "aa", "b"];
        let names = texts.map(|text| Name::new(text).unwrap());
        assert!(names.is_sorted());
        assert_eq!(Name::new(&"x".repeat(Name::LONGEST + 1)), None);
    }

    #[test]
    fn an_id_says_more_of_a_node_than_its_name() {
        let node = NodeId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        let id = gossip_id(&node, 3);
        assert_eq!(id.address, "9.10.11.12:3342".parse().unwrap());
        assert_eq!(id.node.short(), Some([1, 2, 3, 4, 5, 6, 7, 8]));
    }
}
