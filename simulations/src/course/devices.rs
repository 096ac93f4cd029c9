//! A phone, which has no agent and comes in by gateways, and a LAN that they bring.

use std::{net::SocketAddr, time::Duration};

use innermesh_agent::{
    control::{
        ControlError,
        devices::{DeviceAddRequest, DeviceRmRequest},
    },
    node::Agent,
};
use innermesh_proto::{
    id::NodeId,
    ledger::{Content, Role, device::DeviceId, request::RoleChange, route::RouteChange},
    tunnel::TunnelKey,
    view::MeshView,
};
use ipnet::IpNet;
use tokio::time::Instant;

use super::{
    Course,
    acts::{Asked, Done},
    phone::Known,
};
use crate::{check::devices, clock, mesh, violation::Seen};

/// The phone's name and key.
const NAME: &str = "phone";
const KEY: TunnelKey = TunnelKey([202; 32]);
/// What the gateways bring, and a part of it.
const LAN: &str = "192.168.7.0/24";
const PART: &str = "192.168.7.128/25";
/// After that WireGuard makes another handshake, by itself and where nothing comes
/// back (REKEY_AFTER_TIME; KEEPALIVE_TIMEOUT and REKEY_TIMEOUT together).
const REKEY: Duration = Duration::from_secs(120);
const NO_ANSWER: Duration = Duration::from_secs(15);
/// How often it tries where it isn't let in (REKEY_TIMEOUT).
const RETRY: Duration = Duration::from_secs(5);
/// How long tunnel and filter may be as an earlier view had it.
const BEHIND: Duration = Duration::from_secs(2);
/// How often somebody asks again who isn't told yes.
const TRIES: usize = 20;

fn lan() -> IpNet {
    LAN.parse().expect("a network")
}

