//! Where the two kinds of fact meet: the ledger (who may) and gossip (who is).

#![allow(missing_docs, reason = "the names say it")]

mod access;
mod devices;
mod exits;
mod explain;
mod gateways;
mod publish;
mod stranger;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub use self::{
    devices::DeviceHome,
    explain::{
        AnswerExplanation, Candidate, Condition, LanView, LeftOut, LeftOutReason, RecordOwner,
    },
    publish::InsideLink,
};
use crate::{
    endpoint::{self, is_plausible},
    filter::{FilterPlan, HostNetworks, Interface},
    head::{Announcement, HeadTable, Known},
    hold::{self, Suspensions},
    id::{self, NodeId},
    ledger::{
        Member, Role, State,
        record::{RecordData, UserRecord},
        state::{Name, NameKind},
    },
    name::Label,
    tunnel::{TunnelKey, TunnelPeer, TunnelPlan},
    zone::{
        self, DomainName, InstanceRecord, NodeRecords, RecordType, ServiceRecords, ServiceState,
        ZoneInput,
    },
};

/// All that a node concludes from, as one immutable value.
#[derive(Clone, Debug)]
pub struct MeshView {
    /// Rises with each change.
    pub version: u64,
    /// The node whose view it is.
    pub me: NodeId,
    /// The ledger, as far as it is known here.
    pub ledger: Arc<State>,
    /// What is known of each member by gossip. Members that were never heard
    /// of are absent.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// Members that are cut off by an admin's hold: of them nothing is served,
    /// and nothing leads to them.
    pub held: Suspensions,
    /// Whether the ledger held here may be behind: nothing was compared with
    /// any peer since the start.
    pub loading: bool,
}

/// One member, by gossip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Whether it is live.
    pub live: bool,
    /// Whether it is heard of as often as it should be.
    pub prompt: bool,
    /// Whether this node has a link with it.
    pub linked: bool,
    /// Whether the ledger held here reaches as far as the node's own: only
    /// then is it known whether others it vouches for, or it itself, were
    /// revoked (S13).
    pub ledger_caught_up: bool,
    pub announcement: Arc<Announcement>,
    /// Whether its newest announcement is still to be fetched.
    pub loading: bool,
    /// Where QUIC reaches it now.
    pub path: Option<SocketAddr>,
    /// Since when its announcement is known here, monotonic; `None` where that was
    /// before this node's start.
    pub since: Option<Duration>,
}

/// How a node stands by what is heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub live: bool,
    /// Whether it is live and nothing is overdue: of two that serve the same, the
    /// better one.
    pub prompt: bool,
    /// Whether this node has a link with it.
    pub linked: bool,
}

impl Standing {
    /// By the lease of its newest head.
    pub fn by_lease(known: &Known, now: Duration) -> Self {
        Self {
            live: known.is_live(now),
            prompt: known.is_prompt(now),
            linked: false,
        }
    }
}

impl NodeView {
    fn of(known: &Known, path: Option<SocketAddr>, standing: Standing) -> Self {
        let body = known.body.as_ref();
        Self {
            live: standing.live,
            prompt: standing.prompt,
            linked: standing.linked,
            ledger_caught_up: known.ledger_caught_up,
            announcement: body
                .map(|body| body.announcement.clone())
                .unwrap_or_default(),
            loading: body.is_none(),
            path,
            since: body.and_then(|body| body.since),
        }
    }
}

/// Seconds between WireGuard keepalives. 25 keeps every usual NAT mapping.
const KEEPALIVE_S: u16 = 25;

impl MeshView {
    /// What is known of each member: `heads` by gossip, `own` what `me`
    /// announces and since when, `paths` where QUIC reaches each peer, `standing` how
    /// each stands now.
    pub fn nodes(
        me: NodeId,
        ledger: &State,
        heads: &HeadTable,
        (own, own_since): (Arc<Announcement>, Option<Duration>),
        paths: &BTreeMap<NodeId, SocketAddr>,
        standing: impl Fn(&NodeId, &Known) -> Standing,
    ) -> BTreeMap<NodeId, NodeView> {
        let mut nodes: BTreeMap<NodeId, NodeView> = heads
            .iter()
            .filter(|(node, _)| **node != me && ledger.members.contains_key(node))
            .map(|(node, known)| {
                let path = paths.get(node).copied();
                (*node, NodeView::of(known, path, standing(node, known)))
            })
            .collect();
        let own = NodeView {
            live: true,
            prompt: true,
            linked: false,
            ledger_caught_up: true,
            announcement: own,
            loading: false,
            path: None,
            since: own_since,
        };
        nodes.insert(me, own);
        nodes
    }

