//! A phone comes in by what was printed, is seen by its own address, and is cut
//! off at once when it goes.

use std::{
    fs,
    io::{Read, Write},
    net::IpAddr,
    time::{Duration, Instant},
};

use innermesh_tests::{
    Agent, Lab,
    agent::PATIENCE,
    installed,
    phone::{PROGRAMS, Phone},
    wait::ensure,
    wait_for,
};

use crate::world::{PORT, add, make_gateway, mesh, row, seen_by, serve, wait_name};

#[test]
fn a_phone_behind_a_nat_has_names_and_is_seen_by_its_own_address_on_the_gateway() {
    if !installed(&PROGRAMS) {
        return;
    }
    let Some(lab) = Lab::new(4) else { return };
    let [alpha, beta] = mesh(&lab);
    let phone = Phone::behind(&lab, &lab.hosts[2], &lab.hosts[3]);
    let told = add(&alpha, &phone, "phone", &[]);
    assert_eq!(told["device"]["owner"], "alpha");
    let own = phone.addresses("phone");
    let _ = phone.up("phone").ok();

    // Names, with the search domain that wg-quick set.
    let gateway = [alpha.overlay_ipv4("alpha"), alpha.overlay_ipv6("alpha")];
    wait_name(&phone, "alpha.lab.internal", "A", &gateway[0]);
    wait_name(&phone, "alpha.lab.internal", "AAAA", &gateway[1]);
    wait_name(&phone, "phone.lab.internal", "A", &own[0].to_string());
    assert_eq!(
        phone.dig(&["+search", "beta", "A"]).ok().trim(),
        alpha.overlay_ipv4("beta")
    );

    // The log of questions has its own address.
    let dns = "info,innermesh_serve::dns=debug";
    let _ = alpha.cli(&["log", "level", dns]).ok();
    let _ = phone.dig(&["logged.lab.internal", "A"]).ok();
    wait_for("the log", PATIENCE, || {
        let line = format!("client={} name=logged.lab.internal", own[0]);
        ensure(alpha.log().contains(&line), line)
    });

    serve(alpha.host);
    let port = PORT.to_string();
    let _ = alpha.cli(&["service", "add", "web", "--port", &port]).ok();
    for (own, gateway) in own.iter().zip(&gateway) {
        let gateway: IpAddr = gateway.parse().expect("an address");
        assert_eq!(seen_by(&phone, gateway), *own);
    }

    // It is looked for once a second.
    let of_phone = wait_for("the phone among the peers", PATIENCE, || {
        let peers = alpha.json(&["peers"]);
        let mut rows = peers.as_array().into_iter().flatten();
        let row = rows.find(|row| row["name"] == "phone");
        row.cloned().ok_or(peers)
    });
    assert_eq!(of_phone["device"], true);
    assert_eq!(of_phone["addresses"][0], own[0].to_string());
    assert_eq!(of_phone["psk"], true);

    // Everywhere it has its name, and the gateway tells where it comes from.
    for agent in [&alpha, &beta] {
        agent.wait_answer(&["phone.lab.internal", "A"], &[&own[0].to_string()]);
        agent.wait_answer(&["phone.lab.internal", "AAAA"], &[&own[1].to_string()]);
        agent.wait_answer(&["-x", &own[0].to_string()], &["phone.lab.internal."]);
        agent.wait_answer(&["-x", &own[1].to_string()], &["phone.lab.internal."]);
        wait_for("the phone's row", PATIENCE, || {
            let row = row(agent, "phone")?;
            let router = lab.hosts[2].ipv4.to_string();
            let from = row["endpoint"].as_str().unwrap_or_default().to_owned();
            ensure(
                row["gateway"] == "alpha"
                    && row["seen_s"].is_u64()
                    && from.starts_with(&format!("{router}:"))
                    && row["rx_bytes"].as_u64() > Some(0)
                    && row["stale"] == serde_json::json!([]),
                row,
            )
        });
    }
}

/// Whether the phone's pings to an address come back.
fn pings(phone: &Phone, address: &str) -> Result<(), String> {
    let ping = ["ping", "-c", "1", "-W", "1", address];
    phone.host.run(&ping).result().map(drop)
}

fn keys_at(agent: &Agent) -> String {
    agent.host.run(&["wg", "show", "im0", "peers"]).ok()
}

/// After this nothing of a device passes any more.
const CUT_OFF: Duration = Duration::from_secs(2);

