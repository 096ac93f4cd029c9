//! Certificates that programs of others get by ACME, each as its users run it.

use std::collections::BTreeSet;

use innermesh_tests::{
    Agent, Finished, Lab,
    agent::DOMAIN,
    installed,
    web::{LEGO, Web, add_service, directory, example, issued, wait_revoked},
};

/// A mesh with a web host: alpha, the only CA node, and beta, which has the
/// service photos.
fn mesh(lab: &Lab) -> (Agent<'_>, Agent<'_>, Web<'_>) {
    let [alpha, beta] = lab.mesh();
    add_service(&beta, "photos", 443);
    let web = Web::new(&beta);
    (alpha, beta, web)
}

/// Has certbot get a certificate.
fn certonly(web: &Web<'_>, arguments: &[&str]) -> Finished {
    web.certbot(&[&["certonly", "--agree-tos"], arguments].concat())
}

/// Where certbot leaves the certificate of a name.
fn live(file: &str) -> String {
    format!("/etc/letsencrypt/live/photos.{DOMAIN}/{file}")
}

#[test]
fn certbot_gets_renews_and_revokes_and_its_account_changes_and_ends() {
    if !installed(&["certbot"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let (alpha, beta, web) = mesh(&lab);
    let name = format!("photos.{DOMAIN}");
    let mail = "admin@lab.internal";

    let get = ["--standalone", "--domain", &name];
    let _ = certonly(&web, &[&get, ["--email", mail].as_slice()].concat()).ok();
    let first = web.serial_in(&live("cert.pem"));
    assert_eq!(issued(&alpha, "photos"), [(first.clone(), false)]);
    // The file has all that a server must show.
    let verify = ["openssl", "verify", "-untrusted", &live("chain.pem")];
    let _ = web
        .host
        .run(&[&verify, [live("cert.pem").as_str()].as_slice()].concat())
        .ok();

    let _ = web
        .certbot(&["renew", "--force-renewal", "--no-random-sleep-on-renew"])
        .ok();
    let second = web.serial_in(&live("cert.pem"));
    assert_ne!(first, second);

    let _ = web
        .certbot(&["update_account", "--email", "other@lab.internal"])
        .ok();
    let told = web.certbot(&["show_account"]);
    assert!(told.stdout.contains("other@lab.internal"), "{told}");

    let name_of = ["--cert-name", &name];
    let _ = web
        .certbot(
            &[
                &["revoke", "--reason", "superseded", "--delete-after-revoke"],
                name_of.as_slice(),
            ]
            .concat(),
        )
        .ok();
    for agent in [&alpha, &beta] {
        wait_revoked(agent, "photos", &second);
    }
    assert!(issued(&alpha, "photos").contains(&(first, false)));

    // No name of somebody else's, and it says why. This certbot, on the Python
    // of Debian 12, falls over every problem that a CA tells it at an order: the
    // reason is in its log only.
    let log = "/var/log/letsencrypt/letsencrypt.log";
    for (name, why) in [
        ("wiki.lab.internal", "`agent service add wiki --port PORT`"),
        ("www.example.com", "this CA certifies nothing else"),
    ] {
        let refused = certonly(&web, &["--standalone", "--domain", name]);
        assert_ne!(refused.code, 0, "{refused}");
        let log = web.read(log);
        assert!(log.contains(why), "{log}");
    }

    let _ = web.certbot(&["unregister"]).ok();
    let gone = web.certbot(&["show_account"]);
    assert!(gone.to_string().contains("Could not find"), "{gone}");
}

#[test]
fn certbot_gets_a_wildcard_and_its_base_by_dns_records() {
    if !installed(&["certbot"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let (alpha, beta, web) = mesh(&lab);
    let (name, star) = (format!("photos.{DOMAIN}"), format!("*.photos.{DOMAIN}"));
    for hook in ["auth-hook", "cleanup-hook"] {
        web.put(
            &format!("/etc/letsencrypt/{hook}"),
            &example(&format!("certbot-dns/{hook}")),
        );
    }
    let script = r#"chmod +x /etc/letsencrypt/*-hook
        exec certbot certonly --non-interactive --agree-tos --register-unsafely-without-email \
            --server "$1" --manual --preferred-challenges dns \
            --manual-auth-hook /etc/letsencrypt/auth-hook \
            --manual-cleanup-hook /etc/letsencrypt/cleanup-hook \
            --domain "$2" --domain "$3""#;
    let words = ["sh", "-euc", script, "sh", &directory(), &star, &name];
    let _ = web.run(&words).ok();

    let text = web.shell(
        "openssl x509 -noout -ext subjectAltName -in $1",
        &[&live("cert.pem")],
    );
    let names = text
        .split("DNS:")
        .skip(1)
        .map(|n| n.trim().trim_end_matches(','));
    let names: BTreeSet<&str> = names.collect();
    assert_eq!(names, BTreeSet::from([name.as_str(), star.as_str()]));
    assert_eq!(issued(&alpha, "photos").len(), 1);
    // The hooks left no record behind.
    let records = beta.json(&["record", "list"]);
    assert!(
        !records.to_string().contains("_acme-challenge"),
        "{records}"
    );
}

#[test]
fn lego_gets_renews_and_revokes_by_each_kind_of_challenge() {
    if !installed(&["lego"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let (alpha, beta, web) = mesh(&lab);
    web.put(
        "/usr/local/share/lego-hook",
        r#"#!/bin/sh
case $1 in
present) exec agent record add "${2%.}" TXT -- "$3" ;;
cleanup) agent record rm "${2%.}" TXT || true ;;
esac
"#,
    );
    web.shell("chmod +x /usr/local/share/lego-hook", &[]);
    let resolver = beta.dns().to_string();
    let by_dns = [
        "--dns",
        "exec",
        "--dns.resolvers",
        &resolver,
        "--dns.disable-cp",
    ];
    for (label, challenge) in [
        ("photos", ["--tls"].as_slice()),
        ("one.beta", ["--http"].as_slice()),
        ("*.photos", by_dns.as_slice()),
    ] {
        let name = format!("{label}.{DOMAIN}");
        let lego = |what: &[&str]| {
            let hook = ["env", "EXEC_PATH=/usr/local/share/lego-hook"];
            let words = [challenge, &["--domains", &name], what].concat();
            web.lego_with(&hook, &words)
        };
        let _ = lego(&["run"]).ok();
        let _ = lego(&["renew", "--days", "91", "--no-random-sleep"]).ok();
        let rows = issued(&alpha, label);
        assert_eq!(rows.len(), 2, "{label}: {rows:?}");
        let file = format!("{LEGO}/certificates/{}.crt", name.replace('*', "_"));
        let newest = web.serial_in(&file);
        let _ = web.lego(&["--domains", &name, "revoke"]).ok();
        wait_revoked(&alpha, label, &newest);
    }
}
