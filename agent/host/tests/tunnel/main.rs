//! The tunnel between two network namespaces of this machine, on each backend
//! that it has: real interfaces, real packets, real `wg`.

#![allow(clippy::disallowed_methods)]
mod bulk;
mod child;
mod lab;

use std::{
    io::{Read, Write},
    path::Path,
};

use innermesh_host::tunnel::{Applied, BackendChoice};

use crate::{
    child::{Child, Peer, Plan, Settings},
    lab::{LEFT, Lab, PORT, RIGHT},
};

#[test]
#[ignore = "run by the other tests, each in its own process and namespace"]
fn a_child_holds_a_tunnel() {
    child::run();
}

#[test]
fn two_nodes_reach_each_other_and_a_second_apply_changes_nothing() {
    for lab in Lab::each() {
        let mut left = lab.start(LEFT);
        let mut right = lab.start(RIGHT);
        let plan = LEFT.plan([RIGHT.peer()]);
        let applied = left.apply(&plan);
        assert_eq!(
            applied,
            Applied {
                peers_added: 1,
                addresses: 4,
                // The overlay's two networks.
                routes: 2,
                ..Applied::default()
            }
        );
        right.apply(&RIGHT.plan([LEFT.peer()]));
        lab.reaches(LEFT, &RIGHT.overlay_ip());
        lab.reaches(RIGHT, "fd77::1");
        assert_eq!(left.apply(&plan), Applied::default());

        let shown = lab.run(LEFT, "wg", &["show", &lab.interface(LEFT)]);
        assert!(shown.contains(&child::key(RIGHT.0).to_string()), "{shown}");
        assert!(
            shown.contains(&format!("listening port: {PORT}")),
            "{shown}"
        );
        let (backend, peers) = left.observe();
        assert_eq!(backend, format!("{:?}", lab.backend).to_lowercase());
        assert_eq!(peers.len(), 1);
        assert_eq!(peers[0].endpoint, RIGHT.peer().endpoint);
        assert!(
            peers[0]
                .last_handshake
                .is_some_and(|age| age < lab::DEADLINE)
        );
        assert!(peers[0].rx_bytes > 0);
    }
}

#[test]
fn s11_an_address_moves_from_one_peer_to_another() {
    for lab in Lab::each() {
        let (mut left, _right) = lab.connected();
        let mut poorer = RIGHT.peer();
        let moved = "10.77.0.2/32".parse().unwrap();
        poorer.nets.remove(&moved);
        let heir = Peer {
            key: 0,
            nets: [moved].into(),
            ..Peer::default()
        };
        let plan = LEFT.plan([heir, poorer]);
        let applied = left.apply(&plan);
        assert_eq!((applied.peers_added, applied.peers_changed), (1, 1));
        assert_eq!(left.apply(&plan), Applied::default());
        let shown = lab.run(LEFT, "wg", &["show", &lab.interface(LEFT), "allowed-ips"]);
        let holds = |byte: u8| {
            let key = child::key(byte).to_string();
            let line = shown.lines().find(|line| line.starts_with(&key)).unwrap();
            line.contains("10.77.0.2/32")
        };
        assert!(holds(0) && !holds(RIGHT.0), "{shown}");
        assert!(
            !lab.ping(LEFT, &RIGHT.overlay_ip()),
            "it still goes to the old holder"
        );
        assert!(
            lab.ping(LEFT, "fd77::2"),
            "what the old holder kept works on"
        );
    }
}

#[test]
fn a_peer_that_stays_keeps_its_session_when_its_settings_change() {
    for lab in Lab::each() {
        let (mut left, _right) = lab.connected();
        let received = left.peer(RIGHT.0).rx_bytes;
        let mut richer = RIGHT.peer();
        richer.nets.insert("192.168.50.0/24".parse().unwrap());
        richer.keepalive_s = Some(25);
        richer.secret = Some(7);
        let plan = LEFT.plan([richer]);
        assert_eq!(left.apply(&plan).peers_changed, 1);
        assert_eq!(left.apply(&plan), Applied::default());
        let peer = left.peer(RIGHT.0);
        assert!(peer.last_handshake.is_some() && peer.rx_bytes >= received);
        assert!(
            lab.ping(RIGHT, &LEFT.overlay_ip()),
            "the other end notices nothing"
        );
    }
}

