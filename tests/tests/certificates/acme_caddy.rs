//! Caddy, which gets certificates without being asked, and must not get them
//! anywhere else.

use innermesh_tests::{
    Agent, Lab, Process,
    agent::{DOMAIN, PATIENCE},
    dns, installed,
    wait::ensure,
    wait_for,
    web::{Web, add_service, directory, issued},
};
use serde_json::Value;

const CADDYFILE: &str = "/etc/caddy/Caddyfile";
const TEXT: &str = "the photos of beta\n";

fn start(web: &Web<'_>, config: &str) -> Process {
    let home = [
        ("HOME", "/var/lib/caddy"),
        ("XDG_DATA_HOME", "/var/lib/caddy"),
        ("XDG_CONFIG_HOME", "/var/lib/caddy"),
    ];
    let words = ["caddy", "run", "--config", config];
    web.host.start("caddy", &words, &home)
}

/// Its configuration as JSON, the way it runs it.
fn adapted(web: &Web<'_>) -> Value {
    web.host
        .run(&["caddy", "adapt", "--config", CADDYFILE])
        .json()
}

/// Waits until a visitor sees the site with a certificate that isn't `old`.
fn wait_serial(visitor: &Web<'_>, old: &[String]) -> String {
    let name = format!("photos.{DOMAIN}");
    wait_for("a certificate", PATIENCE, || {
        let serial = visitor.serial(&name, 443)?;
        ensure(!old.contains(&serial), &serial).map(|()| serial)
    })
}

#[test]
fn caddy_gets_and_renews_certificates_by_itself_and_asks_no_other_ca() {
    if !installed(&["caddy", "python3"]) {
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let outside = &lab.hosts[2];
    let upstream = dns::serve(outside, [203, 0, 113, 7].into());
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let config = format!("[dns]\nupstream = [\"{}\"]\n", outside.ipv4);
    let mut beta = Agent::with_config(&lab.hosts[1], "beta", &config);
    let _ = alpha.init();
    beta.join(&alpha);
    beta.wait_nodes(2);
    add_service(&beta, "photos", 443);
    let (web, visitor) = (Web::new(&beta), Web::new(&alpha));
    let url = format!("https://photos.{DOMAIN}/");
    web.put_example("caddy/Caddyfile", CADDYFILE);
    let _backend = web.serve(TEXT);

    // What it runs names one issuer, and that is the mesh's.
    let config = adapted(&web);
    let policies = &config["apps"]["tls"]["automation"]["policies"];
    let issuers = policies.as_array().into_iter().flatten();
    let issuers = issuers.flat_map(|policy| policy["issuers"].as_array().into_iter().flatten());
    let cas: Vec<&Value> = issuers.map(|issuer| &issuer["ca"]).collect();
    assert_eq!(cas, [&Value::from(directory())], "{config}");

    let caddy = start(&web, CADDYFILE);
    visitor.wait_page(&url, TEXT);
    let first = wait_serial(&visitor, &[]);
    assert_eq!(issued(&alpha, "photos"), [(first.clone(), false)]);
    drop(caddy);

    // The only CA node is away, so this agent is alone: the name of the CA is
    // still its own, and Caddy waits for the mesh.
    alpha.kill();
    let resolver = beta.dns().ip().to_string();
    beta.wait_answer(&[&format!("acme.{DOMAIN}"), "A"], &[&resolver]);
    web.shell("rm -r /var/lib/caddy/caddy", &[]);
    let caddy = start(&web, CADDYFILE);
    wait_for("its order", PATIENCE, || {
        ensure(
            caddy.log().matches("finalizing order").count() > 1,
            "not yet",
        )
    });
    alpha.start();
    let second = wait_serial(&visitor, std::slice::from_ref(&first));
    drop(caddy);

    // It renews whenever it looks, which is every second.
    let mut config = adapted(&web);
    let automation = &mut config["apps"]["tls"]["automation"];
    automation["renew_interval"] = "1s".into();
    automation["policies"][0]["renewal_window_ratio"] = 1.0.into();
    web.put("/etc/caddy/renew.json", &config.to_string());
    let _caddy = start(&web, "/etc/caddy/renew.json");
    let third = wait_serial(&visitor, &[first.clone(), second.clone()]);
    visitor.wait_page(&url, TEXT);
    let known = issued(&alpha, "photos");
    for serial in [first, second, third] {
        assert!(known.contains(&(serial, false)), "{known:?}");
    }

    // None of it was asked outside, where other names are.
    assert_eq!(upstream.asked(), 0);
    let _ = beta.dig(&["other.example", "A"]).ok();
    assert_eq!(upstream.asked(), 1);
}
