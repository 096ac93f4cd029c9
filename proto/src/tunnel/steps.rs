//! From what is installed to what is planned.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use ipnet::IpNet;

use super::{PresharedKey, TunnelKey, TunnelPeer, TunnelPlan};

/// A peer as the interface has it now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstalledPeer {
    /// What it may send from and is sent.
    pub allowed_ips: BTreeSet<IpNet>,
    /// Set by us, or learned from its last authentic packet.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalives.
    pub keepalive_s: Option<u16>,
    /// The secret mixed into its handshakes.
    pub preshared_key: Option<PresharedKey>,
    /// Whether its last handshake is young enough for a session (180 s, the
    /// protocol's REJECT_AFTER_TIME), so that `endpoint` is known to work.
    pub alive: bool,
}

/// One change of the interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Takes a peer away with everything it holds.
    Remove(TunnelKey),
    /// Takes networks from a peer: what it keeps.
    Narrow(TunnelKey, BTreeSet<IpNet>),
    /// A peer that isn't there.
    Add(TunnelKey, TunnelPeer),
    /// Gives to a peer that is there; takes nothing.
    Change(TunnelKey, PeerChange),
}

/// What changes for a peer that is there; `None` and empty stand for "as it is".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerChange {
    /// Networks given to it beside those it has.
    pub allow: BTreeSet<IpNet>,
    /// Where it is to be reached from now on.
    pub endpoint: Option<SocketAddr>,
    /// Its keepalive, `Some(None)` for off.
    pub keepalive_s: Option<Option<u16>>,
    /// Its pre-shared key, `Some(None)` for none.
    pub preshared_key: Option<Option<PresharedKey>>,
}

impl Step {
    /// The peer that it changes.
    pub fn key(&self) -> TunnelKey {
        match self {
            Self::Remove(key) | Self::Narrow(key, _) | Self::Add(key, _) | Self::Change(key, _) => {
                *key
            }
        }
    }

    /// Whether it only takes networks away. All such steps come first.
    pub fn takes(&self) -> bool {
        matches!(self, Step::Remove(_) | Step::Narrow(..))
    }
}

/// The steps from `installed` to `plan`, in the order in which they must be
/// taken; none when nothing differs.
///
/// Everything is taken before anything is given, because WireGuard moves an
/// allowed IP that another peer holds without a word. If the plan's networks
/// are disjoint, the interface's are so after every step.
///
/// `set_before` holds the endpoints that were planned when the interface was
/// last made equal to a plan. An endpoint that the interface learned from the
/// peer itself (it roamed) stays until the *plan* names another one than then.
/// Where nothing is remembered, as after a restart, an endpoint that carries a
/// session stays too.
pub fn steps(
    plan: &TunnelPlan,
    installed: &BTreeMap<TunnelKey, InstalledPeer>,
    set_before: &BTreeMap<TunnelKey, SocketAddr>,
) -> Vec<Step> {
    let mut takes = Vec::new();
    for (key, peer) in installed {
        match plan.peers.get(key) {
            None => takes.push(Step::Remove(*key)),
            Some(planned) => {
                let wanted = truncated(&planned.allowed_ips);
                let has = truncated(&peer.allowed_ips);
                if !has.is_subset(&wanted) {
                    let keep = has.intersection(&wanted).copied().collect();
                    takes.push(Step::Narrow(*key, keep));
                }
            }
        }
    }
    let gives = plan.peers.iter().filter_map(|(key, planned)| {
        let planned = as_installed(planned);
        let Some(peer) = installed.get(key) else {
            return Some(Step::Add(*key, planned));
        };
        let change = change(planned, peer, set_before.get(key).copied());
        (change != PeerChange::default()).then_some(Step::Change(*key, change))
    });
    takes.into_iter().chain(gives).collect()
}

fn change(planned: TunnelPeer, peer: &InstalledPeer, set_before: Option<SocketAddr>) -> PeerChange {
    let has = truncated(&peer.allowed_ips);
    PeerChange {
        allow: planned.allowed_ips.difference(&has).copied().collect(),
        endpoint: planned.endpoint.filter(|wanted| {
            let learned = match set_before {
                Some(before) => before == *wanted,
                None => peer.alive,
            };
            peer.endpoint != Some(*wanted) && (peer.endpoint.is_none() || !learned)
        }),
        keepalive_s: (planned.keepalive_s != peer.keepalive_s).then_some(planned.keepalive_s),
        preshared_key: (planned.preshared_key != peer.preshared_key)
            .then_some(planned.preshared_key),
    }
}

