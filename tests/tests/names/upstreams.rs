//! Name servers that we didn't write, as those that are asked for other names.

use std::{fs, net::Ipv4Addr};

use innermesh_tests::{Agent, Host, Lab, Process, agent::PATIENCE, installed, wait_for};

const ZONE: &str = "$TTL 60
@ IN SOA ns hostmaster 1 60 60 60 60
@ IN NS ns
ns IN A 203.0.113.1
www IN A 203.0.113.7
photos IN CNAME alpha.lab.internal.
gone IN CNAME nobody.lab.internal.
round IN CNAME trip
trip IN CNAME round
";
const NAMED: &str = r#"
options {
    directory "FOLDER";
    pid-file none;
    session-keyfile "FOLDER/session.key";
    managed-keys-directory "FOLDER";
    listen-on { any; };
    recursion no;
};
controls { };
zone "example.org" { type primary; file "FOLDER/zone"; };
"#;
const UNBOUND: &str = r#"
server:
  interface: 0.0.0.0
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "FOLDER"
  pidfile: ""
  use-syslog: no
  access-control: 0.0.0.0/0 allow
  local-zone: "internal." static
  local-zone: "example.org." static
  local-data: "www.example.org. A 203.0.113.7"
  local-data: "photos.example.org. CNAME alpha.lab.internal."
  local-data: "gone.example.org. CNAME nobody.lab.internal."
remote-control:
  control-enable: no
"#;
/// It takes no alias to a name that it doesn't know, and knows another address.
const DNSMASQ: &str = "no-resolv
no-hosts
host-record=www.example.org,203.0.113.7
host-record=alpha.lab.internal,203.0.113.66
cname=photos.example.org,alpha.lab.internal
";

/// Starts a server on a host; `CONFIG` in its words is the file with `config`.
fn start(host: &Host, name: &str, words: &[&str], config: &str) -> Process {
    let folder = host.directory.join(name);
    fs::create_dir_all(&folder).expect("a folder of the laboratory");
    let path = folder.to_string_lossy().into_owned();
    fs::write(folder.join("zone"), ZONE).expect("a file of the laboratory");
    let file = folder.join("config");
    fs::write(&file, config.replace("FOLDER", &path)).expect("a file of the laboratory");
    let file = file.to_string_lossy();
    let words: Vec<String> = words
        .iter()
        .map(|word| word.replace("CONFIG", &file))
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let server = host.start(name, &words, &[]);
    wait_for(name, PATIENCE, || {
        let question = ["www.example.org", "A"];
        let dig = [
            "dig",
            "+short",
            "+noedns",
            "+tries=1",
            "+time=2",
            "@127.0.0.1",
        ];
        let answer = host.run(&[&dig, &question[..]].concat()).result()?;
        answer.contains("203.0.113.7").then_some(()).ok_or(answer)
    });
    server
}

/// The whole answer to a question.
fn whole(agent: &Agent, question: &[&str]) -> String {
    let server = agent.dns();
    let (address, port) = (format!("@{}", server.ip()), server.port().to_string());
    let words = ["dig", "+tries=1", "+time=5", "-p", &port, &address];
    agent.host.run(&[&words, question].concat()).ok()
}

fn agent(lab: &Lab) -> Agent<'_> {
    lab.hosts[0].use_resolver(lab.hosts[1].ipv4.into());
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let _ = alpha.init();
    alpha
}

#[test]
fn a_public_alias_to_a_name_of_the_mesh_resolves_inside_whichever_server_has_it() {
    if !installed(&["dig", "named", "unbound", "dnsmasq"]) {
        return;
    }
    let dnsmasq = [
        "dnsmasq",
        "--keep-in-foreground",
        "--user=root",
        "--pid-file=",
        "--conf-file=CONFIG",
    ];
    for (name, words, config) in [
        ("named", &["named", "-g", "-4", "-c", "CONFIG"][..], NAMED),
        ("unbound", &["unbound", "-d", "-c", "CONFIG"], UNBOUND),
        ("dnsmasq", &dnsmasq, DNSMASQ),
    ] {
        let Some(lab) = Lab::new(2) else { return };
        let _server = start(&lab.hosts[1], name, words, config);
        let alpha = agent(&lab);
        let own = alpha.overlay_ipv4("alpha");
        alpha.wait_answer(&["www.example.org", "A"], &["203.0.113.7"]);
        alpha.wait_answer(&["photos.example.org", "A"], &["alpha.lab.internal.", &own]);
        if name == "dnsmasq" {
            continue;
        }
        let gone = whole(&alpha, &["gone.example.org", "A"]);
        assert!(
            gone.contains("status: NXDOMAIN") && gone.contains("SOA\tns.lab.internal."),
            "{name}: {gone}"
        );
        if name == "named" {
            // It gives up by itself, and that is told.
            let round = whole(&alpha, &["round.example.org", "A"]);
            assert!(
                round.contains("status: SERVFAIL") && round.contains("EDE: 22"),
                "{round}"
            );
        }
    }
}

#[test]
fn servers_without_edns_are_asked_without() {
    if !installed(&["dig", "named"]) {
        return;
    }
    for way in ["ednsformerr", "ednsnotimp"] {
        let Some(lab) = Lab::new(2) else { return };
        let words = ["named", "-g", "-4", "-T", way, "-c", "CONFIG"];
        let _server = start(&lab.hosts[1], "named", &words, NAMED);
        // As it says, it takes no question with EDNS.
        let at = format!("@{}", lab.hosts[1].ipv4);
        let with = lab.hosts[0]
            .run(&["dig", "+noednsneg", "+edns=0", &at, "www.example.org", "A"])
            .stdout;
        assert!(!with.contains("203.0.113.7"), "{way}: {with}");
        let alpha = agent(&lab);
        alpha.wait_answer(&["www.example.org", "A"], &["203.0.113.7"]);
        alpha.wait_answer(&["www.example.org", "A", "+tcp"], &["203.0.113.7"]);
    }
}

#[test]
fn a_name_server_behind_an_interface_s_name_is_asked() {
    if !installed(&["dig", "dnsmasq"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let words = [
        "dnsmasq",
        "--keep-in-foreground",
        "--user=root",
        "--pid-file=",
        "--conf-file=CONFIG",
    ];
    let _server = start(&lab.hosts[1], "dnsmasq", &words, DNSMASQ);
    let [mut alpha] = lab.agents();
    lab.hosts[0].use_resolver(Ipv4Addr::LOCALHOST.into());
    let _ = alpha.init();
    // As a person wrote it: the first is nobody's.
    let text = format!(
        "nameserver fe80::1%gone\nnameserver {}#eth0\n",
        lab.hosts[1].ipv4
    );
    lab.hosts[0].write_resolv_conf(&text);
    // dig can't read such a file at all, so the agent is asked on its own line.
    wait_for("the name server", PATIENCE, || {
        let query = alpha.cli(&["dns", "query", "www.example.org"]);
        let answer = query.result()?;
        answer.contains("203.0.113.7").then_some(()).ok_or(answer)
    });
}
