//! This node's links with its neighbours, as gossip uses them: members, heads and packets
//! go in, and what [`Links`] makes of them comes out.
//!
//! A node is judged by its links from the moment on at which they first have it live in
//! its present run. Before that, and where it or this node has no links, it is judged by
//! the lease of its head: nodes of an older build, and who has just begun. So is one
//! whose links have failed and that speaks for itself. A link that fails again and again
//! waits for up to a minute: meanwhile its node is live while its packets come.
//!
//! Must not know how packets and heads travel; that is [`super::neighbours`]. Whoever
//! holds the lock of the table may take the one of this, never the other way round.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use innermesh_proto::{
    crypto::Hash,
    head::{HeadTable, Known},
    id::NodeId,
    ledger::{Role, State},
    limits,
    links::{
        Beat, DOWN, Effect, Flags, Links, NamedLinks, Order, Place, Settings,
        digest::BUCKETS,
        packet::{PacketReader, PacketWriter},
    },
    view::Standing,
};
use tokio::sync::Notify;

use super::{budget::Budget, state::in_force};
use crate::host::Mono;

/// Leases go on for so long after the newest head without a word of links.
const MIXED: Duration = Duration::from_secs(600);
/// A link ends for silence after [`DOWN`]; this is less.
const HEARD: Duration = DOWN.saturating_sub(Duration::from_millis(500));

/// See the module.
pub(super) struct Neighbours {
    inner: Mutex<Inner>,
    /// There is something to carry out, or it is due earlier.
    pub(super) wake: Notify,
    /// The next head is to name other links.
    pub(super) publish: Notify,
}

struct Inner {
    me: NodeId,
    links: Links,
    /// Members as the links know them, each with what its places follow from.
    members: BTreeMap<NodeId, Option<Hash>>,
    gateways: BTreeSet<NodeId>,
    /// Whether this node has neighbours by the ledger.
    is_in_use: bool,
    /// The run in which links had each live.
    linked: BTreeMap<NodeId, u64>,
    /// Those that are judged by their leases.
    by_lease: BTreeSet<NodeId>,
    /// The last packet of each, whatever its link is.
    heard: BTreeMap<NodeId, Heard>,
    connected: BTreeSet<NodeId>,
    /// When the newest head came that has no word of links.
    without_links: Option<Mono>,
    /// Who was taken for live when it was last judged, and since when others aren't.
    seen_live: BTreeSet<NodeId>,
    gone_since: BTreeMap<NodeId, Mono>,
    /// Those whose links failed again and again, and that are heard.
    waiting: BTreeSet<NodeId>,
    /// Gateways with a link on which nothing came for a while.
    silent: BTreeSet<NodeId>,
    /// What is read of each peer that sent something.
    packets: BTreeMap<NodeId, Budget>,
    /// What was sent to each connected peer, and what came from it.
    spoken: BTreeMap<NodeId, Spoken>,
    /// When there is more to do, at the latest.
    due: Mono,
}

/// What passed between this node and a peer over one connection.
#[derive(Default)]
struct Spoken {
    writer: PacketWriter,
    reader: PacketReader,
    /// When a beat went whose acknowledgement will do, and how many had come by then.
    asked: Option<(Mono, u64)>,
}

/// What a packet said of its sender.
#[derive(Clone, Copy)]
pub(super) struct Heard {
    pub(super) at: Mono,
    /// Its clock, in milliseconds since 1970.
    pub(super) clock_ms: u64,
    /// How far it followed the ledger.
    pub(super) index: u64,
}

/// Why a node is taken for live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveBy {
    /// It answers on a link of this node's.
    Link,
    /// It is reached over live nodes by links that count.
    Neighbours,
    /// The lease of its newest head isn't over.
    Lease,
}

/// What came of [`Neighbours::turn`].
pub(super) struct Turn {
    pub(super) effects: Vec<Effect>,
    /// Whether somebody stands otherwise than before.
    pub(super) is_news: bool,
    /// When there is more to do, at the latest.
    pub(super) due: Mono,
}

impl Neighbours {
    pub(super) fn new(settings: Settings, now: Mono) -> Self {
        Self {
            inner: Mutex::new(Inner {
                me: settings.me,
                links: Links::new(settings, now),
                members: BTreeMap::new(),
                gateways: BTreeSet::new(),
                is_in_use: false,
                linked: BTreeMap::new(),
                by_lease: BTreeSet::new(),
                heard: BTreeMap::new(),
                connected: BTreeSet::new(),
                without_links: None,
                seen_live: BTreeSet::new(),
                gone_since: BTreeMap::new(),
                waiting: BTreeSet::new(),
                silent: BTreeSet::new(),
                packets: BTreeMap::new(),
                spoken: BTreeMap::new(),
                due: now,
            }),
            wake: Notify::new(),
            publish: Notify::new(),
        }
    }

