//! Agrees on pre-shared keys with the nodes that this one has tunnels with: at a pair's
//! first session, each day that it has one, and where one end has lost the key.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use innermesh_proto::{
    codec,
    crypto::{Hash, PublicKey, Purpose, Sealed},
    id::NodeId,
    ledger::Member,
    limits,
    pair_key::{Agreed, Brought, Exchange, Reply, Request, Statement},
    rpc::{Failure, method},
    tunnel::TunnelKey,
    view::MeshView,
};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    host::{Mono, key_files::KeyFileError, pair_exchange::PairExchange, until_next},
    node::shared::{
        handles::Handles,
        own_key::OwnKey,
        pair_secrets::{PairSecrets, Wanted},
        tunnel_counters::SESSION,
        tunnel_progress::TunnelProgress,
    },
    quic::CallError,
    tunnel::{PeerState, Tunnel},
};

/// How often it is looked who needs a key.
const LOOK: Duration = Duration::from_secs(4);
/// How old a key may be, but for up to an hour by the other's id: many that were agreed
/// at once aren't changed at once.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const SPREAD_MS: u64 = 60 * 60 * 1000;
/// How long after a session of a pair the node that may not offer asks for a key.
const GRACE: Duration = Duration::from_secs(10);
/// How long packets go unanswered until the key may be why: with a session, whose
/// other end is never silent for longer than 10 s (WireGuard whitepaper, section 6.5), and
/// without one, whose first message is sent again after 5 s (section 6.4).
const SILENT: Duration = Duration::from_secs(15);
const SHUT: Duration = Duration::from_secs(8);
/// Between two attempts: at first, and at most. A node of another build is asked seldom.
const PAUSE_MIN: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(600);
const OTHER_BUILD: Duration = Duration::from_secs(3600);
/// Pairs that agree at once.
const PARALLEL: usize = 4;
/// How long a connection, and each step, may take.
const CONNECT: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_secs(4);
/// Neighbours of a node that are asked to bring it something.
const BROUGHT_BY: usize = 3;
/// How long the other is asked whether it uses the key: for as long as a session that was
/// begun before it does.
const CONFIRMING: Duration = SESSION;
/// Between two times that it is: at first, and at most.
const CONFIRM_AGAIN: Duration = Duration::from_millis(500);
const CONFIRM_SELDOM: Duration = Duration::from_secs(8);

/// See the module.
pub(crate) struct PairKeyKeeper {
    node: Handles,
    tunnel: Arc<dyn Tunnel>,
    progress: watch::Sender<TunnelProgress>,
    secrets: Arc<PairSecrets>,
    wanted: Arc<Wanted>,
    own: Arc<OwnKey>,
    pairs: BTreeMap<NodeId, Pair>,
    /// With whom it is under way.
    busy: BTreeSet<NodeId>,
}

/// What is seen of a pair.
struct Pair {
    rx_bytes: u64,
    /// What had been sent when something came, or a key was asked for, last.
    tx_bytes: u64,
    /// Since when more is sent.
    quiet: Option<Mono>,
    /// Since when there is a session.
    open: Option<Mono>,
    /// Whether what was sent until the next look doesn't count.
    is_fresh: bool,
    not_before: Mono,
    pause: Duration,
}

/// Why there is no new key.
#[derive(Debug, thiserror::Error)]
enum PairKeyError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    File(#[from] KeyFileError),
    #[error("this build has no post-quantum key exchange")]
    NoExchange,
    #[error("the other node's answer isn't what was asked for")]
    Answer,
    #[error("the other node doesn't know this one's WireGuard key yet, or has another one")]
    NotNow,
}

impl PairKeyError {
    fn is_other_build(&self) -> bool {
        matches!(
            self,
            Self::Call(CallError::Failed(Failure::UnknownMethod)) | Self::NoExchange
        )
    }
}

impl PairKeyKeeper {
    pub fn new(
        node: &Handles,
        tunnel: Arc<dyn Tunnel>,
        progress: watch::Sender<TunnelProgress>,
        (secrets, wanted): (Arc<PairSecrets>, Arc<Wanted>),
        own: Arc<OwnKey>,
    ) -> Self {
        Self {
            node: node.clone(),
            tunnel,
            progress,
            secrets,
            wanted,
            own,
            pairs: BTreeMap::new(),
            busy: BTreeSet::new(),
        }
    }