#[test]
fn a_device_that_is_removed_is_cut_off_with_its_open_connections() {
    if !installed(&PROGRAMS) {
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let [alpha] = mesh(&lab);
    let phone = Phone::behind(&lab, &lab.hosts[1], &lab.hosts[2]);
    let told = add(&alpha, &phone, "phone", &[]);
    let key = told["device"]["key"].as_str().expect("a key").to_owned();
    let _ = phone.up("phone").ok();
    let gateway = alpha.overlay_ipv4("alpha");
    wait_for("the tunnel", PATIENCE, || pings(&phone, &gateway));
    let echo = alpha.host.listen(([0u16; 8], 9100).into()).expect("a port");
    // A device reaches what is a service, and nothing else.
    let _ = alpha
        .cli(&["service", "add", "echo", "--port", "9100"])
        .ok();
    let to = format!("{gateway}:9100").parse().expect("one");
    let mut open = wait_for("a connection", PATIENCE, || phone.host.tcp_to(to));
    let (mut served, _) = echo.accept().expect("the phone's");
    assert!(keys_at(&alpha).contains(&key));

    let _ = alpha.cli(&["device", "rm", "phone", "--yes"]).ok();
    wait_for("the end of its peer", CUT_OFF, || {
        ensure(!keys_at(&alpha).contains(&key), "it is there still")
    });
    assert!(pings(&phone, &gateway).is_err());
    open.write_all(b"anybody there?")
        .expect("it is kept to be sent");
    served
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a socket");
    assert!(served.read(&mut [0; 1]).is_err(), "it came through");
    // Its name is free again, and its key is nobody's.
    alpha.wait_answer(&["phone.lab.internal", "A"], &[]);
    assert!(row(&alpha, "phone").is_err());
}

#[test]
fn a_device_goes_with_the_node_that_it_belongs_to() {
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, beta] = mesh(&lab);
    let told = alpha.json(&["device", "add", "phone", "--owner", "beta"]);
    let key = told["device"]["key"].as_str().expect("a key").to_owned();
    wait_for("its peer", PATIENCE, || {
        ensure(keys_at(&alpha).contains(&key), "none")
    });
    drop(beta);
    let _ = alpha.cli(&["evict", "beta", "--yes"]);
    wait_for("the end of its peer", CUT_OFF, || {
        ensure(!keys_at(&alpha).contains(&key), "it is there still")
    });
    wait_for("the end of the device", PATIENCE, || {
        row(&alpha, "phone").err().ok_or("it is there still")
    });
}