    /// Who is a member by the ledger held here, and who isn't any more. Gives those that
    /// are new.
    pub(super) fn set_members(&self, state: &State, table: &HeadTable, now: Mono) -> Vec<NodeId> {
        let mut inner = self.lock();
        let known = inner.members.keys();
        let gone = known.filter(|node| !state.members.contains_key(*node));
        for node in gone.copied().collect::<Vec<NodeId>>() {
            inner.forget(&node, now);
        }
        let mut new = Vec::new();
        for node in state.members.keys() {
            let salt = state.batch_after(node);
            if inner.members.get(node) == Some(&salt) {
                continue;
            }
            inner.links.handle_member(now, *node, salt.as_ref());
            if inner.members.insert(*node, salt).is_none() {
                new.push(*node);
            }
        }
        let members = state.members.iter();
        let gateways = members.filter(|(_, member)| member.roles.contains(&Role::Gateway));
        inner.gateways = gateways.map(|(node, _)| *node).collect();
        let has_place = inner.members.get(&inner.me).is_some_and(Option::is_some);
        inner.is_in_use = has_place || inner.members.len() <= limits::LINKS_ALL;
        for (node, known) in table.iter() {
            inner.sort(*node, known);
        }
        // What came while the ledger held here didn't have them.
        for node in &new {
            if let Some(known) = table.get(node) {
                inner.note(*node, known, now);
            }
        }
        drop(inner);
        self.wake.notify_one();
        new
    }

    /// Tells the links what is held of a node now. What a stopped node said last makes
    /// nobody live: whoever it named doesn't name it any more.
    pub(super) fn note(&self, node: NodeId, known: &Known, now: Mono) {
        self.lock().note(node, known, now);
        self.wake.notify_one();
    }

    /// The links that the next head names: none while this node has no place by the
    /// ledger.
    pub(super) fn named(&self) -> NamedLinks {
        NamedLinks {
            behind_nat: false,
            links: self.lock().links.named(),
        }
    }

    /// This node's own head was signed.
    pub(super) fn signed(&self, order: Order, named: &NamedLinks, now: Mono) {
        self.lock().links.handle_own_head(now, order, named);
        self.wake.notify_one();
    }

    /// Takes a packet of a member's. `is_reached` says whether the ledger held here has
    /// the batch that it names. Gives whether its sender stands otherwise since; `None`
    /// where it isn't read: it is malformed, or one of too many.
    pub(super) fn take_packet(
        &self,
        from: NodeId,
        packet: &[u8],
        is_reached: impl FnOnce(&Place) -> bool,
        now: Mono,
    ) -> Option<bool> {
        let mut inner = self.lock();
        if !inner.members.contains_key(&from) {
            return None;
        }
        let budget = inner.packets.entry(from);
        let budget = budget.or_insert_with(|| Budget::of_link_packets(now));
        if !budget.take_packet(now) {
            return None;
        }
        let spoken = inner.spoken.entry(from).or_default();
        let beat = spoken.reader.read(packet, now).ok()?;
        spoken.writer.note_heard(&beat);
        let is_reached = is_reached(&beat.position);
        inner.links.handle_packet(now, from, &beat, is_reached);
        let heard = Heard {
            at: now,
            clock_ms: beat.clock_ms,
            index: beat.position.index,
        };
        inner.heard.insert(from, heard);
        let is_news = inner.hear(from);
        drop(inner);
        self.wake.notify_one();
        Some(is_news)
    }

    /// The packet that tells `peer` this, if it needs one; the peer has acknowledged
    /// `acks` times so far.
    pub(super) fn packet(
        &self,
        peer: NodeId,
        beat: &Beat,
        acks: u64,
        now: Mono,
    ) -> Option<Vec<u8>> {
        let mut inner = self.lock();
        let spoken = inner.spoken.entry(peer).or_default();
        let packet = spoken.writer.write(beat, now)?;
        if beat.flags.has(Flags::ACKS) {
            spoken.asked = Some((now, acks));
        }
        Some(packet)
    }

    /// Those whose acknowledgement is waited for, and how many had come before.
    pub(super) fn asked(&self) -> Vec<(NodeId, u64)> {
        let inner = self.lock();
        let asked = inner.spoken.iter();
        let asked = asked.filter_map(|(peer, spoken)| Some((*peer, spoken.asked?.1)));
        asked.collect()
    }

    /// A peer has acknowledged what it was asked.
    pub(super) fn acknowledged(&self, peer: &NodeId, now: Mono) {
        let mut inner = self.lock();
        let spoken = inner.spoken.get_mut(peer);
        if let Some((sent, _)) = spoken.and_then(|spoken| spoken.asked.take()) {
            inner.links.handle_acknowledged(now, peer, sent);
        }
    }

