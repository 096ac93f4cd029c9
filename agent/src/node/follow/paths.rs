//! What a node does for its tunnel to be found, and to find the others': it is connected
//! with a relay, says where its tunnel is, also as others see it, and has those told that
//! it looks for.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::join_all;
use innermesh_proto::{
    codec,
    endpoint::is_lane,
    id::NodeId,
    ledger::State,
    limits,
    message::{Punch, TunnelPlace},
    rpc::method,
    tunnel::TunnelKey,
    view::MeshView,
};
use tokio::sync::watch;

use crate::{
    gossip::Gossip,
    host::{Host, Mono, until_next},
    node::{
        config::AgentConfig,
        shared::{
            announce::{self, Announcer},
            handles::Handles,
            relaying::Relaying,
            tunnel_progress::TunnelProgress,
        },
    },
    quic::Transport,
    tunnel::{Tunnel, relayed::Relayed},
};

/// How often it is looked where the tunnel is.
const LOOK: Duration = Duration::from_secs(5);
/// The longest pause between two times that others are asked where they see it: it doubles
/// from [`LOOK`] on for as long as nothing changes.
const ASK: Duration = Duration::from_secs(160);
/// How many of them are.
const ASKED: usize = 2;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// How long the connection with a relay may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a relay that couldn't be connected with is left alone.
const AVOID: Duration = Duration::from_secs(60);
/// Neighbours of a node that are asked to tell it something.
const TOLD_BY: usize = 3;

/// See the module.
pub(crate) struct PathKeeper {
    host: Host,
    me: NodeId,
    config: Arc<AgentConfig>,
    transport: Transport,
    gossip: Gossip,
    view: watch::Sender<Arc<MeshView>>,
    tunnel: Arc<dyn Tunnel>,
    progress: watch::Sender<TunnelProgress>,
    announcer: Announcer,
    relayed: Relayed,
    relaying: Arc<Relaying>,
    /// Relays that couldn't be connected with.
    avoided: BTreeMap<NodeId, Mono>,
    /// The one that this node is connected with.
    relay: Option<NodeId>,
    /// Where others see this node's tunnel.
    seen: Vec<SocketAddr>,
    /// When others are asked next, and how long after that again.
    ask: (Mono, Duration),
    /// When it was looked last, and at which ledger.
    looked: Option<(Mono, Arc<State>)>,
}

impl PathKeeper {
    pub fn new(
        node: &Handles,
        tunnel: Arc<dyn Tunnel>,
        progress: watch::Sender<TunnelProgress>,
        announcer: Announcer,
        (relayed, relaying): (Relayed, Arc<Relaying>),
    ) -> Self {
        Self {
            host: node.host.clone(),
            me: node.me,
            config: node.config.clone(),
            transport: node.transport.clone(),
            gossip: node.gossip.clone(),
            view: node.view.clone(),
            tunnel,
            progress,
            announcer,
            relayed,
            relaying,
            avoided: BTreeMap::new(),
            relay: None,
            seen: Vec::new(),
            ask: (Duration::ZERO, LOOK),
            looked: None,
        }
    }