#[test]
fn a_renewed_key_ends_the_one_before_when_it_is_first_used() {
    if !installed(&PROGRAMS) {
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let [alpha] = mesh(&lab);
    let phone = Phone::behind(&lab, &lab.hosts[1], &lab.hosts[2]);
    let told = add(&alpha, &phone, "phone", &[]);
    let gateway = alpha.overlay_ipv4("alpha");
    let _ = phone.up("phone").ok();
    wait_for("the tunnel", PATIENCE, || pings(&phone, &gateway));

    let file = phone.file("newer");
    let renewed = alpha.json(&["device", "renew", "phone", "--out", &file.to_string_lossy()]);
    assert_eq!(renewed["device"]["addresses"], told["device"]["addresses"]);
    assert_eq!(renewed["device"]["id"], told["device"]["id"]);
    assert_ne!(renewed["device"]["key"], told["device"]["key"]);
    assert_eq!(renewed["device"]["renewing"], true);
    let keys = [&told, &renewed].map(|told| told["device"]["key"].as_str().expect("a key"));
    wait_for("both keys", PATIENCE, || {
        let there = keys_at(&alpha);
        ensure(keys.iter().all(|key| there.contains(key)), there)
    });
    pings(&phone, &gateway).expect("the old key works until the new one does");

    let _ = phone.down("phone").ok();
    let _ = phone.up("newer").ok();
    wait_for("the new tunnel", PATIENCE, || pings(&phone, &gateway));
    wait_for("the end of the old key", PATIENCE, || {
        let row = row(&alpha, "phone")?;
        ensure(row["renewing"] == false, row)?;
        ensure(!keys_at(&alpha).contains(keys[0]), "it is there still")
    });
    assert_eq!(phone.addresses("newer"), phone.addresses("phone"));
}

#[test]
fn a_key_that_was_made_on_the_phone_never_leaves_it() {
    if !installed(&PROGRAMS) {
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let [alpha] = mesh(&lab);
    let phone = Phone::behind(&lab, &lab.hosts[1], &lab.hosts[2]);
    let private = phone.host.run(&["wg", "genkey"]).ok();
    let make = format!("echo {} | wg pubkey", private.trim());
    let public = phone.host.run(&["sh", "-c", &make]).ok();
    let told = add(&alpha, &phone, "phone", &["--public-key", public.trim()]);
    assert_eq!(told["private_key"], serde_json::Value::Null);
    let file = phone.file("phone");
    let text = fs::read_to_string(&file).expect("a configuration");
    assert!(text.contains("# PrivateKey"), "{text}");
    let line = format!("PrivateKey = {}", private.trim());
    let text: Vec<&str> = text
        .lines()
        .map(|it| {
            if it.starts_with("# PrivateKey") {
                &line
            } else {
                it
            }
        })
        .collect();
    fs::write(&file, text.join("\n")).expect("a file of the laboratory");
    let _ = phone.up("phone").ok();
    let gateway = alpha.overlay_ipv4("alpha");
    wait_for("the tunnel", PATIENCE, || pings(&phone, &gateway));
}

#[test]
fn a_device_is_renamed_and_goes_by_itself_at_its_time() {
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = mesh(&lab);
    let told = alpha.json(&["device", "add", "phone", "--ttl", "1d"]);
    assert!(told["device"]["expires"].is_string(), "{told}");
    let address = told["device"]["addresses"][0]
        .as_str()
        .expect("one")
        .to_owned();
    let _ = alpha.cli(&["device", "rename", "phone", "tablet"]).ok();
    alpha.wait_answer(&["tablet.lab.internal", "A"], &[&address]);
    alpha.wait_answer(&["phone.lab.internal", "A"], &[]);
    let _ = alpha.json(&["device", "renew", "tablet", "--ttl", "1s"]);
    wait_for("its end", PATIENCE, || {
        // Whatever the ledger decides next has a later stamp.
        let _ = alpha.cli(&["record", "add", "x", "TXT", "a word"]);
        let _ = alpha.cli(&["record", "rm", "x", "TXT"]);
        row(&alpha, "tablet").err().ok_or("it is there still")
    });
}

#[test]
fn a_second_gateway_takes_a_device_in_with_the_same_key_and_addresses() {
    if !installed(&PROGRAMS) {
        return;
    }
    let Some(lab) = Lab::new(4) else { return };
    let [mut alpha, beta] = mesh(&lab);
    make_gateway(&alpha, "beta");
    let phone = Phone::behind(&lab, &lab.hosts[2], &lab.hosts[3]);
    let gateways = ["--gateway", "alpha", "--gateway", "beta"];
    let told = add(&alpha, &phone, "phone", &gateways);
    assert_eq!(told["configurations"].as_array().map(Vec::len), Some(2));
    assert_eq!(phone.addresses("phone"), phone.addresses("phone-beta"));
    let text = |name: &str| fs::read_to_string(phone.file(name)).expect("a configuration");
    let own = |text: &str| {
        text.lines()
            .find(|line| line.starts_with("PrivateKey"))
            .map(str::to_owned)
    };
    assert_eq!(own(&text("phone")), own(&text("phone-beta")));
    let at = |agent: &Agent, gateway: &str| {
        wait_for(gateway, PATIENCE, || {
            let row = row(agent, "phone")?;
            ensure(row["gateway"] == gateway, row)
        });
    };
    let _ = phone.up("phone").ok();
    let (first, second) = (alpha.overlay_ipv4("alpha"), alpha.overlay_ipv4("beta"));
    wait_for("the first tunnel", PATIENCE, || pings(&phone, &first));
    at(&beta, "alpha");
    // Beta has waited for the device for longer than handshakes that are told apart.
    wait_for("beta to have run for a while", PATIENCE, || {
        let status = beta.status();
        ensure(status["uptime_s"].as_u64() > Some(10), status)
    });

    alpha.kill();
    let _ = phone.down("phone").ok();
    let tapped = Instant::now();
    let _ = phone.up("phone-beta").ok();
    wait_for("the second tunnel", PATIENCE, || pings(&phone, &second));
    let took = tapped.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?} after the tap");
    at(&beta, "beta");
    let seen = row(&beta, "phone").expect("its row");
    let ago = seen["seen_s"].as_u64().map(Duration::from_secs);
    assert!(ago <= Some(tapped.elapsed()), "{seen}");
}

#[test]
fn a_device_is_cut_off_also_where_no_ca_node_is_reached_and_removed_later() {
    const WAITING: i32 = 5;
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, beta] = mesh(&lab);
    make_gateway(&alpha, "beta");
    let _ = alpha.cli(&["role", "add", "beta", "admin"]).ok();
    let told = alpha.json(&["device", "add", "phone", "--gateway", "beta"]);
    let key = told["device"]["key"].as_str().expect("a key").to_owned();
    wait_for("its peer", PATIENCE, || {
        ensure(keys_at(&beta).contains(&key), "none")
    });
    alpha.stop();
    let removed = beta.cli(&["device", "rm", "phone", "--yes"]);
    assert_eq!(removed.code, WAITING, "{removed}");
    assert!(removed.stdout.contains("is suspended"), "{removed}");
    wait_for("the end of its peer", CUT_OFF, || {
        ensure(!keys_at(&beta).contains(&key), "it is there still")
    });
    beta.wait_answer(&["phone.lab.internal", "A"], &[]);
    assert_eq!(
        row(&beta, "phone").map(|row| row["suspended"].clone()),
        Ok(true.into())
    );
    alpha.start();
    wait_for("its end in the ledger", PATIENCE, || {
        row(&alpha, "phone").err().ok_or("it is there still")
    });
}