    /// The holds in force, by the ledger and what `nodes` announce.
    pub fn held(ledger: &State, nodes: &BTreeMap<NodeId, NodeView>) -> Suspensions {
        let announced = nodes.iter();
        hold::in_force(
            ledger,
            announced.map(|(node, view)| (*node, &*view.announcement)),
        )
    }

    /// The members that aren't held.
    fn members(&self) -> impl Iterator<Item = (&NodeId, &Member)> {
        let members = self.ledger.members.iter();
        members.filter(|(node, _)| !self.held.contains_key(node))
    }

    /// This node as the ledger has it; `None` when it is no member any more.
    pub fn own_member(&self) -> Option<&Member> {
        self.ledger.members.get(&self.me)
    }

    /// The IPv6 overlay.
    pub fn ula(&self) -> Ipv6Net {
        self.ledger.mesh.ula()
    }

    /// Overlay addresses of a member.
    pub fn addresses(member: &Member) -> Vec<IpAddr> {
        vec![IpAddr::V4(member.ipv4), IpAddr::V6(member.ipv6)]
    }

    /// The sources that may ask this node's resolver: members and devices, whatever
    /// else the host itself adds (its own addresses).
    pub fn member_addresses(&self) -> BTreeSet<IpAddr> {
        let members = self.members();
        let members = members.flat_map(|(_, member)| Self::addresses(member));
        let devices = self.devices();
        members
            .chain(devices.flat_map(|(_, device)| device.addresses()))
            .collect()
    }

    /// What this node's tunnel interface should be. A peer is in it when it is
    /// a member, its position was compared with this node's, and it announced
    /// that it has a tunnel; its allowed addresses are those that the ledger gives it and
    /// nothing else (S12), so they are disjoint (S11).
    pub fn tunnel_plan(&self) -> TunnelPlan {
        let Some(own) = self.own_member() else {
            return TunnelPlan::default();
        };
        let ipv4 = Ipv4Net::new(own.ipv4, self.ledger.ipv4.prefix_len());
        let ipv6 = Ipv6Net::new(own.ipv6, self.ula().prefix_len());
        TunnelPlan {
            addresses: ipv4
                .map(IpNet::V4)
                .into_iter()
                .chain(ipv6.map(IpNet::V6))
                .collect(),
            resolver_v4: Some(id::resolver_v4(self.ledger.ipv4)),
            resolver_v6: Some(self.ledger.mesh.resolver_v6()),
            peers: self.tunnel_peers(),
            unrouted: BTreeSet::new(),
            devices: self.device_peers(),
            ways: self.ways(),
        }
    }

    /// What the host's filter and routing must be for the overlay to belong to
    /// `interface` (S25); `None` when this node is no member any more, and has
    /// no tunnel.
    pub fn filter_plan(&self, interface: &Interface, host: &HostNetworks) -> Option<FilterPlan> {
        let own = self.own_member()?;
        let mut plan = FilterPlan::new(
            interface.clone(),
            [IpNet::V4(self.ledger.ipv4.trunc()), IpNet::V6(self.ula())].into(),
            Self::addresses(own).into_iter().collect(),
            [
                IpAddr::V4(id::resolver_v4(self.ledger.ipv4)),
                IpAddr::V6(self.ledger.mesh.resolver_v6()),
            ]
            .into(),
            host,
            |address| self.ledger.is_given(address),
        );
        plan.behind_gateways = self.routed(host);
        plan.gateway = self.gateway_filter(host);
        plan.publish = self.publish_filter(interface, host);
        plan.exit = self.exit_filter(host);
        Some(plan)
    }

