//! The install page, as browsers and other programs see it.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use innermesh_tests::{
    Agent, Host, Lab,
    agent::{DOMAIN, PATIENCE},
    installed,
    page::{PORT, curl, download, text, tool_ok},
    wait_for,
};
use serde_json::Value;

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let mut lines = head.lines();
    let found = lines.find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    });
    found.unwrap_or_else(|| panic!("no {name}: {head}"))
}

#[test]
fn the_page_hands_out_the_root_in_every_form_with_its_fingerprint() {
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = lab.mesh();
    let root = alpha.json(&["ca", "root"]);
    let own_pem = root["pem"].as_str().expect("a certificate").to_owned();

    // The same certificate in each form, with the fingerprint that openssl says.
    let types = [
        ("/", "text/html; charset=utf-8"),
        ("/crl/", "text/html; charset=utf-8"),
        ("/root.crt", "application/x-x509-ca-cert"),
        ("/root.pem", "application/x-pem-file"),
        ("/root.mobileconfig", "application/x-apple-aspen-config"),
        ("/fingerprint", "text/plain; charset=utf-8"),
    ];
    for (path, wanted) in types {
        let head = curl(&alpha, path, &["--head", "--fail"]).ok();
        assert_eq!(header(&head, "content-type"), wanted, "{path}");
        assert_eq!(header(&head, "x-content-type-options"), "nosniff");
        let length: usize = header(&head, "content-length").parse().expect("a number");
        let body = curl(
            &alpha,
            path,
            &[
                "--fail",
                "--output",
                "-",
                "--write-out",
                "%{stderr}%{size_download}",
            ],
        );
        assert_eq!(body.code, 0, "{body}");
        assert_eq!(
            body.stderr.trim(),
            length.to_string(),
            "HEAD says what GET gives"
        );
        // What is held already is not sent again.
        let tag = format!("If-None-Match: {}", header(&head, "etag"));
        let again = curl(
            &alpha,
            path,
            &[
                "--header",
                &tag,
                "--write-out",
                "%{http_code} %{size_download}",
            ],
        );
        assert_eq!(again.ok().trim(), "304 0", "{path}");
        let other = curl(
            &alpha,
            path,
            &[
                "--header",
                "If-None-Match: \"x\"",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
            ],
        );
        assert_eq!(other.ok().trim(), "200", "{path}");
    }
    let pem = download(&alpha, "/root.pem").expect("it is there");
    assert_eq!(fs::read_to_string(&pem).expect("it is text"), own_pem);
    let der = download(&alpha, "/root.crt").expect("it is there");
    let told = curl(&alpha, "/fingerprint", &["--fail"]).ok();
    for (file, form) in [(&pem, "PEM"), (&der, "DER")] {
        let said = tool_ok(&[
            "openssl",
            "x509",
            "-in",
            text(file),
            "-inform",
            form,
            "-noout",
            "-fingerprint",
            "-sha256",
        ]);
        let (_, said) = said.trim().split_once('=').expect("a fingerprint");
        assert_eq!(said, told.trim(), "{form}");
    }
    let since = curl(&alpha, "/root.crt", &["--head"]).ok();
    let since = format!("If-Modified-Since: {}", header(&since, "last-modified"));
    let again = curl(
        &alpha,
        "/root.crt",
        &["--header", &since, "--write-out", "%{http_code}"],
    );
    assert_eq!(again.ok().trim(), "304");

    // The page itself: nothing from elsewhere, no scripts, and what to compare.
    let page = curl(&alpha, "/", &["--fail"]).ok();
    let joined = ["<span>", "</span>", "<wbr>"]
        .iter()
        .fold(page.clone(), |text, tag| text.replace(tag, ""));
    assert!(joined.contains(told.trim()), "{page}");
    for needed in [
        DOMAIN,
        "answered by alpha",
        "agent ca root",
        "agent ca trust install",
        "plain HTTP",
        "name constraints",
        "/root.mobileconfig",
        "/crl/",
    ] {
        assert!(page.contains(needed), "{needed:?} is missing: {page}");
    }
    assert!(
        !page.contains("<script") && !page.contains("style=\""),
        "{page}"
    );
    assert!(!page.contains("{url}") && !page.contains("{name}") && !page.contains("{domain}"));
    let outside: Vec<&str> = page
        .match_indices("http://")
        .map(|(at, _)| &page[at..])
        .filter(|rest| {
            !rest.starts_with(&format!("http://ca.{DOMAIN}:{PORT}/"))
                && !rest.starts_with("http://www.w3.org/2000/svg")
        })
        .collect();
    assert!(outside.is_empty(), "{outside:?}");
    // What is to be tested at the end is of the mesh.
    let of_the_mesh = format!("https://<var>NAME</var>.{DOMAIN}/");
    assert_eq!(
        page.matches("https://").count(),
        page.matches(&of_the_mesh).count()
    );
    let head = curl(&alpha, "/", &["--head"]).ok();
    let policy = header(&head, "content-security-policy");
    let style = page
        .split("<style>")
        .nth(1)
        .and_then(|rest| rest.split("</style>").next())
        .expect("a style sheet");
    let sheet = alpha.dir.join("style.css");
    fs::write(&sheet, style).expect("a file of the laboratory");
    let hash = tool_ok(&[
        "sh",
        "-c",
        "openssl dgst -sha256 -binary \"$1\" | openssl base64 -A",
        "sh",
        text(&sheet),
    ]);
    assert!(
        policy.contains("default-src 'none'")
            && policy.contains(&format!("style-src 'sha256-{}'", hash.trim())),
        "{policy}"
    );

    // Every address that it should be at, and no other.
    let own = [
        "127.0.0.1".into(),
        "::1".into(),
        alpha.dns().ip().to_string(),
        alpha.overlay_ipv4("alpha"),
        alpha.overlay_ipv6("alpha"),
    ];
    for address in own {
        let address: IpAddr = address.parse().expect("an address");
        let opened = alpha.host.tcp_to(SocketAddr::new(address, PORT));
        assert!(opened.is_ok(), "{address}: {opened:?}");
    }
    for address in [IpAddr::V4(lab.hosts[0].ipv4), IpAddr::V6(lab.hosts[0].ipv6)] {
        let opened = alpha.host.tcp_to(SocketAddr::new(address, PORT));
        assert!(opened.is_err(), "the page is at {address}");
    }
}

