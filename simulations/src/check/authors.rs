//! S24: what one author may have the others hold and write down.

use std::collections::BTreeMap;

use innermesh_proto::{
    id::NodeId,
    ledger::{Author, Batch, Content, Request, Role, State},
    limits,
};

use crate::violation::Seen;

/// What one member's requests may add to the ledger in a run, in bytes: half of
/// what there may be at once, as each new leader allows that can't know what was
/// used up before.
const PER_LEADER: u64 = limits::BUDGET.bytes / 2;
/// For the time since.
const MEANWHILE: u64 = 64 * 1024;
/// Of so many batches the state after one is encoded, to see how large it is.
const ENCODED: u64 = 64;

/// What each author has added to the ledger.
#[derive(Default)]
pub struct Authors {
    written: BTreeMap<NodeId, u64>,
    /// Up to which batch, and after which recovery by the root.
    counted: (u32, u64),
    /// Leaders so far.
    leaders: u64,
}

impl Authors {
    /// Another leader may have been elected.
    pub fn new_leader(&mut self) {
        self.leaders += 1;
    }

    /// Counts what is in a batch, once for all nodes.
    ///
    /// # Errors
    /// S24.
    pub fn take(&mut self, recovery: u32, batch: &Batch) -> Result<(), Seen> {
        let Ok(header) = batch.read_header() else {
            return Ok(());
        };
        let place = (recovery, header.index);
        if header.rules == 0 || place <= self.counted {
            return Ok(());
        }
        self.counted = place;
        for entry in &batch.entries {
            let Some(author) = payer(&entry.request.bytes) else {
                continue;
            };
            let written = self.written.entry(author).or_default();
            *written += entry.size() as u64;
            if *written > MEANWHILE + PER_LEADER * (1 + self.leaders) {
                let words = format!("{author} had {written} bytes written to the ledger");
                return Err(("S24", words));
            }
        }
        Ok(())
    }
}

/// Who asked, where that is for something to be held.
fn payer(request: &[u8]) -> Option<NodeId> {
    let request: Request =
        innermesh_proto::codec::decode(request, limits::POLICY_REQUEST_BYTES).ok()?;
    let Author::Node(node) = request.author else {
        return None;
    };
    let content = Content::decode(request.kind, &request.content)?;
    let is_held = matches!(
        content,
        Content::Claim(_) | Content::Share(_) | Content::Certify(_) | Content::AddRecord(_)
    );
    is_held.then_some(node)
}

/// No member takes up more of the state than its share, and the state is below
/// its cap.
///
/// # Errors
/// S24.
pub fn shares(state: &State) -> Result<(), Seen> {
    if state.rules == 0 {
        return Ok(());
    }
    let seen = |words: String| Err(("S24", words));
    let mut names: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (_, name) in state.names.iter() {
        *names.entry(name.owner).or_default() += 1;
    }
    let mut records: BTreeMap<NodeId, u32> = BTreeMap::new();
    for (_, all) in state.records.iter() {
        for record in all {
            *records.entry(record.owner).or_default() += 1;
        }
    }
    let mut whole: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (_, issued) in state.certificates.iter() {
        if !issued.der.is_empty() {
            *whole.entry(issued.owner).or_default() += 1;
        }
    }
    for (node, member) in state.members.iter() {
        let count = |counts: &BTreeMap<NodeId, usize>| counts.get(node).copied().unwrap_or(0);
        let (names, whole) = (count(&names), count(&whole));
        // Its membership is beside those that it asked for.
        if names > limits::NAMES_SHARE || whole > limits::CERTIFICATES_PER_NODE + 1 {
            let words = format!("{} has {names} names, {whole} certificates", member.name);
            return seen(words);
        }
        let most = if member.roles.contains(&Role::Admin) {
            limits::RECORDS_PER_ADMIN
        } else {
            limits::RECORDS_PER_NODE
        };
        let records = records.get(node).copied().unwrap_or(0);
        if records > most {
            return seen(format!("{} has {records} records", member.name));
        }
        let bytes = state.bytes_of(*node);
        if bytes > limits::NODE_BYTES {
            return seen(format!(
                "{} takes up {bytes} bytes of the state",
                member.name
            ));
        }
    }
    if state.position.index.is_multiple_of(ENCODED) {
        let bytes = state.encode().len() as u64;
        if bytes > limits::STATE_BYTES {
            return seen(format!("the state has {bytes} bytes"));
        }
    }
    Ok(())
}