    /// What this node's zone is made from; the serial is this version's, until
    /// whoever serves it has a better one.
    pub fn zone_input(&self) -> ZoneInput {
        ZoneInput {
            domain: self.ledger.domain.clone(),
            ipv4: self.ledger.ipv4,
            ula: self.ula(),
            serial: (self.version & u64::from(u32::MAX)) as u32,
            loading: self.loading,
            nodes: self
                .members()
                .map(|(node, member)| (member.name.clone(), self.node_records(node, member)))
                .collect(),
            services: self
                .ledger
                .names
                .iter()
                .filter(|(_, held)| held.kind == NameKind::Service)
                .filter(|(_, held)| self.holders(held).next().is_some())
                .map(|(name, held)| (name.clone(), self.service_records(name, held)))
                .collect(),
            records: self
                .ledger
                .records
                .iter()
                .map(|(name, all)| {
                    let served = all.iter().filter(|record| self.is_served(record));
                    let data: Vec<_> = served.map(|record| record.data.rdata()).collect();
                    (name.clone(), data)
                })
                .filter(|(_, data)| !data.is_empty())
                .collect(),
            ttls: self.record_ttls(),
            member_aliases: self.member_aliases(),
            devices: self
                .devices()
                .map(|(_, device)| (device.name.clone(), device.addresses().to_vec()))
                .collect(),
            front: None,
            withheld: BTreeSet::new(),
        }
    }

    /// The shortest of the TTLs that users' records of one name and type have:
    /// all of them are kept alike (RFC 2181 §5.2).
    fn record_ttls(&self) -> BTreeMap<(DomainName, RecordType), u32> {
        let mut ttls = BTreeMap::new();
        for (name, all) in self.ledger.records.iter() {
            if all.iter().all(|record| record.ttl_s.is_none()) {
                continue;
            }
            for record in all.iter().filter(|record| self.is_served(record)) {
                let ttl_s = record.ttl_s.unwrap_or(zone::TTL_S);
                let key = (name.clone(), record.data.record_type());
                let shortest = ttls.entry(key).or_insert(ttl_s);
                *shortest = ttl_s.min(*shortest);
            }
        }
        ttls
    }