#[test]
fn networks_behind_a_peer_have_routes_as_long_as_it_has_them() {
    for lab in Lab::each() {
        let mut left = lab.start(LEFT);
        let mut gateway = RIGHT.peer();
        for net in ["192.168.50.0/24", "fd50::/64"] {
            gateway.nets.insert(net.parse().unwrap());
        }
        let plan = LEFT.plan([gateway]);
        assert_eq!(left.apply(&plan).routes, 4);
        assert_eq!(left.apply(&plan), Applied::default());
        let interface = lab.interface(LEFT);
        let way = |to: &str| lab.run(LEFT, "ip", &["route", "get", to]);
        for to in ["192.168.50.9", "fd50::9", "10.77.9.9"] {
            assert!(way(to).contains(&interface), "{}", way(to));
        }

        lab.run(
            LEFT,
            "ip",
            &["address", "add", "192.168.50.3/24", "dev", "cable"],
        );
        assert!(
            way("192.168.50.9").contains("cable"),
            "at home the LAN's own route wins"
        );

        assert_eq!(left.apply(&LEFT.plan([RIGHT.peer()])).routes, 2);
        let routes = lab.run(LEFT, "ip", &["route", "show", "dev", &interface]);
        assert!(!routes.contains("192.168.50"), "{routes}");
    }
}

#[test]
fn the_resolvers_addresses_answer_here_and_are_no_source_address() {
    for lab in Lab::each() {
        let mut left = lab.start(LEFT);
        left.apply(&LEFT.plan([RIGHT.peer()]));
        let shown = lab.run(LEFT, "ip", &["-o", "address", "show", &lab.interface(LEFT)]);
        let line = |address: &str| {
            let line = shown.lines().find(|line| line.contains(address));
            line.unwrap_or_else(|| panic!("{address} in {shown}"))
        };
        assert!(line("10.77.0.53/32").contains("scope host"), "{shown}");
        let v6 = line("fd77::53/128");
        assert!(v6.contains("deprecated") && v6.contains("nodad"), "{shown}");
        assert!(lab.ping(LEFT, "10.77.0.53") && lab.ping(LEFT, "fd77::53"));
        for (to, source) in [("10.77.0.2", "src 10.77.0.1"), ("fd77::2", "src fd77::1")] {
            let way = lab.run(LEFT, "ip", &["route", "get", to]);
            assert!(way.contains(source), "{way}");
        }

        let bare = Plan {
            resolver_v4: None,
            resolver_v6: None,
            ..LEFT.plan([RIGHT.peer()])
        };
        assert_eq!(left.apply(&bare).addresses, 2);
        let renumbered = Plan {
            addresses: ["10.77.0.9/16".parse().unwrap()].into(),
            ..bare
        };
        assert_eq!(left.apply(&renumbered).addresses, 3);
        assert_eq!(left.apply(&renumbered), Applied::default());
    }
}

#[test]
fn a_killed_node_comes_back_although_its_socket_was_left() {
    let Some(lab) = Lab::with(BackendChoice::Embedded) else {
        return;
    };
    let (left, _right) = lab.connected();
    left.kill();
    let socket = format!("/var/run/wireguard/{}.sock", lab.interface(LEFT));
    assert!(Path::new(&socket).exists(), "the fault didn't happen");
    let mut left = lab.start(LEFT);
    left.apply(&LEFT.plan([RIGHT.peer()]));
    lab.reaches(LEFT, &RIGHT.overlay_ip());
    lab.reaches(RIGHT, &LEFT.overlay_ip());
}

