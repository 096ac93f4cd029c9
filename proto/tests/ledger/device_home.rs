//! By which gateway a device is reached: one at any time, at every node (S11).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use innermesh_proto::{
    head::Announcement,
    hold::Hold,
    id::NodeId,
    ledger::{
        Content, HoldId, Role,
        device::{
            AddDevice, ChangeDevice, DeviceChange, DeviceId, DeviceSeen, GatewayProfile, NextKey,
            Profile,
        },
        request::RoleChange,
    },
    tunnel::{PresharedKey, TunnelKey, TunnelPlan, WrappedSecret},
    view::MeshView,
};
use ipnet::IpNet;

use crate::{
    mesh::{id, key, label},
    view::{Seen, wireguard},
};

const PHONE: TunnelKey = TunnelKey([50; 32]);
const NEXT: TunnelKey = TunnelKey([51; 32]);

fn node(number: u8) -> NodeId {
    id(&*key(number))
}

fn profile(gateways: &[u8]) -> Profile {
    let gateways = gateways.iter().map(|number| {
        let gateway = GatewayProfile {
            key: TunnelKey([*number; 32]),
            endpoint: "gw.example.org:51820".into(),
            secret: WrappedSecret(vec![*number; 92]),
        };
        (node(*number), gateway)
    });
    Profile {
        gateways: gateways.collect(),
        routes: BTreeSet::new(),
        full_tunnel: false,
        dns: true,
    }
}

fn phone() -> DeviceId {
    DeviceId::of(&PHONE)
}

/// One and two are gateways of the founder's phone.
fn seen() -> Seen {
    let mut seen = Seen::new();
    for number in [1, 2] {
        let change = RoleChange {
            node: node(number),
            role: Role::Gateway,
            root: None,
        };
        seen.mesh.ask(&*key(0), Content::GiveRole(change));
    }
    let add = AddDevice {
        name: label("phone"),
        owner: node(0),
        key: PHONE,
        profile: profile(&[1, 2]),
        groups: BTreeSet::new(),
        expires_ms: None,
    };
    seen.mesh.ask(&*key(0), Content::AddDevice(Box::new(add)));
    seen
}

/// What a gateway announces that saw the phone's handshake so many seconds ago.
fn with_phone(number: u8, key: TunnelKey, age_s: u32) -> Announcement {
    let device = DeviceSeen {
        key,
        age_s,
        endpoint: None,
        received: 0,
        sent: 0,
    };
    Announcement {
        devices: [(phone(), device)].into(),
        ..wireguard(number)
    }
}

impl Seen {
    fn phones(&self) -> BTreeSet<IpNet> {
        let state = self.mesh.state();
        let device = state.device(&phone()).expect("it is there");
        device.addresses().map(IpNet::from).into()
    }

    /// By which peer the founder reaches the phone.
    fn way(&self) -> Option<TunnelKey> {
        let plan = self.view().tunnel_plan();
        assert_eq!(plan.overlap(), None);
        let phones = self.phones();
        let mut peers = plan.peers.iter();
        let found = peers.find(|(_, peer)| phones.is_subset(&peer.allowed_ips));
        found.map(|(key, _)| *key)
    }

    /// What a gateway itself plans.
    fn plan_of(&mut self, number: u8, announcement: Announcement) -> TunnelPlan {
        self.own = Arc::new(announcement);
        let plan = self.view_by(node(number)).tunnel_plan();
        assert_eq!(plan.overlap(), None);
        plan
    }
}

#[test]
fn traffic_goes_to_the_gateway_of_the_newest_handshake_by_when_its_word_came() {
    let mut seen = seen();
    assert_eq!(seen.way(), None, "no gateway is here");
    seen.meet(&key(1), &with_phone(1, PHONE, 5));
    assert_eq!(seen.way(), Some(TunnelKey([1; 32])));
    // Ten seconds later the other one saw it three seconds ago: that is newer,
    // though five is what the first one said when it said it.
    seen.now += Duration::from_secs(10);
    seen.meet(&key(2), &with_phone(2, PHONE, 7));
    assert_eq!(seen.way(), Some(TunnelKey([2; 32])));
    seen.meet(&key(1), &with_phone(1, PHONE, 6));
    assert_eq!(seen.way(), Some(TunnelKey([1; 32])));
    // Who has it no more says so.
    seen.meet(&key(1), &wireguard(1));
    assert_eq!(seen.way(), Some(TunnelKey([2; 32])));
}