    /// Goes on for as long as the agent runs.
    pub async fn run(mut self) {
        let backend = self.tunnel.observe().await.map(|state| state.backend);
        let is_one = backend.is_ok_and(|backend| backend != "none");
        let tasks = self.host.tasks.clone();
        tasks.spawn(self.relaying.clone().run());
        tasks.spawn(self.punching());
        let mut views = self.view.subscribe();
        let mut progress = self.progress.subscribe();
        let mut known = Arc::default();
        loop {
            let view = views.borrow_and_update().clone();
            let plan = progress.borrow_and_update().plan.clone();
            if self.is_due(&view) || !Arc::ptr_eq(&plan, &known) {
                self.relaying.know(&view, &plan);
                known = plan;
            }
            if is_one && self.is_due(&view) {
                self.looked = Some((self.host.clock.now(), view.ledger.clone()));
                self.look(&view).await;
            }
            let now = self.host.clock.now();
            let clock = self.host.clock.clone();
            tokio::select! {
                () = clock.sleep(until_next(LOOK, now)) => {}
                changed = views.changed() => if changed.is_err() { return },
                changed = progress.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Whether it is time, or something changed that what is announced depends on: views
    /// change often.
    fn is_due(&self, view: &MeshView) -> bool {
        let now = self.host.clock.now();
        let is_live = |relay: &NodeId| {
            *relay == self.me || view.nodes.get(relay).is_some_and(|seen| seen.live)
        };
        let Some((looked, ledger)) = &self.looked else {
            return true;
        };
        let has_time = now < *looked + LOOK && Arc::ptr_eq(ledger, &view.ledger);
        // Who is back by a lane is reached by nothing else until it says so.
        let is_back = self.relay.is_none() && {
            let paths = self.transport.paths();
            let mut lanes = paths.iter().filter(|(_, at)| is_lane(at));
            lanes.any(|(node, _)| view.is_relay(node) && is_live(node))
        };
        is_back || !has_time || self.relay.is_some_and(|relay| !is_live(&relay))
    }

    async fn look(&mut self, view: &MeshView) {
        let relay = self.relay(view).await;
        self.relay = relay;
        let now = self.host.clock.now();
        if now >= self.ask.0 {
            let pause = self.ask.1;
            self.ask = (now + pause, (pause * 2).min(ASK));
            self.ask(view, relay).await;
        }
        let mapped = self.announcer.port_maps.borrow().clone();
        let others = (&mapped, &*self.seen);
        let places = announce::places(&self.config, &self.host, others, relay).await;
        let is_new = self.announcer.places.send_if_modified(|said| {
            let is_new = *said != places;
            *said = places;
            is_new
        });
        if is_new {
            self.ask_soon();
            self.announcer.announce();
        }
    }

    /// The relay that this node is connected with, once it is.
    async fn relay(&mut self, view: &MeshView) -> Option<NodeId> {
        let now = self.host.clock.now();
        self.avoided.retain(|_, until| now < *until);
        // Where there are lanes UDP goes nowhere, and only relays with one are reached.
        let is_by_lane = self.transport.paths().values().any(is_lane);
        let relay = view.own_relay(|relay| {
            let is_doubtful = is_by_lane || self.avoided.contains_key(relay);
            is_doubtful && !self.transport.is_connected(*relay)
        })?;
        if relay == self.me {
            return Some(relay);
        }
        if self.transport.connect(relay, CONNECT).await {
            self.transport.note_used(relay);
            return Some(relay);
        }
        let now = self.host.clock.now();
        self.avoided.insert(relay, now + AVOID);
        None
    }

    /// Asks some of those that this node is connected with where they see its tunnel.
    async fn ask(&mut self, view: &MeshView, relay: Option<NodeId>) {
        let connected = self.transport.peers().into_iter();
        let knows = |node: &NodeId| {
            let seen = view.nodes.get(node);
            seen.is_some_and(|seen| {
                let said = &seen.announcement;
                said.wireguard.is_some() && !said.places.candidates.is_empty()
            })
        };
        let first = relay.filter(|relay| *relay != self.me);
        let others = connected.filter(|node| Some(*node) != first && knows(node));
        let asked = first.into_iter().chain(others).take(ASKED);
        let answers = asked.map(|node| {
            let call = self
                .transport
                .call(node, method::TUNNEL_PLACE, Vec::new(), ANSWER);
            async move {
                let answer = call.await.ok()?;
                let seen: TunnelPlace = codec::decode(&answer, limits::RPC_BYTES).ok()?;
                seen.place
            }
        });
        let mut seen: Vec<SocketAddr> = Vec::new();
        for place in join_all(answers).await.into_iter().flatten() {
            if !seen.contains(&place) {
                seen.push(place);
            }
        }
        if is_news(&self.seen, &seen) {
            self.seen = seen;
            self.ask_soon();
        }
    }

    /// What was seen may have changed.
    fn ask_soon(&mut self) {
        let now = self.host.clock.now();
        self.ask = (self.ask.0.min(now + LOOK), LOOK);
    }

    /// Has those told that this node looks for: by itself where it is connected with them,
    /// else by neighbours of theirs, of whom those that it is connected with are asked
    /// first.
    fn punching(&self) -> impl Future<Output = ()> + Send + 'static {
        let (me, relayed, transport) = (self.me, self.relayed.clone(), self.transport.clone());
        let (gossip, progress) = (self.gossip.clone(), self.progress.clone());
        async move {
            loop {
                let key = relayed.punch_asked().await;
                let Some(node) = node_of(&progress, &key) else {
                    continue;
                };
                let told = codec::encode(&Punch { node: me });
                if transport.is_connected(node) && transport.notify(node, method::PUNCHED, told) {
                    continue;
                }
                let mut by = gossip.neighbours_of(&node);
                by.retain(|by| *by != me);
                by.sort_by_key(|by| !transport.is_connected(*by));
                let request = codec::encode(&Punch { node });
                let calls = by.into_iter().take(TOLD_BY);
                let calls =
                    calls.map(|by| transport.call(by, method::PUNCH, request.clone(), ANSWER));
                join_all(calls).await;
            }
        }
    }
}

/// Whether what others see now is to be announced in place of what they saw before.
fn is_news(before: &[SocketAddr], now: &[SocketAddr]) -> bool {
    // Behind a NAT with a port for each destination it depends on who is asked, and helps
    // nobody.
    let differs = now.len() > 1;
    let is_same = before
        .iter()
        .any(|before| now.iter().any(|now| now.ip() == before.ip()));
    // Where nobody saw anything what was seen before may still be so.
    !now.is_empty() && now != before && !(differs && is_same)
}

fn node_of(progress: &watch::Sender<TunnelProgress>, key: &TunnelKey) -> Option<NodeId> {
    let progress = progress.borrow();
    Some(progress.plan.ways.get(key)?.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_depends_on_who_is_asked_is_announced_once() {
        let at = |ip: u8, port: u16| SocketAddr::from(([203, 0, 113, ip], port));
        for (before, now, expected) in [
            (&[][..], &[][..], false),
            (&[], &[at(1, 1)], true),
            (&[at(1, 1)], &[], false),
            (&[at(1, 1)], &[at(1, 1)], false),
            (&[at(1, 1)], &[at(1, 2)], true),
            (&[], &[at(1, 1), at(1, 2)], true),
            (&[at(1, 1), at(1, 2)], &[at(1, 3), at(1, 4)], false),
            (&[at(1, 1), at(1, 2)], &[at(2, 3), at(2, 4)], true),
        ] {
            assert_eq!(is_news(before, now), expected, "{before:?} {now:?}");
        }
    }
}
