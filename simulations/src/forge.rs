//! chitchat's messages written by hand, so that what no chitchat would say can
//! be said. Little-endian; a text is its length (u16) and UTF-8.

#![allow(missing_docs, reason = "the names say it")]

use std::net::{IpAddr, SocketAddr};

/// One entry of a digest.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The node's id as text.
    pub node: String,
    pub generation: u64,
    /// Its gossip address.
    pub address: SocketAddr,
    /// How often it has beaten.
    pub heartbeat: u64,
    /// Below which version everything is forgotten.
    pub last_gc: u64,
    /// Its highest version.
    pub max_version: u64,
}

/// One operation of a delta.
#[derive(Clone, Debug)]
pub enum Op {
    /// What follows is about this node; its heartbeat and highest version
    /// aren't said.
    Node(Entry, u64),
    /// A key, its value, version and status.
    Set(String, String, u64, u8),
    /// The highest version there is.
    MaxVersion(u64),
}

/// "This is what I have."
pub fn syn(cluster: &str, digest: &[Entry]) -> Vec<u8> {
    let mut out = head(0);
    put_digest(&mut out, digest);
    put_text(&mut out, cluster);
    out
}

/// What I have, and what you lack, in blocks of a delta.
pub fn syn_ack(digest: &[Entry], blocks: &[u8]) -> Vec<u8> {
    let mut out = head(1);
    put_digest(&mut out, digest);
    out.extend(blocks);
    out
}

/// What you lack, in blocks of a delta.
pub fn ack(blocks: &[u8]) -> Vec<u8> {
    let mut out = head(2);
    out.extend(blocks);
    out
}

/// Operations in one raw block.
pub fn raw(ops: &[Op]) -> Vec<u8> {
    let mut plain = Vec::new();
    for op in ops {
        put_op(&mut plain, op);
    }
    blocks(&[(2, &plain)])
}

/// Blocks of a delta: a tag (1 zstd, 2 raw) and bytes each.
pub fn blocks(blocks: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, bytes) in blocks {
        out.push(*tag);
        out.extend((bytes.len() as u16).to_le_bytes());
        out.extend(*bytes);
    }
    out.push(0);
    out
}

fn head(kind: u8) -> Vec<u8> {
    let mut out = 45_139u16.to_le_bytes().to_vec();
    out.extend([0, kind]);
    out
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_id(out: &mut Vec<u8>, entry: &Entry) {
    put_text(out, &entry.node);
    out.extend(entry.generation.to_le_bytes());
    match entry.address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend(ip.octets());
        }
    }
    out.extend(entry.address.port().to_le_bytes());
}

fn put_digest(out: &mut Vec<u8>, digest: &[Entry]) {
    out.extend((digest.len() as u16).to_le_bytes());
    for entry in digest {
        put_id(out, entry);
        for number in [entry.heartbeat, entry.last_gc, entry.max_version] {
            out.extend(number.to_le_bytes());
        }
    }
}

fn put_op(out: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Node(entry, from) => {
            out.push(0);
            put_id(out, entry);
            out.extend(entry.last_gc.to_le_bytes());
            out.extend(from.to_le_bytes());
        }
        Op::Set(key, value, version, status) => {
            out.push(1);
            put_text(out, key);
            put_text(out, value);
            out.extend(version.to_le_bytes());
            out.push(*status);
        }
        Op::MaxVersion(version) => {
            out.push(2);
            out.extend(version.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use innermesh_proto::gate::{GossipId, Known, Message, Name, Offer, Value};

    use super::*;

    #[test]
    fn what_is_written_by_hand_is_what_the_gate_reads() {
        let entry = Entry {
            node: "a".into(),
            generation: 3,
            address: "[fd00::1]:51819".parse().unwrap(),
            heartbeat: 7,
            last_gc: 0,
            max_version: 9,
        };
        let id = GossipId {
            node: Name::new("a").unwrap(),
            generation: 3,
            address: entry.address,
        };
        let known = Known {
            id,
            heartbeat: 7,
            version: 9,
        };
        let read = Message::parse(&syn("m", std::slice::from_ref(&entry)));
        let expected = Message::Syn {
            cluster: "m".into(),
            digest: vec![known],
        };
        assert_eq!(read.unwrap(), expected);
        let ops = [Op::Node(entry, 2), Op::Set("head".into(), "x".into(), 9, 0)];
        let expected = Message::Ack {
            delta: vec![Offer {
                id,
                from: 2,
                head: Some(Value {
                    version: 9,
                    text: "x".into(),
                }),
            }],
        };
        assert_eq!(Message::parse(&ack(&raw(&ops))).unwrap(), expected);
    }
}
