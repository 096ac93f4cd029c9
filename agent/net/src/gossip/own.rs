//! This node's own head: signed, renewed in time, and said at once when it
//! changes.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use innermesh_proto::{
    crypto::{Hash, Sealed},
    head::{self, Announcement, Body, Head, HeadTable},
    id::NodeId,
    ledger::{Role, State},
    links::NamedLinks,
    message::PushedHead,
};

use super::{
    pace::Pace,
    push,
    state::{Inner, STANDSTILL, TICK, nanos, pushed},
};
use crate::host::until_next;

/// How long changes to one's own announcement are gathered before they go out
/// as one head: 20 a second at most, the last one wins.
const GATHER: Duration = Duration::from_millis(50);
/// Ticks between two looks at how far apart rounds are to be.
const PACED: u64 = 4;
/// How long a node's head may say less of the ledger than it holds: a CA node's, and any
/// other's.
const SAYS_FURTHER: Duration = Duration::from_secs(60);
const FOLLOWS_FURTHER: Duration = Duration::from_secs(600);
/// How far a clock may go from what follows from its node's head: ledger time goes by the
/// middle of all clocks, and only neighbours hear each other's in packets. And for how
/// long it may be further.
const CLOCK_STEP_MS: u64 = 10_000;
const SAYS_CLOCK: Duration = Duration::from_secs(5);
/// Ticks between two looks for bodies that nobody had.
const LACKING: u64 = 12;

/// A body of this node's that says this, since then; the links that it names are
/// gossip's own to say.
pub(super) fn own_body(
    announcement: Arc<Announcement>,
    links: Option<NamedLinks>,
    since: Option<Duration>,
) -> Arc<Body> {
    let bytes = Announcement {
        links: links.clone(),
        ..(*announcement).clone()
    }
    .encode();
    Arc::new(Body {
        hash: Hash::of(&bytes),
        bytes,
        announcement,
        links,
        since,
    })
}

/// A head of this node's as it was signed.
pub(super) struct Signed {
    sealed: Sealed,
    body: Arc<Body>,
    /// Whether it names other links than the head before.
    has_other_links: bool,
}

impl Signed {
    fn pushed(&self) -> PushedHead {
        pushed(&self.sealed, Some(&self.body))
    }
}

impl Inner {
    /// Announces something else from now on; it goes out within 50 ms.
    pub(super) fn announce(&self, mut announcement: Announcement) {
        let mut shared = self.shared();
        announcement.cloned = shared.conflicts.contains(&self.me);
        announcement.links = None;
        if *shared.own.body.announcement == announcement {
            return;
        }
        let links = shared.own.body.links.clone();
        let now = self.host.clock.now();
        shared.own.body = own_body(Arc::new(announcement), links, Some(now));
        drop(shared);
        self.changed();
        self.announced.notify_one();
    }

    /// Notes that another machine runs with this node's key, and has all others
    /// know it; `false` where it was known.
    pub(super) fn note_twin(&self) -> bool {
        let mut shared = self.shared();
        let new = shared.conflicts.insert(self.me);
        let announcement = shared.own.body.announcement.clone();
        drop(shared);
        self.announce(Announcement::clone(&announcement));
        new
    }

    /// Signs a new head of this node under its next version. Each names the links that
    /// there are by then.
    pub(super) async fn sign_head(&self, lease_ms: u32) -> Signed {
        let mut signed = None;
        self.exchange
            .publish(|seq| signed = Some(self.sign_at(seq, lease_ms)))
            .await;
        signed.expect("the exchange asks for a head")
    }

    fn sign_at(&self, seq: u64, lease_ms: u32) -> Signed {
        let state = self.ledger.state();
        let now = self.host.clock.now();
        let mut shared = self.shared();
        let named = self.links.named();
        if !named.links.is_empty() && !shared.has_compared {
            shared.has_compared = true;
            if self.compare(&mut shared) {
                self.changed();
            }
        }
        let links = Some(named.clone());
        let has_other_links = shared.own.body.links != links;
        if has_other_links {
            let before = &shared.own.body;
            shared.own.body = own_body(before.announcement.clone(), links, before.since);
            self.changed();
        }
        let body = shared.own.body.clone();
        let head = Head {
            node: self.me,
            generation: self.generation.load(Ordering::Relaxed),
            seq,
            lease_ms,
            body: body.hash,
            body_len: u32::try_from(body.bytes.len()).unwrap_or(u32::MAX),
            position: self.ledger.durable(),
            clock_ms: self.host.clock.wall_ms(),
        };
        let sealed = head.seal(&*self.key, &state.mesh);
        self.links.signed(head.order(), &named, now);
        shared.own.renewed = now;
        shared.own.head = Some((head, sealed.clone()));
        Signed {
            sealed,
            body,
            has_other_links,
        }
    }

    /// Renews the own head. That is pushed where it says more than the one before, or
    /// nobody takes this node for live by its links.
    pub(super) async fn renew(self: Arc<Self>) {
        let signed = self.sign_head(self.lease_ms()).await;
        if signed.has_other_links || !self.keeps_leases() {
            self.push_to_all(signed.pushed());
        }
    }

    /// Has all hear what this node says now.
    pub(super) async fn say_own(&self) {
        let signed = self.sign_head(self.lease_ms()).await;
        self.push_to_all(signed.pushed());
    }

