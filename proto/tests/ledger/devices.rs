//! Devices and the networks of gateways as facts of the ledger, from rules 4 on.

use std::collections::{BTreeMap, BTreeSet};

use innermesh_proto::{
    id::NodeId,
    ledger::{
        Content, Outcome, Refusal, Role, Snapshot, State,
        device::{
            AddDevice, ChangeDevice, Device, DeviceChange, DeviceId, GatewayProfile, Holder,
            NextKey, Profile,
        },
        record::RecordData,
        request::{AddRecord, Evict, RoleChange},
        route::RouteChange,
    },
    limits,
    tunnel::{TunnelKey, WrappedSecret},
};

use crate::mesh::{MINUTE, Mesh, id, key, label};

const DAY_MS: u64 = 24 * 3600 * 1000;

fn node(number: u8) -> NodeId {
    id(&*key(number))
}

fn profile(gateways: &[u8]) -> Profile {
    let gateway = GatewayProfile {
        key: TunnelKey([200; 32]),
        endpoint: "gw.example.org:51820".into(),
        secret: WrappedSecret(vec![7; 92]),
    };
    Profile {
        gateways: gateways
            .iter()
            .map(|number| (node(*number), gateway.clone()))
            .collect(),
        routes: BTreeSet::new(),
        full_tunnel: false,
        dns: true,
    }
}

fn add(name: &str, owner: u8, key: u8) -> AddDevice {
    AddDevice {
        name: label(name),
        owner: node(owner),
        key: TunnelKey([key; 32]),
        profile: profile(&[1]),
        groups: BTreeSet::new(),
        expires_ms: None,
    }
}

fn adding(add: AddDevice) -> Content {
    Content::AddDevice(Box::new(add))
}

fn changing(device: DeviceId, change: DeviceChange) -> Content {
    Content::ChangeDevice(Box::new(ChangeDevice { device, change }))
}

fn role(number: u8, role: Role) -> RoleChange {
    RoleChange {
        node: node(number),
        role,
        root: None,
    }
}

