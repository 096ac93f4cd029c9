//! The network of one world: its hosts, what lies between them, and what becomes
//! of a datagram.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use super::{
    datagrams::BoundSockets,
    inbox::{Datagram, Inbox},
    link::{Fate, Link, Links},
    message::Talk,
    nat::{Class, Nat},
    place::HostId,
    tcp_table::Tcp,
};
use crate::{clock, profile::Profile, tunnel::SimTunnels};

/// The network of one world. Clones are the same network.
#[derive(Clone)]
pub struct Wire {
    pub(super) profile: Profile,
    pub(super) state: Arc<Mutex<State>>,
}

/// Everything in it.
pub(super) struct State {
    pub(super) sequence: u64,
    pub(super) hosts: Vec<Place>,
    /// The host with each address, its NAT's public one included.
    pub(super) whose: BTreeMap<IpAddr, HostId>,
    pub(super) bound: BTreeMap<SocketAddr, Arc<Inbox>>,
    pub(super) links: Links,
    pub(super) talk: Talk,
    pub(super) tcp: Tcp,
    pub(super) datagrams: BoundSockets,
    pub(super) observer: Option<Observer>,
}

/// Where a host is.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) nat: Option<Nat>,
    /// Until when nothing goes in or out.
    pub(super) still_until: Option<Instant>,
}

/// Is told of each datagram, when it is sent.
pub type Observer = Box<dyn FnMut(&Passing) + Send>;

/// A datagram on its way.
#[derive(Clone, Copy, Debug)]
pub struct Passing {
    /// By whom, as the receiver sees it.
    pub from: SocketAddr,
    /// To whom, as the sender named it.
    pub to: SocketAddr,
    /// Bytes of UDP payload. What they say differs from run to run, as TLS
    /// draws its own randomness.
    pub length: usize,
    /// What becomes of it.
    pub fate: Fate,
}

