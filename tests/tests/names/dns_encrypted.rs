//! DNS over TLS and HTTPS with programs that we didn't write: kdig, curl and dnsperf as
//! clients, Unbound as a name server elsewhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

use innermesh_tests::{
    Agent, Host, Lab, Process, agent::PATIENCE, installed, wait::ensure, wait_for,
};

const LAN: &str = "192.168.77.0/24";
const UNBOUND: &str = r#"
server:
  interface: ADDRESS@53
  interface: ADDRESS@853
  interface: ADDRESS@443
  tls-service-key: "KEY"
  tls-service-pem: "CHAIN"
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "FOLDER"
  pidfile: ""
  use-syslog: no
  access-control: 0.0.0.0/0 allow
  local-zone: "example.org." static
  local-data: "www.example.org. A 203.0.113.7"
  local-zone: "example.com." static
  local-data: "www.example.com. A 203.0.113.8"
  local-zone: "example.net." static
  local-data: "www.example.net. A 203.0.113.9"
  local-zone: "example.edu." static
  local-data: "www.example.edu. A 203.0.113.10"
remote-control:
  control-enable: no
"#;

fn shell(host: &Host, script: &str, arguments: &[&str]) -> String {
    let words = [&["sh", "-euc", script, "sh"], arguments].concat();
    host.run(&words).ok()
}

/// The mesh's root, in a file.
fn root(agent: &Agent) -> PathBuf {
    let path = agent.host.directory.join("root.pem");
    let pem = agent.cli(&["ca", "root"]).ok();
    fs::write(&path, pem).expect("a file of the laboratory");
    path
}

/// What kdig says, by a transport that is encrypted.
fn kdig(host: &Host, root: &Path, name: &str, words: &[&str]) -> String {
    let ca = format!("+tls-ca={}", root.display());
    let hostname = format!("+tls-hostname={name}");
    let fixed = ["kdig", "+retry=0", "+time=5", &ca, &hostname];
    let done = host.run(&[&fixed[..], words].concat());
    format!("{}{}", done.stdout, done.stderr)
}

fn wait_kdig(host: &Host, root: &Path, name: &str, words: &[&str], part: &str) {
    wait_for(&format!("{part} to {words:?}"), PATIENCE, || {
        let told = kdig(host, root, name, words);
        ensure(told.contains(part), told)
    });
}

