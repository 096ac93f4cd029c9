//! Which way packets are lost between this node and another, as far as what both
//! have seen shows it.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use innermesh_proto::{
    codec, id::NodeId, limits, message::TunnelSeen, rpc::method, tunnel::TunnelKey,
};

use crate::quic::Transport;

/// How long the other end may take to say what it has seen.
const ASK: Duration = Duration::from_secs(2);
/// Most nodes that are asked in one look.
const ASKED: usize = 8;

/// Keepalives between two looks, in bytes (whitepaper §6.5: 32 each): they ask for no
/// answer, and not every device counts those that come in.
pub(super) const KEEPALIVES: u64 = 64;

/// Where packets are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// What this node sends doesn't arrive there.
    Outbound,
    /// What the other sends doesn't arrive here.
    Inbound,
}

/// What was sent here, and what the other end counted, at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct BothEnds {
    /// Bytes that this node has sent to it.
    pub sent: u64,
    /// What it counted for this node.
    pub far: TunnelSeen,
}

/// What two looks show, between which nothing came from there. `None` where they
/// show nothing.
fn lost(before: BothEnds, now: BothEnds) -> Option<Lost> {
    if now.sent <= before.sent.saturating_add(KEEPALIVES) {
        return None;
    }
    if now.far.rx_bytes == before.far.rx_bytes {
        return Some(Lost::Outbound);
    }
    // It heard this node, and answered.
    (now.far.tx_bytes > before.far.tx_bytes).then_some(Lost::Inbound)
}

/// The nodes that nothing comes from through the tunnel, and what they say.
#[derive(Default)]
pub(super) struct Silent {
    looks: BTreeMap<TunnelKey, BothEnds>,
    lost: BTreeMap<TunnelKey, Lost>,
}

impl Silent {
    /// Where what is sent to this peer, or comes from it, is lost.
    pub fn lost(&self, key: &TunnelKey) -> Option<Lost> {
        self.lost.get(key).copied()
    }

    /// Takes in what the other ends say; the rest isn't silent any more.
    pub fn take(&mut self, answers: &BTreeMap<TunnelKey, Option<BothEnds>>) {
        self.looks.retain(|key, _| answers.contains_key(key));
        self.lost.retain(|key, _| answers.contains_key(key));
        for (key, now) in answers {
            let Some(now) = *now else { continue };
            if let Some(before) = self.looks.insert(*key, now)
                && let Some(lost) = lost(before, now)
            {
                self.lost.insert(*key, lost);
            }
        }
    }
}

/// Asks those that are silent what they have seen of this node. Each is given with
/// what was sent to it by then.
pub(super) async fn ask(
    transport: &Transport,
    silent: Vec<(TunnelKey, NodeId, u64)>,
) -> BTreeMap<TunnelKey, Option<BothEnds>> {
    let asked = silent.into_iter().enumerate();
    let asked = asked.map(|(n, peer)| ask_one(transport, peer, n < ASKED));
    join_all(asked).await.into_iter().collect()
}

async fn ask_one(
    transport: &Transport,
    (key, node, sent): (TunnelKey, NodeId, u64),
    is_asked: bool,
) -> (TunnelKey, Option<BothEnds>) {
    if !is_asked {
        return (key, None);
    }
    let call = transport.call(node, method::TUNNEL_SEEN, Vec::new(), ASK);
    let far = call.await.ok();
    let far = far.and_then(|bytes| codec::decode(&bytes, limits::RPC_BYTES).ok());
    (key, far.map(|far| BothEnds { sent, far }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(sent: u64, rx_bytes: u64, tx_bytes: u64) -> BothEnds {
        BothEnds {
            sent,
            far: TunnelSeen { rx_bytes, tx_bytes },
        }
    }

    #[test]
    fn what_both_ends_counted_shows_which_way_is_lost() {
        let first = look(1000, 500, 300);
        for (second, expected) in [
            (look(1148, 500, 300), Some(Lost::Outbound)),
            (look(1148, 500, 448), Some(Lost::Outbound)),
            (look(1148, 648, 392), Some(Lost::Inbound)),
            // It heard this node and had nothing to say.
            (look(1148, 648, 300), None),
            // Keepalives were sent, or nothing.
            (look(1064, 500, 300), None),
            (look(1000, 500, 448), None),
        ] {
            assert_eq!(lost(first, second), expected, "{second:?}");
        }
    }

    #[test]
    fn nothing_is_said_of_who_was_asked_once_or_is_not_silent_any_more() {
        let key = TunnelKey([1; 32]);
        let mut silent = Silent::default();
        let mut take = |answer| silent.take(&BTreeMap::from([(key, answer)]));
        take(Some(look(1, 1, 1)));
        take(None);
        assert_eq!(silent.lost(&key), None);
        silent.take(&BTreeMap::from([(key, Some(look(149, 1, 1)))]));
        assert_eq!(silent.lost(&key), Some(Lost::Outbound));
        silent.take(&BTreeMap::new());
        assert_eq!(silent.lost(&key), None);
    }
}