impl Wire {
    /// A network whose accidents are `seed`'s.
    pub fn new(seed: u64, profile: Profile) -> Self {
        let state = State {
            sequence: 0,
            hosts: Vec::new(),
            whose: BTreeMap::new(),
            bound: BTreeMap::new(),
            links: Links::new(seed),
            talk: Talk::new(seed),
            tcp: Tcp::default(),
            datagrams: BoundSockets::default(),
            observer: None,
        };
        Self {
            profile,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Has `observer` told of each datagram from now on.
    pub fn observe(&self, observer: Observer) {
        self.lock().observer = Some(observer);
    }

    /// Makes `link` what lies between any two hosts that have no link of their
    /// own.
    pub fn set_usual(&self, link: Link) {
        let mut state = self.lock();
        state.links.set_usual(link);
        state.trouble();
    }

    /// Makes `link` what lies in the way from one host to another.
    pub fn set_link(&self, from: HostId, to: HostId, link: Link) {
        let mut state = self.lock();
        state.links.set(from, to, link);
        state.trouble();
    }

    /// Takes the way from one host to another down.
    pub fn cut(&self, from: HostId, to: HostId) {
        let mut state = self.lock();
        state.links.cut(from, to);
        state.trouble();
    }

    /// Makes all links good again.
    pub fn heal(&self) {
        self.lock().links.heal();
    }

    /// Takes all sockets of a host from it, as when its power fails: what they
    /// still send goes nowhere.
    pub fn unplug(&self, host: HostId) {
        let mut state = self.lock();
        let addresses = state.hosts[host.0].addresses.clone();
        state.bound.retain(|at, _| !addresses.contains(&at.ip()));
        let gone = state.talk.unplug(host);
        state.tcp.unplug(host);
        state.datagrams.unplug(host);
        state.trouble();
        drop(state);
        drop(gone);
    }

    /// A new host's place in the network.
    pub fn plug(&self, name: &str, addresses: &[IpAddr]) -> HostId {
        let mut state = self.lock();
        state.hosts.push(Place {
            name: name.into(),
            addresses: addresses.to_vec(),
            nat: None,
            still_until: None,
        });
        let host = HostId(state.hosts.len() - 1);
        state.whose.extend(addresses.iter().map(|ip| (*ip, host)));
        host
    }

    /// Has the overlay addresses of a host be those of its tunnel.
    pub fn set_tunnels(&self, host: HostId, tunnels: SimTunnels) {
        self.lock().tcp.set_tunnels(host, tunnels);
    }

    /// Puts a host behind a NAT whose public address is `public`.
    pub fn set_nat(&self, host: HostId, class: Class, public: IpAddr) {
        let mut state = self.lock();
        state.hosts[host.0].nat = Some(Nat::new(class, public));
        state.whose.insert(public, host);
        state.trouble();
    }

    /// Restarts a host's NAT; `false` where it has none.
    pub fn rebind_nat(&self, host: HostId) -> bool {
        let mut state = self.lock();
        let nat = state.hosts[host.0].nat.as_mut();
        nat.map(Nat::rebind).is_some()
    }

    /// Gives a host the address `to` instead of `from`; its sockets stay, as
    /// those that are bound to any address do.
    pub fn roam(&self, host: HostId, from: IpAddr, to: IpAddr) {
        let mut state = self.lock();
        for address in &mut state.hosts[host.0].addresses {
            if *address == from {
                *address = to;
            }
        }
        state.whose.remove(&from);
        state.whose.insert(to, host);
        state.trouble();
        let moved: Vec<SocketAddr> = state.bound.keys().copied().collect();
        for old in moved.into_iter().filter(|at| at.ip() == from) {
            if let Some(inbox) = state.bound.remove(&old) {
                state.bound.insert(SocketAddr::new(to, old.port()), inbox);
            }
        }
    }

    /// Lets nothing in or out of a host before `until`; what is sent
    /// meanwhile, by it and to it, passes then.
    pub fn still(&self, host: HostId, until: Instant) {
        let mut state = self.lock();
        state.hosts[host.0].still_until = Some(until);
        state.trouble();
        let addresses = state.hosts[host.0].addresses.clone();
        for (_, inbox) in state
            .bound
            .iter()
            .filter(|(at, _)| addresses.contains(&at.ip()))
        {
            inbox.hold(until);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send(&self, host: HostId, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let now = clock::now();
        let mut state = self.lock();
        let length = bytes.len();
        let from = match &mut state.hosts[host.0].nat {
            Some(nat) => nat.outward(from, to, now),
            None => from,
        };
        let target = state.target(from, to, now);
        let mut times = Vec::new();
        // Lost without a word where nobody is, as behind most firewalls.
        let fate = match &target {
            Err(fate) => *fate,
            Ok((receiver, _)) => {
                let (fate, passed) = state.links.pass(host, *receiver, length);
                let begin = state.ready(host, now);
                let arrivals = passed.into_iter().map(|time| begin + time);
                times = arrivals.map(|at| state.ready(*receiver, at)).collect();
                fate
            }
        };
        if let Some(observer) = &mut state.observer {
            observer(&Passing {
                from,
                to,
                length,
                fate,
            });
        }
        let first = state.sequence;
        state.sequence += times.len() as u64;
        drop(state);
        let Ok((_, inbox)) = target else { return };
        for place in times.into_iter().zip(first..) {
            let bytes = bytes.to_vec();
            inbox.put(place, Datagram { from, to, bytes });
        }
    }
}

impl State {
    /// Who gets a datagram to this address, or why nobody does.
    pub(super) fn target(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> Result<(HostId, Arc<Inbox>), Fate> {
        let (host, inside) = self.inside(from, to, now)?;
        let inbox = self.bound.get(&inside).ok_or(Fate::Nowhere)?;
        Ok((host, inbox.clone()))
    }

    /// Where what a host sends from a port seems to come from, and which host
    /// gets it at which of its own addresses.
    pub(super) fn route(
        &mut self,
        host: HostId,
        port: u16,
        to: SocketAddr,
    ) -> (SocketAddr, Result<(HostId, SocketAddr), Fate>) {
        let now = clock::now();
        let place = &mut self.hosts[host.0];
        let mut addresses = place.addresses.iter();
        let own = addresses.find(|ip| ip.is_ipv4() == to.is_ipv4());
        let Some(own) = own else {
            return (to, Err(Fate::Nowhere));
        };
        let from = SocketAddr::new(*own, port);
        let from = match &mut place.nat {
            Some(nat) => nat.outward(from, to, now),
            None => from,
        };
        (from, self.inside(from, to, now))
    }

    /// Which host has this address, and the address inside of its NAT.
    pub(super) fn inside(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> Result<(HostId, SocketAddr), Fate> {
        let host = *self.whose.get(&to.ip()).ok_or(Fate::Nowhere)?;
        let inside = match &self.hosts[host.0].nat {
            Some(nat) if nat.public() == to.ip() => {
                nat.inward(to.port(), from, now).ok_or(Fate::Filtered)?
            }
            // An address behind a NAT means nothing outside.
            Some(_) => return Err(Fate::Nowhere),
            None => to,
        };
        Ok((host, inside))
    }

    /// When a host that may stand still takes part again, if not at `at`.
    pub(super) fn ready(&self, host: HostId, at: Instant) -> Instant {
        let still = self.hosts[host.0].still_until;
        still.map_or(at, |until| until.max(at))
    }
}