#[test]
fn plans_are_applied_without_the_socket_and_with_a_full_table_of_files() {
    let Some(lab) = Lab::with(BackendChoice::Embedded) else {
        return;
    };
    let (mut left, _right) = lab.connected();
    let socket = format!("/var/run/wireguard/{}.sock", lab.interface(LEFT));
    let show = |lab: &Lab| {
        let output = std::process::Command::new("ip")
            .args(["netns", "exec", &lab.namespace(LEFT)])
            .args(["wg", "show", &lab.interface(LEFT)])
            .output();
        output.is_ok_and(|output| output.status.success())
    };

    // A client whom the device can't accept.
    left.set_open_files(Some(3));
    let client = std::os::unix::net::UnixStream::connect(&socket).expect("it is queued");
    client
        .set_read_timeout(Some(std::time::Duration::from_secs(2)))
        .unwrap();
    (&client).write_all(b"get=1\n\n").unwrap();
    let refused = (&client).read(&mut [0; 16]);
    assert!(refused.is_err(), "the fault didn't happen: {refused:?}");
    assert_eq!(left.apply(&LEFT.plan([])).peers_removed, 1);
    assert!(!lab.ping(LEFT, &RIGHT.overlay_ip()), "the route stays");
    assert_eq!(left.apply(&LEFT.plan([RIGHT.peer()])).peers_added, 1);
    left.set_open_files(None);
    client.set_read_timeout(Some(lab::DEADLINE)).unwrap();
    let answered = (&client).read_exact(&mut [0; 6]);
    answered.expect("it is served then");
    assert!(show(&lab));

    // Its file is gone, and then another's.
    for replaced in [false, true] {
        std::fs::remove_file(&socket).expect("it is there");
        if replaced {
            std::fs::write(&socket, "no socket").unwrap();
        }
        assert_eq!(left.apply(&LEFT.plan([])).peers_removed, 1);
        assert_eq!(left.apply(&LEFT.plan([RIGHT.peer()])).peers_added, 1);
        lab.until("`wg show` works again", || show(&lab));
    }
    lab.reaches(LEFT, &RIGHT.overlay_ip());
}

#[test]
fn an_endpoint_learned_by_roaming_survives_further_applies() {
    for lab in Lab::each() {
        let (mut left, _right) = lab.connected();
        lab.run(
            RIGHT,
            "ip",
            &["address", "add", "192.0.2.9/24", "dev", "cable"],
        );
        lab.run(
            RIGHT,
            "ip",
            &["address", "delete", "192.0.2.2/24", "dev", "cable"],
        );
        lab.run(
            RIGHT,
            "ip",
            &["address", "replace", "192.0.2.9/24", "dev", "cable"],
        );
        lab.reaches(RIGHT, &LEFT.overlay_ip());
        let roamed = Some(([192, 0, 2, 9], PORT).into());
        assert_eq!(left.peer(RIGHT.0).endpoint, roamed);

        assert_eq!(left.apply(&LEFT.plan([RIGHT.peer()])), Applied::default());
        assert_eq!(left.peer(RIGHT.0).endpoint, roamed);
        assert!(lab.ping(LEFT, &RIGHT.overlay_ip()));

        let elsewhere = Some(([192, 0, 2, 77], PORT).into());
        let moved = Peer {
            endpoint: elsewhere,
            ..RIGHT.peer()
        };
        assert_eq!(left.apply(&LEFT.plan([moved])).peers_changed, 1);
        assert_eq!(left.peer(RIGHT.0).endpoint, elsewhere);
    }
}

#[test]
fn an_interface_that_somebody_deleted_comes_back_with_the_next_apply() {
    for lab in Lab::each() {
        let (mut left, _right) = lab.connected();
        lab.run(LEFT, "ip", &["link", "delete", &lab.interface(LEFT)]);
        let plan = LEFT.plan([RIGHT.peer()]);
        assert!(left.apply(&plan).interface);
        lab.reaches(LEFT, &RIGHT.overlay_ip());

        lab.run(LEFT, "ip", &["link", "set", &lab.interface(LEFT), "down"]);
        assert!(left.apply(&plan).interface);
        assert_eq!(left.apply(&plan), Applied::default());
        lab.reaches(RIGHT, "fd77::1");
    }
}

#[test]
fn down_leaves_no_interface_and_no_socket_and_an_apply_brings_both_back() {
    for lab in Lab::each() {
        let (mut left, _right) = lab.connected();
        left.down();
        left.down();
        let links = lab.run(LEFT, "ip", &["-o", "link"]);
        assert!(!links.contains(&lab.interface(LEFT)), "{links}");
        let socket = format!("/var/run/wireguard/{}.sock", lab.interface(LEFT));
        assert!(!Path::new(&socket).exists());
        left.apply(&LEFT.plan([RIGHT.peer()]));
        lab.reaches(LEFT, &RIGHT.overlay_ip());
    }
}