#[test]
fn apple_s_profile_is_a_property_list_with_the_root_and_the_same_each_time() {
    let Some(lab) = Lab::new(1) else { return };
    if !installed(&["python3"]) {
        return;
    }
    let [mut alpha] = lab.mesh();
    let der = download(&alpha, "/root.crt").expect("it is there");
    let profile = download(&alpha, "/root.mobileconfig").expect("it is there");
    let script = r"
import plistlib, sys, uuid
profile = plistlib.load(open(sys.argv[1], 'rb'))
assert profile['PayloadType'] == 'Configuration' and profile['PayloadVersion'] == 1
[payload] = profile['PayloadContent']
assert payload['PayloadType'] == 'com.apple.security.root', payload
assert payload['PayloadContent'] == open(sys.argv[2], 'rb').read()
ids = [uuid.UUID(profile['PayloadUUID']), uuid.UUID(payload['PayloadUUID'])]
assert len(set(ids)) == 2 and all(i.variant == uuid.RFC_4122 for i in ids)
print(*ids)
";
    let first = tool_ok(&["python3", "-c", script, text(&profile), text(&der)]);
    alpha.stop();
    alpha.start();
    let profile = download(&alpha, "/root.mobileconfig").expect("it is there");
    assert_eq!(
        tool_ok(&["python3", "-c", script, text(&profile), text(&der)]),
        first
    );
}

#[test]
fn the_code_on_the_page_is_read_as_its_address_and_fingerprint() {
    let Some(lab) = Lab::new(1) else { return };
    if !installed(&["rsvg-convert", "zbarimg"]) {
        return;
    }
    let [alpha] = lab.mesh();
    let page = curl(&alpha, "/", &["--fail"]).ok();
    let svg = page
        .split("<svg")
        .nth(1)
        .and_then(|rest| rest.split("</svg>").next())
        .expect("a code");
    let (drawn, image) = (alpha.dir.join("code.svg"), alpha.dir.join("code.png"));
    fs::write(&drawn, format!("<svg{svg}</svg>")).expect("a file of the laboratory");
    let _ = tool_ok(&[
        "rsvg-convert",
        "--width",
        "500",
        "-o",
        text(&image),
        text(&drawn),
    ]);
    let read = tool_ok(&["zbarimg", "--raw", "--quiet", text(&image)]);
    let root = alpha.json(&["ca", "root"]);
    let fingerprint = root["fingerprint_sha256"].as_str().expect("one");
    // Some versions complain of a missing D-Bus on a line of their own.
    assert_eq!(
        read.lines().next().unwrap_or_default(),
        format!("http://ca.{DOMAIN}:{PORT}/#sha256-{fingerprint}")
    );
    assert!(page.contains(&format!("id=\"sha256-{fingerprint}\"")));
}

