//! What may stand in the file, and what is refused.

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/innermesh/config.toml"))
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn a_leaders_term_is_a_minute_to_a_month() {
    let term = |text: &str| parse(&format!("[ca]\nterm = \"{text}\"")).map(|c| c.ca.term);
    assert_eq!(Config::default().ca.term.duration().as_secs(), 6 * 3600);
    assert_eq!(term("1h30m").unwrap().duration().as_secs(), 5400);
    for bad in ["", "5s", "60d", "soon"] {
        assert!(term(bad).is_err(), "{bad}");
    }
}

#[test]
fn docker_s_socket_is_a_path_that_a_socket_can_have() {
    let long = format!("/{}", "x".repeat(107));
    for bad in ["docker.sock", "", &long, "tcp://127.0.0.1:2375"] {
        let told = refusal(&format!("[docker]\nsocket = '{bad}'"));
        assert!(told.contains("/var/run/docker.sock"), "{told}");
    }
}

#[test]
fn an_empty_file_is_the_default() {
    let config = parse("").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(
        config.listen(),
        [
            "[::]:51819".parse().unwrap(),
            "0.0.0.0:51819".parse().unwrap()
        ]
    );
    assert_eq!(config.tunnel.interface.as_str(), "im0");
    assert_eq!(
        (config.tunnel.listen_port, config.tunnel.mtu),
        (TunnelPort::Usual, 1280)
    );
    assert!(config.dns.listens().is_empty() && config.dns.upstreams().is_empty());
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        listen = "192.0.2.1:1000"
        advertise = ["198.51.100.7", "[2001:db8::1]:2000"]
        port_mapping = true
        [tunnel]
        interface = "mesh-0"
        listen_port = 3000
        mtu = 1420
        backend = "none"
        offloads = false
        [dns]
        listen = ["127.0.0.1:5353"]
        upstream = ["9.9.9.9"]
        tls = "on"
        https = 8443
        manage = "off"
        lan = ["192.168.1.0/24", "fd12::/64"]
        fall_through = ["www", "@ MX"]
        [dns.forward]
        "Corp.example." = ["10.1.1.1", "[2001:db8::1]:5353"]
        "1.10.in-addr.arpa" = ["10.1.1.2"]
        [page]
        listen = ["192.0.2.1", "192.0.2.2:80"]
        port = 4000
        lan = true
        [lane]
        listen = ["127.0.0.1"]
        listen_tls = ["0.0.0.0", "[::]:8443"]
        address = "wss://relay.example.org/innermesh"
        [sinkhole]
        listen = ["192.0.2.3"]
        dns = ["192.0.2.3", "[2001:db8::3]:5353"]
        page = "/etc/innermesh/denied.html"
        [containers]
        mesh = false
        [docker]
        socket = "/var/run/docker.sock"
        [log]
        format = "json"
        level = "debug"
        "#,
    )
    .unwrap();
    assert!(!config.containers.mesh && Config::default().containers.mesh);
    assert_eq!(
        config.docker.socket.as_deref().unwrap(),
        Path::new("/var/run/docker.sock")
    );
    assert_eq!(Config::default().docker.socket, None);
    assert_eq!(config.listen(), ["192.0.2.1:1000".parse().unwrap()]);
    assert_eq!(
        config.advertised(),
        [
            "198.51.100.7:1000".parse().unwrap(),
            "[2001:db8::1]:2000".parse().unwrap()
        ]
    );
    assert_eq!(config.tunnel.backend, BackendChoice::None);
    assert!(config.port_mapping && !Config::default().port_mapping);
    assert!(!config.tunnel.offloads && Config::default().tunnel.offloads);
    assert_eq!(config.tunnel.listen_port, TunnelPort::Fixed(3000));
    assert_eq!(config.dns.listens(), ["127.0.0.1:5353".parse().unwrap()]);
    assert_eq!(config.dns.upstreams(), ["9.9.9.9:53".parse().unwrap()]);
    assert_eq!(config.dns.manage, ManageResolver::Off);
    assert_eq!(
        (config.dns.tls, config.dns.https),
        (TlsChoice::On, Some(8443))
    );
    let usual = DnsConfig::default();
    assert_eq!((usual.tls, usual.https), (TlsChoice::Auto, None));
    let lan = ["192.168.1.0/24", "fd12::/64"].map(|net| net.parse().unwrap());
    assert_eq!(config.dns.lan, lan);
    assert_eq!(Config::default().dns.manage, ManageResolver::Auto);
    assert_eq!(
        config.page.listens(),
        [
            "192.0.2.1:4000".parse().unwrap(),
            "192.0.2.2:80".parse().unwrap()
        ]
    );
    assert_eq!(config.lane.listens(), ["127.0.0.1:8443".parse().unwrap()]);
    let tls = ["0.0.0.0:443", "[::]:8443"].map(|at| at.parse().unwrap());
    assert_eq!(config.lane.listens_tls(), tls);
    let url = config.lane.address.as_ref().map(ToString::to_string);
    assert_eq!(url.as_deref(), Some("wss://relay.example.org/innermesh"));
    assert_eq!(config.sinkhole.listens(), ["192.0.2.3:80".parse().unwrap()]);
    let dns = ["192.0.2.3:53", "[2001:db8::3]:5353"].map(|at| at.parse().unwrap());
    assert_eq!(config.sinkhole.dns_listens(), dns);
    let rules: Vec<String> = config
        .dns
        .fall_through
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(rules, ["www", "@ MX"]);
    let own = Path::new("/etc/innermesh/denied.html");
    assert_eq!(config.sinkhole.page.as_deref(), Some(own));
    assert!(config.page.lan && !Config::default().page.lan);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.level.to_string(), "debug");
    assert_eq!(Config::default().log.level.to_string(), "info");
    assert_eq!(config.dns.answer, AnswerScope::All);
    let name = |name: &str| name.parse::<DomainName>().unwrap();
    let servers = |all: &[&str]| -> Vec<NameServer> {
        all.iter().map(|server| server.parse().unwrap()).collect()
    };
    assert_eq!(
        config.dns.forwards(),
        BTreeMap::from([
            (
                name("corp.example"),
                servers(&["10.1.1.1:53", "[2001:db8::1]:5353"])
            ),
            (name("1.10.in-addr.arpa"), servers(&["10.1.1.2:53"])),
        ])
    );
    assert_eq!(
        parse(&config.to_toml()),
        Ok(config),
        "what is printed can be read"
    );
}