    /// Goes on for as long as the agent runs, where there is a tunnel.
    pub async fn run(mut self) {
        let backend = self.tunnel.observe().await.map(|state| state.backend);
        if backend.is_ok_and(|backend| backend == "none") {
            return;
        }
        let clock = self.node.host.clock.clone();
        let mut steps: JoinSet<(NodeId, Result<(), PairKeyError>)> = JoinSet::new();
        let mut progress = self.progress.subscribe();
        let mut known = Arc::default();
        loop {
            tokio::select! {
                changed = progress.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let plan = progress.borrow_and_update().plan.clone();
                    if Arc::ptr_eq(&plan, &known) {
                        continue;
                    }
                    known = plan.clone();
                    let view = self.node.view.borrow().clone();
                    self.secrets.note_applied(&plan, &view.ledger);
                }
                () = clock.sleep(until_next(LOOK, clock.now())) => self.look(&mut steps).await,
                Some(done) = steps.join_next() => {
                    if let Ok((node, result)) = done {
                        self.done(node, result);
                    }
                }
            }
        }
    }

    fn done(&mut self, node: NodeId, result: Result<(), PairKeyError>) {
        self.busy.remove(&node);
        let now = self.node.host.clock.now();
        let other_build = result.as_ref().is_err_and(PairKeyError::is_other_build);
        if let Err(error) = result {
            tracing::debug!(%node, %error, "no pre-shared key was agreed");
        }
        if let Some(pair) = self.pairs.get_mut(&node) {
            let pause = if other_build { OTHER_BUILD } else { pair.pause };
            pair.asked(now, pause);
        }
    }

    async fn look(&mut self, steps: &mut JoinSet<(NodeId, Result<(), PairKeyError>)>) {
        let Ok(state) = self.tunnel.observe().await else {
            return;
        };
        let view = self.node.view.borrow().clone();
        if let Err(error) = self.secrets.retain_members(&view.ledger).await {
            tracing::warn!(%error, "the pre-shared keys of nodes that have left are still stored");
        }
        let members = &view.ledger.members;
        self.pairs.retain(|node, _| members.contains_key(node));
        let wanted = self.wanted.take();
        for (key, peer) in &state.peers {
            let holder = view.ledger.tunnel_key_holder(key);
            let Some(node) = holder.filter(|node| is_live(&view, node)) else {
                continue;
            };
            let Some(member) = members.get(&node) else {
                continue;
            };
            let is_due = self.is_due(&node, key, peer, wanted.contains(&node));
            if !is_due || self.busy.contains(&node) || steps.len() >= PARALLEL {
                continue;
            }
            self.busy.insert(node);
            let step = self.step(node, member, key);
            steps.spawn(async move { (node, step.go().await) });
        }
    }

    /// Whether a pair needs a key now that this node has to see to.
    fn is_due(&mut self, node: &NodeId, key: &TunnelKey, peer: &PeerState, wanted: bool) -> bool {
        let (now, wall) = (self.node.host.clock.now(), self.node.host.clock.wall_ms());
        let offers = self.node.me < *node;
        let agreed = self.secrets.since_ms(node, key);
        let lacks = match agreed {
            None => true,
            Some(since) => offers && since.abs_diff(wall) >= lifetime_ms(&self.node.me, node),
        };
        let pair = self.pairs.entry(*node).or_insert_with(|| Pair::new(peer));
        let (open, silent) = pair.look(peer, now);
        let grace = if offers { Duration::ZERO } else { GRACE };
        let may_lack = open.is_some_and(|open| lacks && open >= grace);
        let patience = if open.is_some() { SILENT } else { SHUT };
        let is_due = may_lack || silent >= patience || wanted && offers;
        is_due && now >= pair.not_before
    }

    fn step(&self, node: NodeId, member: &Member, key: &TunnelKey) -> Step {
        Step {
            handles: self.node.clone(),
            secrets: self.secrets.clone(),
            to: node,
            author: member.key,
            tunnel: [self.own.get(), *key],
        }
    }
}

fn is_live(view: &MeshView, node: &NodeId) -> bool {
    let is_held = view.held.contains_key(node);
    *node != view.me && !is_held && view.nodes.get(node).is_some_and(|seen| seen.live)
}

/// How old the key of a pair gets: less than a day, and of each pair another time.
fn lifetime_ms(one: &NodeId, other: &NodeId) -> u64 {
    let by_both = u64::from(one.0[0] ^ other.0[0]);
    DAY_MS - by_both * SPREAD_MS / 256
}

impl Pair {
    fn new(peer: &PeerState) -> Self {
        Self {
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
            quiet: None,
            open: None,
            is_fresh: false,
            not_before: Mono::ZERO,
            pause: PAUSE_MIN,
        }
    }