impl Course<'_> {
    /// The first machine has another be a gateway.
    pub(super) fn gateway(&mut self, node: usize) -> bool {
        self.phone.is_used = true;
        let change = RoleChange {
            node: self.ids[node],
            role: Role::Gateway,
            root: None,
        };
        self.first_asks(Asked::Gateway, move |first| {
            let content = Content::GiveRole(change.clone());
            async move { mesh::ask(&first, &content).await }
        })
    }

    /// The first machine adds the phone, which comes in by these.
    pub(super) fn add_phone(&mut self, gateways: &[usize]) -> bool {
        let label = |node: &usize| self.machines[*node].name.parse().expect("a label");
        let request = DeviceAddRequest {
            name: NAME.parse().expect("a label"),
            public_key: KEY.to_string(),
            owner: None,
            gateways: gateways.iter().map(label).collect(),
            routes: Vec::new(),
            full_tunnel: false,
            dns: true,
            groups: Vec::new(),
            ttl_s: None,
        };
        self.first_asks(Asked::Phone, move |first| {
            let request = request.clone();
            async move { asked(first.control().ask(request).await) }
        })
    }

    /// The first machine removes it.
    pub(super) fn remove_phone(&mut self) -> bool {
        self.phone.known = Known::Unsure;
        self.first_asks(Asked::NoPhone, move |first| {
            let name = NAME.parse().expect("a label");
            async move { asked(first.control().ask(DeviceRmRequest { name }).await) }
        })
    }

    /// The first machine has a gateway bring the LAN.
    pub(super) fn bring(&mut self, node: usize) -> bool {
        self.phone.bring.insert(node);
        self.machines[node].stands_in(Some(lan()));
        let change = RouteChange {
            net: lan(),
            gateway: self.ids[node],
        };
        self.first_asks(Asked::Route, move |first| {
            let content = Content::AddRoute(change);
            async move { mesh::ask(&first, &content).await }
        })
    }

    /// As [`Course::bring`], a part of the LAN, which others have as a whole.
    pub(super) fn bring_part(&mut self, node: usize) -> bool {
        let Some(first) = self.agents[0].clone() else {
            return false;
        };
        let content = Content::AddRoute(RouteChange {
            net: PART.parse().expect("a network"),
            gateway: self.ids[node],
        });
        let asking = self.asked.spawn(async move {
            Done {
                node: 0,
                what: Asked::PartOfRoute,
                answer: mesh::ask(&first, &content).await,
            }
        });
        self.asking.entry(0).or_default().push(asking);
        true
    }

    /// The first machine is asked for something until it is done.
    pub(super) fn first_asks<A>(
        &mut self,
        what: Asked,
        ask: impl Fn(Agent) -> A + Send + 'static,
    ) -> bool
    where
        A: Future<Output = Result<(), String>> + Send + 'static,
    {
        let Some(first) = self.agents[0].clone() else {
            return false;
        };
        let asking = self.asked.spawn(async move {
            let mut answer = Err(String::new());
            for _ in 0..TRIES {
                answer = ask(first.clone()).await;
                if answer.is_ok() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            Done {
                node: 0,
                what,
                answer,
            }
        });
        self.asking.entry(0).or_default().push(asking);
        true
    }

    /// Somebody was told that the mesh has the phone, or has it no more.
    pub(super) fn told_of_phone(&mut self, is_there: bool) {
        self.phone.known = if is_there {
            Known::Added
        } else {
            Known::Removed
        };
    }

    /// A part of a network was taken that others have as a whole.
    pub(super) fn took_part(&mut self) {
        let words = format!("{PART} is a gateway's, and within {LAN}, which others bring");
        self.violated(0, ("S11", words));
    }

    /// A machine comes into a LAN that has the range of the one behind gateways, or
    /// leaves it.
    pub(super) fn stands(&mut self, node: usize, is_there: bool) -> bool {
        self.machines[node].stands_in(is_there.then(lan));
        if is_there {
            self.phone.strangers.insert(node)
        } else {
            self.phone.strangers.remove(&node)
        }
    }

    /// Its user has the phone use this gateway from now on.
    pub(super) fn tap(&mut self, node: usize) -> bool {
        self.phone.at = Some(node);
        self.phone.wants = true;
        self.phone.tried = None;
        true
    }

    /// As [`Course::tap`], another one that runs.
    pub(super) fn tap_another(&mut self) -> bool {
        let before = self.phone.at;
        let runs = |node: &&usize| self.agents[**node].is_some() && Some(**node) != before;
        let another = self.phone.bring.iter().find(runs).copied();
        another.is_some_and(|another| self.tap(another))
    }

    /// The power of the gateway fails by which the first machine reaches the LAN.
    pub(super) async fn crash_gateway(&mut self) -> bool {
        let Some(first) = &self.agents[0] else {
            return false;
        };
        let serving = first.view().borrow().route_gateways();
        let serving = serving.get(&lan()).copied();
        match self.ids.iter().position(|id| Some(*id) == serving) {
            Some(node) => self.crash(node).await,
            None => false,
        }
    }

    /// By now all must send what is for the phone and the LAN to gateways that run.
    pub(super) fn must_have_switched(&mut self) -> bool {
        for node in 0..self.agents.len() {
            if let Some(words) = self.not_switched(node) {
                self.violated(node, ("L2", words));
                return true;
            }
        }
        true
    }

    fn not_switched(&self, node: usize) -> Option<String> {
        let view = self.agents[node].as_ref()?.view().borrow().clone();
        let runs = |by: NodeId| {
            let place = self.ids.iter().position(|id| *id == by);
            place.is_some_and(|place| self.agents[place].is_some())
        };
        if !self.phone.bring.contains(&node) && !self.phone.strangers.contains(&node) {
            let by = self.led_to(node, &view, &lan());
            if !by.is_some_and(runs) {
                return Some(format!(
                    "what is for {LAN} goes to {by:?}, which doesn't run"
                ));
            }
        }
        self.not_at_phone(node, &view)
    }

    /// Who is sent what a machine has for a network.
    fn led_to(&self, node: usize, view: &MeshView, net: &IpNet) -> Option<NodeId> {
        let plan = self.machines[node].tunnel_plan();
        let mut peers = plan.peers.iter();
        let (key, _) = peers.find(|(_, peer)| peer.allowed_ips.contains(net))?;
        let of_device = (*key == KEY).then_some(view.me);
        view.ledger.tunnel_key_holder(key).or(of_device)
    }

    /// Why what is for the phone doesn't get there.
    fn not_at_phone(&self, node: usize, view: &MeshView) -> Option<String> {
        let at = self.phone.at.filter(|_| self.phone.known == Known::Added)?;
        let (_, device) = view.ledger.device_by_key(&KEY)?;
        for address in device.addresses() {
            let by = self.led_to(node, view, &IpNet::from(address));
            if by != Some(self.ids[at]) {
                let at = &self.machines[at].name;
                return Some(format!(
                    "what is for the phone, which is at {at}, goes to {by:?}"
                ));
            }
        }
        None
    }

    /// What is done all the time: the phone keeps its session up, and no machine is
    /// to have it, or the LAN, otherwise than it knows.
    pub(super) fn watch_phone(&mut self) {
        if !self.phone.is_used {
            return;
        }
        self.shake_hands();
        let now = clock::now();
        for node in 0..self.agents.len() {
            let runs = self.agents[node].as_ref();
            let view = runs.filter(|_| !self.machines[node].clock.is_still());
            let view = view.map(|agent| agent.view().borrow().clone());
            let machine = &self.machines[node];
            let stale = view.as_ref().and_then(|view| devices::stale(view, machine));
            let stranger = self.phone.strangers.contains(&node) && view.is_some();
            let chosen = stranger.then(|| devices::silently_chosen(machine, &lan()));
            for (what, seen) in [("stale", stale), ("chosen", chosen.flatten())] {
                let late = &mut self.phone.late;
                let Some((invariant, words)) = seen else {
                    late.remove(&(node, what));
                    continue;
                };
                let entry = late.entry((node, what));
                let (before, since) = entry.or_insert_with(|| (words.clone(), now));
                if *before != words {
                    (*before, *since) = (words, now);
                } else if now > *since + BEHIND {
                    self.violated(node, (invariant, words));
                }
            }
        }
    }

    /// The phone makes a handshake as WireGuard does, whenever one is due.
    fn shake_hands(&mut self) {
        let Some(at) = self.phone.at else { return };
        if self.agents[at].is_none() || self.machines[at].clock.is_still() {
            return;
        }
        let now = clock::now();
        let is_due = match self.machines[at].handshake(&KEY) {
            Some(_) if self.phone.wants => true,
            Some(age) => age >= REKEY || age >= NO_ANSWER && self.gets_nothing(),
            None => true,
        };
        let is_soon = |tried: Instant| now < tried + RETRY;
        if !is_due || self.phone.tried.is_some_and(is_soon) {
            return;
        }
        self.phone.tried = Some(now);
        if self.machines[at].shake(KEY, SocketAddr::from(([198, 51, 100, 7], 4500))) {
            self.phone.wants = false;
            self.trace.count("handshake");
            let words = format!("the phone is at {}", self.machines[at].name);
            self.trace.event("handshake", &words);
        }
    }

    /// Whether somebody who runs sends the phone's packets elsewhere.
    fn gets_nothing(&self) -> bool {
        let mut running = self.agents.iter().enumerate();
        running.any(|(node, agent)| {
            let view = agent.as_ref().map(|agent| agent.view().borrow().clone());
            view.is_some_and(|view| self.not_at_phone(node, &view).is_some())
        })
    }

    /// What of the phone isn't as it must become, and on which machine.
    pub(super) fn phone_settled(&self) -> Result<(), (usize, Seen)> {
        if !self.phone.is_used {
            return Ok(());
        }
        for (node, agent) in self.agents.iter().enumerate() {
            let Some(agent) = agent else { continue };
            let view = agent.view().borrow().clone();
            let wrong = match self.phone.known {
                Known::Unsure => None,
                Known::Added if view.ledger.device(&DeviceId::of(&KEY)).is_none() => {
                    Some(("S20", "the phone was added, and is forgotten".to_owned()))
                }
                Known::Added => self.not_at_phone(node, &view).map(|words| ("L1", words)),
                Known::Removed => self.has_phone(node, &view),
            };
            let late = || devices::stale(&view, &self.machines[node]);
            if let Some(seen) = wrong.or_else(late) {
                return Err((node, seen));
            }
        }
        Ok(())
    }

    fn has_phone(&self, node: usize, view: &MeshView) -> Option<Seen> {
        let plan = self.machines[node].tunnel_plan();
        let has = view.ledger.device_by_key(&KEY).is_some() || plan.peers.contains_key(&KEY);
        has.then(|| ("S13", "the phone was removed, and is there".to_owned()))
    }
}

fn asked<T>(answer: Result<T, ControlError>) -> Result<(), String> {
    answer.map(|_| ()).map_err(|error| error.to_string())
}