#[test]
fn strangers_and_members_ask_at_different_sockets() {
    let refused = |inside: &str, outside: &str| {
        let text = format!("[dns]\nlisten = [\"{inside}\"]\n[sinkhole]\ndns = [\"{outside}\"]\n");
        let parsed = Config::parse(&text, Path::new("config.toml"));
        parsed.err().map(|error| error.message)
    };
    for (inside, outside) in [
        ("0.0.0.0", "203.0.113.7"),
        ("203.0.113.7", "203.0.113.7"),
        ("127.0.0.1", "0.0.0.0"),
        ("127.0.0.1:5353", "127.0.0.1"),
    ] {
        let why = refused(inside, outside).unwrap();
        assert!(why.contains("`dns` of [sinkhole]"), "{why}");
    }
    assert_eq!(refused("127.0.0.1", "203.0.113.7"), None);
    assert_eq!(refused("0.0.0.0:5353", "203.0.113.7"), None);
}

#[test]
fn a_key_that_does_not_exist_is_named_with_its_file_and_line() {
    let text = refusal("listen = \"[::]:1\"\n[tunnel]\nport = 1\n");
    assert!(
        text.starts_with("/etc/innermesh/config.toml, line 3: "),
        "{text}"
    );
    assert!(text.contains("`port`"), "{text}");
    assert!(refusal("lsten = 1").contains("`lsten`"));
}

/// The example's lines that are keys or tables, and the same with the values that
/// aren't defaults in place of those that are.
fn example() -> (String, String) {
    let (mut defaults, mut all) = (Vec::new(), Vec::<&str>::new());
    let key = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    for line in EXAMPLE.lines() {
        let Some(rest) = line.strip_prefix('#').filter(|rest| !rest.is_empty()) else {
            continue;
        };
        if let Some(shown) = rest.strip_prefix("> ") {
            all.pop_if(|last| key(last) == key(shown));
            all.push(shown);
        } else if !rest.starts_with(' ') {
            defaults.push(rest);
            all.push(rest);
        }
    }
    (defaults.join("\n"), all.join("\n"))
}

