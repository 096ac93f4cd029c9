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
    limits,
    message::PushedHead,
};

use super::{
    pace::Pace,
    push,
    state::{Inner, STANDSTILL, TICK, nanos},
};

/// How long changes to one's own announcement are gathered before they go out
/// as one head: 20 a second at most, the last one wins.
const GATHER: Duration = Duration::from_millis(50);
/// Ticks between two looks at how far apart rounds are to be.
const PACED: u64 = 4;

pub(super) fn own_body(announcement: Announcement, now: Duration) -> Arc<Body> {
    let bytes = announcement.encode();
    Arc::new(Body {
        hash: Hash::of(&bytes),
        bytes,
        announcement: Arc::new(announcement),
        since: Some(now),
    })
}

impl Inner {
    /// Announces something else from now on; it goes out within 50 ms.
    pub(super) fn announce(&self, mut announcement: Announcement) {
        let mut shared = self.shared();
        announcement.cloned = shared.conflicts.contains(&self.me);
        if *shared.own.body.announcement == announcement {
            return;
        }
        shared.own.body = own_body(announcement, self.host.clock.now());
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

    /// Signs a new head of this node under its next version.
    pub(super) async fn sign_head(&self, lease_ms: u32) -> (Head, Sealed) {
        let state = self.ledger.state();
        let body = self.shared().own.body.clone();
        let mut signed = None;
        self.exchange
            .publish(|seq| {
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
                signed = Some((head, sealed));
            })
            .await;
        let (head, sealed) = signed.expect("the exchange asks for a head");
        let mut shared = self.shared();
        shared.own.renewed = self.host.clock.now();
        shared.own.head = Some((head.clone(), sealed.clone()));
        (head, sealed)
    }

    pub(super) async fn renew(self: Arc<Self>) {
        let nodes = self.ledger.state().members.len();
        self.sign_head(head::lease_ms(nodes)).await;
    }

    /// Renews the own head in time, and notices when others' run out.
    pub(super) async fn beat(self: Arc<Self>) {
        let mut standing = self.standing();
        let mut last = self.host.clock.now();
        let mut pace = Pace::new(last);
        let mut tick: u64 = 0;
        loop {
            self.host.clock.sleep(TICK).await;
            let now = self.host.clock.now();
            let late = now.saturating_sub(last + TICK);
            if late > STANDSTILL {
                tracing::debug!(late_ms = late.as_millis() as u64, "this node stood still");
                self.shared().table.excuse(late, now);
            }
            last = now;
            self.beat.store(nanos(now), Ordering::Relaxed);
            let nodes = self.ledger.state().members.len();
            let renewal = head::renewal_interval(nodes);
            if tick.is_multiple_of(PACED) {
                let fit = pace.fit(renewal, || self.shortest_lease(), now);
                self.exchange.pace(fit);
            }
            tick += 1;
            if self.exchange.round_begins(now) {
                for peer in self.some_peers(push::FAN_OUT, |_| true) {
                    self.exchange.meet(peer);
                }
            }
            let due = self.shared().own.due(renewal);
            if now + TICK / 2 >= due {
                self.clone().renew().await;
            }
            if !self.stands(&standing) {
                standing = self.standing();
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

    /// Who is live, and which gateways are late to be heard of.
    pub(super) fn standing(&self) -> BTreeSet<(NodeId, bool)> {
        let state = self.ledger.state();
        let now = self.now();
        standing(&self.shared().table, &state, now).collect()
    }

    /// Whether that is still so.
    pub(super) fn stands(&self, before: &BTreeSet<(NodeId, bool)>) -> bool {
        let state = self.ledger.state();
        let now = self.now();
        standing(&self.shared().table, &state, now).eq(before.iter().copied())
    }

    /// Pushes what [`Gossip::announce`] changed.
    pub(super) async fn publish_changes(self: Arc<Self>) {
        loop {
            self.announced.notified().await;
            let nodes = self.ledger.state().members.len();
            let (_, sealed) = self.sign_head(head::lease_ms(nodes)).await;
            let body = self.shared().own.body.bytes.clone();
            self.push_to_all(PushedHead {
                head: sealed,
                body: (body.len() <= limits::INLINE_BODY_BYTES).then_some(body),
            });
            self.host.clock.sleep(GATHER).await;
        }
    }

    pub(super) async fn say_goodbye(&self) {
        let (_, sealed) = self.sign_head(0).await;
        self.push_to_all(PushedHead {
            head: sealed,
            body: None,
        });
    }
}

/// Live nodes; of others than gateways nobody cares whether they are late.
fn standing(
    table: &HeadTable,
    state: &State,
    now: Duration,
) -> impl Iterator<Item = (NodeId, bool)> {
    let live = table.iter().filter(move |(_, known)| known.is_live(now));
    live.map(move |(node, known)| {
        let member = state.members.get(node);
        let is_gateway = member.is_some_and(|member| member.roles.contains(&Role::Gateway));
        (*node, is_gateway && !known.is_prompt(now))
    })
}
