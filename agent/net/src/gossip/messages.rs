//! Gossip messages of peers: their heads go into the table, and what passes the
//! gate to chitchat.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
};

use innermesh_proto::{
    codec,
    crypto::Sealed,
    gate::{self, GateError, GossipId, HeadFilter, Incoming, Short, compact::Unpacked},
    head::{Head, Offer},
    id::NodeId,
    ledger::State,
    limits,
};

use super::{member_index::MemberIndex, state::Inner, version_exchange::HeadSource};

impl Inner {
    /// Takes one gossip message: its heads into the table, and what passes the
    /// gate to chitchat.
    pub(super) fn take_message(self: &Arc<Self>, from: NodeId, message: &[u8]) {
        let filtered = self.read_message(message).map(|incoming| {
            let offered = incoming.heads();
            let taken = offered.filter(|(id, head)| self.take_offered(from, id, head));
            let taken = taken.map(|(id, _)| *id).collect();
            incoming.filter(&TakenHeads { inner: self, taken })
        });
        match filtered {
            Ok(filtered) => {
                let drops = filtered.drops;
                let dropped = drops.unknown + drops.refused;
                self.count(|counters| counters.dropped += dropped as u64);
                self.exchange.receive(from, &filtered.bytes);
            }
            Err(error) => {
                tracing::debug!(?from, %error, "a gossip message was refused");
                self.count(|counters| counters.gated += 1);
            }
        }
    }

    pub(super) fn read_message(&self, message: &[u8]) -> Result<Incoming, GateError> {
        let state = self.ledger.state();
        let index = self.member_index(&state);
        let (me, cluster) = (self.exchange.id(), self.exchange.cluster());
        match gate::compact::unpack(message, &state.mesh, |short| index.find(short))? {
            Unpacked::Plain(message) => gate::read(&message, &cluster, &me),
            Unpacked::Compact(message) => gate::read_compact(message, &cluster, &me),
        }
    }

    /// Takes a head that a gossip message says is of `id`. Whether it is the one
    /// that is held now.
    pub(super) fn take_offered(
        self: &Arc<Self>,
        from: NodeId,
        id: &GossipId,
        head: &gate::Value,
    ) -> bool {
        let Some(sealed) = innermesh_proto::head::from_text(&head.text) else {
            return false;
        };
        let Ok(claimed) = sealed.peek::<Head>(limits::HEAD_BYTES) else {
            return false;
        };
        let stated = gate::gossip_id(&claimed.node, claimed.generation) == *id;
        if !stated || claimed.seq != head.version {
            return false;
        }
        // What is held already was verified then; most of gossip is that.
        let held = {
            let shared = self.shared();
            shared
                .table
                .get(&claimed.node)
                .is_some_and(|known| known.sealed == sealed)
        };
        if held {
            return true;
        }
        match self.take_head(sealed) {
            Some((_, Offer::Old | Offer::Conflict)) | None => false,
            Some((head, Offer::Renewed | Offer::Changed)) => {
                self.note_speaker(from, &head);
                self.settle_body(from, &head, None);
                true
            }
        }
    }

    /// The index of this state's members, made anew when they may have changed.
    pub(super) fn member_index(&self, state: &Arc<State>) -> Arc<MemberIndex> {
        let mut shared = self.shared();
        if !Arc::ptr_eq(&shared.index.of, state) {
            shared.index = Arc::new(MemberIndex::new(state));
        }
        shared.index.clone()
    }

    /// Something of the head that is held of exactly this id.
    pub(super) fn held<T>(&self, id: &GossipId, of: impl FnOnce(&Head, &Sealed) -> T) -> Option<T> {
        let shared = self.shared();
        let short = id.node.short()?;
        let (head, sealed) = if gate::short(&self.me) == short {
            shared
                .own
                .head
                .as_ref()
                .map(|(head, sealed)| (head, sealed))?
        } else {
            let known = shared.table.first_from(&first_with(&short))?;
            (&known.head, &known.sealed)
        };
        let same = gate::short(&head.node) == short
            && gate::gossip_address(&head.node) == id.address
            && head.generation == id.generation;
        same.then(|| of(head, sealed))
    }
}

/// Where the nodes with this short name begin, in the order of ids.
fn first_with(short: &Short) -> NodeId {
    let mut first = [0; 16];
    first[..short.len()].copy_from_slice(short);
    NodeId(first)
}

/// Lets the exchange have the heads.
pub(super) struct Table(pub(super) Weak<Inner>);

impl HeadSource for Table {
    fn sealed(&self, id: &GossipId) -> Option<(u64, Vec<u8>)> {
        let inner = self.0.upgrade()?;
        inner.held(id, |head, sealed| (head.seq, codec::encode(sealed)))
    }
}

/// What the gate may let through of a message: what was taken of it, and what is
/// held.
struct TakenHeads<'a> {
    inner: &'a Inner,
    taken: BTreeSet<GossipId>,
}

impl HeadFilter for TakenHeads<'_> {
    fn verified(&self, id: &GossipId) -> Option<u64> {
        self.inner.held(id, |head, _| head.seq)
    }

    fn is_genuine(&self, id: &GossipId, _: &gate::Value) -> bool {
        self.taken.contains(id)
    }
}
