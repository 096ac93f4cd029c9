//! A gossip message between agents in few bytes.
//!
//! chitchat names each node in each digest by a text, an address and three
//! numbers, which zstd can only halve, since ids are random. Both agents follow one ledger, so eight bytes of the id name a
//! member, and everything else of the name follows; heartbeats aren't believed
//! and aren't sent; heads travel as bytes and not as text. That leaves about 12
//! bytes for each node of a digest.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use super::{
    GateError, GossipId, Known, Message, Offer, Short, Value,
    envelope::{self, COMPACT},
};
use crate::{codec, id::MeshId, limits::GOSSIP_PACKED_BYTES};

#[derive(Serialize, Deserialize)]
enum Packed {
    Syn(Vec<Entry>),
    SynAck(Vec<Entry>, Vec<Head>),
    Ack(Vec<Head>),
}

/// (node, generation, version)
type Entry = (Short, u64, u64);
/// (node, generation, version that the receiver is taken to have, version and head)
type Head = (Short, u64, u64, Option<(u64, Vec<u8>)>);

/// Packs what our own chitchat says. It never forgets an earlier generation of
/// a node before its grace is over, and peers' gates never take one in: sent
/// along, they would be offered again in each round. So only the newest of
/// each node goes out.
#[derive(Clone, Debug, Default)]
pub struct Packer {
    /// By the short name as a number, which is quicker to compare.
    newest: BTreeMap<u64, u64>,
}

impl Packer {
    /// Puts a message into its envelope. chitchat knows versions alone; `held`
    /// gives the version and the sealed head that are held of a node. `None`
    /// for what an agent doesn't say.
    pub fn pack(
        &mut self,
        message: &[u8],
        held: impl Fn(&GossipId) -> Option<(u64, Vec<u8>)>,
    ) -> Option<Vec<u8>> {
        let packed = match Message::parse(message).ok()? {
            Message::Syn { digest, .. } => Packed::Syn(self.entries(&digest)?),
            Message::SynAck { digest, delta } => {
                Packed::SynAck(self.entries(&digest)?, self.heads(&delta, held))
            }
            Message::Ack { delta } => Packed::Ack(self.heads(&delta, held)),
            Message::BadCluster => return None,
        };
        let mut out = vec![COMPACT];
        out.extend(codec::encode(&packed));
        Some(out)
    }

    fn entries(&mut self, digest: &[Known]) -> Option<Vec<Entry>> {
        let mut entries = digest
            .iter()
            .map(|known| Some((named(&known.id)?, known.id.generation, known.version)))
            .collect::<Option<Vec<Entry>>>()?;
        // A digest names every node that chitchat hasn't forgotten.
        self.newest.clear();
        for (node, generation, _) in &entries {
            let newest = self.newest.entry(u64::from_be_bytes(*node)).or_default();
            *newest = (*newest).max(*generation);
        }
        entries.retain(|(node, generation, _)| self.is_newest(node, *generation));
        Some(entries)
    }

    fn heads(
        &self,
        delta: &[Offer],
        held: impl Fn(&GossipId) -> Option<(u64, Vec<u8>)>,
    ) -> Vec<Head> {
        let head = |offer: &Offer| {
            let short = named(&offer.id)?;
            let generation = offer.id.generation;
            let head = held(&offer.id).filter(|(version, _)| *version > offer.from)?;
            self.is_newest(&short, generation).then_some((
                short,
                generation,
                offer.from,
                Some(head),
            ))
        };
        delta.iter().filter_map(head).collect()
    }

    fn is_newest(&self, node: &Short, generation: u64) -> bool {
        self.newest
            .get(&u64::from_be_bytes(*node))
            .is_none_or(|newest| *newest <= generation)
    }
}

/// A peer's message out of its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unpacked {
    /// As chitchat writes it.
    Plain(Vec<u8>),
    /// In the compact form: not yet looked at.
    Compact(Message),
}

