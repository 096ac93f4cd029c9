//! What gossip on this node holds, and its lock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use innermesh_proto::{
    crypto::{Sealed, Sign},
    head::{Body, Head, HeadTable, Known},
    id::NodeId,
    ledger::Position,
    limits,
    message::PushedHead,
};
use tokio::sync::{Notify, Semaphore, watch};

use super::{
    Ledger, budget, known, links::Neighbours, member_index::MemberIndex, passing::Passing,
    version_exchange::VersionExchange,
};
use crate::{host::Host, quic::Transport};

/// A tick that comes this late says that this node stood still, not that the
/// others fell silent (S6).
pub(super) const STANDSTILL: Duration = Duration::from_millis(750);
/// How often liveness and renewal are looked at.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// One node's gossip.
pub(crate) struct Inner {
    pub(super) host: Host,
    pub(super) me: NodeId,
    pub(super) key: Arc<dyn Sign>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) transport: Transport,
    pub(super) exchange: VersionExchange,
    pub(super) generation: AtomicU64,
    /// A peer knows a newer head of this node than its own.
    pub(super) overtaken: Notify,
    /// It did, and this node went on above that.
    pub(super) rolled_back: AtomicBool,
    /// When liveness was last looked at, in nanoseconds of the host's clock.
    pub(super) beat: AtomicU64,
    pub(super) shared: Mutex<Shared>,
    pub(super) links: Neighbours,
    /// With whom links need a connection.
    pub(super) dials: Mutex<BTreeSet<NodeId>>,
    pub(super) dial_wanted: Notify,
    /// Peers that are asked for all their heads.
    pub(super) greetings: Semaphore,
    /// Peers with which tables are compared.
    pub(super) repairs: Semaphore,
    /// With whom that is under way, or waits.
    pub(super) repairing: Mutex<BTreeSet<NodeId>>,
    /// Counts changes that views are made from.
    pub(super) changes: watch::Sender<u64>,
    pub(super) announced: Notify,
    /// Other heads wait to go on.
    pub(super) passing: Notify,
    pub(super) unsaved: Notify,
    pub(super) keeper: tokio::sync::Mutex<known::Keeper>,
    pub(super) counters: Mutex<Counters>,
}

pub(super) struct Shared {
    pub(super) table: HeadTable,
    pub(super) own: Own,
    /// Whose bodies are being fetched, one at a time each.
    pub(super) fetching: BTreeSet<NodeId>,
    /// What may be fetched of each author that has spent some of it.
    pub(super) budgets: BTreeMap<NodeId, budget::Budget>,
    /// How many runs each author may begin that has begun some.
    pub(super) runs: BTreeMap<NodeId, budget::Budget>,
    /// Nodes whose key was seen in use twice.
    pub(super) conflicts: BTreeSet<NodeId>,
    /// When each last said that another machine runs with its key: the two
    /// announce in turn, and one of them may not know.
    pub(super) say_cloned: BTreeMap<NodeId, Duration>,
    pub(super) passing: Passing,
    /// Whether this node has named a link: it and a peer compared their ledgers.
    pub(super) has_compared: bool,
    pub(super) index: Arc<MemberIndex>,
    /// Until when no peer is asked for its heads: the last one knew no more.
    pub(super) ask_heads_after: Option<Duration>,
}

impl Shared {
    /// Puts a node's body in force, where it is the one that its head names.
    pub(super) fn put_body(&mut self, node: NodeId, bytes: Vec<u8>, now: Duration) -> bool {
        let put = self.table.put_body(&node, bytes, now);
        let body = self.table.get(&node).and_then(|known| known.body.as_ref());
        if put && body.is_some_and(|body| body.announcement.cloned) {
            self.say_cloned.insert(node, now);
        }
        put
    }

    /// Whether a head is of the run that is known, or its author may begin
    /// another: whoever begins one after the other would fill what gossip keeps
    /// of all. Its newest one counts as soon as it may.
    pub(super) fn may_begin(&mut self, head: &Head, now: Duration) -> bool {
        let known = self.table.get(&head.node);
        if known.is_none_or(|known| head.generation <= known.head.generation) {
            return true;
        }
        self.runs
            .retain(|node, runs| *node == head.node || !runs.is_full(now));
        let runs = self.runs.entry(head.node);
        runs.or_insert_with(|| budget::Budget::of_runs(now))
            .begin_run(now)
    }
}

pub(super) struct Own {
    pub(super) body: Arc<Body>,
    pub(super) head: Option<(Head, Sealed)>,
    pub(super) renewed: Duration,
    /// The highest generation in which a peer knows this node.
    pub(super) seen_generation: u64,
    /// The furthest position of the ledger that an earlier run of this node
    /// announced, where that is beyond what this run began with.
    pub(super) position_before_rollback: Option<Position>,
}

impl Own {
    /// The newest head as it is pushed.
    pub(super) fn pushed(&self) -> Option<PushedHead> {
        let (head, sealed) = self.head.as_ref()?;
        let body = Some(&self.body).filter(|body| body.hash == head.body);
        Some(pushed(sealed, body))
    }

    /// When the head is to be renewed in a mesh where that is done each
    /// `renewal`: the lease that was stated counts, as in a mesh that has grown
    /// since it is shorter than what others get now.
    pub(super) fn due(&self, renewal: Duration) -> Duration {
        let stated = self.head.as_ref().map(|(head, _)| head.lease_ms);
        let stated = stated.map(|lease_ms| Duration::from_millis(lease_ms.into()) / 3);
        self.renewed + stated.map_or(renewal, |stated| renewal.min(stated))
    }
}

/// What was dropped, and why: for status and bug reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Heads and bodies that were not their nodes'.
    pub refused: u64,
    /// Gossip messages that the gate refused whole.
    pub gated: u64,
    /// Parts of gossip messages that the gate left out.
    pub dropped: u64,
    /// Packets of links that weren't read: malformed, or too many.
    pub packets: u64,
}

impl Inner {
    pub(super) fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn now(&self) -> Duration {
        let beat = Duration::from_nanos(self.beat.load(Ordering::Relaxed));
        self.host.clock.now().min(beat + TICK + STANDSTILL)
    }

    /// Whether a node is live of whom this is known.
    pub(super) fn is_live(&self, node: &NodeId, known: &Known) -> bool {
        let now = (self.host.clock.now(), self.now());
        self.links.judge(node, known, now).live
    }

    /// Tells the links what is held of a node now.
    pub(super) fn note_known(&self, table: &HeadTable, node: &NodeId) {
        if let Some(known) = table.get(node) {
            self.links.note(*node, known, self.host.clock.now());
        }
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    pub(super) fn count(&self, f: impl FnOnce(&mut Counters)) {
        f(&mut self.counters.lock().unwrap_or_else(|e| e.into_inner()));
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A head with its body, where that is small.
pub(super) fn pushed(sealed: &Sealed, body: Option<&Arc<Body>>) -> PushedHead {
    let small = |body: &&Arc<Body>| body.bytes.len() <= limits::INLINE_BODY_BYTES;
    PushedHead {
        head: sealed.clone(),
        body: body.filter(small).map(|body| body.bytes.clone()),
    }
}

/// The body that a head names, when it is held.
pub(super) fn in_force(known: &Known) -> Option<&Arc<Body>> {
    known
        .body
        .as_ref()
        .filter(|body| body.hash == known.head.body)
}
