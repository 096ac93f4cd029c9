use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use innermesh_proto::{
    crypto::{Hash, Sign},
    head::{Announcement, Head, HeadTable, Instance, WireGuard},
    hold::Hold,
    id::{NodeId, resolver_v4},
    ledger::{
        Content, HoldId, Position, Role,
        record::RecordData,
        request::{AddRecord, Share, Unhold},
    },
    tunnel::{TunnelKey, TunnelPlan},
    view::{MeshView, Standing},
    zone::{Answer, Protocol, RecordType, ServiceState, Zone},
};
use innermesh_testing::host::keys::Ed25519;
use ipnet::IpNet;

use crate::mesh::{Mesh, id, key, label};

const NOW: Duration = Duration::from_secs(1000);

/// A mesh of three and the heads that its founder heard.
pub struct Seen {
    pub mesh: Mesh,
    heads: HeadTable,
    pub own: Arc<Announcement>,
    /// When what is heard arrives, monotonic.
    pub now: Duration,
    paths: BTreeMap<NodeId, SocketAddr>,
}

pub fn wireguard(number: u8) -> Announcement {
    Announcement {
        quic: vec![SocketAddr::from(([192, 0, 2, number], 51819))],
        wireguard: Some(WireGuard {
            key: TunnelKey([number; 32]),
            port: 51820,
        }),
        ..Announcement::default()
    }
}

impl Seen {
    /// Members one and two, in this order; nothing was heard yet.
    pub fn new() -> Self {
        let mut mesh = Mesh::new();
        mesh.admit(&*key(1), "one");
        mesh.admit(&*key(2), "two");
        Self {
            mesh,
            heads: HeadTable::default(),
            own: Arc::new(wireguard(9)),
            now: NOW,
            paths: BTreeMap::new(),
        }
    }

    fn hear(&mut self, key: &Ed25519, announcement: &Announcement, position: Position) {
        let body = announcement.encode();
        let before = self.heads.get(&id(key));
        let head = Head {
            node: id(key),
            generation: 1,
            seq: before.map_or(1, |before| before.head.seq + 1),
            lease_ms: 4500,
            body: Hash::of(&body),
            body_len: body.len() as u32,
            position,
            clock_ms: 0,
        };
        let sealed = head.seal(key, &self.mesh.id);
        let was_live = before.is_some_and(|before| before.is_live(self.now));
        self.heads.offer(head, sealed, Some(self.now), was_live);
        let held = self.heads.get(&id(key));
        let is_new = held.is_some_and(|held| held.missing_body().is_some());
        assert_eq!(self.heads.put_body(&id(key), body, self.now), is_new);
        let held = self.mesh.state().position;
        self.heads.compare(false, |position| *position == held);
    }

    /// Hears a node whose ledger is where this one's is.
    pub fn meet(&mut self, key: &Ed25519, announcement: &Announcement) {
        self.hear(key, announcement, self.mesh.state().position);
    }

    pub fn view_by(&self, me: NodeId) -> MeshView {
        let ledger = Arc::new(self.mesh.state().clone());
        let nodes = MeshView::nodes(
            me,
            &ledger,
            &self.heads,
            (self.own.clone(), Some(self.now)),
            &self.paths,
            |_, known| Standing::by_lease(known, self.now),
        );
        MeshView {
            version: 1,
            me,
            held: MeshView::held(&ledger, &nodes),
            ledger,
            nodes,
            loading: false,
        }
    }

    pub fn view(&self) -> MeshView {
        self.view_by(id(&*self.mesh.founder))
    }

    fn routes(&self, key: u8) -> Option<Vec<IpNet>> {
        let plan = self.view().tunnel_plan();
        let peer = plan.peers.get(&TunnelKey([key; 32]))?;
        Some(peer.allowed_ips.iter().copied().collect())
    }

    fn addresses(&self, key: &Ed25519) -> Vec<IpNet> {
        let member = &self.mesh.state().members[&id(key)];
        MeshView::addresses(member)
            .into_iter()
            .map(IpNet::from)
            .collect()
    }
}

#[test]
fn a_plan_has_the_nodes_own_addresses_and_the_resolvers() {
    let seen = Seen::new();
    let (plan, state) = (seen.view().tunnel_plan(), seen.mesh.state());
    let founder = &state.members[&id(&*seen.mesh.founder)];
    let own: Vec<String> = plan.addresses.iter().map(IpNet::to_string).collect();
    assert_eq!(
        own,
        [
            format!("{}/16", founder.ipv4),
            format!("{}/48", founder.ipv6)
        ]
    );
    assert_eq!(plan.resolver_v4, Some(resolver_v4(state.ipv4)));
    assert_eq!(plan.resolver_v6, Some(state.mesh.resolver_v6()));
    assert!(plan.peers.is_empty(), "nobody was heard yet");
}

