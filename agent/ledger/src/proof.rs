//! What a CA node applied, signed by it and by the others: a batch that a
//! majority signed is proved, and only then written to the ledger's file.

use std::sync::Arc;

use innermesh_proto::{
    codec,
    crypto::{Signature, Verify},
    id::NodeId,
    ledger::{Batch, Position, Quorums, State},
    limits,
    message::{Batches, Endorse},
    rpc::method,
};

use super::writer::Writer;

/// Ticks after which signatures that are still missing are asked for.
const ASK: u64 = 10;

/// A batch that was applied and isn't proved yet.
pub(super) struct Unproved {
    pub position: Position,
    pub batch: Batch,
    pub before: Arc<State>,
    pub after: Arc<State>,
    /// Whose signatures it needs; those in its proof are right.
    pub needed: Quorums,
}

impl Writer {
    /// Signs the newest batch, once, and takes in what others said of it before.
    pub fn endorse_newest(&mut self) {
        let me = self.me();
        let Some(unproved) = self.unproved.back_mut() else {
            return;
        };
        let (mesh, index) = (unproved.before.mesh, unproved.position.index);
        if unproved.signs(&me) {
            let (node, signature) = unproved.batch.endorse(&mesh, &*self.key);
            unproved.batch.proof.insert(node, signature);
        }
        let early = self.early.remove(&index).unwrap_or_default();
        for (node, signature) in early {
            unproved.add(node, signature, &*self.host.keys);
        }
        self.early = self.early.split_off(&index);
        self.tell_endorsement(self.unproved.len() - 1, None, false);
    }

    /// Tells the other CA nodes, or one of them, of this node's signature.
    fn tell_endorsement(&self, at: usize, to: Option<NodeId>, wanting: bool) {
        let me = self.me();
        let Some(unproved) = self.unproved.get(at) else {
            return;
        };
        let (Some(carrier), Some(signature)) = (self.carrier.get(), unproved.batch.proof.get(&me))
        else {
            return;
        };
        let endorse = Endorse {
            index: unproved.position.index,
            header: unproved.position.hash,
            signature: *signature,
            wanting,
        };
        let bytes = codec::encode(&endorse);
        let signers = unproved.needed.signers();
        let others = signers.keys().filter(|node| **node != me);
        for node in others.filter(|node| to.is_none_or(|to| to == **node)) {
            carrier.tell(*node, method::ENDORSE, bytes.clone());
        }
    }

    /// Takes a CA node's signature in.
    pub async fn hear_endorsement(
        &mut self,
        from: NodeId,
        endorse: Endorse,
    ) -> std::io::Result<()> {
        let index = endorse.index;
        if index <= self.archive.position().index {
            if endorse.wanting && self.numbers.contains_key(&from) {
                let batches = self.archive.range(index, 1).await?;
                if let Some(carrier) = self.carrier.get() {
                    let bytes = codec::encode(&Batches { batches });
                    carrier.tell(from, method::BATCHES, bytes);
                }
            }
            return Ok(());
        }
        let mut unproved = self.unproved.iter();
        let at = unproved.position(|unproved| unproved.position.index == index);
        match at {
            Some(at) => {
                let unproved = &mut self.unproved[at];
                if unproved.position.hash == endorse.header {
                    unproved.add(from, endorse.signature, &*self.host.keys);
                }
                if endorse.wanting {
                    self.tell_endorsement(at, Some(from), false);
                }
            }
            // Not applied here yet.
            None if self.numbers.contains_key(&from)
                && index <= self.tip().position.index + limits::ENDORSEMENTS_AHEAD =>
            {
                let early = self.early.entry(index).or_default();
                early.insert(from, endorse.signature);
            }
            None => {}
        }
        Ok(())
    }

    /// Asks for signatures that are missing for long: what carried them, or
    /// this node's own, was lost.
    pub fn keep_proving(&mut self, ticks: u64) {
        if ticks.is_multiple_of(ASK) && !self.unproved.is_empty() {
            self.tell_endorsement(0, None, true);
        }
    }

    /// Writes down what is proved, and answers.
    pub async fn prove(&mut self) -> std::io::Result<()> {
        let mut proved = Vec::new();
        let mut state = None;
        while let Some(unproved) = self.unproved.pop_front_if(|unproved| unproved.is_proved()) {
            self.starts.note(&unproved.batch, &unproved.after);
            state = Some(unproved.after);
            proved.push(unproved.batch);
        }
        let Some(state) = state else { return Ok(()) };
        self.store(proved, Some(state)).await?;
        self.answer();
        self.follow_roster().await
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
    fn add(&mut self, node: NodeId, signature: Signature, keys: &dyn Verify) {
        let mesh = &self.before.mesh;
        let batch = &mut self.batch;
        if let Some(key) = self.needed.signers().get(&node)
            && !batch.proof.contains_key(&node)
            && batch.is_endorsed_by(mesh, key, &signature, keys)
        {
            batch.proof.insert(node, signature);
        }
    }
}