#[test]
fn a_gateway_that_is_gone_or_no_gateway_leads_nowhere() {
    let mut seen = seen();
    seen.meet(&key(1), &with_phone(1, PHONE, 1));
    seen.meet(&key(2), &with_phone(2, PHONE, 90));
    assert_eq!(seen.way(), Some(TunnelKey([1; 32])));
    let change = RoleChange {
        node: node(1),
        role: Role::Gateway,
        root: None,
    };
    seen.mesh.ask(&*key(0), Content::TakeRole(change));
    assert_eq!(seen.way(), Some(TunnelKey([2; 32])));
    // Its lease is over.
    seen.now += Duration::from_secs(60);
    assert_eq!(seen.way(), None);
}

#[test]
fn a_member_that_is_no_gateway_of_the_device_gets_nothing_by_saying_so() {
    let mut seen = seen();
    let change = ChangeDevice {
        device: phone(),
        change: DeviceChange::Profile(profile(&[1])),
    };
    seen.mesh
        .ask(&*key(0), Content::ChangeDevice(Box::new(change)));
    seen.meet(&key(1), &with_phone(1, PHONE, 100));
    seen.meet(&key(2), &with_phone(2, PHONE, 0));
    assert_eq!(seen.way(), Some(TunnelKey([1; 32])));
    // Nor by a key that isn't the device's.
    seen.meet(&key(1), &with_phone(1, TunnelKey([77; 32]), 0));
    assert!(seen.view().device_seen(&phone()).is_none());
}

#[test]
fn a_gateway_has_the_device_as_a_peer_with_its_addresses_only_where_it_is() {
    let mut seen = seen();
    let phones = seen.phones();
    seen.meet(&key(1), &with_phone(1, PHONE, 1));
    let plan = seen.plan_of(2, wireguard(2));
    let device = &plan.devices[&PHONE];
    assert!(device.peer.allowed_ips.is_empty(), "it can come, no more");
    assert_eq!(device.secret, WrappedSecret(vec![2; 92]));
    assert!(phones.is_subset(&plan.peers[&TunnelKey([1; 32])].allowed_ips));
    // It came.
    let plan = seen.plan_of(2, with_phone(2, PHONE, 0));
    assert_eq!(plan.devices[&PHONE].peer.allowed_ips, phones);
    assert!(phones.is_disjoint(&plan.peers[&TunnelKey([1; 32])].allowed_ips));
    // Nobody else has it as a peer.
    seen.own = Arc::new(wireguard(9));
    assert!(seen.view().tunnel_plan().devices.is_empty());
}

#[test]
fn a_new_key_has_the_addresses_once_it_is_used() {
    let mut seen = seen();
    let phones = seen.phones();
    let next = NextKey {
        key: NEXT,
        profile: profile(&[1]),
    };
    let change = ChangeDevice {
        device: phone(),
        change: DeviceChange::Renew(next),
    };
    seen.mesh
        .ask(&*key(0), Content::ChangeDevice(Box::new(change)));
    let plan = seen.plan_of(1, with_phone(1, PHONE, 1));
    assert_eq!(plan.devices[&PHONE].peer.allowed_ips, phones);
    assert!(plan.devices[&NEXT].peer.allowed_ips.is_empty());
    let plan = seen.plan_of(1, with_phone(1, NEXT, 1));
    assert!(plan.devices[&PHONE].peer.allowed_ips.is_empty());
    assert_eq!(plan.devices[&NEXT].peer.allowed_ips, phones);
}

#[test]
fn a_device_whose_secret_cannot_be_opened_is_no_peer() {
    let mut seen = seen();
    let mut plan = seen.plan_of(1, with_phone(1, PHONE, 1));
    let mut closed = plan.clone();
    closed.open_devices(|_, _| None);
    assert!(!closed.peers.contains_key(&PHONE));
    assert!(closed.devices.is_empty());
    plan.open_devices(|_, device| Some(PresharedKey([device.secret.0[0]; 32])));
    let peer = &plan.peers[&PHONE];
    assert_eq!(peer.preshared_key, Some(PresharedKey([1; 32])));
    assert_eq!(peer.allowed_ips, seen.phones());
}

