//! Runs a command on a host of a mesh that has ACME, such as the test suite of a
//! client: `acme_lab COMMAND...`. The host holds the services `site0` and on,
//! trusts the mesh's root, and finds `agent`; `ACME_DIRECTORY_URL`, `ACME_ROOT`
//! and `ACME_DOMAIN` say where the CA is. `tests/acme` has scripts for it.

use std::process::ExitCode;

use innermesh_tests::{
    Lab,
    agent::DOMAIN,
    web::{ROOT, Web, directory},
};

/// How many services the host has.
const SITES: usize = 80;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.is_empty() {
        eprintln!("acme_lab COMMAND...");
        return ExitCode::from(2);
    }
    let Some(lab) = Lab::new(2) else {
        return ExitCode::FAILURE;
    };
    let [_alpha, beta] = lab.mesh();
    for site in 0..SITES {
        let name = format!("site{site}");
        let _ = beta.cli(&["service", "add", &name, "--port", "443"]).ok();
    }
    let last = format!("site{}.{DOMAIN}", SITES - 1);
    beta.wait_answer(&[&last, "A"], &[&beta.overlay_ipv4("beta")]);
    let web = Web::new(&beta);
    let mut all = vec![
        "env".to_owned(),
        format!("ACME_DIRECTORY_URL={}", directory()),
        format!("ACME_ROOT={ROOT}"),
        format!("ACME_DOMAIN={DOMAIN}"),
        format!("ACME_ADDRESS={}", beta.overlay_ipv4("beta")),
    ];
    all.extend(words);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let ended = web.run(&all);
    println!("{}", ended.stdout);
    eprintln!("{}", ended.stderr);
    if ended.code == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
