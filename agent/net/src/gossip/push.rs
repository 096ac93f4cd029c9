//! How heads come in and go on: pushes between connected peers, and the exchange
//! when two meet.

use std::{sync::Arc, time::Duration};

use innermesh_proto::{
    codec,
    head::{Body, Head, Offer},
    id::NodeId,
    limits,
    message::{HeadsQuery, Push, PushedHead},
    rpc::method,
};

use super::state::{self, Inner};

/// With how many peers a round is held; to how many a receiver passes on what was new to
/// it while leases go on.
pub(super) const FAN_OUT: usize = 3;
/// Heads in one message to a peer, with bodies: what one frame takes.
const PUSHED_TOGETHER: usize =
    limits::RPC_BYTES / (2 * (limits::HEAD_BYTES + limits::INLINE_BODY_BYTES));
/// How long a peer may take to hand over its heads.
const FETCH: Duration = Duration::from_secs(5);
/// Peers that are asked for all their heads at a time.
pub(super) const GREETINGS: usize = 2;
/// A node that lacks more than one of so many members asks peers that connect.
const UNHEARD: usize = 8;
/// How long a node asks no more after a peer knew nothing that was new to it.
const NO_NEWS: Duration = Duration::from_secs(5);

impl Inner {
    /// Sends one head to every connected peer.
    pub(super) fn push_to_all(&self, head: PushedHead) {
        let push = codec::encode(&Push { heads: vec![head] });
        for peer in self.transport.peers() {
            self.transport.notify(peer, method::PUSH, push.clone());
        }
    }

    /// Takes pushed heads; passes on those that say something new. Returns
    /// whether any was newer than what was held.
    pub(super) fn take_heads(self: &Arc<Self>, from: NodeId, heads: Vec<PushedHead>) -> bool {
        let mut news = false;
        for pushed in heads.into_iter().take(limits::MEMBERS) {
            let PushedHead { head: sealed, body } = pushed.clone();
            let owner = sealed.peek::<Head>(limits::HEAD_BYTES).ok();
            let before = owner.and_then(|head| self.body_of(&head.node));
            let Some((head, offer)) = self.take_head(sealed) else {
                continue;
            };
            if matches!(offer, Offer::Renewed | Offer::Changed) {
                news = true;
                self.note_speaker(from, &head);
            }
            self.settle_body(from, &head, body);
            self.shared()
                .passing
                .note_held(&from, &head.node, head.order());
            if offer == Offer::Changed {
                let is_urgent = !self.only_links_more(&head.node, before.as_deref());
                self.pass_on(from, &head, pushed, is_urgent);
            }
            if offer == Offer::Old && head.node == from {
                self.remind(&head);
            }
        }
        self.pass_on_due();
        news
    }

    /// The body of a node's that is in force.
    fn body_of(&self, node: &NodeId) -> Option<Arc<Body>> {
        let shared = self.shared();
        state::in_force(shared.table.get(node)?).cloned()
    }

    /// Whether a node says all that it said `before`, and names more links.
    fn only_links_more(&self, node: &NodeId, before: Option<&Body>) -> bool {
        let now = self.body_of(node);
        let (Some(before), Some(now)) = (before, now) else {
            return false;
        };
        let (Some(named), Some(names)) = (&before.links, &now.links) else {
            return false;
        };
        before.announcement == now.announcement && names.has_all_of(named)
    }

    /// Tells a peer whose own head is of an earlier generation than the one
    /// held here what it has forgotten: its disk was rolled back (S2), and
    /// nobody would hear it.
    pub(super) fn remind(&self, head: &Head) {
        let held = {
            let shared = self.shared();
            let known = shared.table.get(&head.node);
            known
                .filter(|known| known.head.generation > head.generation)
                .map(|known| state::pushed(&known.sealed, None))
        };
        if let Some(held) = held {
            let push = codec::encode(&Push { heads: vec![held] });
            self.transport.notify(head.node, method::PUSH, push);
        }
    }