#[test]
fn a_peer_has_routes_once_its_ledger_position_was_compared() {
    let mut seen = Seen::new();
    let ahead = Position {
        index: 99,
        hash: Hash::default(),
    };
    seen.hear(&key(1), &wireguard(1), ahead);
    assert_eq!(seen.routes(1), None);
    assert!(seen.view().nodes[&id(&*key(1))].live);
    seen.heads.compare(false, |position| *position == ahead);
    assert_eq!(seen.routes(1), Some(seen.addresses(&key(1))));
}

#[test]
fn who_is_not_a_member_has_no_routes_whatever_it_announces() {
    let mut seen = Seen::new();
    let stranger = key(66);
    seen.meet(&stranger, &wireguard(66));
    seen.meet(&key(1), &wireguard(1));
    assert_eq!(seen.routes(66), None);
    assert!(!seen.view().nodes.contains_key(&id(&*stranger)));

    // A member no longer: nothing is left of it in plan, zone and sources.
    let before = seen.view();
    let gone = id(&*key(1));
    let mut state = (*before.ledger).clone();
    let member = state.members[&gone].clone();
    state.members.remove(&gone);
    state.names.remove(&member.name);
    let ledger = Arc::new(state);
    let after = MeshView {
        nodes: MeshView::nodes(
            before.me,
            &ledger,
            &seen.heads,
            (seen.own.clone(), Some(NOW)),
            &seen.paths,
            |_, known| Standing::by_lease(known, NOW),
        ),
        ledger,
        ..before
    };
    assert!(after.tunnel_plan().peers.is_empty());
    assert!(!after.zone_input().nodes.contains_key(&label("one")));
    assert!(!after.member_addresses().contains(&member.ipv4.into()));
}

#[test]
fn a_node_that_is_no_member_any_more_plans_nothing() {
    let mut seen = Seen::new();
    seen.meet(&key(1), &wireguard(1));
    let view = seen.view_by(id(&*key(66)));
    assert_eq!(view.tunnel_plan(), TunnelPlan::default());
}

#[test]
fn nobody_takes_over_anothers_routes_by_announcing_its_key() {
    // Whichever of the two has the smaller id, the older member keeps its key.
    for (older, newer) in [(key(1), key(2)), (key(2), key(1))] {
        let mut seen = Seen::new();
        seen.mesh = Mesh::new();
        seen.mesh.admit(&*older, "older");
        seen.mesh.admit(&*newer, "newer");
        seen.meet(&newer, &wireguard(1));
        assert_eq!(seen.routes(1), Some(seen.addresses(&newer)));
        seen.meet(&older, &wireguard(1));
        assert_eq!(seen.routes(1), Some(seen.addresses(&older)));
        assert_eq!(seen.view().tunnel_plan().peers.len(), 1);
    }
}

#[test]
fn s26_a_key_of_the_ledger_is_nobody_elses_whatever_is_announced() {
    for (older, newer) in [(key(1), key(2)), (key(2), key(1))] {
        let mut seen = Seen::new();
        seen.mesh = Mesh::new();
        seen.mesh.admit(&*older, "older");
        seen.mesh.admit(&*newer, "newer");
        let own = Content::TunnelKey(TunnelKey([1; 32]));
        seen.mesh.ask(&*newer, own);
        seen.meet(&newer, &wireguard(1));
        seen.meet(&older, &wireguard(1));
        // The thief has no key of its own, so that no key leads to it.
        assert_eq!(seen.routes(1), Some(seen.addresses(&newer)));
        assert_eq!(seen.view().tunnel_plan().peers.len(), 1);
        // With one of its own, that one leads to it.
        seen.mesh
            .ask(&*older, Content::TunnelKey(TunnelKey([7; 32])));
        assert_eq!(seen.routes(1), Some(seen.addresses(&newer)));
        assert_eq!(seen.routes(7), Some(seen.addresses(&older)));
        // What the newer one announces changes nothing either.
        seen.meet(&newer, &wireguard(7));
        assert_eq!(seen.routes(1), Some(seen.addresses(&newer)));
        assert_eq!(seen.routes(7), Some(seen.addresses(&older)));
    }
}

#[test]
fn a_changed_key_counts_once_its_node_announces_it() {
    let mut seen = Seen::new();
    let one = key(1);
    seen.mesh.ask(&*one, Content::TunnelKey(TunnelKey([1; 32])));
    seen.meet(&one, &wireguard(1));
    seen.mesh
        .ask(&*one, Content::TunnelKey(TunnelKey([11; 32])));
    assert_eq!(seen.routes(1), Some(seen.addresses(&one)));
    assert_eq!(seen.routes(11), None);
    seen.meet(&one, &wireguard(11));
    assert_eq!(seen.routes(1), None);
    assert_eq!(seen.routes(11), Some(seen.addresses(&one)));
}

