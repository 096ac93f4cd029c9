//! The mesh's domain delegated to its sinkholes: what the registrar is given, and whether
//! the public world follows it.

use std::fs;

use innermesh_tests::{
    Agent, Host, Lab, Process, agent::PATIENCE, installed, wait::ensure, wait_for,
};

use crate::sinkhole_dns::{config, role};

/// A name for a parent's server of the public DNS.
const NAMED: &str = r#"
options {
    directory "FOLDER";
    pid-file none;
    session-keyfile "FOLDER/session.key";
    managed-keys-directory "FOLDER";
    listen-on { any; };
    listen-on-v6 { any; };
    recursion no;
    dnssec-validation no;
};
controls { };
zone "internal" { type primary; file "FOLDER/zone"; };
"#;

/// A resolver that is asked over TLS alone.
const UNBOUND: &str = r#"
server:
  interface: ADDRESS@853
  tls-service-key: "FOLDER/key.pem"
  tls-service-pem: "FOLDER/cert.pem"
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "FOLDER"
  pidfile: ""
  use-syslog: no
  module-config: "iterator"
  access-control: 0.0.0.0/0 allow
  local-zone: "internal." transparent
remote-control:
  control-enable: no
stub-zone:
  name: "internal"
  stub-addr: PARENT
"#;

/// Starts the server of the zone above, with these records in it.
fn start_parent(host: &Host, records: &str) -> Process {
    let ip = host.ipv4;
    let own = "@ IN SOA ns hostmaster 1 60 60 60 60\n@ IN NS ns\nns IN A";
    let zone = format!("$TTL 60\n{own} {ip}\n{records}");
    let folder = host.directory.join("named");
    fs::create_dir_all(&folder).expect("a folder of the laboratory");
    let path = folder.to_string_lossy().into_owned();
    fs::write(folder.join("zone"), zone).expect("a file of the laboratory");
    let file = folder.join("named.conf");
    fs::write(&file, NAMED.replace("FOLDER", &path)).expect("a file of the laboratory");
    let file = file.to_string_lossy().into_owned();
    host.start("named", &["named", "-f", "-c", &file], &[])
}

#[test]
fn the_delegation_is_printed_and_followed_from_the_zone_above() {
    if !installed(&["dig", "named"]) {
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let [a, parent, wrong] = [0, 1, 2].map(|n| &lab.hosts[n]);
    let mut alpha = Agent::with_config(a, "alpha", &config(a));
    alpha.init();
    role(&alpha, "alpha");
    let delegation = wait_for("the delegation", PATIENCE, || {
        let told = alpha
            .cli(&["dns", "zone", "--public", "--delegated"])
            .result()?;
        ensure(told.contains("AAAA"), told.clone()).map(|()| told)
    });
    assert_eq!(
        delegation,
        format!(
            "lab.internal. 300 IN NS ns1.lab.internal.\n\
             ns1.lab.internal. 300 IN A {}\nns1.lab.internal. 300 IN AAAA {}\n",
            a.ipv4, a.ipv6
        )
    );
    let _right = start_parent(parent, &delegation);
    let other = "lab NS ns9.lab\nns9.lab A 203.0.113.9\n";
    let _wrong = start_parent(wrong, other);
    let verify = |at: &Host| {
        let server = at.ipv4.to_string();
        alpha.cli(&[
            "dns",
            "zone",
            "--public",
            "--delegated",
            "--verify",
            "--at",
            &server,
        ])
    };
    let told = wait_for("the parent", PATIENCE, || verify(parent).result());
    for part in [
        format!(
            "ok     lab.internal. NS ns1.lab.internal. at {}:53",
            parent.ipv4
        ),
        format!(
            "ok     ns1.lab.internal. A {} at {}:53",
            a.ipv4, parent.ipv4
        ),
        format!(
            "ok     ns1.lab.internal. AAAA {} at {}:53",
            a.ipv6, parent.ipv4
        ),
        "ok     lab.internal. SOA ns1.lab.internal.".to_owned(),
        format!("at [{}]:53", a.ipv6),
    ] {
        assert!(told.contains(&part), "{part} in {told}");
    }
    let told = verify(wrong);
    assert_eq!(told.code, 1, "{told}");
    let line = "WRONG  lab.internal. NS";
    assert!(
        told.stdout.contains(line) && told.stdout.contains("ns9.lab"),
        "{told}"
    );
}

/// Starts Unbound as a resolver that finds the zone above at `parent`; gives the pin of its
/// key as well.
fn start_resolver(host: &Host, parent: &Host) -> (Process, String) {
    let folder = host.directory.join("unbound");
    fs::create_dir_all(&folder).expect("a folder of the laboratory");
    let folder = folder.to_string_lossy();
    let script = "cd \"$1\"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
            -subj /CN=resolver -keyout key.pem -out cert.pem 2>log
        openssl pkey -in key.pem -pubout -outform DER | openssl dgst -sha256 -binary | base64";
    let pin = host.run(&["sh", "-euc", script, "sh", &folder]).ok();
    let text = UNBOUND
        .replace("ADDRESS", &host.ipv4.to_string())
        .replace("PARENT", &parent.ipv4.to_string())
        .replace("FOLDER", &folder);
    let file = format!("{folder}/unbound.conf");
    fs::write(&file, text).expect("a file of the laboratory");
    let server = host.start("unbound", &["unbound", "-c", &file], &[]);
    let at = format!("@{}", host.ipv4);
    wait_for("Unbound", PATIENCE, || {
        let words = ["kdig", &at, "+tls", "+short", "+time=2", "internal", "NS"];
        let told = host.run(&words).stdout;
        ensure(told.contains("ns.internal."), told + &server.log())
    });
    (server, pin.trim().to_owned())
}

#[test]
fn the_delegation_is_followed_by_resolvers_that_are_asked_in_encrypted_form_alone() {
    if !installed(&["kdig", "named", "openssl", "unbound"]) {
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let [a, parent, resolver] = [0, 1, 2].map(|n| &lab.hosts[n]);
    let glue = format!(
        "lab NS ns1.lab\nns1.lab A {}\nns1.lab AAAA {}\n",
        a.ipv4, a.ipv6
    );
    let _parent = start_parent(parent, &glue);
    let (_resolver, pin) = start_resolver(resolver, parent);
    let upstream = format!("tls://{}?pin={pin}", resolver.ipv4);
    let config = format!("{}[dns]\nupstream = [\"{upstream}\"]\n", config(a));
    let mut alpha = Agent::with_config(a, "alpha", &config);
    alpha.init();
    role(&alpha, "alpha");
    let told = wait_for("the delegation as it is", PATIENCE, || {
        let words = ["dns", "zone", "--public", "--delegated", "--verify"];
        alpha.cli(&words).result()
    });
    let line = format!(
        "ok     lab.internal. NS ns1.lab.internal. at {}:53",
        parent.ipv4
    );
    for part in [format!("; asked {upstream}\n"), line] {
        assert!(told.contains(&part), "{part} in {told}");
    }
}
