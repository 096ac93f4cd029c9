//! The certificates of a real mesh: of its first CA node, of one that was
//! promoted later, and renewed ones.

use std::{fs, path::Path};

use innermesh_agent::ca::pem;
use innermesh_tests::{Agent, Lab, agent::PATIENCE, leave_out, roster, wait::ensure, wait_for};
use serde_json::Value;

use crate::{
    lint::{check_accepted, check_findings, linters},
    profiles::{Kind, Profile},
};

#[test]
fn certificates_of_a_mesh_are_as_good_by_a_promoted_ca_node_and_when_renewed() {
    let Some(lab) = Lab::new(4) else { return };
    let (mut agents, file) = roster::mesh(&lab, &["alpha", "beta", "gamma", "delta"]);
    let (alpha, others) = agents.split_first_mut().expect("a first");
    let delta = &others[2];
    let first = issue(delta, "delta");
    // Of two that begin in the same second either is the newest.
    let renewed = wait_for("another certificate", PATIENCE, || {
        let renewed = issue(delta, "delta");
        if renewed.der == first.der {
            Err("the same one")
        } else {
            Ok(renewed)
        }
    });

    for node in ["beta", "gamma"] {
        let promote = ["ca", "promote", node, "--root-key", &file];
        let _ = alpha.cli(&promote).ok();
    }
    wait_for("the roster", PATIENCE, || {
        let status = delta.json(&["ca", "status"]);
        let roster = status["roster"].as_array().map_or(0, Vec::len);
        ensure(roster == 3, &status)
    });
    alpha.stop();
    let later = issue(delta, "cam.delta");

    assert!(first.root == later.root && first.by == renewed.by);
    assert!(first.root == decode(&delta.cli(&["ca", "root"]).ok())[0]);
    assert!(first.by != later.by, "the same issuer signed it");
    assert!(first.key == renewed.key, "renewed for another key");
    let ca = |kind: Kind, title: &str, der: &[u8]| Profile {
        title: title.to_owned(),
        kind,
        der: der.to_vec(),
        by: first.root.clone(),
        root: first.root.clone(),
        hosts: vec![],
        key: vec![],
    };
    let root = ca(Kind::Root, "a mesh's root", &first.root);
    let founder = ca(Kind::Issuer, "the founder's issuer", &first.by);
    let promoted = ca(Kind::Issuer, "a promoted node's issuer", &later.by);
    let all = [root, founder, promoted, first, renewed, later];
    match linters() {
        Some(folder) => check_findings(&folder, &all, false),
        None => leave_out("pkilint is not installed; ops/test gets it from PyPI"),
    }
    check_accepted(&all);
    fetch_by_name(delta, &others[1]);
}

/// Has `agent cert issue` issue, by whoever leads.
fn issue(agent: &Agent, name: &str) -> Profile {
    let out = agent.host.directory.join("certificates");
    let out = out.to_string_lossy();
    let words = ["cert", "issue", name, "--out", &out, "--json"];
    let told = wait_for("a certificate", PATIENCE, || agent.cli(&words).result());
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let file = |field: &str| {
        let path = Path::new(told[field].as_str().expect(field));
        decode(&fs::read_to_string(path).expect("a file"))
    };
    let [der, by] = <[Vec<u8>; 2]>::try_from(file("cert")).expect("leaf and issuer");
    let [chain_by, root] = <[Vec<u8>; 2]>::try_from(file("chain")).expect("issuer and root");
    assert_eq!(by, chain_by);
    Profile {
        title: format!("{name}'s certificate"),
        kind: Kind::Service,
        der,
        by,
        root,
        hosts: vec![format!("{name}.lab.internal")],
        key: file("key").remove(0),
    }
}

/// Has programs of `client` fetch a page of `server` that OpenSSL serves, by
/// the name that the mesh's DNS tells.
fn fetch_by_name(server: &Agent, client: &Agent) {
    let file = |end: &str| {
        let folder = server.host.directory.join("certificates");
        folder
            .join(format!("delta.{end}"))
            .to_string_lossy()
            .into_owned()
    };
    let (cert, key, chain) = (file("crt"), file("key"), file("chain.crt"));
    let words = [
        "openssl", "s_server", "-accept", "8443", "-www", "-cert", &cert,
    ];
    let rest = ["-key", &key, "-cert_chain", &chain];
    let _server = server
        .host
        .start("https", &[&words[..], &rest].concat(), &[]);
    client.host.use_resolver(client.dns().ip());
    let root = client.host.directory.join("root.pem");
    fs::write(&root, client.cli(&["ca", "root"]).ok()).expect("a file");
    let root = root.to_string_lossy();
    let wget = format!("--ca-certificate={root}");
    for fetch in [
        &["curl", "-sS", "--max-time", "10", "--cacert", &root][..],
        &["wget", "-qO-", "--timeout=10", "--tries=1", &wget],
    ] {
        if client.host.run(&[fetch[0], "--version"]).code != 0 {
            leave_out(format!("{} is not installed", fetch[0]));
            continue;
        }
        let page = wait_for("the page", PATIENCE, || {
            let url = "https://delta.lab.internal:8443/";
            client.host.run(&[fetch, &[url]].concat()).result()
        });
        assert!(page.contains("s_server"), "{page}");
        // Also delta's, but not in the certificate.
        let address = server.overlay_ipv4("delta");
        let url = format!("https://{address}:8443/");
        let refused = client.host.run(&[fetch, &[&url]].concat()).result();
        assert!(refused.is_err(), "{} took another name", fetch[0]);
    }
}

fn decode(text: &str) -> Vec<Vec<u8>> {
    let blocks = pem::decode(text).expect("PEM");
    blocks.into_iter().map(|block| block.content).collect()
}
