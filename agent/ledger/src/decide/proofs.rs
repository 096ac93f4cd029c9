//! What a CA node applied, signed by it and by the others: a batch that a
//! majority signed is proved, and only then written to the ledger's file.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use innermesh_proto::{
    crypto::{Hash, Sign, Signature, Verify},
    id::NodeId,
    ledger::{Batch, Position, Quorums, State},
    limits,
    message::Endorse,
};

use super::outbox::Transmit;

/// Ticks after which signatures that are still missing are asked for.
const ASK: u64 = 10;

/// A batch that was applied and isn't proved yet.
pub struct Unproved {
    pub position: Position,
    pub batch: Batch,
    pub before: Arc<State>,
    pub after: Arc<State>,
    /// Whose signatures it needs; those in its proof are right.
    pub needed: Quorums,
}

/// A batch that enough have signed, and the state after it.
#[derive(Clone)]
pub struct Proved {
    pub batch: Batch,
    pub after: Arc<State>,
}

/// Batches that the voters' log holds and that too few have signed yet.
#[derive(Default)]
pub struct Proofs {
    /// In order, without a gap.
    unproved: VecDeque<Unproved>,
    /// Signatures for batches that aren't applied here yet, by index and node.
    early: BTreeMap<u64, BTreeMap<NodeId, Signature>>,
}

impl Proofs {
    pub fn is_empty(&self) -> bool {
        self.unproved.is_empty()
    }

    /// The state after all of them, if there are any.
    pub fn newest(&self) -> Option<&Arc<State>> {
        self.unproved.back().map(|unproved| &unproved.after)
    }

    pub fn hash_at(&self, index: u64) -> Option<Hash> {
        let mut all = self.unproved.iter();
        let found = all.find(|unproved| unproved.position.index == index);
        found.map(|unproved| unproved.position.hash)
    }

    /// The one at `position`, if it was applied to the state at `before`.
    pub fn applied(&self, position: Position, before: Position) -> Option<&Unproved> {
        self.unproved
            .iter()
            .find(|unproved| unproved.position == position)
            .filter(|unproved| unproved.before.position == before)
    }

    /// Adds the next one and signs it, once; takes in what others said of it
    /// before.
    pub fn push(
        &mut self,
        mut unproved: Unproved,
        key: &dyn Sign,
        verify: &dyn Verify,
    ) -> Vec<Transmit> {
        let me = key.public().node_id();
        let index = unproved.position.index;
        if unproved.signs(&me) {
            let (node, signature) = unproved.batch.endorse(&unproved.before.mesh, key);
            unproved.batch.proof.insert(node, signature);
        }
        for (node, signature) in self.early.remove(&index).unwrap_or_default() {
            unproved.add(node, signature, verify);
        }
        self.early = self.early.split_off(&index);
        let told = unproved.tell(me, None, false);
        self.unproved.push_back(unproved);
        told
    }

    /// Takes a CA node's signature over a batch in that isn't proved here.
    pub fn hear(
        &mut self,
        from: NodeId,
        endorse: &Endorse,
        me: NodeId,
        verify: &dyn Verify,
    ) -> Vec<Transmit> {
        let mut all = self.unproved.iter_mut();
        let Some(unproved) = all.find(|unproved| unproved.position.index == endorse.index) else {
            return Vec::new();
        };
        if unproved.position.hash == endorse.header {
            unproved.add(from, endorse.signature, verify);
        }
        if endorse.wanting {
            unproved.tell(me, Some(from), false)
        } else {
            Vec::new()
        }
    }

    /// Whether the batch at `index` is one of them.
    pub fn has(&self, index: u64) -> bool {
        self.hash_at(index).is_some()
    }

    /// Keeps a signature over a batch that isn't applied here yet, of those up
    /// to so far behind `tip`.
    pub fn keep_early(&mut self, from: NodeId, endorse: &Endorse, tip: u64) {
        if endorse.index <= tip + limits::ENDORSEMENTS_AHEAD {
            let early = self.early.entry(endorse.index).or_default();
            early.insert(from, endorse.signature);
        }
    }

    /// Asks for signatures that are missing for long: what carried them, or
    /// this node's own, was lost.
    pub fn ask_again(&self, ticks: u64, me: NodeId) -> Vec<Transmit> {
        match self.unproved.front() {
            Some(first) if ticks.is_multiple_of(ASK) => first.tell(me, None, true),
            _ => Vec::new(),
        }
    }

    /// Takes those out, in order, that are proved.
    pub fn take_proved(&mut self) -> Vec<Proved> {
        let mut proved = Vec::new();
        while let Some(unproved) = self.unproved.pop_front_if(|unproved| unproved.is_proved()) {
            proved.push(Proved {
                batch: unproved.batch,
                after: unproved.after,
            });
        }
        proved
    }

    /// The ledger has come to `position`, perhaps by a batch of a peer.
    pub fn overtaken(&mut self, position: Position) {
        self.unproved
            .retain(|unproved| unproved.position.index > position.index);
        let follows = |unproved: &Unproved| unproved.before.position == position;
        if !self.unproved.front().is_none_or(follows) {
            self.unproved.clear();
        }
    }
}

impl Unproved {
    /// Whether the node's signature counts for it.
    fn signs(&self, node: &NodeId) -> bool {
        self.needed.signers().contains_key(node)
    }

    fn is_proved(&self) -> bool {
        let proof = &self.batch.proof;
        self.needed.are_met_by(|node| proof.contains_key(node))
    }

    /// Takes a signature in, if it counts and is right.
    fn add(&mut self, node: NodeId, signature: Signature, verify: &dyn Verify) {
        let mesh = &self.before.mesh;
        let batch = &mut self.batch;
        if let Some(key) = self.needed.signers().get(&node)
            && !batch.proof.contains_key(&node)
            && batch.is_endorsed_by(mesh, key, &signature, verify)
        {
            batch.proof.insert(node, signature);
        }
    }

    /// Tells the other CA nodes, or one of them, of this node's signature.
    fn tell(&self, me: NodeId, to: Option<NodeId>, wanting: bool) -> Vec<Transmit> {
        let Some(signature) = self.batch.proof.get(&me) else {
            return Vec::new();
        };
        let endorse = Endorse {
            index: self.position.index,
            header: self.position.hash,
            signature: *signature,
            wanting,
        };
        let signers = self.needed.signers();
        let others = signers.keys().filter(|node| **node != me);
        others
            .filter(|node| to.is_none_or(|to| to == **node))
            .map(|node| Transmit::endorsement(*node, &endorse))
            .collect()
    }
}
