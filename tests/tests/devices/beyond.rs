//! What a phone uses in the mesh beyond its gateway, and that an evicted gateway
//! is no way in any more.

use std::{fs, time::Duration};

use innermesh_tests::{
    Lab,
    agent::PATIENCE,
    installed,
    phone::{PROGRAMS, Phone},
    wait::ensure,
    wait_for,
};

use crate::world::{add, make_gateway, mesh, row};

/// After this nothing passes by a gateway that was evicted.
const CUT_OFF: Duration = Duration::from_secs(2);

#[test]
fn a_phone_opens_a_page_by_https_with_the_root_that_the_mesh_s_page_gave_it() {
    if !installed(&PROGRAMS) || !installed(&["curl", "openssl"]) {
        return;
    }
    let Some(lab) = Lab::new(4) else { return };
    let [alpha, beta] = mesh(&lab);
    let phone = Phone::behind(&lab, &lab.hosts[2], &lab.hosts[3]);
    let _ = add(&alpha, &phone, "phone", &[]);
    let _ = phone.up("phone").ok();

    let service = ["service", "add", "web", "--port", "9443"];
    let _ = beta.cli(&service).ok();
    let folder = beta.host.directory.join("certs");
    let issue = ["cert", "issue", "web", "--out", &folder.to_string_lossy()];
    wait_for("a certificate", PATIENCE, || beta.cli(&issue).result());
    let pem = folder.join("web.pem");
    let pem = pem.to_string_lossy();
    let serve = [
        "openssl",
        "s_server",
        "-quiet",
        "-accept",
        "9443",
        "-cert",
        &pem,
        "-cert_chain",
        &pem,
        "-key",
        &pem,
        "-www",
    ];
    let _server = beta.host.start("https", &serve, &[]);

    let root = phone.host.directory.join("root.pem");
    let root = root.to_string_lossy();
    let page = "http://ca.lab.internal:7480/root.pem";
    let fetch = ["curl", "-sSf", "--max-time", "5", "-o", &root, page];
    wait_for("the root", PATIENCE, || phone.host.run(&fetch).result());
    let text = alpha.cli(&["ca", "root"]).ok();
    let fetched = fs::read_to_string(&*root).expect("the root");
    assert!(text.contains(fetched.trim()), "{text}\n{fetched}");
    let url = "https://web.lab.internal:9443/";
    let visit = ["curl", "-sSf", "--max-time", "5", "--cacert", &root, url];
    wait_for(url, PATIENCE, || phone.host.run(&visit).result());
}

#[test]
fn nothing_passes_by_a_gateway_that_is_evicted() {
    if !installed(&PROGRAMS) {
        return;
    }
    let Some(lab) = Lab::new(4) else { return };
    let [alpha, beta] = mesh(&lab);
    make_gateway(&alpha, "beta");
    let phone = Phone::behind(&lab, &lab.hosts[2], &lab.hosts[3]);
    let _ = add(&alpha, &phone, "phone", &["--gateway", "beta"]);
    let _ = phone.up("phone").ok();
    // Devices reach nodes that have a service for them.
    let _ = alpha.cli(&["service", "add", "web", "--port", "80"]).ok();
    let far = alpha.overlay_ipv4("alpha");
    let ping = ["ping", "-c", "1", "-W", "1", &far];
    wait_for("the way by beta", PATIENCE, || {
        phone.host.run(&ping).result()
    });
    let _ = alpha.cli(&["evict", "beta", "--yes"]).ok();
    wait_for("the end of it", CUT_OFF, || {
        ensure(phone.host.run(&ping).code != 0, "it passes still")
    });
    let row = row(&alpha, "phone").expect("the phone stays");
    let why = row["stale"][0].as_str().unwrap_or_default();
    assert!(why.contains("is not in the mesh any more"), "{row}");
    drop(beta);
}
