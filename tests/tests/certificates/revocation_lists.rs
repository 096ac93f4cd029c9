//! Revocation lists, as other programs check them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use innermesh_tests::{
    Agent, Lab,
    agent::{DOMAIN, PATIENCE},
    leave_out, missing,
    page::{curl, download, text, tool, tool_ok},
    wait::ensure,
    wait_for,
};

/// A certificate for the agent's own name, as files.
struct Leaf {
    serial: String,
    cert: PathBuf,
    issuer: PathBuf,
}

fn issue(agent: &Agent, name: &str) -> Leaf {
    let out = agent.dir.join(name);
    let told = agent.json(&[
        "cert",
        "issue",
        &format!("{name}.{}.{DOMAIN}", agent.name),
        "--out",
        text(&out),
    ]);
    let file = |field: &str| {
        PathBuf::from(
            told[field]
                .as_str()
                .unwrap_or_else(|| panic!("{field}: {told}")),
        )
    };
    let cert = file("cert");
    // Issuer and root.
    let chain = fs::read_to_string(file("chain")).expect("a chain");
    let mut blocks = chain.split_inclusive("-----END CERTIFICATE-----\n");
    let issuer_pem = blocks.next().expect("an issuer");
    let issuer = agent.dir.join(format!("{name}.issuer.pem"));
    fs::write(&issuer, issuer_pem).expect("a file of the laboratory");
    Leaf {
        serial: told["serial"].as_str().expect("a serial").to_owned(),
        cert,
        issuer,
    }
}

fn serial_of(certificate: &Path) -> String {
    let said = tool_ok(&[
        "openssl",
        "x509",
        "-in",
        text(certificate),
        "-noout",
        "-serial",
    ]);
    let (_, serial) = said.trim().split_once('=').expect("a serial");
    format!("{:0>32}", serial.to_ascii_lowercase())
}

/// Waits until an agent hands out an issuer's list that names this serial;
/// as PEM and as its number.
fn wait_list(agent: &Agent, issuer: &str, serial: Option<&str>) -> (PathBuf, u64) {
    wait_for(&format!("the list at {}", agent.name), PATIENCE, || {
        let der = download(agent, &format!("/crl/{issuer}.crl"))?;
        let pem = der.with_extension("crl.pem");
        let _ = tool_ok(&[
            "openssl",
            "crl",
            "-inform",
            "DER",
            "-in",
            text(&der),
            "-out",
            text(&pem),
        ]);
        let said =
            tool_ok(&["openssl", "crl", "-in", text(&pem), "-noout", "-text"]).to_ascii_lowercase();
        if let Some(serial) = serial {
            ensure(said.contains(serial.trim_start_matches('0')), &said)?;
        }
        let number = tool_ok(&["openssl", "crl", "-in", text(&pem), "-noout", "-crlnumber"]);
        let (_, hex) = number.trim().split_once("0x").expect("a number");
        Ok::<_, String>((pem, u64::from_str_radix(hex, 16).expect("a number")))
    })
}

fn verify(agent: &Agent, leaf: &Leaf, list: &Path) -> (bool, String) {
    let root = download(agent, "/root.pem").expect("it is there");
    tool(&[
        "openssl",
        "verify",
        "-crl_check",
        "-CAfile",
        text(&root),
        "-untrusted",
        text(&leaf.issuer),
        "-CRLfile",
        text(list),
        text(&leaf.cert),
    ])
}

