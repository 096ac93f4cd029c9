//! The gate's reading of gossip held against chitchat's own, on what chitchat
//! really sends and on damaged copies of it; and chitchat living behind gates.

#![allow(
    clippy::disallowed_methods,
    reason = "the clock is tokio's paused one, and the seeds of a fuzz target are written"
)]

mod behind;
mod mesh;
mod reading;

use std::{collections::BTreeMap, path::Path, time::Duration};

use chitchat::{ChitchatMessage, Deserializable, Serializable, transport::Transport};
use innermesh_proto::{
    gate::{GossipId, HeadFilter, Kind, Known, Message, Name, Value, read},
    limits::GOSSIP_IDS,
};

use crate::mesh::{CLUSTER, Mesh, id};

/// Whatever it is asked about is verified.
struct Anyone;

impl HeadFilter for Anyone {
    fn verified(&self, _: &GossipId) -> Option<u64> {
        Some(1)
    }

    fn is_genuine(&self, _: &GossipId, _: &Value) -> bool {
        true
    }
}

/// Traffic of five nodes: heads renewed, a link cut and restored, a node
/// restarted as a new generation.
async fn traffic() -> Vec<Vec<u8>> {
    let mut mesh = Mesh::recording();
    for n in 0..5 {
        mesh.start(n, 1).await;
    }
    for round in 0..12 {
        for n in 0..5 {
            mesh.renew(n, 400).await;
        }
        match round {
            3 => {
                mesh.channel
                    .remove_link(id(0, 1).address, id(1, 1).address)
                    .await
            }
            6 => {
                mesh.channel
                    .add_link(id(0, 1).address, id(1, 1).address)
                    .await
            }
            8 => {
                mesh.stop(4).await;
                mesh.start(4, 2).await;
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    mesh.recorded()
}

/// Traffic in which a newcomer lacks more than one message holds.
async fn overfull_traffic() -> Vec<Vec<u8>> {
    let mut mesh = Mesh::recording();
    for n in 0..8 {
        mesh.start(n, 1).await;
        mesh.renew(n, 12_000).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    mesh.start(8, 1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    mesh.recorded()
}

fn by_chitchat(bytes: &[u8]) -> Option<(String, usize)> {
    let mut rest = bytes;
    let message = ChitchatMessage::deserialize(&mut rest).ok()?;
    Some((reading::of_chitchat(&message), rest.len()))
}

fn by_gate(bytes: &[u8]) -> Option<String> {
    Message::parse(bytes)
        .ok()
        .map(|message| reading::of_gate(&message))
}

#[tokio::test(start_paused = true)]
async fn the_gate_reads_real_traffic_as_chitchat_does() {
    let mut kinds = BTreeMap::new();
    for bytes in traffic().await {
        let theirs = by_chitchat(&bytes).expect("chitchat reads what it wrote");
        let message = Message::parse(&bytes).expect("the gate reads what chitchat wrote");
        let ours = reading::of_gate(&message);
        assert_eq!((ours.clone(), 0), theirs);
        assert_eq!(by_chitchat(&message.encode()), Some((ours, 0)));
        *kinds.entry(bytes[3]).or_insert(0) += 1;
    }
    assert_eq!(kinds.keys().collect::<Vec<_>>(), [&0, &1, &2]);
    assert!(kinds.values().all(|&count| count > 300), "{kinds:?}");
}

#[tokio::test(start_paused = true)]
async fn chitchat_reads_what_leaves_the_gate_as_the_gate_does() {
    let mut kinds = BTreeMap::new();
    let (mut heads, mut own) = (0, 0);
    for bytes in traffic().await {
        let me = id(0, 1);
        let incoming = read(&bytes, CLUSTER, &me).expect("honest traffic");
        let others = incoming.heads().filter(|(id, _)| id.node != me.node);
        heads += others.count();
        let filtered = incoming.filter(&Anyone);
        let ours = by_gate(&filtered.bytes).expect("what leaves the gate may enter it");
        assert_eq!(by_chitchat(&filtered.bytes), Some((ours, 0)));
        *kinds.entry(filtered.kind).or_insert(0) += 1;
        own += filtered.drops.own;
        assert_eq!((filtered.drops.refused, filtered.drops.deferred), (0, 0));
    }
    let all = [Kind::Syn, Kind::SynAck, Kind::Ack];
    assert!(all.iter().all(|kind| kinds[kind] > 300), "{kinds:?}");
    assert!(heads > 300 && own > 30, "{heads} heads, {own} of our own");
}

#[tokio::test(start_paused = true)]
async fn a_delta_that_the_size_limit_cut_off_is_read_as_chitchat_does() {
    let mut cut_off = 0;
    for bytes in overfull_traffic().await {
        let message = Message::parse(&bytes).expect("the gate reads what chitchat wrote");
        assert_eq!(by_chitchat(&bytes), Some((reading::of_gate(&message), 0)));
        if let Message::SynAck { delta, .. } | Message::Ack { delta } = message
            && delta.last().is_some_and(|offer| offer.head.is_none())
        {
            assert!(bytes.len() > 32 * 1024);
            cut_off += 1;
        }
    }
    assert!(cut_off > 0, "the size limit was never met");
}

/// Numbers that look random and are the same in each run (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(8) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes.insert(at, self.below(256) as u8),
                2 => {
                    bytes.remove(at);
                    bytes.push(0);
                }
                3 => {
                    let len = (bytes.len() - at).min(1 + self.below(100));
                    let piece = bytes[at..at + len].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
                4 => bytes[at] ^= 1 << self.below(8),
                _ => bytes[at] = [0, 1, 2, 4, 6, 255][self.below(6)],
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_damaged_message_gets_past_the_gate_that_chitchat_refuses_or_reads_otherwise() {
    let mut numbers = Numbers(0x5eed);
    let (mut both, mut only_chitchat, mut neither) = (0, 0, 0);
    for original in traffic().await.iter().step_by(7) {
        // As sent, and with its deltas laid open to the damage.
        let raw = Message::parse(original).expect("honest traffic").encode();
        for bytes in [original, &raw] {
            for _ in 0..20 {
                let mut damaged = bytes.clone();
                numbers.damage(&mut damaged);
                match (by_gate(&damaged), by_chitchat(&damaged)) {
                    (Some(ours), theirs) => {
                        assert_eq!(Some((ours, 0)), theirs, "{damaged:?}");
                        both += 1;
                    }
                    (None, Some(_)) => only_chitchat += 1,
                    (None, None) => neither += 1,
                }
                // What the gate makes of it has to be readable as well.
                if let Ok(incoming) = read(&damaged, CLUSTER, &id(0, 1)) {
                    let filtered = incoming.filter(&Anyone);
                    let ours = by_gate(&filtered.bytes).expect("its own writing");
                    assert_eq!(by_chitchat(&filtered.bytes), Some((ours, 0)));
                }
            }
        }
    }
    assert!(both > 1000, "{both} passed both");
    assert!(only_chitchat > 100, "{only_chitchat} passed chitchat only");
    assert!(neither > 1000, "{neither} passed neither");
}

/// Whether chitchat answers a digest of so many ids, each as long as ids are.
async fn answers_a_digest_of(ids: usize) -> bool {
    let mut mesh = Mesh::recording();
    mesh.start(0, 1).await;
    let known = (0..ids).map(|n| {
        let mut id = id(1, n as u64);
        let text = format!("{n:04}{}", &id.node[4..]);
        id.node = Name::new(&text).unwrap();
        Known {
            id,
            heartbeat: 1,
            version: 0,
        }
    });
    let message = Message::Syn {
        cluster: CLUSTER.to_owned(),
        digest: known.collect(),
    };
    let message = ChitchatMessage::deserialize(&mut &message.encode()[..]).expect("readable");
    let mut peer = mesh
        .channel
        .open(id(1, 1).address)
        .await
        .expect("a free address");
    peer.send(id(0, 1).address, message).await.expect("sent");
    tokio::select! {
        answer = peer.recv() => {
            let (_, answer) = answer.expect("an open channel");
            assert!(answer.serialized_len() > ids * 54);
            true
        }
        end = mesh.nodes[&0].termination_watcher() => {
            assert!(end.expect_err("a panic").to_string().contains("panicked"));
            false
        }
    }
}

#[tokio::test(start_paused = true)]
async fn chitchat_bears_as_many_ids_as_may_be_admitted_and_dies_of_a_few_more() {
    assert!(answers_a_digest_of(GOSSIP_IDS).await);
    assert!(!answers_a_digest_of(GOSSIP_IDS * 6 / 5).await);
}

#[tokio::test(start_paused = true)]
#[ignore = "writes the seeds of the fuzz target anew"]
async fn the_fuzz_corpus_is_written_from_real_traffic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/fuzz/corpus/gate");
    std::fs::create_dir_all(&folder).unwrap();
    let traffic = traffic().await;
    for (kind, name) in [(0, "syn"), (1, "synack"), (2, "ack")] {
        let mut messages: Vec<_> = traffic.iter().filter(|m| m[3] == kind).collect();
        messages.sort_by_key(|m| m.len());
        messages.dedup_by_key(|m| m.len());
        assert!(messages.len() >= 4);
        let write = |name: String, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
        for n in 0..4 {
            let message = messages[n * (messages.len() - 1) / 3];
            write(format!("honest-{name}-{n}"), message);
        }
        // What is compressed hides its inside from a mutator.
        let raw = Message::parse(messages[messages.len() / 2])
            .unwrap()
            .encode();
        write(format!("honest-{name}-raw"), &raw);
    }
}