/// Takes a peer's message out of its envelope. `member` finds the gossip id, of
/// whatever generation, of the member with a short name; entries of others are
/// left out.
///
/// # Errors
/// As [`envelope::unwrap`]; [`GateError::Compact`] for a compact form that
/// isn't one. Nothing was changed.
pub fn unpack(
    bytes: &[u8],
    mesh: &MeshId,
    member: impl Fn(&Short) -> Option<GossipId>,
) -> Result<Unpacked, GateError> {
    let Some((&COMPACT, body)) = bytes.split_first() else {
        return envelope::unwrap(bytes).map(Unpacked::Plain);
    };
    let packed: Packed =
        codec::decode(body, GOSSIP_PACKED_BYTES).map_err(|_| GateError::Compact)?;
    let names = Names { member };
    Ok(Unpacked::Compact(match packed {
        Packed::Syn(digest) => Message::Syn {
            cluster: mesh.to_string(),
            digest: names.digest(digest),
        },
        Packed::SynAck(digest, delta) => Message::SynAck {
            digest: names.digest(digest),
            delta: names.delta(delta),
        },
        Packed::Ack(delta) => Message::Ack {
            delta: names.delta(delta),
        },
    }))
}

fn named(id: &GossipId) -> Option<Short> {
    id.node.short()
}

struct Names<F> {
    member: F,
}

impl<F: Fn(&Short) -> Option<GossipId>> Names<F> {
    fn id(&self, short: &Short, generation: u64) -> Option<GossipId> {
        let id = (self.member)(short)?;
        Some(GossipId { generation, ..id })
    }

    fn digest(&self, entries: Vec<Entry>) -> Vec<Known> {
        entries
            .into_iter()
            .filter_map(|(short, generation, version)| {
                Some(Known {
                    id: self.id(&short, generation)?,
                    heartbeat: version,
                    version,
                })
            })
            .collect()
    }