/// Whether the other end closes within the time, perhaps after an error.
fn hung_up(stream: &mut TcpStream, within: Duration) -> bool {
    stream.set_read_timeout(Some(within)).expect("a limit");
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => !String::from_utf8_lossy(&rest).contains("200 OK"),
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn hostile_requests_get_short_answers_and_no_more_than_their_share() {
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = lab.mesh();
    let code = |path: &str, more: &[&str]| {
        let words = [
            more,
            &["--output", "/dev/null", "--write-out", "%{http_code}"],
        ]
        .concat();
        curl(&alpha, path, &words).stdout
    };
    for path in [
        "/../identity.key",
        "/..%2fidentity.key",
        "/crl/../root.pem",
        "//root.pem",
        "/crl/%00.crl",
        "/crl/",
        "/nothing",
        "/root.pem/",
    ] {
        let wanted = if path == "/crl/" { "200" } else { "404" };
        assert_eq!(code(path, &[]), wanted, "{path}");
    }
    let help = curl(&alpha, "/nothing", &[]).ok();
    assert!(help.contains("The install page is at /"), "{help}");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        assert_eq!(code("/", &["--request", method]), "405", "{method}");
    }
    assert_eq!(code("/", &["--data-binary", &"x".repeat(100_000)]), "405");
    let long = format!("X-Long: {}", "x".repeat(60_000));
    assert!(["431", "400"].contains(&code("/", &["--header", &long]).as_str()));
    let fields: Vec<String> = (0..200).map(|n| format!("X-{n}: 1")).collect();
    let fields: Vec<&str> = fields
        .iter()
        .flat_map(|field| ["--header", field.as_str()])
        .collect();
    assert_eq!(code("/", &fields), "431");

    // Slow and silent clients are hung up on, and take up one address's places
    // only meanwhile.
    let at = SocketAddr::new(alpha.dns().ip(), PORT);
    let open = |words: &[u8]| {
        let mut stream = alpha.host.tcp_to(at).expect("a connection");
        let _ = stream.write_all(words);
        stream
    };
    let mut slow = Vec::new();
    for _ in 0..100 {
        slow.push(open(b"GET / HTTP/1.1\r\nHost: "));
    }
    // The same user's next one takes the place of one that is idle.
    assert_eq!(code("/", &["--max-time", "4"]), "200");
    // From another address there is room all the time.
    let elsewhere = SocketAddr::new(alpha.overlay_ipv4("alpha").parse().expect("one"), PORT);
    let mut other = alpha.host.tcp_to(elsewhere).expect("a connection");
    let _ = other.write_all(b"GET /fingerprint HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    other.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for mut stream in slow {
        assert!(hung_up(&mut stream, PATIENCE), "it is kept for ever");
    }
    // What isn't HTTP at all.
    let mut stream = open(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert!(hung_up(&mut stream, PATIENCE), "it is kept for ever");
    assert_eq!(code("/", &[]), "200");
    let status: Value = alpha.status();
    assert_eq!(status["warnings"], Value::Array(vec![]), "{status}");
}

#[test]
fn a_port_that_is_taken_is_told_and_served_once_it_is_free() {
    let Some(lab) = Lab::new(1) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let _ = alpha.init();
    alpha.stop();
    let taken = lab.hosts[0]
        .listen(SocketAddr::from(([127, 0, 0, 1], PORT)))
        .expect("a port");
    alpha.start();
    let status = alpha.cli(&["status"]);
    assert!(
        status
            .stderr
            .contains("TCP port 7480 on 127.0.0.1 is taken by"),
        "{status}"
    );
    assert!(status.stderr.contains("[page]"), "{status}");
    let page = curl(&alpha, "/", &["--fail"]).ok();
    assert!(page.contains(DOMAIN), "it is served elsewhere");
    drop(taken);
    wait_for("the page on loopback", PATIENCE, || {
        alpha
            .host
            .run(&[
                "curl",
                "--silent",
                "--show-error",
                "--fail",
                &format!("http://127.0.0.1:{PORT}/fingerprint"),
            ])
            .result()
    });
    let status = alpha.cli(&["status"]);
    assert!(!status.stderr.contains("install page"), "{status}");
}

/// Fetches a URL from a host that is in no mesh; its status and its body.
fn fetch(host: &Host, url: &str, more: &[&str]) -> Result<(String, String), String> {
    let words = [
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        "5",
        "--write-out",
        "\n%{http_code}",
        url,
    ];
    let fetched = host.run(&[&words, more].concat()).result()?;
    let (body, code) = fetched.rsplit_once('\n').unwrap_or_default();
    Ok((code.to_owned(), body.to_owned()))
}

#[test]
fn a_phone_on_the_lan_gets_the_root_and_nothing_of_the_mesh() {
    let Some(lab) = Lab::new(2) else { return };
    let (home, phone) = (&lab.hosts[0], &lab.hosts[1]);
    let address = |host: &Host, verb: &str, address: &str| {
        let _ = host
            .run(&["ip", "address", verb, address, "dev", "direct"])
            .ok();
    };
    lab.connect_directly(home, phone);
    address(home, "add", "192.168.77.1/24");
    address(phone, "add", "192.168.77.2/24");
    let mut alpha = Agent::with_config(home, "alpha", "[page]\nlan = true\n");
    let _ = alpha.init();
    let page = wait_for("the page on the LAN", PATIENCE, || {
        let iphone = ["--user-agent", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5)"];
        let (code, page) = fetch(phone, "http://192.168.77.1:7480/", &iphone)?;
        (code == "200").then_some(page).ok_or(code)
    });
    assert!(page.contains("On this device: iPhone"), "{page}");
    for inside in ["alpha", "/crl/", "http://ca."] {
        assert!(!page.contains(inside), "{inside}: {page}");
    }
    let at = |path: &str| fetch(phone, &format!("http://192.168.77.1:7480{path}"), &[]);
    let root = alpha.json(&["ca", "root"]);
    let (_, pem) = at("/root.pem").expect("the root");
    assert_eq!(Some(pem.trim()), root["pem"].as_str().map(str::trim));
    assert_eq!(at("/crl/").expect("an answer").0, "404");
    // The mesh's own visitors see what they saw before.
    let own = curl(&alpha, "/", &["--fail"]).ok();
    assert!(own.contains("answered by alpha"), "{own}");
    assert_eq!(alpha.status()["warnings"], Value::Array(vec![]));

    // Addresses that are no LAN's, and those that are gone, aren't listened at.
    let public = SocketAddr::new(IpAddr::V4(home.ipv4), PORT);
    assert!(alpha.host.tcp_to(public).is_err(), "it is at {public}");
    address(home, "del", "192.168.77.1/24");
    address(home, "add", "192.168.77.9/24");
    wait_for("the page at the new address", PATIENCE, || {
        fetch(phone, "http://192.168.77.9:7480/fingerprint", &[])
    });
    address(home, "del", "192.168.77.9/24");
    wait_for("a word about it", PATIENCE, || {
        let told = alpha.cli(&["status"]).stderr;
        let why = "not served on the LAN: this host has no address on a private network";
        told.contains(why).then_some(()).ok_or(told)
    });
}

#[test]
fn the_page_is_where_the_configuration_says_and_its_links_name_that_port() {
    let Some(lab) = Lab::new(1) else { return };
    let config = format!(
        "[page]\nlisten = [\"{}\"]\nport = 8123\n",
        lab.hosts[0].ipv4
    );
    let mut alpha = Agent::with_config(&lab.hosts[0], "alpha", &config);
    let _ = alpha.init();
    let at = format!("http://{}:8123/", lab.hosts[0].ipv4);
    let page = alpha
        .host
        .run(&["curl", "--silent", "--show-error", "--fail", &at])
        .ok();
    assert!(
        page.contains(&format!("http://ca.{DOMAIN}:8123/root.pem")),
        "{page}"
    );
    for address in ["127.0.0.1:8123", "127.0.0.1:7480"] {
        assert!(
            alpha
                .host
                .tcp_to(address.parse().expect("an address"))
                .is_err(),
            "{address}"
        );
    }
}