#[test]
fn kdig_curl_and_dnsperf_ask_at_the_resolver_and_from_a_lan() {
    if !installed(&["kdig", "curl", "dnsperf"]) {
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let [a, tv, outside] = [0, 1, 2].map(|n| &lab.hosts[n]);
    lab.connect_directly(a, tv);
    let network = tv.network_path();
    shell(
        a,
        "ip link add lan type veth peer name lan netns \"$1\"
         ip address add 192.168.77.2/24 dev lan; ip link set lan up",
        &[&network],
    );
    shell(
        tv,
        "ip address add 192.168.77.9/24 dev lan; ip link set lan up",
        &[],
    );
    let config = format!("[dns]\nlan = [\"{LAN}\"]\nhttps = 8443\n");
    let mut alpha = Agent::with_config(a, "alpha", &config);
    alpha.init();
    let _ = alpha.cli(&["service", "add", "web", "--port", "80"]).ok();
    let resolver = alpha.dns().ip().to_string();
    let own = alpha.overlay_ipv4("alpha");
    alpha.wait_answer(&["web.lab.internal"], &[&own]);
    let root = root(&alpha);
    let server = format!("@{resolver}");
    let web = ["web.lab.internal", "A"];
    let tls = [&[server.as_str(), "+tls"][..], &web].concat();
    let https = [&[server.as_str(), "+https", "-p", "8443"][..], &web].concat();
    let get = [&[server.as_str(), "+https-get", "-p", "8443"][..], &web].concat();
    for words in [&tls, &https, &get] {
        // By the resolver's name, by its address, and by the node's name.
        for name in ["ns.lab.internal", "alpha.lab.internal"] {
            wait_kdig(a, &root, name, words, &own);
        }
        let wrong = kdig(a, &root, "beta.lab.internal", words);
        assert!(!wrong.contains(&own), "{wrong}");
    }
    // It says what it was padded to.
    assert!(kdig(a, &root, "ns.lab.internal", &tls).contains("PADDING"));

    let from_lan = ["@192.168.77.2", "+tls", web[0], web[1]];
    wait_kdig(tv, &root, "ns.lab.internal", &from_lan, "192.168.77.2");
    let told = kdig(tv, &root, "ns.lab.internal", &from_lan);
    assert!(!told.contains(&own), "{told}");
    // A stranger who sends there learns nothing, not even whose it is.
    shell(outside, "ip route add 192.168.77.2 via 192.0.2.1", &[]);
    let stranger = kdig(outside, &root, "ns.lab.internal", &from_lan);
    assert!(!stranger.contains("192.168.77.2.in") && !stranger.contains("ANSWER SECTION"));

    a.use_resolver(alpha.dns().ip());
    let ca = root.to_string_lossy().into_owned();
    let curl = [
        "curl",
        "--silent",
        "--show-error",
        "--cacert",
        &ca,
        "--doh-url",
        "https://ns.lab.internal:8443/dns-query",
        "https://acme.lab.internal:7443/directory",
    ];
    let directory = a.run(&curl).ok();
    assert!(directory.contains("newOrder"), "{directory}");

    let names = a.directory.join("names");
    fs::write(&names, "web.lab.internal A\nalpha.lab.internal A\n").expect("a file");
    let names = names.to_string_lossy().into_owned();
    // Answers to several requests of one connection that come together are too much for
    // dnsperf 2.10: over HTTPS one by one.
    for (mode, port, open) in [("dot", "853", "4"), ("doh", "8443", "1")] {
        let uri = format!("doh-uri=https://ns.lab.internal:{port}/dns-query");
        let options: &[&str] = if mode == "doh" { &["-O", &uri] } else { &[] };
        let words = [
            "dnsperf", "-s", &resolver, "-p", port, "-m", mode, "-d", &names, "-n", "200", "-c",
            open, "-q", open,
        ];
        let text = a.run(&[&words[..], options].concat()).ok();
        assert!(text.contains("NOERROR 400 (100.00%)"), "{mode}: {text}");
    }
}

/// The finding that somebody has a port of encrypted DNS that is asked for.
fn not_encrypted(agent: &Agent) -> Option<String> {
    let status = agent.status();
    let mut all = status["findings"].as_array()?.iter();
    let one = all.find(|one| one["code"] == "dns-not-encrypted")?;
    one["text"].as_str().map(str::to_owned)
}

#[test]
fn encrypted_dns_that_is_asked_for_and_not_served_is_told_until_it_is() {
    if !installed(&["kdig"]) {
        return;
    }
    let Some(lab) = Lab::new(1) else { return };
    let host = &lab.hosts[0];
    let taken = |port: u16| host.listen(([0_u16; 8], port).into()).expect("a port");
    let (tls, https) = (taken(853), taken(8443));
    // Where DNS over TLS isn't asked for by name, it gives way without a word. The
    // addresses have port 853 tried before the other one.
    let config = "[dns]\nhttps = 8443\n";
    let mut alpha = Agent::with_config(host, "alpha", config);
    alpha.init();
    let wait_told = |agent: &Agent, part: &str| {
        wait_for(&format!("{part} in the findings"), PATIENCE, || {
            let told = not_encrypted(agent).unwrap_or_default();
            ensure(told.contains(part), agent.status())
        });
    };
    wait_told(&alpha, "TCP port 8443");
    alpha.stop();
    let file = alpha.dir.join("config.toml");
    fs::write(file, format!("{config}tls = \"on\"\n")).expect("a file of the laboratory");
    alpha.start();
    wait_told(&alpha, "TCP port 853");
    drop(https);
    let root = root(&alpha);
    let server = format!("@{}", alpha.dns().ip());
    let ask = |way: &[&str]| {
        let words = [&[server.as_str()], way, &["alpha.lab.internal", "A"]].concat();
        let own = alpha.overlay_ipv4("alpha");
        wait_kdig(host, &root, "ns.lab.internal", &words, &own);
    };
    ask(&["+https", "-p", "8443"]);
    // The other one still isn't there.
    wait_told(&alpha, "TCP port 853");
    drop(tls);
    ask(&["+tls"]);
    wait_for("nothing more to be told", PATIENCE, || {
        let told = not_encrypted(&alpha);
        ensure(told.is_none(), format!("{told:?}"))
    });
}

/// Starts Unbound with a certificate.
fn unbound(host: &Host, key: &str, chain: &str) -> Process {
    let folder = host.directory.join("unbound");
    fs::create_dir_all(&folder).expect("a folder of the laboratory");
    let text = UNBOUND
        .replace("FOLDER", &folder.to_string_lossy())
        .replace("ADDRESS", &host.ipv4.to_string())
        .replace("KEY", key)
        .replace("CHAIN", chain);
    let file = folder.join("unbound.conf");
    fs::write(&file, text).expect("a file of the laboratory");
    let server = host.start("unbound", &["unbound", "-c", &file.to_string_lossy()], &[]);
    wait_for("unbound", PATIENCE, || {
        let at = format!("@{}", host.ipv4);
        let dig = ["dig", "+short", "+tries=1", "+time=2", &at];
        let answer = host
            .run(&[&dig[..], &["www.example.org"]].concat())
            .result()?;
        ensure(
            answer.trim() == "203.0.113.7",
            format!("{answer}{}", server.log()),
        )
    });
    server
}

/// Packets from a host to the port of unencrypted DNS of another.
fn watch(host: &Host) {
    shell(
        host,
        "nft add table inet watch
         nft add chain inet watch out '{ type filter hook output priority 0; }'
         nft add rule inet watch out ip daddr 192.0.2.0/24 udp dport 53 counter
         nft add rule inet watch out ip daddr 192.0.2.0/24 tcp dport 53 counter",
        &[],
    );
}

#[test]
fn unbound_is_asked_by_tls_and_https_and_never_in_the_clear() {
    if !installed(&["unbound", "dig", "openssl", "nft"]) {
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let [a, b, c] = [0, 1, 2].map(|n| &lab.hosts[n]);
    // Beta shows a certificate of the mesh; the third host one of another CA, which
    // alpha's host trusts.
    let (mesh, other) = (b.ipv4, c.ipv4);
    let config = format!(
        "[dns]\nupstream = [\"tls://{other}#dns.example\"]\n[dns.forward]\n\
         \"example.org\" = [\"tls://{mesh}#beta.lab.internal\"]\n\
         \"example.com\" = [\"https://{mesh}/dns-query#beta.lab.internal\"]\n\
         \"example.net\" = [\"tls://{mesh}#alpha.lab.internal\"]\n"
    );
    let mut alpha = Agent::with_config(a, "alpha", &config);
    let mut beta = Agent::new(b, "beta");
    let roots = c.directory.join("ca.pem");
    alpha.set("SSL_CERT_FILE", &roots.to_string_lossy());
    let folder = c.directory.to_string_lossy().into_owned();
    shell(
        c,
        "cd \"$1\"
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
             -keyout ca.key -out ca.pem -subj /CN=ca -addext basicConstraints=critical,CA:TRUE
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout leaf.key \
             -out leaf.csr -subj /CN=leaf
         printf 'subjectAltName=DNS:dns.example' >ext
         openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -days 30 -extfile ext -out leaf.pem",
        &[&folder],
    );
    alpha.init();
    beta.join(&alpha);
    alpha.wait_nodes(2);
    let out = b.directory.join("cert");
    let out = out.to_string_lossy().into_owned();
    let issued = beta.json(&["cert", "issue", "beta.lab.internal", "--out", &out]);
    let file = |key: &str| issued[key].as_str().unwrap_or_default().to_owned();
    let chain = [file("cert"), file("chain")].map(|path| fs::read_to_string(path).expect("PEM"));
    let whole = b.directory.join("whole.pem");
    fs::write(&whole, chain.concat()).expect("a file of the laboratory");
    let _of_mesh = unbound(b, &file("key"), &whole.to_string_lossy());
    let _of_other = unbound(
        c,
        &format!("{folder}/leaf.key"),
        &format!("{folder}/leaf.pem"),
    );
    watch(a);
    alpha.wait_answer(&["www.example.org"], &["203.0.113.7"]);
    alpha.wait_answer(&["www.example.com"], &["203.0.113.8"]);
    // This one by the host's roots.
    alpha.wait_answer(&["www.example.edu"], &["203.0.113.10"]);
    let failed = alpha.cli(&["dns", "query", "www.example.net", "--json"]);
    assert_eq!(failed.code, 1, "{failed}");
    let wrong: serde_json::Value = serde_json::from_str(&failed.stdout).expect("JSON");
    assert_eq!(wrong["rcode"], "SERVFAIL", "{wrong}");
    let error = wrong["error"].as_str().unwrap_or_default();
    assert!(error.contains("not valid for name"), "{wrong}");
    let rules = shell(a, "nft list table inet watch", &[]);
    let counted = rules.matches("packets 0 bytes 0").count();
    assert_eq!(counted, 2, "{rules}");
}