/// As an interface would report it: it says "none" by a keepalive of zero and
/// by an all-zero key.
fn as_installed(planned: &TunnelPeer) -> TunnelPeer {
    TunnelPeer {
        allowed_ips: truncated(&planned.allowed_ips),
        endpoint: planned.endpoint,
        keepalive_s: planned.keepalive_s.filter(|seconds| *seconds > 0),
        preshared_key: planned
            .preshared_key
            .clone()
            .filter(|secret| secret.0 != [0; 32]),
    }
}

/// Without host bits, as an interface reports them.
fn truncated(nets: &BTreeSet<IpNet>) -> BTreeSet<IpNet> {
    nets.iter().map(IpNet::trunc).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::tunnel::overlap;

    type Peers = BTreeMap<TunnelKey, InstalledPeer>;

    fn key(n: u8) -> TunnelKey {
        TunnelKey([n; 32])
    }

    fn endpoint(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 51820))
    }

    fn peer(nets: &[&str], at: Option<SocketAddr>) -> TunnelPeer {
        TunnelPeer {
            allowed_ips: nets.iter().map(|net| net.parse().unwrap()).collect(),
            endpoint: at,
            ..TunnelPeer::default()
        }
    }

    fn plan(peers: impl IntoIterator<Item = (TunnelKey, TunnelPeer)>) -> TunnelPlan {
        TunnelPlan {
            peers: peers.into_iter().collect(),
            ..TunnelPlan::default()
        }
    }

    /// What a device does with a step; fails where an allowed IP would move.
    fn take_step(peers: &mut Peers, step: &Step) {
        match step.clone() {
            Step::Remove(key) => drop(peers.remove(&key).expect("it is there")),
            Step::Narrow(key, keep) => {
                let peer = peers.get_mut(&key).expect("it is there");
                assert!(keep.is_subset(&peer.allowed_ips) && keep != peer.allowed_ips);
                peer.allowed_ips = keep;
            }
            Step::Add(key, add) => {
                let peer = InstalledPeer {
                    allowed_ips: add.allowed_ips,
                    endpoint: add.endpoint,
                    keepalive_s: add.keepalive_s,
                    preshared_key: add.preshared_key,
                    alive: false,
                };
                assert!(peers.insert(key, peer).is_none(), "it isn't there");
            }
            Step::Change(key, change) => {
                let peer = peers.get_mut(&key).expect("it is there");
                peer.allowed_ips.extend(change.allow);
                peer.endpoint = change.endpoint.or(peer.endpoint);
                peer.keepalive_s = change.keepalive_s.unwrap_or(peer.keepalive_s);
                if let Some(secret) = change.preshared_key {
                    peer.preshared_key = secret;
                }
            }
        }
    }

    fn take(peers: &mut Peers, plan: &TunnelPlan, set_before: &BTreeMap<TunnelKey, SocketAddr>) {
        for step in steps(plan, peers, set_before) {
            take_step(peers, &step);
        }
    }

    /// A small space of networks, so that random plans collide often.
    fn a_net() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (0..16u8, 27..=32u8).prop_map(|(host, prefix)| {
                let ip = IpAddr::from(Ipv4Addr::new(10, 7, 0, host * 8));
                IpNet::new(ip, prefix).unwrap()
            }),
            (0..8u16, 125..=128u8).prop_map(|(host, prefix)| {
                let ip = IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host));
                IpNet::new(ip, prefix).unwrap()
            }),
        ]
    }

    /// A plan whose networks are disjoint: one that would overlap is left out.
    fn a_plan() -> impl Strategy<Value = TunnelPlan> {
        let peer = (
            proptest::collection::btree_set(a_net(), 0..4),
            proptest::option::of(1..4u8),
            proptest::option::of(20..23u16),
            proptest::option::of(1..4u8),
        );
        proptest::collection::btree_map(0..6u8, peer, 0..6).prop_map(|peers| {
            let mut plan = TunnelPlan::default();
            for (n, (nets, at, keepalive_s, secret)) in peers {
                plan.peers.insert(
                    key(n),
                    TunnelPeer {
                        endpoint: at.map(endpoint),
                        keepalive_s,
                        preshared_key: secret.map(|n| PresharedKey([n; 32])),
                        ..TunnelPeer::default()
                    },
                );
                for net in nets {
                    let mut wider = plan.clone();
                    let peer = wider.peers.get_mut(&key(n)).unwrap();
                    peer.allowed_ips.insert(net);
                    if wider.overlap().is_none() {
                        plan = wider;
                    }
                }
            }
            plan
        })
    }

    proptest! {
        #[test]
        fn s11_allowed_ips_are_disjoint_after_every_step_and_end_as_planned(
            old in a_plan(),
            new in a_plan(),
        ) {
            let mut peers = Peers::new();
            take(&mut peers, &old, &BTreeMap::new());
            let set_before = old
                .peers
                .iter()
                .filter_map(|(key, peer)| Some((*key, peer.endpoint?)))
                .collect();
            for step in steps(&new, &peers, &set_before) {
                take_step(&mut peers, &step);
                let held = peers.iter().map(|(key, peer)| (*key, &peer.allowed_ips));
                prop_assert_eq!(overlap(held), None);
            }
            prop_assert_eq!(peers.keys().collect::<Vec<_>>(), new.peers.keys().collect::<Vec<_>>());
            for (key, planned) in &new.peers {
                let peer = &peers[key];
                prop_assert_eq!(&peer.allowed_ips, &truncated(&planned.allowed_ips));
                prop_assert_eq!(peer.keepalive_s, planned.keepalive_s);
                prop_assert_eq!(&peer.preshared_key, &planned.preshared_key);
                if planned.endpoint.is_some() {
                    prop_assert_eq!(peer.endpoint, planned.endpoint);
                }
            }
            prop_assert_eq!(steps(&new, &peers, &set_before), vec![]);
        }
    }

    #[test]
    fn what_is_taken_comes_before_what_is_given() {
        let mut peers = Peers::new();
        let old = plan([
            (key(1), peer(&["10.0.0.1/32"], None)),
            (key(2), peer(&["10.0.0.2/32", "10.0.0.3/32"], None)),
        ]);
        take(&mut peers, &old, &BTreeMap::new());
        let new = plan([
            (key(0), peer(&["10.0.0.3/32"], None)),
            (key(2), peer(&["10.0.0.2/32", "10.0.0.1/32"], None)),
        ]);
        let steps = steps(&new, &peers, &BTreeMap::new());
        let takes: Vec<bool> = steps.iter().map(Step::takes).collect();
        assert_eq!(takes, [true, true, false, false]);
    }

    #[test]
    fn an_endpoint_learned_by_roaming_stays_until_the_plan_names_another() {
        let mut peers = Peers::new();
        let home = plan([(key(1), peer(&[], Some(endpoint(1))))]);
        take(&mut peers, &home, &BTreeMap::new());
        let set_before = BTreeMap::from([(key(1), endpoint(1))]);
        peers.get_mut(&key(1)).unwrap().endpoint = Some(endpoint(9));

        assert_eq!(steps(&home, &peers, &set_before), []);

        let moved = plan([(key(1), peer(&[], Some(endpoint(2))))]);
        take(&mut peers, &moved, &set_before);
        assert_eq!(peers[&key(1)].endpoint, Some(endpoint(2)));
    }

    #[test]
    fn after_a_restart_only_an_endpoint_that_carries_a_session_stays() {
        let mut peers = Peers::new();
        take(
            &mut peers,
            &plan([(key(1), peer(&[], Some(endpoint(9))))]),
            &BTreeMap::new(),
        );
        let planned = plan([(key(1), peer(&[], Some(endpoint(1))))]);

        peers.get_mut(&key(1)).unwrap().alive = true;
        assert_eq!(steps(&planned, &peers, &BTreeMap::new()), []);

        peers.get_mut(&key(1)).unwrap().alive = false;
        take(&mut peers, &planned, &BTreeMap::new());
        assert_eq!(peers[&key(1)].endpoint, Some(endpoint(1)));
    }

    #[test]
    fn a_plan_without_an_endpoint_leaves_the_one_that_is_known() {
        let mut peers = Peers::new();
        take(
            &mut peers,
            &plan([(key(1), peer(&[], Some(endpoint(9))))]),
            &BTreeMap::new(),
        );
        let silent = plan([(key(1), peer(&[], None))]);
        let set_before = BTreeMap::from([(key(1), endpoint(9))]);
        assert_eq!(steps(&silent, &peers, &set_before), []);
    }

    #[test]
    fn host_bits_a_keepalive_of_zero_and_a_zero_secret_are_no_lasting_difference() {
        let mut peers = Peers::new();
        let odd = TunnelPeer {
            keepalive_s: Some(0),
            preshared_key: Some(PresharedKey([0; 32])),
            ..peer(&["192.168.3.7/24"], None)
        };
        let planned = plan([(key(1), odd)]);
        take(&mut peers, &planned, &BTreeMap::new());
        assert_eq!(steps(&planned, &peers, &BTreeMap::new()), []);
    }
}
