//! ACME while CA nodes die and the network splits.

use std::collections::BTreeSet;

use innermesh_tests::{
    Agent, Lab, Process,
    agent::{DOMAIN, PATIENCE},
    installed,
    roster::{of_three, wait_leader, wait_roster},
    wait::ensure,
    wait_for,
    web::{LEGO, Web, add_service, directory, issued, wait_revoked},
};

const NODES: [&str; 4] = ["alpha", "beta", "gamma", "delta"];
const ROSTER: [&str; 3] = ["alpha", "beta", "gamma"];
/// A hook of lego that waits at a gate, if there is one for what it is to do.
const HOOK: &str = r#"#!/bin/sh
pass() {
    [ -e "/run/gates/$1" ] || return 0
    touch "/run/gates/$1.reached"
    while [ -e "/run/gates/$1" ]; do sleep 0.05; done
}
case $1 in
present)
    agent record add "${2%.}" TXT -- "$3"
    pass present
    ;;
cleanup)
    pass cleanup
    ;;
esac
"#;

/// Where in an order the leader is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Before the client begins.
    Before,
    /// The order is there, control not shown yet.
    Pending,
    /// Control is shown; the client is about to finalize.
    Ready,
    /// While the client finalizes.
    Finalizing,
}

/// lego at work on the name photos, by a record.
fn start_lego(web: &Web<'_>, agent: &Agent<'_>, what: &[&str]) -> Process {
    let (url, resolver) = (directory(), agent.dns().to_string());
    let name = format!("photos.{DOMAIN}");
    let words = [
        &["lego", "--accept-tos", "--server", &url, "--path", LEGO][..],
        &["--email", "admin@lab.internal", "--domains", &name],
        &[
            "--dns",
            "exec",
            "--dns.resolvers",
            &resolver,
            "--dns.disable-cp",
        ],
        what,
    ];
    web.start(
        "lego",
        &words.concat(),
        &[
            ("EXEC_PATH", "/usr/local/share/lego-hook"),
            ("EXEC_POLLING_INTERVAL", "1"),
        ],
    )
}

#[test]
fn an_order_and_a_renewal_outlive_the_leader() {
    if !installed(&["lego"]) {
        return;
    }
    let Some(lab) = Lab::new(4) else { return };
    let mut agents = of_three(&lab, &NODES);
    add_service(&agents[3], "photos", 443);
    let web = Web::new(&agents[3]);
    web.put("/usr/local/share/lego-hook", HOOK);
    web.shell("chmod +x /usr/local/share/lego-hook; mkdir /run/gates", &[]);
    let mut serials = BTreeSet::new();
    let moments = [
        Moment::Pending,
        Moment::Ready,
        Moment::Finalizing,
        Moment::Before,
    ];
    for (round, moment) in moments.into_iter().enumerate() {
        let gate = match moment {
            Moment::Before => None,
            Moment::Pending => Some("present"),
            Moment::Ready | Moment::Finalizing => Some("cleanup"),
        };
        if let Some(gate) = gate {
            web.shell(r#"touch "/run/gates/$1""#, &[gate]);
        }
        let leader = wait_leader(&agents, &agents[3]);
        if moment == Moment::Before {
            agents[leader].kill();
        }
        let what: &[&str] = match round {
            0 => &["run"],
            _ => &["renew", "--days", "91", "--no-random-sleep"],
        };
        let mut lego = start_lego(&web, &agents[3], what);
        if let Some(gate) = gate {
            let reached = format!("/run/gates/{gate}.reached");
            wait_for(&reached, PATIENCE, || {
                web.host.run(&["test", "-e", &reached]).result()
            });
            let open = ["rm", &format!("/run/gates/{gate}"), &reached];
            if moment == Moment::Finalizing {
                let _ = web.host.run(&open).ok();
                agents[leader].kill();
            } else {
                agents[leader].kill();
                let _ = web.host.run(&open).ok();
            }
        }
        let status = lego.wait(PATIENCE);
        assert!(status.success(), "{moment:?}: {status}\n{}", lego.log());
        serials.insert(web.serial_in(&format!("{LEGO}/certificates/photos.{DOMAIN}.crt")));
        agents[leader].start();
        wait_roster(&agents, &ROSTER);
    }
    // Each order has one certificate, and everybody has the same ones.
    assert_eq!(serials.len(), moments.len());
    wait_same(&agents, "photos", |rows| {
        let known: BTreeSet<String> = rows.iter().map(|(serial, _)| serial.clone()).collect();
        rows.len() == serials.len() && known == serials
    });
}

/// Waits until all agents list the same certificates for a name, as wanted.
fn wait_same(agents: &[Agent], name: &str, wanted: impl Fn(&[(String, bool)]) -> bool) {
    for agent in agents {
        wait_for(
            &format!("the certificates at {}", agent.name),
            PATIENCE,
            || {
                let rows = issued(agent, name);
                ensure(wanted(&rows), format!("{rows:?}"))
            },
        );
    }
}

#[test]
fn in_a_split_the_majority_issues_and_the_minority_says_why_not() {
    if !installed(&["lego"]) {
        return;
    }
    let Some(lab) = Lab::new(4) else { return };
    let agents = of_three(&lab, &NODES);
    let leader = wait_leader(&agents, &agents[3]);
    let (cut, delta) = (&agents[leader], &agents[3]);
    add_service(cut, "wiki", 443);
    add_service(delta, "photos", 443);
    let (minority, majority) = (Web::new(cut), Web::new(delta));
    let get = |web: &Web<'_>, name: &str, what: &[&str]| {
        let name = format!("{name}.{DOMAIN}");
        web.lego(&[&["--tls", "--domains", &name], what].concat())
    };
    let _ = get(&majority, "photos", &["run"]).ok();
    let file = format!("{LEGO}/certificates/photos.{DOMAIN}.crt");
    let first = majority.serial_in(&file);

    // Whoever leads is alone; the others go on without it.
    lab.set_link(cut.host, false);
    let refused = get(&minority, "wiki", &["run"]);
    assert_ne!(refused.code, 0, "{refused}");
    let told = refused.to_string();
    assert!(told.contains("CA node"), "{told}");
    let _ = get(
        &majority,
        "photos",
        &["renew", "--days", "91", "--no-random-sleep"],
    )
    .ok();
    let second = majority.serial_in(&file);
    let _ = get(&majority, "photos", &["revoke"]).ok();

    lab.set_link(cut.host, true);
    for agent in &agents {
        wait_revoked(agent, "photos", &second);
    }
    // What came to nothing then comes to something now, once.
    let _ = get(&minority, "wiki", &["run"]).ok();
    let wiki = minority.serial_in(&format!("{LEGO}/certificates/wiki.{DOMAIN}.crt"));
    wait_same(&agents, "wiki", |rows| rows == [(wiki.clone(), false)]);
    let mut photos = [(first, false), (second, true)];
    photos.sort();
    wait_same(&agents, "photos", |rows| {
        let mut rows = rows.to_vec();
        rows.sort();
        rows == photos
    });
    for agent in &agents {
        let rows = agent.json(&["cert", "list"]);
        let rows = rows.as_array().expect("a list");
        let serials: BTreeSet<String> = rows.iter().map(|row| row["serial"].to_string()).collect();
        assert_eq!(serials.len(), rows.len(), "a serial number was given twice");
    }
}