    /// For how long there has been a session, and for how long more was sent and nothing
    /// came.
    fn look(&mut self, peer: &PeerState, now: Mono) -> (Option<Duration>, Duration) {
        let is_open = peer.last_handshake.is_some_and(|age| age < SESSION);
        self.open = is_open.then(|| self.open.unwrap_or(now));
        // Without a session all that comes is the other's first messages, which need no key.
        let came = is_open && self.rx_bytes != peer.rx_bytes;
        if came || self.is_fresh || peer.tx_bytes < self.tx_bytes {
            (self.rx_bytes, self.tx_bytes) = (peer.rx_bytes, peer.tx_bytes);
            (self.quiet, self.is_fresh) = (None, false);
            if came {
                self.pause = PAUSE_MIN;
            }
        } else if peer.tx_bytes > self.tx_bytes {
            self.quiet.get_or_insert(now);
        }
        let since = |since: Option<Mono>| since.map(|since| now.saturating_sub(since));
        (since(self.open), since(self.quiet).unwrap_or_default())
    }

    /// A key was asked for: what was silent is forgotten.
    fn asked(&mut self, now: Mono, pause: Duration) {
        self.is_fresh = true;
        self.quiet = None;
        self.not_before = now + pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

/// One pair's way to a key.
struct Step {
    handles: Handles,
    secrets: Arc<PairSecrets>,
    to: NodeId,
    /// The other's key.
    author: PublicKey,
    /// The WireGuard keys of this node and of the other.
    tunnel: [TunnelKey; 2],
}

impl Step {
    /// Goes it, or has the node that offers begin.
    async fn go(self) -> Result<(), PairKeyError> {
        if self.handles.me < self.to {
            return self.agree().await;
        }
        let (from, to) = (self.handles.me, self.to);
        let wish = self.sealed(&Statement::Wanted { from, to });
        self.ask(&Request::Said(wish)).await?;
        Ok(())
    }

    async fn agree(&self) -> Result<(), PairKeyError> {
        let keys = &*self.handles.host.keys;
        let begun = PairExchange::begin(keys).ok_or(PairKeyError::NoExchange)?;
        let mut number = self.secrets.next_number(&self.to);
        let mut answered = self.offer(&begun, number).await?;
        if let Answered::Stale(newest) = answered {
            // The key of that number is lost here.
            number = newest.saturating_add(1);
            answered = self.offer(&begun, number).await?;
        }
        let Answered::Share {
            offer,
            answer,
            share,
        } = answered
        else {
            return Err(PairKeyError::Answer);
        };
        let secret = begun.finish(&share).ok_or(PairKeyError::Answer)?;
        let exchange = Exchange {
            number,
            tunnel: self.tunnel,
            offer,
            answer,
        };
        let agreed = Agreed::of(&secret, exchange, self.handles.host.clock.wall_ms());
        self.confirm(&agreed).await?;
        self.secrets.adopt(self.to, agreed).await?;
        Ok(())
    }

    async fn offer(&self, begun: &PairExchange, number: u64) -> Result<Answered, PairKeyError> {
        let said = self.sealed(&Statement::Offer {
            from: self.handles.me,
            to: self.to,
            tunnel: self.tunnel,
            number,
            share: begun.share(),
        });
        let own = Hash::of(&said.bytes);
        let said = match self.ask(&Request::Said(said)).await? {
            Reply::Said(said) => said,
            Reply::Unknown => return Err(PairKeyError::NotNow),
            _ => return Err(PairKeyError::Answer),
        };
        let mesh = self.handles.ledger.state().mesh;
        let (keys, limit) = (&*self.handles.host.keys, limits::RPC_BYTES);
        let statement = said.open(keys, &self.author, Purpose::PairKey, &mesh, limit);
        match statement.map_err(|_| PairKeyError::Answer)? {
            Statement::Answer { offer, share } if offer == own => Ok(Answered::Share {
                offer,
                answer: Hash::of(&said.bytes),
                share,
            }),
            Statement::Stale { offer, number } if offer == own => Ok(Answered::Stale(number)),
            _ => Err(PairKeyError::Answer),
        }
    }

    /// Has the other use the key. It may do so and its answer be lost: then both have
    /// the session that they had, until this is answered.
    async fn confirm(&self, agreed: &Agreed) -> Result<(), PairKeyError> {
        let clock = &self.handles.host.clock;
        let until = clock.now() + CONFIRMING;
        let mut pause = CONFIRM_AGAIN;
        let request = Request::Confirm {
            from: self.handles.me,
            offer: agreed.offer,
            proof: agreed.proof(),
        };
        loop {
            match self.ask(&request).await {
                Ok(Reply::Confirmed(shown)) if agreed.is_confirmed_by(&shown) => return Ok(()),
                // Somebody on the way may say that too.
                Ok(_) if clock.now() >= until => return Err(PairKeyError::Answer),
                Err(error) if clock.now() >= until => return Err(error),
                Ok(Reply::Unknown) => return Err(PairKeyError::Answer),
                Ok(_) | Err(_) => {}
            }
            clock.sleep(pause).await;
            pause = (pause * 2).min(CONFIRM_SELDOM);
        }
    }

    fn sealed(&self, statement: &Statement) -> Sealed {
        let mesh = self.handles.ledger.state().mesh;
        Sealed::new(&*self.handles.key, Purpose::PairKey, &mesh, statement)
    }

    /// Asks the other, by a neighbour of its where there is no connection with it.
    async fn ask(&self, request: &Request) -> Result<Reply, PairKeyError> {
        let Handles {
            transport, gossip, ..
        } = &self.handles;
        let request = codec::encode(request);
        if transport.connect(self.to, CONNECT).await {
            let call = transport.call(self.to, method::PAIR_KEY, request, STEP);
            return reply(&call.await?);
        }
        let mut failed = CallError::NotConnected(self.to);
        let by = gossip.neighbours_of(&self.to).into_iter();
        for by in by.filter(|by| *by != self.handles.me).take(BROUGHT_BY) {
            let (to, request) = (self.to, request.clone());
            let brought = codec::encode(&Brought { to, request });
            match transport.call(by, method::PAIR_KEY_BY, brought, STEP).await {
                Ok(answer) => return reply(&answer),
                Err(error) => failed = error,
            }
        }
        Err(failed.into())
    }
}

/// What came of an offer.
enum Answered {
    Share {
        offer: Hash,
        /// The hash of the answer.
        answer: Hash,
        share: Vec<u8>,
    },
    Stale(u64),
}

fn reply(answer: &[u8]) -> Result<Reply, PairKeyError> {
    codec::decode(answer, limits::RPC_BYTES).map_err(|_| PairKeyError::Answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(handshake_s: Option<u64>, rx_bytes: u64, tx_bytes: u64) -> PeerState {
        PeerState {
            last_handshake: handshake_s.map(Duration::from_secs),
            rx_bytes,
            tx_bytes,
            ..PeerState::default()
        }
    }

    fn at(seconds: u64) -> Mono {
        Duration::from_secs(seconds)
    }

    #[test]
    fn silence_is_what_goes_unanswered_and_no_more() {
        let mut pair = Pair::new(&seen(None, 0, 0));
        for (now, peer, open, silent) in [
            (0, seen(None, 0, 0), None, 0),
            (2, seen(None, 0, 148), None, 0),
            (4, seen(None, 0, 296), None, 2),
            // The other looks for this node too, and what it sends isn't an answer.
            (6, seen(None, 148, 388), None, 4),
            (8, seen(Some(1), 240, 400), Some(0), 0),
            (10, seen(Some(3), 240, 400), Some(2), 0),
            (12, seen(Some(5), 240, 500), Some(4), 0),
            (14, seen(Some(7), 240, 500), Some(6), 2),
            (16, seen(Some(9), 241, 600), Some(8), 0),
            (18, seen(Some(181), 241, 600), None, 0),
            // The device was made anew.
            (20, seen(None, 0, 148), None, 0),
        ] {
            let (seen_open, seen_silent) = pair.look(&peer, at(now));
            assert_eq!(
                (seen_open, seen_silent),
                (open.map(at), at(silent)),
                "{now}"
            );
        }
    }

    #[test]
    fn a_pair_that_stays_silent_is_asked_about_more_and_more_seldom() {
        let mut pair = Pair::new(&seen(None, 0, 0));
        let mut asked: Vec<u64> = Vec::new();
        for now in 0..4000 {
            let (_, silent) = pair.look(&seen(None, 0, now * 10), at(now));
            if silent >= SHUT && at(now) >= pair.not_before {
                asked.push(now);
                pair.asked(at(now), pair.pause);
            }
        }
        let pauses: Vec<u64> = asked.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(pauses.is_sorted() && pauses.len() < 14, "{asked:?}");
        assert_eq!(pauses.last(), Some(&600));
        // What was sent until now is asked about once more, and what isn't sent never.
        let sent = seen(None, 0, 40_000);
        let mut more = 0;
        for now in 4000..8000 {
            if pair.look(&sent, at(now)).1 >= SHUT && at(now) >= pair.not_before {
                more += 1;
                pair.asked(at(now), pair.pause);
            }
        }
        assert_eq!(more, 1);
    }

    #[test]
    fn pairs_change_their_keys_within_a_day_at_times_of_their_own() {
        let of = |a: u8, b: u8| lifetime_ms(&NodeId([a; 16]), &NodeId([b; 16]));
        assert_eq!(of(1, 7), of(7, 1));
        assert!(of(1, 7) != of(1, 8) && of(0, 255) < of(0, 0));
        assert!(of(0, 0) <= DAY_MS && of(0, 255) > DAY_MS - SPREAD_MS);
    }
}