#[test]
fn openssl_and_gnutls_refuse_what_is_revoked_by_lists_that_every_agent_hands_out() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, mut beta] = lab.mesh();
    let (bad, good) = (issue(&beta, "bad"), issue(&beta, "good"));
    let issuer = serial_of(&good.issuer);

    // An empty list first, from the node that signs it and from another.
    let (list, first) = wait_list(&alpha, &issuer, None);
    let checked = tool_ok(&[
        "openssl",
        "crl",
        "-in",
        text(&list),
        "-noout",
        "-CAfile",
        text(&good.issuer),
    ]);
    assert!(checked.contains("verify OK"), "{checked}");
    let (list, _) = wait_list(&beta, &issuer, None);
    for leaf in [&bad, &good] {
        let (done, said) = verify(&beta, leaf, &list);
        assert!(done, "{said}");
    }
    let _ = beta.cli(&["cert", "revoke", &bad.serial]).ok();
    for agent in [&alpha, &beta] {
        let (list, number) = wait_list(agent, &issuer, Some(&bad.serial));
        assert!(number > first, "{number} after {first}");
        let (done, said) = verify(agent, &bad, &list);
        assert!(!done && said.contains("certificate revoked"), "{said}");
        let (done, said) = verify(agent, &good, &list);
        assert!(done, "{said}");
        if let Some(program) = missing(&["certtool"]) {
            leave_out(format!("{program} is not installed"));
        } else {
            let said = tool_ok(&[
                "certtool",
                "--verify-crl",
                "--infile",
                text(&list),
                "--load-ca-certificate",
                text(&good.issuer),
            ]);
            assert!(said.contains("Verified"), "{said}");
            let root = download(agent, "/root.pem").expect("it is there");
            for (leaf, trusted) in [(&good, true), (&bad, false)] {
                let (done, said) = tool(&[
                    "certtool",
                    "--verify",
                    "--infile",
                    text(&leaf.cert),
                    "--load-ca-certificate",
                    text(&root),
                    "--load-crl",
                    text(&list),
                ]);
                assert_eq!(done, trusted, "{said}");
                assert!(trusted || said.to_lowercase().contains("revoked"), "{said}");
            }
        }
    }
    // The page of lists says so as well.
    let lists = curl(&beta, "/crl/", &["--fail"]).ok();
    assert!(
        lists.contains(&format!("/crl/{issuer}.crl"))
            && lists.contains("1 revoked")
            && lists.contains("alpha"),
        "{lists}"
    );

    // The number rises over restarts, and over the loss of what was kept.
    let (_, before) = wait_list(&alpha, &issuer, Some(&bad.serial));
    alpha.stop();
    alpha.start();
    let (_, again) = wait_list(&alpha, &issuer, Some(&bad.serial));
    assert_eq!(
        again, before,
        "a restart alone is no reason for another list"
    );
    alpha.stop();
    fs::remove_dir_all(alpha.dir.join("state/crl")).expect("the lists are kept there");
    alpha.start();
    let (_, anew) = wait_list(&alpha, &issuer, Some(&bad.serial));
    assert!(anew > before, "{anew} after {before}");
    // With its signer off, the others still hand out the last good list, also
    // after a restart.
    alpha.kill();
    beta.stop();
    beta.start();
    let (list, kept) = wait_list(&beta, &issuer, Some(&bad.serial));
    assert!(kept >= before, "{kept} after {before}");
    let (done, said) = verify(&beta, &bad, &list);
    assert!(!done && said.contains("certificate revoked"), "{said}");
    let (done, said) = verify(&beta, &good, &list);
    assert!(done, "{said}");
}

#[test]
fn a_list_that_was_altered_is_not_served_and_any_peer_has_it_while_its_signer_is_off() {
    let Some(lab) = Lab::new(3) else { return };
    let [mut alpha, mut beta, mut gamma] = lab.mesh();
    let leaf = issue(&beta, "web");
    let issuer = serial_of(&leaf.issuer);
    for agent in [&beta, &gamma] {
        let _ = wait_list(agent, &issuer, None);
    }
    alpha.kill();
    gamma.stop();
    beta.stop();
    let file = beta.dir.join(format!("state/crl/{issuer}.crl"));
    let mut bytes = fs::read(&file).expect("a list");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).expect("a file of the laboratory");
    beta.start();
    let path = format!("/crl/{issuer}.crl");
    let answer = curl(&beta, &path, &["--write-out", "%{http_code}"]).ok();
    assert!(answer.ends_with("503") && !file.exists(), "{answer}");
    assert!(answer.contains("alpha signs it"), "{answer}");
    gamma.start();
    let (list, _) = wait_list(&beta, &issuer, None);
    let (done, said) = verify(&beta, &leaf, &list);
    assert!(done, "{said}");
}