    /// Names whose alias a member added that is no admin.
    fn member_aliases(&self) -> BTreeSet<DomainName> {
        let by_member = |record: &UserRecord| {
            let owner = self.ledger.members.get(&record.owner);
            matches!(record.data, RecordData::Cname(_))
                && owner.is_none_or(|owner| !owner.roles.contains(&Role::Admin))
        };
        let records = self.ledger.records.iter();
        records
            .filter(|(_, all)| all.iter().any(by_member))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn is_served(&self, record: &UserRecord) -> bool {
        !self.held.contains_key(&record.owner) && self.ledger.record_counts(record)
    }

    fn node_records(&self, node: &NodeId, member: &Member) -> NodeRecords {
        let view = self.nodes.get(node);
        let own_services = view
            .iter()
            .flat_map(|view| view.announcement.services.keys())
            .map(|name| {
                (
                    name.clone(),
                    self.instance(node, name).into_iter().collect(),
                )
            })
            .collect();
        NodeRecords {
            addresses: Self::addresses(member),
            live: view.is_some_and(|view| view.live),
            own_services,
        }
    }

    /// A service's instances: on its owner and on those it is shared with, and
    /// on nobody else, whatever they announce.
    fn service_records(&self, name: &Label, held: &Name) -> ServiceRecords {
        let instances: Vec<InstanceRecord> = self
            .holders(held)
            .filter_map(|node| self.instance(node, name))
            .collect();
        let unheard = self
            .holders(held)
            .any(|node| self.nodes.get(node).is_none_or(|view| view.loading));
        ServiceRecords {
            state: if instances.is_empty() && unheard {
                ServiceState::Loading
            } else {
                ServiceState::Known
            },
            instances,
            wildcard: false,
        }
    }

    /// Who may run instances of a name.
    fn holders<'v>(&'v self, name: &'v Name) -> impl Iterator<Item = &'v NodeId> {
        let holders = std::iter::once(&name.owner).chain(&name.shared);
        holders.filter(|node| !self.held.contains_key(node))
    }

    fn instance(&self, node: &NodeId, name: &Label) -> Option<InstanceRecord> {
        let member = self.ledger.members.get(node)?;
        let view = self.nodes.get(node)?;
        let instance = view.announcement.services.get(name)?;
        // An address that it may not have makes it none: elsewhere nothing runs.
        if let Some(address) = instance.address
            && !self.ledger.instance_counts(*node, name, address)
        {
            return None;
        }
        Some(InstanceRecord {
            node: member.name.clone(),
            addresses: match instance.address {
                Some(address) => vec![address],
                None => Self::addresses(member),
            },
            port: instance.port,
            protocol: instance.protocol,
            service_type: view.announcement.service_type(name, instance),
            live: view.live,
            healthy: instance.healthy,
        })
    }

    /// Peers by the keys that the ledger gives them (S26). A node that it gives
    /// none, as before all CA nodes are updated, is reached by the key that it
    /// announces, where that is nobody else's: not by the ledger, not this
    /// node's own, and of several such nodes that announce one key the one has
    /// it that has been a member for longest.
    fn tunnel_peers(&self) -> BTreeMap<TunnelKey, TunnelPeer> {
        let announced = |view: &NodeView| view.announcement.wireguard.clone();
        let own = self.nodes.get(&self.me).and_then(announced);
        let mut taken: BTreeSet<TunnelKey> = own.into_iter().map(|own| own.key).collect();
        let others = self.nodes.iter().filter(|(node, _)| **node != self.me);
        let mut others: Vec<_> = others
            .filter_map(|(node, view)| {
                let member = self.ledger.members.get(node)?;
                let wireguard = announced(view)?;
                let key = self.tunnel_key(node, wireguard.key)?;
                let keyless = self.ledger.tunnel_keys(node).is_none();
                Some((
                    (keyless, member.joined, node),
                    member,
                    view,
                    key,
                    wireguard.port,
                ))
            })
            .collect();
        others.sort_by_key(|(order, ..)| *order);
        let mut peers = BTreeMap::new();
        let nets = self.nets_by_gateway();
        for ((_, _, node), member, view, key, port) in others {
            let held = self.held.contains_key(node);
            if held || !taken.insert(key) || !view.ledger_caught_up {
                continue;
            }
            let own = Self::addresses(member).into_iter();
            let peer = TunnelPeer {
                allowed_ips: own
                    .chain(self.devices_behind(node))
                    .map(IpNet::from)
                    .chain(nets.get(node).into_iter().flatten().copied())
                    .collect(),
                endpoint: tunnel_endpoint(view, port, &self.ledger),
                keepalive_s: self.keeps_alive(node, view).then_some(KEEPALIVE_S),
                preshared_key: None,
            };
            peers.insert(key, peer);
        }
        let links = self.link_peers().into_iter();
        peers.extend(links.filter(|(key, _)| taken.insert(*key)));
        peers
    }

    /// The key by which a node is reached that announces `announced`; none
    /// where that is another's.
    fn tunnel_key(&self, node: &NodeId, announced: TunnelKey) -> Option<TunnelKey> {
        match self.ledger.tunnel_keys(node) {
            Some(keys) => Some(keys.in_use(announced)),
            None => {
                let is_given = self.ledger.tunnel_key_holder(&announced).is_some()
                    || self.ledger.device_by_key(&announced).is_some()
                    || self.ledger.publish_link_by_key(&announced).is_some();
                (!is_given).then_some(announced)
            }
        }
    }
}

/// Where WireGuard should look for a peer: the address by which QUIC reaches
/// it, else the first that it announces and where it can be.
fn tunnel_endpoint(view: &NodeView, port: u16, state: &State) -> Option<SocketAddr> {
    let overlay = endpoint::overlay(state);
    let announced = view.announcement.quic.iter().copied();
    let mut announced = announced.filter(|address| is_plausible(address, &overlay, true));
    let ip = view.path.or_else(|| announced.next())?.ip();
    Some(SocketAddr::new(ip.to_canonical(), port))
}