    pub(super) fn connected(&self, peer: NodeId, now: Mono) {
        let mut inner = self.lock();
        if inner.members.contains_key(&peer) && inner.connected.insert(peer) {
            // Over another connection nothing was said yet.
            inner.spoken.remove(&peer);
        }
        inner.links.handle_connected(now, peer);
    }

    pub(super) fn disconnected(&self, peer: &NodeId, now: Mono) {
        let mut inner = self.lock();
        inner.connected.remove(peer);
        inner.spoken.remove(peer);
        inner.links.handle_disconnected(now, peer);
    }

    /// Whether leases go on beside links: for nodes of an older build, or where this node
    /// has no links by the ledger.
    pub(super) fn keeps_leases(&self, now: Mono) -> bool {
        let inner = self.lock();
        let is_mixed = inner.without_links.is_some_and(|at| now < at + MIXED);
        !inner.is_in_use || is_mixed
    }

    /// Whether others don't take this node for live by its links, although it is
    /// connected: they begin, or have failed.
    pub(super) fn is_unlinked(&self) -> bool {
        let inner = self.lock();
        !inner.connected.is_empty() && !inner.links.is_linked()
    }

    /// What the newest packet of a node said.
    pub(super) fn heard(&self, node: &NodeId) -> Option<Heard> {
        self.lock().heard.get(node).copied()
    }

    /// Since when a node isn't live that was.
    pub(super) fn gone_since(&self, node: &NodeId) -> Option<Mono> {
        self.lock().gone_since.get(node).copied()
    }

    /// Whether a connection with the node serves a link.
    pub(super) fn keeps(&self, node: &NodeId) -> bool {
        self.lock().links.keeps(node)
    }

    /// Whether a link with the node is up.
    pub(super) fn is_up(&self, node: &NodeId) -> bool {
        self.lock().links.up().any(|peer| peer == node)
    }

    /// By whom a node says that it is reached.
    pub(super) fn neighbours_of(&self, node: &NodeId) -> Vec<NodeId> {
        self.lock().links.counted(node)
    }

    /// With whom links are up, but for `from`, a head's owner, and those that its owner has
    /// links with.
    pub(super) fn beyond(&self, owner: &NodeId, from: &NodeId) -> Vec<NodeId> {
        let inner = self.lock();
        let told = inner.links.counted(owner);
        let up = inner.links.up().copied();
        up.filter(|peer| peer != owner && peer != from && !told.contains(peer))
            .collect()
    }

    pub(super) fn is_member(&self, node: &NodeId) -> bool {
        self.lock().members.contains_key(node)
    }

    /// The digests of the heads held here, by bucket.
    pub(super) fn buckets(&self) -> [[u8; 16]; BUCKETS] {
        self.lock().links.digest().buckets()
    }

    /// Which buckets differ from a peer's.
    pub(super) fn differing(&self, theirs: &[[u8; 16]; BUCKETS]) -> u64 {
        self.lock().links.digest().differing(theirs)
    }

    /// The newest heads in these buckets.
    pub(super) fn heads_in(&self, buckets: u64) -> BTreeMap<NodeId, Order> {
        self.lock().links.heads_in(buckets).collect()
    }

    /// A repair with a peer has ended. `has_news`: heads came that were new.
    pub(super) fn repaired(&self, peer: &NodeId, has_news: bool, now: Mono) {
        self.lock().links.handle_repaired(now, peer, has_news);
        self.wake.notify_one();
    }

    pub(super) fn dial_failed(&self, peer: NodeId, now: Mono) {
        self.lock().links.handle_dial_failed(now, peer);
        self.wake.notify_one();
    }

    /// Does what is due.
    pub(super) fn turn(&self, position: Place, clock_ms: u64, now: Mono) -> Turn {
        let mut inner = self.lock();
        let Inner { links, due, .. } = &mut *inner;
        links.handle_position(now, position, clock_ms);
        // What came in meanwhile may not put off what was due before.
        *due = (*due).min(links.next_due());
        if *due <= now {
            links.poll(now);
            *due = links.next_due();
        }
        let due = *due;
        let effects = std::iter::from_fn(|| links.poll_effect()).collect();
        let mut is_news = !links.take_changes().is_empty();
        let silent = inner.gateways.iter();
        let silent = silent.filter(|node| inner.links.is_silent(node, now));
        let silent: BTreeSet<NodeId> = silent.copied().collect();
        is_news |= silent != inner.silent;
        inner.silent = silent;
        let waiting: BTreeSet<NodeId> = inner.links.waiting(now).copied().collect();
        is_news |= waiting != inner.waiting;
        inner.waiting = waiting;
        Turn {
            effects,
            is_news,
            due,
        }
    }

    /// Says goodbye to all neighbours.
    pub(super) fn leave(&self, now: Mono) -> Vec<Effect> {
        let mut inner = self.lock();
        inner.links.leave(now);
        std::iter::from_fn(|| inner.links.poll_effect()).collect()
    }

