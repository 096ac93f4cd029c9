//! A message as text, in the words of chitchat's `Debug`, which is all that its
//! public interface shows of what it read.

use std::fmt::Write;

use chitchat::ChitchatMessage;
use innermesh_proto::gate::{GossipId, KEY, Known, Message, Offer};

/// What chitchat read. The length that a delta had on the wire is left out: it
/// depends on compression.
pub fn of_chitchat(message: &ChitchatMessage) -> String {
    let text = format!("{message:?}");
    match text.rsplit_once(", serialized_len: ") {
        Some((before, after)) => {
            let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}{after}")
        }
        None => text,
    }
}

/// What the gate read.
pub fn of_gate(message: &Message) -> String {
    match message {
        Message::Syn { cluster, digest } => format!(
            "Syn {{ cluster_id: {cluster:?}, digest: {} }}",
            of_digest(digest)
        ),
        Message::SynAck { digest, delta } => format!(
            "SynAck {{ digest: {}, delta: {} }}",
            of_digest(digest),
            of_delta(delta)
        ),
        Message::Ack { delta } => format!("Ack {{ delta: {} }}", of_delta(delta)),
        Message::BadCluster => "BadCluster".to_owned(),
    }
}

fn of_id(id: &GossipId) -> String {
    format!("{}:{}:{}", id.node, id.generation, id.address)
}

fn of_digest(digest: &[Known]) -> String {
    let mut out = "Digest { node_digests: {".to_owned();
    for (n, known) in digest.iter().enumerate() {
        write!(
            out,
            "{}{}: NodeDigest {{ heartbeat: Heartbeat({}), last_gc_version: 0, max_version: {} }}",
            if n == 0 { "" } else { ", " },
            of_id(&known.id),
            known.heartbeat,
            known.version
        )
        .expect("a String takes everything");
    }
    out + "} }"
}

fn of_delta(delta: &[Offer]) -> String {
    let mut out = "Delta { node_deltas: [".to_owned();
    for (n, offer) in delta.iter().enumerate() {
        let (values, version) = match &offer.head {
            Some(head) => (
                format!(
                    "KeyValueMutation {{ key: {KEY:?}, value: {:?}, version: {}, status: Set }}",
                    head.text, head.version
                ),
                head.version,
            ),
            None => (String::new(), 0),
        };
        write!(
            out,
            "{}NodeDelta {{ chitchat_id: {}, from_version_excluded: {}, last_gc_version: 0, \
             key_values: [{values}], max_version: {version} }}",
            if n == 0 { "" } else { ", " },
            of_id(&offer.id),
            offer.from,
        )
        .expect("a String takes everything");
    }
    out + "] }"
}