#[test]
fn an_announced_key_counts_while_the_ledger_has_none_of_its_node() {
    let mut seen = Seen::new();
    let (one, two) = (key(1), key(2));
    seen.meet(&one, &wireguard(1));
    seen.meet(&two, &wireguard(2));
    assert_eq!(seen.routes(1), Some(seen.addresses(&one)));
    // Another's, by the ledger, it is nobody's whom that gives none.
    seen.mesh.ask(&*two, Content::TunnelKey(TunnelKey([1; 32])));
    assert_eq!(seen.routes(1), Some(seen.addresses(&two)));
    assert_eq!(seen.view().tunnel_plan().peers.len(), 1);
}

#[test]
fn a_peer_that_announces_this_nodes_own_key_is_no_peer() {
    let mut seen = Seen::new();
    seen.meet(&key(1), &wireguard(9));
    assert!(seen.view().tunnel_plan().peers.is_empty());
}

#[test]
fn a_peer_is_looked_for_where_quic_reaches_it_else_where_it_says() {
    let mut seen = Seen::new();
    seen.meet(&key(1), &wireguard(1));
    let endpoint = |seen: &Seen| {
        let plan = seen.view().tunnel_plan();
        plan.peers[&TunnelKey([1; 32])].endpoint.unwrap()
    };
    assert_eq!(endpoint(&seen), "192.0.2.1:51820".parse().unwrap());
    let path = "[::ffff:198.51.100.7]:4000".parse().unwrap();
    seen.paths.insert(id(&*key(1)), path);
    assert_eq!(endpoint(&seen), "198.51.100.7:51820".parse().unwrap());
}

fn photos(port: u16) -> Announcement {
    let instance = Instance {
        port,
        protocol: Protocol::Tcp,
        address: None,
        healthy: true,
    };
    Announcement {
        services: BTreeMap::from([(label("photos"), instance)]),
        ..Announcement::default()
    }
}

#[test]
fn a_service_has_the_instances_of_its_owner_and_of_those_it_is_shared_with() {
    let mut seen = Seen::new();
    let (one, two) = (key(1), key(2));
    seen.mesh.ask(&*one, Content::Claim(label("photos")));
    let ports = |seen: &Seen| -> Vec<u16> {
        let input = seen.view().zone_input();
        let records = &input.services[&label("photos")];
        records.instances.iter().map(|found| found.port).collect()
    };
    // Granted, but its owner wasn't heard: not known, which isn't "none" (S14).
    let input = seen.view().zone_input();
    assert_eq!(
        input.services[&label("photos")].state,
        ServiceState::Loading
    );
    seen.meet(&two, &photos(2));
    assert!(ports(&seen).is_empty(), "two announces a name of one's");
    seen.meet(&one, &photos(1));
    assert_eq!(ports(&seen), [1]);
    let share = Share {
        name: label("photos"),
        with: id(&*two),
    };
    seen.mesh.ask(&*one, Content::Share(share));
    assert_eq!(ports(&seen), [1, 2]);
    // Below its own name a node has what it likes.
    let input = seen.view().zone_input();
    assert_eq!(
        input.nodes[&label("two")].own_services[&label("photos")][0].port,
        2
    );
}

#[test]
fn every_member_is_in_the_zone_whether_it_was_heard_or_not() {
    let mut seen = Seen::new();
    seen.meet(&key(1), &wireguard(1));
    let input = seen.view().zone_input();
    let live: Vec<(&str, bool)> = input
        .nodes
        .iter()
        .map(|(name, records)| (name.as_str(), records.live))
        .collect();
    assert_eq!(live, [("founder", true), ("one", true), ("two", false)]);
    let two = key(2).public();
    let member = seen.mesh.state().member_by_key(&two).unwrap().1;
    assert_eq!(
        input.nodes[&label("two")].addresses,
        MeshView::addresses(member)
    );
}

#[test]
fn users_records_are_in_every_members_zone_and_strangers_see_the_public_ones() {
    let mut seen = Seen::new();
    let founder = seen.mesh.founder.clone();
    for (name, public) in [("tv", false), ("www", true)] {
        let record = AddRecord {
            name: format!("{name}.lab.internal").parse().unwrap(),
            data: RecordData::A([192, 0, 2, 9].into()),
            ttl_s: None,
            public,
        };
        seen.mesh.ask(&*founder, Content::AddRecord(record));
    }
    let view = seen.view_by(id(&*key(1)));
    let zone = Zone::build(&view.zone_input());
    for name in ["tv", "www"] {
        let name = format!("{name}.lab.internal").parse().unwrap();
        let answer = zone.lookup(&name, RecordType::A);
        assert!(matches!(answer, Answer::Records { data, .. } if data.len() == 1));
    }
    let public = view.public_records();
    assert_eq!(public.len(), 1);
    assert_eq!(
        public[0].to_string(),
        "www.lab.internal. 300 IN A 192.0.2.9"
    );
}