    /// A new head of a node's came on its own connection. Whether it stands otherwise
    /// since.
    pub(super) fn heard_itself(&self, node: NodeId) -> bool {
        self.lock().hear(node)
    }

    /// How a node stands: by its links at `now`, or by its lease at `lease_now`.
    pub(super) fn judge(
        &self,
        node: &NodeId,
        known: &Known,
        (now, lease_now): (Mono, Mono),
    ) -> Standing {
        let mut inner = self.lock();
        let mut standing = inner.judge(node, known, (now, lease_now));
        standing.linked = inner.links.up().any(|peer| peer == node);
        if standing.live {
            inner.seen_live.insert(*node);
            inner.gone_since.remove(node);
        } else if inner.seen_live.remove(node) {
            inner.gone_since.insert(*node, now);
        }
        standing
    }

    /// Why a node is live that is.
    pub(super) fn live_by(&self, node: &NodeId) -> LiveBy {
        let inner = self.lock();
        if inner.waiting.contains(node) {
            LiveBy::Link
        } else if inner.by_lease.contains(node) {
            LiveBy::Lease
        } else if inner.links.up().any(|peer| peer == node) {
            LiveBy::Link
        } else {
            LiveBy::Neighbours
        }
    }

    /// Those that are judged by their leases.
    pub(super) fn by_lease(&self) -> BTreeSet<NodeId> {
        self.lock().by_lease.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Inner {
    fn note(&mut self, node: NodeId, known: &Known, now: Mono) {
        self.sort(node, known);
        let order = known.head.order();
        if known.heard.is_some() && in_force(known).is_some_and(|body| body.links.is_none()) {
            self.without_links = Some(now);
        }
        self.links.handle_head(now, node, order);
        if let Some(body) = in_force(known) {
            let none = NamedLinks::default();
            let named = body.links.as_ref().unwrap_or(&none);
            let leaving = known.is_leaving();
            self.links.handle_named(now, node, order, leaving, named);
        }
    }

    /// See [`Neighbours::judge`].
    fn judge(&mut self, node: &NodeId, known: &Known, (now, lease_now): (Mono, Mono)) -> Standing {
        let by_lease = Standing::by_lease(known, lease_now);
        if known.is_leaving() || !self.has_links(known) {
            return by_lease;
        }
        // A link with the run before says nothing of this one.
        let run = self.links.live_in(node);
        let live = run.is_some_and(|run| run >= known.head.generation);
        if live {
            self.linked.insert(*node, known.head.generation);
            self.sort(*node, known);
        } else if self.waiting.contains(node) {
            return Standing {
                live: true,
                prompt: true,
                linked: false,
            };
        } else if self.by_lease.contains(node) || self.is_heard(node, now) {
            self.unlink(*node);
            return by_lease;
        }
        Standing {
            live,
            prompt: live && !self.silent.contains(node),
            linked: false,
        }
    }

    /// Whether a node may be judged by its links at all.
    fn has_links(&self, known: &Known) -> bool {
        let body = known.body.as_ref();
        self.is_in_use && body.is_some_and(|body| body.links.is_some())
    }

    /// Puts a node among those that are judged by their leases, or not.
    fn sort(&mut self, node: NodeId, known: &Known) {
        let was_live = self.linked.get(&node) == Some(&known.head.generation);
        if was_live && self.has_links(known) {
            self.by_lease.remove(&node);
        } else {
            self.by_lease.insert(node);
        }
    }

    /// A node speaks for itself. Whether its links had it dead.
    fn hear(&mut self, node: NodeId) -> bool {
        let is_judged = self.members.contains_key(&node) && !self.by_lease.contains(&node);
        let was_dead = is_judged && self.links.live_in(&node).is_none();
        if was_dead {
            self.unlink(node);
        }
        was_dead
    }

    /// Whether packets of a node came so lately that it isn't silence that ended its links.
    fn is_heard(&self, node: &NodeId, now: Mono) -> bool {
        let heard = self.heard.get(node);
        heard.is_some_and(|heard| now < heard.at + HEARD)
    }

    /// Judges a node by its lease until links have it live.
    fn unlink(&mut self, node: NodeId) {
        self.linked.remove(&node);
        self.by_lease.insert(node);
    }

    fn forget(&mut self, node: &NodeId, now: Mono) {
        self.links.handle_member_gone(now, node);
        self.members.remove(node);
        self.linked.remove(node);
        self.by_lease.remove(node);
        self.heard.remove(node);
        self.connected.remove(node);
        self.seen_live.remove(node);
        self.gone_since.remove(node);
        self.packets.remove(node);
        self.spoken.remove(node);
    }
}

#[cfg(test)]
mod tests;