#[test]
fn a_name_or_port_that_is_taken_is_an_error_that_says_what_to_set() {
    let Some(lab) = Lab::with(BackendChoice::Embedded) else {
        return;
    };
    let _left = lab.start(LEFT);
    let refused = |settings| match Child::start(&lab.namespace(RIGHT), &settings) {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    };
    let mut settings = lab.settings(RIGHT);
    settings.interface = lab.interface(LEFT);
    let error = refused(settings);
    assert!(error.contains("tunnel.interface"), "{error}");

    let mut settings = lab.settings(RIGHT);
    settings.interface = "cable".to_owned();
    let error = refused(settings);
    assert!(
        error.contains("cable belongs to another program"),
        "{error}"
    );

    let _other = lab.start(RIGHT);
    let mut settings = lab.settings(RIGHT);
    settings.interface = format!("{}x", lab.interface(RIGHT));
    let error = refused(settings);
    assert!(
        error.contains("51820") && error.contains("tunnel.listen_port"),
        "{error}"
    );
    let links = lab.run(RIGHT, "ip", &["-o", "link"]);
    assert!(
        !links.contains(&format!("{}x", lab.interface(RIGHT))),
        "{links}"
    );
}

#[test]
fn a_host_without_ipv6_has_the_overlay_by_ipv4() {
    for lab in Lab::each() {
        for scope in ["all", "default"] {
            let path = format!("net.ipv6.conf.{scope}.disable_ipv6=1");
            lab.run(LEFT, "sysctl", &["-q", "-w", &path]);
        }
        let mut left = lab.start(LEFT);
        let mut right = lab.start(RIGHT);
        let mut gateway = RIGHT.peer();
        gateway.nets.insert("fd50::/64".parse().unwrap());
        let plan = LEFT.plan([gateway]);
        let applied = left.apply(&plan);
        assert_eq!((applied.addresses, applied.routes), (2, 1));
        assert_eq!(left.apply(&plan), Applied::default());
        right.apply(&RIGHT.plan([LEFT.peer()]));
        lab.reaches(LEFT, &RIGHT.overlay_ip());
    }
}

#[test]
fn local_networks_in_the_overlays_range_are_told_and_default_routes_are_not() {
    let Some(lab) = Lab::with(BackendChoice::Embedded) else {
        return;
    };
    let mut left = lab.start(LEFT);
    left.apply(&LEFT.plan([]));
    let own = lab.interface(LEFT);
    lab.run(LEFT, "ip", &["route", "add", "default", "via", "192.0.2.2"]);
    lab.run(LEFT, "ip", &["route", "add", "unreachable", "10.0.0.0/8"]);
    assert_eq!(left.clash("10.77.0.0/16", &own), None);
    assert_eq!(left.clash("fd77::/48", &own), None);
    assert!(
        left.clash("10.77.0.0/16", "other").is_some(),
        "the overlay itself"
    );

    lab.run(
        LEFT,
        "ip",
        &["route", "add", "10.64.0.0/10", "via", "192.0.2.2"],
    );
    assert_eq!(
        left.clash("10.77.0.0/16", &own).as_deref(),
        Some("10.64.0.0/10 on cable")
    );
    assert_eq!(
        left.clash("192.0.0.0/8", &own).as_deref(),
        Some("192.0.2.0/24 on cable")
    );

    let addresses = left.addresses();
    let on = |name: &str| -> Vec<String> {
        let of = addresses.iter().filter(|(interface, _)| interface == name);
        of.map(|(_, ip)| ip.to_string()).collect()
    };
    assert_eq!(on("cable"), ["192.0.2.1"]);
    assert_eq!(on("lo"), [""; 0]);
    assert_eq!(on(&own), ["10.77.0.1", "fd77::1"]);
    lab.run(LEFT, "ip", &["link", "set", "cable", "down"]);
    assert!(left.addresses().iter().all(|(name, _)| name != "cable"));
}

#[test]
fn an_idle_tunnel_with_fifty_peers_stays_small() {
    let Some(lab) = Lab::with(BackendChoice::Embedded) else {
        return;
    };
    let mut left = lab.start(LEFT);
    let before = left.resident_kib();
    let peers = (0..50u8).map(|n| Peer {
        key: 100 + n,
        nets: [format!("10.77.1.{n}/32").parse().unwrap()].into(),
        endpoint: Some(([192, 0, 2, 100 + n], PORT).into()),
        keepalive_s: Some(25),
        secret: Some(n),
    });
    left.apply(&LEFT.plan(peers));
    let after = left.resident_kib();
    println!("resident: {before} KiB without peers, {after} KiB with 50");
    assert!(after < 40 * 1024, "{after} KiB");
}

