//! Another DNS server on the host: the agent runs on without port 53, says who has
//! it and what that server takes to ask the agent, and has the port once it is free.

use std::{fs, net::Ipv4Addr, path::PathBuf};

use innermesh_tests::{
    Agent, Host, Lab, Process,
    agent::{DOMAIN, PATIENCE},
    dns, installed, wait_for,
};
use serde_json::Value;

/// A server of another kind on an agent's host.
struct Server<'a> {
    host: &'a Host,
    name: &'static str,
    words: Vec<String>,
    config: PathBuf,
}

impl<'a> Server<'a> {
    fn new(host: &'a Host, name: &'static str, words: &[&str]) -> Self {
        let folder = host.directory.join(name);
        fs::create_dir_all(&folder).expect("a folder of the laboratory");
        let config = folder.join("config");
        let path = config.to_string_lossy();
        let words = words.iter().map(|word| word.replace("CONFIG", &path));
        Self {
            host,
            name,
            words: words.collect(),
            config,
        }
    }

    /// Starts it with this configuration and waits until it answers.
    fn start(&self, config: &str) -> Process {
        let folder = self.config.parent().expect("its folder").to_string_lossy();
        let config = config.replace("FOLDER", &folder);
        fs::write(&self.config, config).expect("a file of the laboratory");
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let server = self.host.start(self.name, &words, &[]);
        wait_for(self.name, PATIENCE, || {
            // Each of them knows itself by this name.
            self.dig(&["version.bind", "TXT", "CH"]).map(drop)
        });
        server
    }

    /// What it answers to programs of its host.
    fn dig(&self, question: &[&str]) -> Result<String, String> {
        let words = ["dig", "+short", "+tries=1", "+time=2", "@127.0.0.1"];
        self.host.run(&[&words, question].concat()).result()
    }

    fn wait_answer(&self, name: &str, address: &str) {
        wait_for(&format!("{name} of {}", self.name), PATIENCE, || {
            let answer = self.dig(&[name, "A"])?;
            (answer.trim() == address).then_some(()).ok_or(answer)
        });
    }
}

fn finding(agent: &Agent) -> Option<Value> {
    let status = agent.status();
    let mut all = status["findings"].as_array().expect("a list").iter();
    all.find(|finding| finding["code"] == "dns-port-taken")
        .cloned()
}

/// What the remedy says to write into a configuration.
fn lines(finding: &Value) -> Vec<String> {
    let remedy = finding["remedy"].as_str().expect("a remedy");
    let quoted = remedy.split('`').skip(1).step_by(2);
    quoted
        .filter(|line| *line != "options")
        .map(str::to_owned)
        .collect()
}

/// That the finding names this server, and that the mesh works meanwhile.
fn is_told(agent: &Agent, server: &Process, name: &str) -> Value {
    let finding = finding(agent).expect("a finding");
    let text = finding["text"].as_str().expect("a text");
    let holder = format!("pid {} ({name})", server.id());
    for part in ["port 53", &holder, "port 5354"] {
        assert!(text.contains(part), "{part}: {finding}");
    }
    let warnings = agent.status()["warnings"].to_string();
    assert!(warnings.contains(&holder), "{warnings}");
    finding
}