    fn delta(&self, heads: Vec<Head>) -> Vec<Offer> {
        heads
            .into_iter()
            .filter_map(|(short, generation, from, head)| {
                Some(Offer {
                    id: self.id(&short, generation)?,
                    from,
                    head: head.map(|(version, bytes)| Value {
                        version,
                        text: BASE64URL_NOPAD.encode(&bytes),
                    }),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::gossip_id, *};
    use crate::id::NodeId;

    const MESH: MeshId = MeshId([4; 32]);

    fn node(n: u8) -> NodeId {
        NodeId([n; 16])
    }

    fn id(n: u8) -> GossipId {
        gossip_id(&node(n), 3)
    }

    fn members(short: &Short) -> Option<GossipId> {
        (short[0] < 100).then(|| gossip_id(&node(short[0]), 0))
    }

    /// What is held of every node.
    fn held(id: &GossipId) -> Option<(u64, Vec<u8>)> {
        let [n, ..] = id.node.short()?;
        Some((700, vec![n; 200]))
    }

    fn known(n: u8) -> Known {
        Known {
            id: id(n),
            heartbeat: 700,
            version: 700,
        }
    }

    fn offer(n: u8) -> Offer {
        Offer {
            id: id(n),
            from: 5,
            head: Some(Value {
                version: 700,
                text: BASE64URL_NOPAD.encode(&[n; 200]),
            }),
        }
    }

    #[test]
    fn a_message_survives_and_a_node_of_a_digest_takes_13_bytes() {
        let digest: Vec<Known> = (1..=50).map(known).collect();
        for message in [
            Message::Syn {
                cluster: MESH.to_string(),
                digest: digest.clone(),
            },
            Message::SynAck {
                digest: digest.clone(),
                delta: vec![offer(1), offer(2)],
            },
            Message::Ack {
                delta: vec![offer(7)],
            },
        ] {
            let plain = message.encode();
            let packed = Packer::default().pack(&plain, held).unwrap();
            let unpacked = unpack(&packed, &MESH, members).unwrap();
            assert_eq!(unpacked, Unpacked::Compact(message));
        }
        let syn = Message::Syn {
            cluster: MESH.to_string(),
            digest,
        };
        let bytes = Packer::default().pack(&syn.encode(), held).unwrap().len();
        assert!(bytes < 50 * 13 + 10, "{bytes}");
    }

    #[test]
    fn the_head_that_goes_out_is_the_one_that_is_held() {
        let pack = |held: Option<(u64, Vec<u8>)>| {
            let delta = vec![Offer {
                head: Some(Value {
                    version: 600,
                    text: String::new(),
                }),
                ..offer(1)
            }];
            let message = Message::Ack { delta }.encode();
            let packed = Packer::default().pack(&message, |_| held.clone()).unwrap();
            match unpack(&packed, &MESH, members).unwrap() {
                Unpacked::Compact(Message::Ack { delta }) => delta,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(pack(Some((700, vec![1; 200]))), [offer(1)]);
        // Nothing is said of what isn't held, or isn't news.
        assert_eq!(pack(None), []);
        assert_eq!(pack(Some((5, vec![1; 200]))), []);
    }

    #[test]
    fn earlier_generations_of_a_node_stay_here() {
        let earlier = |n, generation| GossipId {
            generation,
            ..id(n)
        };
        let mut packer = Packer::default();
        let digest = |ids: &[GossipId]| {
            let known = |id: &GossipId| Known {
                id: *id,
                ..known(1)
            };
            Message::Syn {
                cluster: MESH.to_string(),
                digest: ids.iter().map(known).collect(),
            }
        };
        let all = digest(&[earlier(1, 1), earlier(1, 2), id(1), id(2)]);
        let packed = packer.pack(&all.encode(), held).unwrap();
        let unpacked = unpack(&packed, &MESH, members).unwrap();
        assert_eq!(unpacked, Unpacked::Compact(digest(&[id(1), id(2)])));
        // A message without a digest is judged by what was said before.
        let old = Offer {
            id: earlier(1, 2),
            ..offer(1)
        };
        let delta = |delta: &[Offer]| Message::Ack {
            delta: delta.to_vec(),
        };
        let packed = packer.pack(&delta(&[old, offer(2)]).encode(), held);
        let packed = packed.unwrap();
        let unpacked = unpack(&packed, &MESH, members).unwrap();
        assert_eq!(unpacked, Unpacked::Compact(delta(&[offer(2)])));
    }

    #[test]
    fn a_node_that_no_digest_names_any_more_is_forgotten() {
        let mut packer = Packer::default();
        for n in 1..50 {
            let digest = vec![known(n), known(n + 1)];
            let cluster = MESH.to_string();
            let syn = Message::Syn { cluster, digest };
            packer.pack(&syn.encode(), held).expect("an agent says it");
            assert_eq!(packer.newest.len(), 2);
        }
    }

    #[test]
    fn a_node_that_is_no_member_here_is_left_out_alone() {
        let syn = Message::Syn {
            cluster: MESH.to_string(),
            digest: vec![known(1), known(150)],
        };
        let packed = Packer::default().pack(&syn.encode(), held).unwrap();
        let unpacked = unpack(&packed, &MESH, members).unwrap();
        let expected = Message::Syn {
            cluster: MESH.to_string(),
            digest: vec![known(1)],
        };
        assert_eq!(unpacked, Unpacked::Compact(expected));
    }

    #[test]
    fn what_no_honest_agent_says_is_refused_in_the_compact_form_too() {
        use super::super::read_compact;

        let refusal = |message: Message| {
            read_compact(message, &MESH.to_string(), &id(99)).expect_err("it is refused")
        };
        let syn = |digest| Message::Syn {
            cluster: MESH.to_string(),
            digest,
        };
        let stale = Offer {
            from: 700,
            ..offer(1)
        };
        let headless = Offer {
            head: None,
            ..offer(1)
        };
        let ack = |delta| Message::Ack { delta };
        for (message, error) in [
            (syn(vec![known(2), known(1)]), GateError::DigestOrder),
            (syn(vec![known(1), known(1)]), GateError::DigestOrder),
            (syn(vec![known(1); 1200]), GateError::LongDigest),
            (ack(vec![offer(1), offer(1)]), GateError::Repeated),
            (ack(vec![stale]), GateError::StaleOffer),
            (ack(vec![headless, offer(2)]), GateError::NodeWithoutHead),
            (
                ack(vec![offer(1); crate::limits::GOSSIP_DELTA_NODES + 1]),
                GateError::ManyNodes,
            ),
        ] {
            assert_eq!(refusal(message), error);
        }
    }

    #[test]
    fn what_is_no_compact_form_is_refused() {
        assert_eq!(
            unpack(&[COMPACT, 9, 9], &MESH, members),
            Err(GateError::Compact)
        );
        assert_eq!(unpack(&[], &MESH, members), Err(GateError::Short));
    }
}