/// An admin `9` besides the founder, and a hold of it on member one.
fn held_by_nine() -> (Seen, Announcement) {
    let mut seen = Seen::new();
    let founder = seen.mesh.founder.clone();
    seen.mesh.admit_as(&*key(9), "nine", &*founder, |grant| {
        grant.roles = [Role::Admin].into();
    });
    let hold = Hold {
        id: HoldId([5; 16]),
        node: id(&*key(1)),
    };
    let announcement = Announcement {
        holds: vec![hold],
        ..wireguard(19)
    };
    (seen, announcement)
}

#[test]
fn a_member_that_an_admin_holds_loses_its_routes_its_names_and_its_records() {
    let (mut seen, holding) = held_by_nine();
    for (number, name) in [(1, "photos"), (1, "wiki"), (2, "news")] {
        seen.mesh.ask(&*key(number), Content::Claim(label(name)));
    }
    let share = Share {
        name: label("wiki"),
        with: id(&*key(2)),
    };
    seen.mesh.ask(&*key(1), Content::Share(share));
    let record = AddRecord {
        name: "cam.one.lab.internal".parse().unwrap(),
        data: RecordData::A(seen.mesh.state().members[&id(&*key(1))].ipv4),
        ttl_s: None,
        public: true,
    };
    seen.mesh.ask(&*key(1), Content::AddRecord(record));
    let with_wiki = |number: u8| {
        let mut announcement = wireguard(number);
        announcement.services.insert(
            label("wiki"),
            Instance {
                port: 80,
                protocol: Protocol::Tcp,
                address: None,
                healthy: true,
            },
        );
        announcement
    };
    seen.meet(&key(1), &with_wiki(1));
    seen.meet(&key(2), &with_wiki(2));
    seen.meet(&key(9), &wireguard(19));
    assert!(seen.routes(1).is_some());
    assert_eq!(seen.view().public_records().len(), 1);

    let (node, one) = (id(&*key(1)), label("one"));
    seen.meet(&key(9), &holding);
    let view = seen.view();
    assert_eq!(view.held[&node], [(id(&*key(9)), HoldId([5; 16]))].into());
    assert!(seen.routes(1).is_none() && seen.routes(2).is_some());
    let address = view.ledger.members[&node].ipv4;
    assert!(!view.member_addresses().contains(&address.into()));
    assert!(view.public_records().is_empty());
    let input = view.zone_input();
    assert!(!input.nodes.contains_key(&one) && !input.services.contains_key(&label("photos")));
    assert!(input.records.is_empty());
    // What another runs under a shared name stands.
    let wiki = &input.services[&label("wiki")].instances;
    assert_eq!(wiki.len(), 1);
    assert_eq!(wiki[0].node, label("two"));

    // By an admin's word of before its absence, and no longer once it is decided.
    let undo = Unhold {
        author: id(&*key(9)),
        hold: HoldId([5; 16]),
    };
    seen.mesh
        .ask(&*seen.mesh.founder.clone(), Content::Unhold(undo));
    assert!(seen.view().held.is_empty() && seen.routes(1).is_some());
}

#[test]
fn a_hold_counts_only_where_an_admin_holds_a_plain_member() {
    let (mut seen, holding) = held_by_nine();
    let on = |number: u8| Announcement {
        holds: vec![Hold {
            id: HoldId([6; 16]),
            node: id(&*key(number)),
        }],
        ..Announcement::default()
    };
    // A plain member's word is nothing; nor is any against an admin or a CA
    // node, which the founder is both.
    seen.meet(&key(2), &on(1));
    seen.meet(&key(9), &on(0));
    assert!(seen.view().held.is_empty());
    let founder = seen.mesh.founder.clone();
    seen.meet(&key(9), &holding);
    assert_eq!(seen.view_by(id(&*founder)).held.len(), 1);
    // More than three are passed over.
    let many = Announcement {
        holds: (0..9)
            .map(|n| Hold {
                id: HoldId([n; 16]),
                node: id(&*key(n)),
            })
            .collect(),
        ..Announcement::default()
    };
    let read = Announcement::decode(&many.encode()).unwrap();
    assert_eq!(read.holds, many.holds[..3]);
}