#[test]
fn an_announced_device_survives_its_encoding_and_beyond_the_bound_none_is_read() {
    let one = with_phone(1, PHONE, 5);
    assert_eq!(Announcement::decode(&one.encode()), Some(one));
    let mut many = wireguard(1);
    for number in 0..=255_u8 {
        for half in [0, 1] {
            let mut id = [number; 16];
            id[0] = half;
            let device = with_phone(1, PHONE, 5).devices[&phone()].clone();
            many.devices.insert(DeviceId(id), device);
        }
    }
    let read = Announcement::decode(&many.encode()).expect("a body");
    assert_eq!(read.devices.len(), 256);
}

#[test]
fn a_device_has_its_name_and_may_ask_until_the_node_that_it_belongs_to_is_cut_off() {
    let mut seen = seen();
    let tablet = TunnelKey([52; 32]);
    let add = AddDevice {
        name: label("tablet"),
        owner: node(1),
        key: tablet,
        profile: profile(&[2]),
        groups: BTreeSet::new(),
        expires_ms: None,
    };
    seen.mesh.ask(&*key(0), Content::AddDevice(Box::new(add)));
    seen.meet(&key(2), &wireguard(2));
    let view = seen.view();
    let (_, device) = view.ledger.device_by_name(&label("tablet")).unwrap();
    let addresses = device.addresses();
    let zone = view.zone_input();
    assert_eq!(zone.devices[&label("tablet")], addresses);
    assert_eq!(zone.devices[&label("phone")].len(), 2);
    let may_ask = |view: &MeshView| addresses.map(|ip| view.member_addresses().contains(&ip));
    assert_eq!(may_ask(&view), [true, true]);
    let is_peer = |seen: &mut Seen, own: Announcement| {
        let plan = seen.plan_of(2, own);
        plan.devices.contains_key(&tablet)
    };
    assert!(is_peer(&mut seen, wireguard(2)));

    let hold = Hold {
        id: HoldId([5; 16]),
        node: node(1),
    };
    let holding = Announcement {
        holds: vec![hold],
        ..wireguard(9)
    };
    seen.own = Arc::new(holding.clone());
    let view = seen.view();
    assert!(view.held.contains_key(&node(1)));
    assert_eq!(may_ask(&view), [false, false]);
    let zone = view.zone_input();
    assert!(!zone.devices.contains_key(&label("tablet")));
    assert!(zone.devices.contains_key(&label("phone")));
    assert_eq!(seen.way(), Some(TunnelKey([2; 32])));
    let gateway = view.tunnel_plan().peers[&TunnelKey([2; 32])].clone();
    assert!(!gateway.allowed_ips.contains(&IpNet::from(addresses[0])));
    // The gateway hears of it from the admin.
    seen.meet(&key(0), &holding);
    assert!(!is_peer(&mut seen, wireguard(2)));
}

#[test]
fn a_device_is_suspended_by_its_own_node_or_an_admin_and_by_nobody_else() {
    let mut seen = seen();
    let tablet = TunnelKey([52; 32]);
    let add = AddDevice {
        name: label("tablet"),
        owner: node(1),
        key: tablet,
        profile: profile(&[2]),
        groups: BTreeSet::new(),
        expires_ms: None,
    };
    seen.mesh.ask(&*key(0), Content::AddDevice(Box::new(add)));
    let holding = |number: u8| Announcement {
        device_holds: [DeviceId::of(&tablet), phone()].into(),
        ..wireguard(number)
    };
    assert_eq!(Announcement::decode(&holding(1).encode()), Some(holding(1)));
    seen.meet(&key(2), &holding(2));
    assert!(seen.view().suspended_devices().is_empty());
    let has_tablet = |seen: &mut Seen| seen.plan_of(2, wireguard(2)).devices.contains_key(&tablet);
    assert!(has_tablet(&mut seen));
    // Its own node may, and the founder's phone is none of its business.
    seen.meet(&key(1), &holding(1));
    assert_eq!(
        seen.view().suspended_devices(),
        [DeviceId::of(&tablet)].into()
    );
    assert!(!has_tablet(&mut seen));
    seen.own = Arc::new(holding(9));
    assert_eq!(seen.view().suspended_devices().len(), 2);
    assert!(seen.view().zone_input().devices.is_empty());
    // Once the ledger has removed it nothing is left to hold.
    let gone = Content::RemoveDevice(DeviceId::of(&tablet));
    seen.mesh.ask(&*key(0), gone);
    assert_eq!(seen.view().suspended_devices(), [phone()].into());
}