    /// Passes a change on to peers that may not have it yet: all neighbours but those to
    /// whom its owner told it itself. Three of them by chance left one of thirty nodes out
    /// now and then, until tables were compared.
    fn pass_on(&self, from: NodeId, head: &Head, pushed: PushedHead, is_urgent: bool) {
        let now = self.host.clock.now();
        let peers = if self.keeps_leases() {
            self.some_peers(FAN_OUT, |node| *node != from && *node != head.node)
        } else {
            self.links.beyond(&head.node, &from)
        };
        let small = |body: &Vec<u8>| body.len() <= limits::INLINE_BODY_BYTES;
        let pushed = Arc::new(PushedHead {
            body: pushed.body.filter(small),
            ..pushed
        });
        let mut shared = self.shared();
        for peer in peers {
            let of = (head.node, head.order());
            shared.passing.put(peer, of, &pushed, is_urgent, now);
        }
    }

    /// Sends what is due of what goes on.
    fn pass_on_due(&self) {
        let now = self.host.clock.now();
        let (due, waits) = {
            let connected = |peer: &NodeId| self.transport.is_connected(*peer);
            let mut shared = self.shared();
            let due = shared.passing.take(now, connected);
            (due, shared.passing.due().is_some())
        };
        for (peer, heads) in due {
            let mut heads = heads.iter().map(|head| PushedHead::clone(head)).peekable();
            while heads.peek().is_some() {
                let some = heads.by_ref().take(PUSHED_TOGETHER).collect();
                let push = codec::encode(&Push { heads: some });
                self.transport.notify(peer, method::PUSH, push);
            }
        }
        if waits {
            self.passing.notify_one();
        }
    }

    /// Sends what was gathered, when its time comes.
    pub(super) async fn pass_on_gathered(self: Arc<Self>) {
        loop {
            let due = self.shared().passing.due();
            let now = self.host.clock.now();
            match due {
                Some(due) if due <= now => self.pass_on_due(),
                Some(due) => tokio::select! {
                    biased;
                    () = self.passing.notified() => {}
                    () = self.host.clock.sleep(due - now) => {}
                },
                None => self.passing.notified().await,
            }
        }
    }

    /// A few of the connected peers that are `wanted`, by chance.
    pub(super) fn some_peers(&self, count: usize, wanted: impl Fn(&NodeId) -> bool) -> Vec<NodeId> {
        let mut peers = self.transport.peers();
        peers.retain(wanted);
        (0..count.min(peers.len()))
            .map(|_| peers.swap_remove(self.random_below(peers.len())))
            .collect()
    }

    pub(super) fn random_below(&self, bound: usize) -> usize {
        let mut bytes = [0; 8];
        self.host.keys.random(&mut bytes);
        (u64::from_le_bytes(bytes) % bound.max(1) as u64) as usize
    }

    /// Tells a peer that has just connected what this node announces, as it
    /// does the same, and takes what it knows of others while this node knows
    /// little: after a start, or a split.
    pub(super) async fn greet(self: Arc<Self>, peer: NodeId) {
        self.tell_own(peer);
        // All peers of a large mesh connect within a moment; a few of them know
        // what the others know.
        let _turn = self.greetings.acquire().await;
        if !self.is_behind() {
            return;
        }
        let position = self.ledger.durable();
        let query = codec::encode(&HeadsQuery { position });
        let answer = self.transport.call(peer, method::HEADS, query, FETCH).await;
        match answer.map(|bytes| codec::decode::<Push>(&bytes, limits::RPC_BYTES)) {
            Ok(Ok(push)) => {
                let news = self.take_heads(peer, push.heads);
                self.shared().ask_heads_after = (!news).then(|| self.host.clock.now() + NO_NEWS);
            }
            Ok(Err(error)) => tracing::debug!(?peer, %error, "a peer's heads can't be read"),
            Err(error) => tracing::debug!(?peer, %error, "a peer didn't say what heads it has"),
        }
    }

    /// Whether some members aren't heard of, and a peer that has just connected
    /// may know more.
    pub(super) fn is_behind(&self) -> bool {
        let members = self.ledger.state().members.len();
        let shared = self.shared();
        let known = shared.table.iter();
        let live = known.filter(|(node, known)| self.is_live(node, known));
        // With this node itself.
        let unheard = members.saturating_sub(live.count() + 1);
        let may_ask = shared
            .ask_heads_after
            .is_none_or(|after| self.host.clock.now() >= after);
        unheard > members / UNHEARD && may_ask
    }

    /// What this node announced while it wasn't connected to a peer.
    pub(super) fn tell_own(&self, peer: NodeId) {
        if let Some(own) = self.shared().own.pushed() {
            let push = codec::encode(&Push { heads: vec![own] });
            self.transport.notify(peer, method::PUSH, push);
        }
    }
}