#[test]
fn beside_dnsmasq_the_mesh_works_and_names_come_back_when_it_ends() {
    if !installed(&["dig", "dnsmasq"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, mut beta] = lab.agents();
    // Whatever it is told, it holds the port on all addresses.
    let usual = "port=53\nno-resolv\nno-hosts\n";
    let words = [
        "dnsmasq",
        "--keep-in-foreground",
        "--user=root",
        "--pid-file=",
        "--log-facility=-",
        "--conf-file=CONFIG",
    ];
    let dnsmasq = Server::new(&lab.hosts[0], "dnsmasq", &words);
    let first = dnsmasq.start(usual);
    let init = ["init", "--domain", DOMAIN, "--name", "alpha", "--no-start"];
    let told = alpha.cli(&init).ok();
    let holder = format!("pid {} (dnsmasq)", first.id());
    for part in ["Port 53", &holder, "`server=/lab.internal/"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    alpha.start();
    let told = is_told(&alpha, &first, "dnsmasq");
    beta.join(&alpha);
    alpha.wait_nodes(2);
    let own = alpha.overlay_ipv4("alpha");
    wait_for("a packet through the tunnel", PATIENCE, || {
        beta.pings(&own).then_some(()).ok_or("not yet")
    });
    // Names too, at the other port, and by dnsmasq with what it is said to take.
    alpha.wait_answer(&["beta.lab.internal", "A"], &[&alpha.overlay_ipv4("beta")]);
    let [line] = &lines(&told)[..] else {
        panic!("one line: {told}");
    };
    assert!(line.starts_with("server=/lab.internal/"), "{line}");
    drop(first);
    let second = dnsmasq.start(&format!("{usual}{line}\n"));
    dnsmasq.wait_answer("beta.lab.internal", &alpha.overlay_ipv4("beta"));
    wait_for("the new holder", PATIENCE, || {
        let told = finding(&alpha).unwrap_or_default().to_string();
        let holder = format!("pid {} (dnsmasq)", second.id());
        told.contains(&holder).then_some(()).ok_or(told)
    });
    // It is restarted, and finds its port free still.
    drop(second);
    let third = dnsmasq.start(&format!("{usual}{line}\n"));
    drop(third);
    wait_for("port 53", PATIENCE, || {
        let port = alpha.dns().port();
        (port == 53).then_some(()).ok_or(port)
    });
    alpha.wait_answer(&["beta.lab.internal", "A"], &[&alpha.overlay_ipv4("beta")]);
    assert_eq!(finding(&alpha), None);
}

/// A BIND that listens wherever it can, and looks for new addresses all the time.
const BIND: &str = r#"
options {
    directory "FOLDER";
    pid-file none;
    session-keyfile "FOLDER/session.key";
    managed-keys-directory "FOLDER";
    listen-on { any; };
    listen-on-v6 { any; };
    recursion yes;
    MORE
};
controls { };
"#;
const NAMED: [&str; 5] = ["named", "-g", "-c", "CONFIG", "-4"];

#[test]
fn bind_does_not_take_the_resolver_s_address_when_it_comes() {
    if !installed(&["dig", "named"]) {
        return;
    }
    let Some(lab) = Lab::new(1) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let bind = Server::new(&lab.hosts[0], "named", &NAMED);
    let server = bind.start(&BIND.replace("MORE", ""));
    let _ = alpha.init();
    let own = alpha.overlay_ipv4("alpha");
    for start in 0..5 {
        alpha.kill();
        alpha.start();
        assert_eq!(alpha.dns().port(), 53, "start {start}: {}", server.log());
        alpha.wait_answer(&["alpha.lab.internal", "A"], &[&own]);
    }
    assert_eq!(finding(&alpha), None);
}

#[test]
fn beside_bind_on_the_resolver_s_address_it_is_told_how_to_ask_the_agent() {
    if !installed(&["dig", "named"]) {
        return;
    }
    let Some(lab) = Lab::new(1) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let _ = alpha.init();
    let resolver = alpha.dns().ip();
    alpha.stop();
    // The address outlives the agent, as with the kernel's WireGuard.
    let address = format!("{resolver}/32");
    let add = ["ip", "address", "add", &address, "dev", "lo"];
    let _ = alpha.host.run(&add).ok();
    let bind = Server::new(&lab.hosts[0], "named", &NAMED);
    let server = bind.start(&BIND.replace("MORE", ""));
    alpha.start();
    let finding = is_told(&alpha, &server, "named");
    let [zone, option] = &lines(&finding)[..] else {
        panic!("a zone and an option: {finding}");
    };
    drop(server);
    let config = format!("{}{zone}\n", BIND.replace("MORE", option));
    let _server = bind.start(&config);
    bind.wait_answer("alpha.lab.internal", &alpha.overlay_ipv4("alpha"));
}

#[test]
fn beside_unbound_it_is_told_how_to_ask_the_agent() {
    if !installed(&["dig", "unbound"]) {
        return;
    }
    let Some(lab) = Lab::new(1) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let usual = "server:\n  interface: 0.0.0.0\n  do-daemonize: no\n  username: \"\"\n  \
                 chroot: \"\"\n  directory: \"FOLDER\"\n  pidfile: \"\"\n  use-syslog: no\n  \
                 access-control: 0.0.0.0/0 allow\nremote-control:\n  control-enable: no\n";
    let unbound = Server::new(&lab.hosts[0], "unbound", &["unbound", "-d", "-c", "CONFIG"]);
    let server = unbound.start(usual);
    let _ = alpha.init();
    let finding = is_told(&alpha, &server, "unbound");
    let [lines] = &lines(&finding)[..] else {
        panic!("one piece: {finding}");
    };
    drop(server);
    let _server = unbound.start(&format!("{usual}{lines}\n"));
    unbound.wait_answer("alpha.lab.internal", &alpha.overlay_ipv4("alpha"));
}

#[test]
fn behind_a_server_of_its_own_a_host_s_agent_answers_the_mesh_s_names_alone() {
    if !installed(&["dig", "dnsmasq"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let upstream = dns::serve(&lab.hosts[1], Ipv4Addr::new(203, 0, 113, 7));
    let mut alpha = Agent::with_config(&lab.hosts[0], "alpha", "[dns]\nanswer = \"mesh\"\n");
    lab.hosts[0].use_resolver(Ipv4Addr::LOCALHOST.into());
    let _ = alpha.init();
    let resolver = alpha.dns().ip();
    // As Pi-hole does it: what it isn't told otherwise goes to the world.
    let words = [
        "dnsmasq",
        "--keep-in-foreground",
        "--user=root",
        "--pid-file=",
        "--conf-file=CONFIG",
    ];
    let config = format!(
        "no-resolv\nno-hosts\nbind-interfaces\nlisten-address=127.0.0.1\n\
         server={}\nserver=/{DOMAIN}/{resolver}\n",
        lab.hosts[1].ipv4
    );
    let dnsmasq = Server::new(&lab.hosts[0], "dnsmasq", &words);
    let _server = dnsmasq.start(&config);
    dnsmasq.wait_answer("alpha.lab.internal", &alpha.overlay_ipv4("alpha"));
    dnsmasq.wait_answer("www.example.org", "203.0.113.7");
    let before = upstream.asked();
    let at = format!("@{resolver}");
    let refused = alpha.host.run(&["dig", &at, "other.example.org", "A"]).ok();
    assert!(refused.contains("status: REFUSED"), "{refused}");
    assert_eq!(upstream.asked(), before);
    // An alias that leads out of the mesh is completed.
    let alias = ["record", "add", "site", "CNAME", "www.example.org"];
    let _ = alpha.cli(&alias).ok();
    wait_for("the alias", PATIENCE, || {
        let answer = dnsmasq.dig(&["site.lab.internal", "A"])?;
        answer.contains("203.0.113.7").then_some(()).ok_or(answer)
    });
}

#[test]
fn names_of_a_company_s_zones_are_asked_of_its_own_servers() {
    if !installed(&["dig", "dnsmasq"]) {
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let outside = dns::serve(&lab.hosts[1], Ipv4Addr::new(203, 0, 113, 7));
    lab.hosts[0].use_resolver(lab.hosts[1].ipv4.into());
    let words = [
        "dnsmasq",
        "--keep-in-foreground",
        "--user=root",
        "--pid-file=",
        "--conf-file=CONFIG",
    ];
    let dnsmasq = Server::new(&lab.hosts[2], "dnsmasq", &words);
    let _server = dnsmasq.start(
        "no-resolv\nno-hosts\naddress=/corp.example/10.1.2.3\n\
         ptr-record=3.2.1.10.in-addr.arpa,www.corp.example\n",
    );
    // By IPv6, and beside a server that nobody has.
    let config = format!(
        "[dns.forward]\n\"corp.example\" = [\"192.0.2.250\", \"[{}]:53\"]\n\
         \"1.10.in-addr.arpa\" = [\"{}\"]\n",
        lab.hosts[2].ipv6, lab.hosts[2].ipv4
    );
    let mut alpha = Agent::with_config(&lab.hosts[0], "alpha", &config);
    let _ = alpha.init();
    alpha.wait_answer(&["www.corp.example", "A"], &["10.1.2.3"]);
    alpha.wait_answer(&["-x", "10.1.2.3"], &["www.corp.example."]);
    assert_eq!(outside.asked(), 0);
    alpha.wait_answer(&["www.example.org", "A"], &["203.0.113.7"]);
    let resolver = alpha.dns().ip();
    alpha.stop();
    // The mesh's own names are nobody else's to answer, nor is the agent its own
    // name server.
    for (rule, part) in [
        (
            "\"x.lab.internal\" = [\"192.0.2.1\"]".to_owned(),
            "mesh's own",
        ),
        (
            format!("\"corp.example\" = [\"{resolver}\"]"),
            "answers itself",
        ),
    ] {
        let file = alpha.dir.join("config.toml");
        fs::write(&file, format!("[dns.forward]\n{rule}\n")).expect("its configuration");
        alpha.refused(&["run"], part);
    }
}