fn done(outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

fn phone() -> DeviceId {
    DeviceId::of(&TunnelKey([50; 32]))
}

fn device(mesh: &Mesh) -> &Device {
    mesh.state().device(&phone()).expect("it is there")
}

/// The founder is the admin, 1 and 2 are gateways, 3 is a member. WireGuard key 10
/// is member 3's.
fn mesh() -> Mesh {
    let mut mesh = Mesh::new();
    for number in 1..=3 {
        mesh.admit_as(&*key(number), &format!("n{number}"), &*key(0), |grant| {
            grant.routes = ["192.168.0.0/16".parse().unwrap()].into();
        });
    }
    for number in [1, 2] {
        done(mesh.ask(&*key(0), Content::GiveRole(role(number, Role::Gateway))));
    }
    done(mesh.ask(&*key(3), Content::TunnelKey(TunnelKey([10; 32]))));
    mesh
}

/// With the phone of member 3.
fn with_phone() -> Mesh {
    let mut mesh = mesh();
    done(mesh.ask(&*key(0), adding(add("phone", 3, 50))));
    mesh
}

fn refused(mesh: &mut Mesh, by: u8, content: &Content, refusal: Refusal) {
    let before = mesh.state().clone();
    let request = mesh.request(&*key(by), content);
    mesh.assert_refused(request, refusal);
    let devices = |state: &State| state.devices().map(|(_, d)| d.clone()).collect::<Vec<_>>();
    assert_eq!(devices(mesh.state()), devices(&before));
}

#[test]
fn a_device_has_a_name_and_addresses_that_nobody_else_can_have() {
    let mut mesh = with_phone();
    assert!(mesh.state().agrees_with_itself());
    let held = device(&mesh).clone();
    for address in held.addresses() {
        let holder = mesh.state().holder_of_address(address);
        assert_eq!(holder, Some(Holder::Device(phone())));
    }
    assert!(mesh.state().ipv4.contains(&held.ipv4));
    assert!(
        mesh.state()
            .members
            .values()
            .all(|member| member.ipv4 != held.ipv4)
    );
    let claim = Content::Claim(label("phone"));
    let taken = |owner: &str| Refusal::NameTaken {
        name: label("phone"),
        owner: label(owner),
    };
    refused(&mut mesh, 1, &claim, taken("n3"));
    refused(&mut mesh, 3, &claim, Refusal::DeviceName(label("phone")));
    refused(&mut mesh, 0, &adding(add("phone", 3, 51)), taken("n3"));
    refused(
        &mut mesh,
        0,
        &adding(add("n2", 3, 51)),
        Refusal::NameTaken {
            name: label("n2"),
            owner: label("n2"),
        },
    );
    let address = Content::AddRecord(AddRecord {
        name: format!("phone.{}", mesh.state().domain).parse().unwrap(),
        data: RecordData::A("192.0.2.1".parse().unwrap()),
        ttl_s: None,
        public: false,
    });
    let name = format!("phone.{}", mesh.state().domain);
    let shown = format!("{name}.");
    refused(&mut mesh, 0, &address, Refusal::MachineRecord(shown));
    assert!(!mesh.state().may_certify(node(3), &name));
}

#[test]
fn a_wireguard_key_belongs_to_one_node_or_device() {
    let mut mesh = with_phone();
    // A node's, another device's, and none at all.
    for taken in [10, 50, 0] {
        refused(
            &mut mesh,
            0,
            &adding(add("tablet", 3, taken)),
            Refusal::DeviceKey,
        );
    }
    let key_of_phone = Content::TunnelKey(TunnelKey([50; 32]));
    refused(&mut mesh, 1, &key_of_phone, Refusal::TunnelKey);
    for taken in [10, 50] {
        let next = NextKey {
            key: TunnelKey([taken; 32]),
            profile: profile(&[1]),
        };
        let renew = changing(phone(), DeviceChange::Renew(next));
        refused(&mut mesh, 3, &renew, Refusal::DeviceKey);
    }
}

#[test]
fn only_admins_add_devices_and_only_those_and_the_owner_change_them() {
    let mut mesh = with_phone();
    refused(
        &mut mesh,
        3,
        &adding(add("tablet", 3, 51)),
        Refusal::DeviceNotAllowed,
    );
    refused(
        &mut mesh,
        0,
        &adding(add("tablet", 99, 51)),
        Refusal::NoSuchOwner,
    );
    let rename = |name: &str| changing(phone(), DeviceChange::Rename(label(name)));
    refused(&mut mesh, 1, &rename("mine"), Refusal::NotYourDevice);
    refused(
        &mut mesh,
        1,
        &Content::RemoveDevice(phone()),
        Refusal::NotYourDevice,
    );
    done(mesh.ask(&*key(3), rename("handy")));
    assert_eq!(device(&mesh).name, label("handy"));
    assert!(!mesh.state().names.contains_key(&label("phone")));
    // Groups give rights: nobody gives them to their own devices.
    let groups = changing(phone(), DeviceChange::Groups([label("family")].into()));
    refused(&mut mesh, 3, &groups, Refusal::NotAdmin);
    done(mesh.ask(&*key(0), groups));
    done(mesh.ask(&*key(3), Content::RemoveDevice(phone())));
    assert_eq!(mesh.state().devices().count(), 0);
    assert!(!mesh.state().names.contains_key(&label("handy")));
    refused(
        &mut mesh,
        0,
        &Content::RemoveDevice(phone()),
        Refusal::NoSuchDevice,
    );
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn gateways_bounds_and_expiry_are_checked() {
    let mut mesh = mesh();
    let with = |change: &dyn Fn(&mut AddDevice)| {
        let mut wish = add("phone", 3, 50);
        change(&mut wish);
        adding(wish)
    };
    let not_gateway = Refusal::NotGateway(label("n3"));
    refused(
        &mut mesh,
        0,
        &with(&|add| add.profile = profile(&[3])),
        not_gateway,
    );
    refused(
        &mut mesh,
        0,
        &with(&|add| add.profile = profile(&[99])),
        Refusal::NoSuchGateway,
    );
    let none = with(&|add| add.profile.gateways = BTreeMap::new());
    refused(&mut mesh, 0, &none, Refusal::DeviceBounds);
    let long = with(&|add| {
        let gateway = add.profile.gateways.values_mut().next().unwrap();
        gateway.secret = WrappedSecret(vec![0; limits::DEVICE_SECRET_BYTES + 1]);
    });
    refused(&mut mesh, 0, &long, Refusal::DeviceBounds);
    let control = with(&|add| {
        let gateway = add.profile.gateways.values_mut().next().unwrap();
        gateway.endpoint = "a\nPrivateKey=".into();
    });
    refused(&mut mesh, 0, &control, Refusal::DeviceBounds);
    for net in [
        "0.0.0.0/0",
        "10.77.4.0/24",
        "10.0.0.0/8",
        "127.0.0.0/8",
        "::/0",
    ] {
        let net = net.parse().unwrap();
        let wide = with(&|add| add.profile.routes = [net].into());
        refused(&mut mesh, 0, &wide, Refusal::Net(net));
    }
    let over = with(&|add| add.expires_ms = Some(1));
    refused(&mut mesh, 0, &over, Refusal::Expired);
    for number in 0..limits::DEVICES_PER_OWNER as u8 {
        done(mesh.ask(&*key(0), adding(add(&format!("d{number}"), 3, 60 + number))));
    }
    refused(
        &mut mesh,
        0,
        &adding(add("more", 3, 100)),
        Refusal::TooManyDevices,
    );
    // Of another owner there is room.
    done(mesh.ask(&*key(0), adding(add("more", 2, 100))));
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn a_new_key_counts_beside_the_old_one_until_a_gateway_of_it_saw_it() {
    let mut mesh = with_phone();
    let next = NextKey {
        key: TunnelKey([51; 32]),
        profile: profile(&[2]),
    };
    done(mesh.ask(
        &*key(3),
        changing(phone(), DeviceChange::Renew(next.clone())),
    ));
    let keys: Vec<TunnelKey> = device(&mesh).keys().map(|(key, _)| key).collect();
    assert_eq!(keys, [TunnelKey([50; 32]), TunnelKey([51; 32])]);
    assert_eq!(device(&mesh).gateways(), [node(1), node(2)].into());
    let switched = changing(phone(), DeviceChange::Switched(TunnelKey([51; 32])));
    refused(&mut mesh, 1, &switched, Refusal::NotYourDevice);
    refused(&mut mesh, 3, &switched, Refusal::NotYourDevice);
    done(mesh.ask(&*key(2), switched.clone()));
    assert_eq!(device(&mesh).key, next.key);
    assert_eq!(device(&mesh).profile, next.profile);
    // The old one is free; the device is the same.
    assert_eq!(mesh.state().device_by_key(&TunnelKey([50; 32])), None);
    assert!(mesh.state().agrees_with_itself());
    // Both gateways may have seen it.
    done(mesh.ask(&*key(2), switched));
}

#[test]
fn devices_and_routes_go_with_their_owner_and_their_gateway() {
    let mut mesh = with_phone();
    let net = "192.168.7.0/24".parse().unwrap();
    let route = |number: u8| RouteChange {
        net,
        gateway: node(number),
    };
    done(mesh.ask(&*key(1), Content::AddRoute(route(1))));
    done(mesh.ask(&*key(2), Content::AddRoute(route(2))));
    let gateways = |mesh: &Mesh| {
        let routes = mesh.state().routes();
        routes.map(|(net, of)| (*net, of.len())).collect::<Vec<_>>()
    };
    assert_eq!(gateways(&mesh), [(net, 2)]);
    done(mesh.ask(&*key(0), Content::TakeRole(role(2, Role::Gateway))));
    assert_eq!(gateways(&mesh), [(net, 1)]);
    done(mesh.ask(&*key(1), Content::Leave));
    assert_eq!(gateways(&mesh), []);
    let evict = Evict {
        node: node(3),
        hold: None,
        root: None,
    };
    done(mesh.ask(&*key(0), Content::Evict(evict)));
    assert_eq!(mesh.state().devices().count(), 0);
    assert!(!mesh.state().names.contains_key(&label("phone")));
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn a_device_goes_when_its_time_is_over() {
    let mut mesh = mesh();
    let mut guest = add("phone", 3, 50);
    guest.expires_ms = Some(mesh.now_ms + DAY_MS);
    done(mesh.ask(&*key(0), adding(guest)));
    mesh.now_ms += DAY_MS - MINUTE;
    mesh.batch(Vec::new());
    assert_eq!(mesh.state().devices().count(), 1);
    mesh.now_ms += 3 * MINUTE;
    mesh.batch(Vec::new());
    assert_eq!(mesh.state().devices().count(), 0);
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn a_route_is_a_lan_that_its_gateway_was_granted_or_an_admin_gives() {
    let mut mesh = mesh();
    let route = |net: &str, number: u8| {
        Content::AddRoute(RouteChange {
            net: net.parse().unwrap(),
            gateway: node(number),
        })
    };
    refused(&mut mesh, 1, &route("172.20.0.0/16", 1), {
        Refusal::RouteNotGranted("172.20.0.0/16".parse().unwrap())
    });
    done(mesh.ask(&*key(0), route("172.20.0.0/16", 1)));
    refused(
        &mut mesh,
        0,
        &route("192.168.3.0/24", 3),
        Refusal::NotGateway(label("n3")),
    );
    refused(&mut mesh, 2, &route("192.168.3.0/24", 1), {
        Refusal::RouteNotGranted("192.168.3.0/24".parse().unwrap())
    });
    done(mesh.ask(&*key(1), route("192.168.3.0/24", 1)));
    for nested in ["192.168.3.128/25", "192.168.0.0/16"] {
        let overlaps = Refusal::RouteOverlaps("192.168.3.0/24".parse().unwrap());
        refused(&mut mesh, 2, &route(nested, 2), overlaps);
    }
    for wrong in [
        "0.0.0.0/0",
        "10.77.1.0/24",
        "10.0.0.0/8",
        "169.254.0.0/16",
        "192.168.9.1/24",
    ] {
        let refusal = Refusal::Net(wrong.parse().unwrap());
        refused(&mut mesh, 0, &route(wrong, 1), refusal);
    }
    let remove = |number: u8| {
        Content::RemoveRoute(RouteChange {
            net: "192.168.3.0/24".parse().unwrap(),
            gateway: node(number),
        })
    };
    refused(&mut mesh, 2, &remove(1), Refusal::NotAdmin);
    refused(&mut mesh, 0, &remove(2), {
        Refusal::NoSuchRoute("192.168.3.0/24".parse().unwrap())
    });
    done(mesh.ask(&*key(1), remove(1)));
    assert_eq!(mesh.state().routes().count(), 1);
}

#[test]
fn devices_and_routes_are_in_the_snapshot_and_in_its_hash() {
    let mut mesh = with_phone();
    let route = RouteChange {
        net: "192.168.7.0/24".parse().unwrap(),
        gateway: node(1),
    };
    done(mesh.ask(&*key(1), Content::AddRoute(route)));
    let state = mesh.state();
    let bytes = Snapshot::of(state).bytes;
    let read = State::decode(&bytes, state.rules).expect("a state");
    assert_eq!(read.device(&phone()), state.device(&phone()));
    assert!(read.routes().eq(state.routes()));
    let mut without = with_phone();
    without.now_ms = mesh.now_ms;
    assert_ne!(Snapshot::of(without.state()).bytes, bytes);
    // Earlier rules know none of it.
    assert!(State::decode(&bytes, 3).is_err());
}

#[test]
fn earlier_rules_know_neither_devices_nor_routes() {
    let mut mesh = Mesh::with_rules(3);
    mesh.admit(&*key(3), "n3");
    let request = mesh.request(&*key(0), &adding(add("phone", 3, 50)));
    mesh.assert_refused(request, Refusal::NotUnderstood);
}