#[test]
fn the_explained_file_is_the_default_as_it_is_and_without_its_hashes() {
    assert_eq!(parse(EXAMPLE), Ok(Config::default()));
    let (defaults, _) = example();
    assert!(defaults.contains("[dns.forward]\n"), "{defaults}");
    assert_eq!(parse(&defaults), Ok(Config::default()), "{defaults}");
}

#[test]
fn the_explained_file_names_every_key_and_its_examples_can_be_used() {
    let (defaults, all) = example();
    let table = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
    let keys = |text: &str| {
        let mut keys = std::collections::BTreeSet::new();
        for (name, value) in table(text) {
            match value {
                toml::Value::Table(table) => {
                    keys.extend(table.keys().map(|key| format!("{name}.{key}")))
                }
                _ => drop(keys.insert(name)),
            }
        }
        keys
    };
    // Lists, a port and rules have a default that no value says, or that none can say.
    for key in keys(&Config::default().to_toml()) {
        let there = keys(&all).contains(&key)
            && (keys(&defaults).contains(&key) || key == "tunnel.listen_port");
        assert!(there, "{key} is not explained");
    }
    assert!(all.contains("rules = "), "{all}");
    let config = parse(&all).unwrap();
    assert_eq!(config.dns.forwards().len(), 2);
    for line in EXAMPLE.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn a_key_that_is_nearly_right_is_told_which_was_meant() {
    for (text, meant) in [
        ("lsten = 1", "did you mean `listen`?"),
        ("[tunnel]\nport = 1", "did you mean `listen_port`?"),
        ("[tunel]\nmtu = 1", "did you mean `tunnel`?"),
        ("mtu = 1", "`mtu` is a key of [tunnel]"),
        ("[log]\nformat = \"jsn\"", "did you mean `json`?"),
    ] {
        let message = refusal(text);
        assert!(message.ends_with(meant), "{text}: {message}");
    }
    let service = parse_service(b"name = 'a'\nport = 80\nchek = 'tcp'", Path::new("x"));
    let message = service.unwrap_err().to_string();
    assert!(message.ends_with("did you mean `check`?"), "{message}");
}

#[test]
fn values_that_can_not_work_are_refused_with_the_reason() {
    for (text, reason) in [
        ("listen = \"[::]:51820\"", "both port 51820"),
        ("[page]\nport = 0", "[page] has port 0"),
        ("[page]\nlisten = [\"[::1]:0\"]", "[page] has port 0"),
        ("[tunnel]\nmtu = 1279", "1280 to 9000"),
        (
            "[tunnel]\ninterface = \"a/b\"",
            "can't be the tunnel's interface",
        ),
        (
            "[tunnel]\ninterface = \"lo\"",
            "can't be the tunnel's interface",
        ),
        ("[tunnel]\nbackend = \"magic\"", "`magic`"),
        (
            "[dns]\nmanage = \"on\"",
            "unknown variant `on`, expected `auto` or `off`",
        ),
        ("advertise = [\"0.0.0.0\"]", "nobody can reach"),
        (
            "[lane]\nlisten = [\"127.0.0.1\"]",
            "set `address` of [lane]",
        ),
        (
            "[lane]\naddress = \"wss://relay.example.org/\"",
            "where nothing listens",
        ),
        ("[lane]\nlisten_tls = [\"0.0.0.0:0\"]", "[lane] has port 0"),
        (
            "[lane]\naddress = \"https://relay.example.org/\"",
            "is not the URL of a lane",
        ),
        ("advertise = [\"a.example\"]", "is not an address"),
        (
            "[dns]\nupstream = [\"1.1.1.1:99999\"]",
            "is not a name server",
        ),
        (
            "[dns]\nupstream = [\"tls://dns.quad9.net\"]",
            "give the address",
        ),
        ("[dns]\nhttps = 853", "another use"),
        ("[dns]\nhttps = 7443", "choose two"),
        ("[dns]\ntls = \"yes\"", "unknown variant"),
        ("[dns]\nanswer = \"some\"", "`some`"),
        ("[dns.forward]\n\"corp.example\" = []", "has 0 name servers"),
        (
            "[dns.forward]\n\"corp.example\" = [\"ns.corp.example\"]",
            "give the address",
        ),
        (
            "[dns.forward]\n\"corp.example\" = [\"0.0.0.0\"]",
            "nobody can ask",
        ),
        (
            "[dns.forward]\n\"corp.example\" = [\"10.1.1.1:0\"]",
            "is not a name server",
        ),
        ("[dns.forward]\n\".\" = [\"10.1.1.1\"]", "set `upstream`"),
        (
            "[dns.forward]\n\"a..b\" = [\"10.1.1.1\"]",
            "can't be a zone",
        ),
        ("[dns.forward]\n\"bücher.example\" = [\"10.1.1.1\"]", "xn--"),
        (
            "[dns.forward]\n\"x.onion\" = [\"10.1.1.1\"]",
            "names in onion",
        ),
        (
            "[dns]\nlisten = [\"10.1.1.1\"]\n[dns.forward]\n\"corp.example\" = [\"10.1.1.1\"]",
            "listens itself",
        ),
        (
            "[dns]\nanswer = \"mesh\"\n[dns.forward]\n\"corp.example\" = [\"10.1.1.1\"]",
            "has no use",
        ),
    ] {
        let message = refusal(text);
        assert!(message.contains(reason), "{text}: {message}");
    }
    let many = vec!["\"192.0.2.1\""; ADDRESSES + 1].join(",");
    assert!(refusal(&format!("advertise = [{many}]")).contains("at most 16"));
}

#[test]
fn zones_to_forward_and_their_servers_have_a_bound() {
    let zones: Vec<String> = (0..=limits::DNS_FORWARD_ZONES)
        .map(|n| format!("\"z{n}.example\" = [\"10.1.1.1\"]"))
        .collect();
    let message = refusal(&format!("[dns.forward]\n{}", zones.join("\n")));
    assert!(message.contains("at most 64"), "{message}");
    let servers = ["\"10.1.1.1\""; limits::DNS_UPSTREAMS + 1].join(",");
    let message = refusal(&format!("[dns.forward]\n\"a.example\" = [{servers}]"));
    assert!(message.contains("give 1 to 8"), "{message}");
}

#[test]
fn the_names_of_a_windows_domain_may_end_in_local() {
    let config = parse("[dns.forward]\n\"corp.local\" = [\"10.1.1.1\"]").unwrap();
    assert_eq!(config.dns.forwards().len(), 1);
}

#[test]
fn a_service_file_is_read_and_two_for_one_name_are_refused() {
    let file = |name: &str| PathBuf::from(name);
    let text = "name = \"photos\"\nport = 8080\ncheck = \"tcp\"";
    let photos = parse_service(text.as_bytes(), &file("a.toml")).unwrap();
    assert_eq!((photos.name.as_str(), photos.port), ("photos", 8080));
    let twice = vec![(file("a.toml"), photos.clone()), (file("b.toml"), photos)];
    let error = merge_services(twice).unwrap_err().to_string();
    assert_eq!(error, "b.toml: the service photos stands in a.toml already");
    let error = parse_service(b"name = 'a'\nport = 0", &file("c.toml")).unwrap_err();
    assert!(
        error.to_string().starts_with("c.toml: a service's port"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,80}") {
        let _ = parse(&text);
        let _ = parse_service(text.as_bytes(), Path::new("x"));
    }

    #[test]
    fn no_mix_of_what_toml_is_made_of_makes_the_parser_panic(
        parts in prop::collection::vec(
            prop_oneof![
                Just("listen"), Just("advertise"), Just("[tunnel]"), Just("[[dns]]"), Just("mtu"),
                Just("interface"), Just(" = "), Just("\n"), Just("\""), Just("'''"), Just("["),
                Just("]"), Just("{"), Just("}"), Just(","), Just("."), Just("-1"), Just("99999999999"),
                Just("[::]:1"), Just("im0"), Just("é"), Just("name"), Just("port"), Just("\\u"),
            ],
            0..40,
        ),
    ) {
        let text = parts.concat();
        let _ = parse(&text);
        let _ = parse_service(text.as_bytes(), Path::new("x"));
    }
}