#[test]
fn what_the_process_may_not_do_is_told_with_its_remedy() {
    let Some(lab) = Lab::with(BackendChoice::Embedded) else {
        return;
    };
    let refused = |by: &[&str], backend| {
        let settings = Settings {
            backend,
            ..lab.settings(LEFT)
        };
        match Child::start_by(&lab.namespace(LEFT), by, &settings) {
            Ok(_) => panic!("it started"),
            Err(error) => error,
        }
    };
    // Each with folders of its own, which end with the process.
    let mounted = |mount: &str| {
        let script = format!("mount -t tmpfs {mount} none /dev/net && $1 && shift && exec \"$@\"");
        move |first: &str, backend| {
            let by = ["unshare", "--mount", "sh", "-c", &script, "sh", first];
            refused(&by, backend)
        }
    };
    let without = "--bounding-set=-net_admin";
    for backend in [BackendChoice::Auto, BackendChoice::Embedded] {
        let error = refused(&["setpriv", without], backend);
        assert!(error.contains("CAP_NET_ADMIN"), "{error}");
    }
    let error = mounted("-o size=4k")("true", BackendChoice::Embedded);
    assert!(error.contains("modprobe tun"), "{error}");
    let error = mounted("-o nodev")("mknod /dev/net/tun c 10 200", BackendChoice::Embedded);
    assert!(error.contains("may not be opened"), "{error}");
    if !lab.has_kernel_wireguard() {
        let error = refused(&[], BackendChoice::Kernel);
        assert!(error.contains("modprobe wireguard"), "{error}");
    }
}

#[test]
fn a_kernels_interface_outlives_its_agent_and_is_taken_over_by_the_same_key_only() {
    let Some(lab) = Lab::with(BackendChoice::Kernel) else {
        return;
    };
    let (left, mut right) = lab.connected();
    left.kill();
    assert!(
        lab.ping(RIGHT, &LEFT.overlay_ip()),
        "its routes ended with it"
    );

    let mut stranger = lab.settings(LEFT);
    stranger.key = 77;
    let Err(error) = Child::start(&lab.namespace(LEFT), &stranger) else {
        panic!("a stranger took it over");
    };
    assert!(error.contains("another WireGuard configuration"), "{error}");

    let mut left = lab.start(LEFT);
    assert_eq!(left.apply(&LEFT.plan([RIGHT.peer()])), Applied::default());
    assert!(left.peer(RIGHT.0).last_handshake.is_some());
    right.apply(&RIGHT.plan([]));
    assert!(!lab.ping(LEFT, &RIGHT.overlay_ip()));

    let mut second = lab.settings(LEFT);
    second.interface.push('x');
    let Err(error) = Child::start(&lab.namespace(LEFT), &second) else {
        panic!("two have one port");
    };
    assert!(error.contains("tunnel.listen_port"), "{error}");
    let links = lab.run(LEFT, "ip", &["-o", "link"]);
    assert!(!links.contains(&second.interface), "{links}");
}

#[test]
fn a_peer_may_hold_more_networks_than_fit_one_message_to_the_kernel() {
    for lab in Lab::each() {
        let mut left = lab.start(LEFT);
        let mut gateway = RIGHT.peer();
        for n in 0..=255u8 {
            gateway
                .nets
                .insert(format!("10.77.9.{n}/32").parse().unwrap());
            gateway
                .nets
                .insert(format!("fd77::9:{n:x}/128").parse().unwrap());
        }
        let many = LEFT.plan([gateway.clone()]);
        assert_eq!(left.apply(&many).peers_added, 1);
        assert_eq!(left.apply(&many), Applied::default());
        gateway
            .nets
            .retain(|net| net.to_string() != "10.77.9.200/32");
        let fewer = LEFT.plan([gateway]);
        assert_eq!(left.apply(&fewer).peers_changed, 1);
        assert_eq!(left.apply(&fewer), Applied::default());
    }
}