    /// Whether leases go on beside links.
    pub(super) fn keeps_leases(&self) -> bool {
        self.links.keeps_leases(self.host.clock.now())
    }

    /// In a mesh that goes by links a lease bridges the moments without, whatever the
    /// mesh's size.
    fn lease_ms(&self) -> u32 {
        head::lease_ms(self.leased())
    }

    /// Whether what the own head says of this node was overtaken, for long enough. How
    /// far it followed the ledger: what others keep of that is all that tells, after many
    /// are lost, who had most of it. And its clock, when that was set.
    fn is_overtaken(&self, now: Duration) -> bool {
        let decides = self.ledger.state().roster.contains(&self.me);
        let follows = if decides {
            SAYS_FURTHER
        } else {
            FOLLOWS_FURTHER
        };
        let shared = self.shared();
        let Some((head, _)) = &shared.own.head else {
            return false;
        };
        let age = now.saturating_sub(shared.own.renewed);
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let clock_ms = head.clock_ms.saturating_add(age_ms);
        let was_set = clock_ms.abs_diff(self.host.clock.wall_ms()) > CLOCK_STEP_MS;
        age >= SAYS_CLOCK && was_set || age >= follows && head.position != self.ledger.durable()
    }

    /// For how many nodes heads are renewed in time.
    fn leased(&self) -> usize {
        if self.keeps_leases() {
            self.ledger.state().members.len()
        } else {
            1
        }
    }

    /// Renews the own head in time while that is needed, and notices when others' leases
    /// run out.
    pub(super) async fn beat(self: Arc<Self>) {
        let mut standing = self.standing();
        let mut last = self.host.clock.now();
        let mut pace = Pace::new(last);
        let mut tick: u64 = 0;
        loop {
            let wait = until_next(TICK, self.host.clock.now());
            self.host.clock.sleep(wait).await;
            let now = self.host.clock.now();
            let late = now.saturating_sub(last + TICK);
            if late > STANDSTILL {
                tracing::debug!(late_ms = late.as_millis() as u64, "this node stood still");
                self.shared().table.excuse(late, now);
            }
            last = now;
            self.beat.store(nanos(now), Ordering::Relaxed);
            let keeps_leases = self.keeps_leases();
            let renewal = head::renewal_interval(self.leased());
            if keeps_leases && tick.is_multiple_of(PACED) {
                let fit = pace.fit(renewal, || self.shortest_lease(), now);
                self.exchange.pace(fit);
            }
            if tick.is_multiple_of(LACKING) {
                self.fetch_lacking();
            }
            tick += 1;
            if keeps_leases && self.exchange.round_begins(now) {
                for peer in self.some_peers(push::FAN_OUT, |_| true) {
                    self.exchange.meet(peer);
                }
            }
            if !keeps_leases && self.is_overtaken(now) {
                self.say_own().await;
            }
            let is_due = now + TICK / 2 >= self.shared().own.due(renewal);
            if is_due && (keeps_leases || self.links.is_unlinked()) {
                self.clone().renew().await;
            }
            let stands = self.standing();
            if stands != standing {
                standing = stands;
                self.changed();
            }
        }
    }

    /// The shortest lease in force, this node's own included.
    pub(super) fn shortest_lease(&self) -> Duration {
        let now = self.now();
        let shared = self.shared();
        let own = shared.own.head.as_ref().map(|(head, _)| head.lease_ms);
        let live = shared.table.iter().filter(|(_, known)| known.is_live(now));
        let leases = live.map(|(_, known)| known.head.lease_ms);
        let shortest = leases.chain(own.filter(|own| *own > 0)).min();
        Duration::from_millis(shortest.unwrap_or(u32::MAX).into())
    }

    /// Of those that are judged by their leases, who is live, and which gateways are late
    /// to be heard of. News of all others comes by itself.
    pub(super) fn standing(&self) -> BTreeSet<(NodeId, bool)> {
        let state = self.ledger.state();
        let now = self.now();
        let by_lease = self.links.by_lease();
        standing(&self.shared().table, &state, &by_lease, now).collect()
    }

    /// Pushes what [`Gossip::announce`] changed.
    pub(super) async fn publish_changes(self: Arc<Self>) {
        loop {
            self.announced.notified().await;
            self.say_own().await;
            self.host.clock.sleep(GATHER).await;
        }
    }

    pub(super) async fn say_goodbye(self: &Arc<Self>) {
        let signed = self.sign_head(0).await;
        self.push_to_all(signed.pushed());
        self.leave_links();
    }
}

/// Live nodes; of others than gateways nobody cares whether they are late.
fn standing(
    table: &HeadTable,
    state: &State,
    of: &BTreeSet<NodeId>,
    now: Duration,
) -> impl Iterator<Item = (NodeId, bool)> {
    let known = of.iter().filter_map(|node| Some((node, table.get(node)?)));
    let live = known.filter(move |(_, known)| known.is_live(now));
    live.map(move |(node, known)| {
        let member = state.members.get(node);
        let is_gateway = member.is_some_and(|member| member.roles.contains(&Role::Gateway));
        (*node, is_gateway && !known.is_prompt(now))
    })
}
