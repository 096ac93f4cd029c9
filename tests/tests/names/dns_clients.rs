//! Resolvers that we didn't write ask the agent, each as its users do: drill, delv, host,
//! kdig and busybox; glibc's and musl's by resolv.conf with the options that there are.

use std::{fs, net::Ipv4Addr};

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, dns, installed, skip, wait_for};

/// Prints what libc makes of names and addresses, one line each, sorted by itself.
const LOOK_UP: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static void address(const char *text) {
    struct sockaddr_in in = { .sin_family = AF_INET };
    char name[256];
    inet_pton(AF_INET, text, &in.sin_addr);
    int error = getnameinfo((void *)&in, sizeof in, name, sizeof name, 0, 0, NI_NAMEREQD);
    printf("%s %s\n", text, error ? gai_strerror(error) : name);
}

int main(int count, char **words) {
    for (int n = 1; n < count; n++) {
        struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *all, *one;
        struct in_addr numeric;
        if (inet_pton(AF_INET, words[n], &numeric)) {
            address(words[n]);
            continue;
        }
        int error = getaddrinfo(words[n], 0, &hints, &all);
        if (error)
            printf("%s %s\n", words[n], gai_strerror(error));
        for (one = error ? 0 : all; one; one = one->ai_next) {
            char text[64];
            getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
            printf("%s %s\n", words[n], text);
        }
    }
    return 0;
}
"#;
/// The upstream's answer to every name.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// A node with a service, records of users and an upstream.
fn node(lab: &Lab) -> Agent<'_> {
    let outside = &lab.hosts[1];
    let _ = dns::serve(outside, OUTSIDE);
    let config = format!(
        "[dns]\nmanage = \"off\"\nupstream = [\"{}\"]\n",
        outside.ipv4
    );
    let mut alpha = Agent::with_config(&lab.hosts[0], "alpha", &config);
    alpha.init();
    for words in [
        &["service", "add", "web", "--port", "80"][..],
        &["record", "add", "tv", "A", "198.51.100.9"],
        &["record", "add", "tv", "AAAA", "2001:db8:9::9"],
        &["record", "add", "box", "CNAME", "tv"],
        &["record", "add", "box2", "CNAME", "www.example.org"],
        &["record", "add", "*.lamps", "A", "198.51.100.10"],
        &["record", "add", "@", "MX", "10", "tv"],
    ] {
        let _ = alpha.cli(words).ok();
    }
    for n in 0..8 {
        let text = format!("{n}{}", "x".repeat(200));
        let _ = alpha.cli(&["record", "add", "long", "TXT", &text]).ok();
    }
    alpha.wait_answer(&["web.lab.internal"], &[&alpha.overlay_ipv4("alpha")]);
    alpha.wait_answer(&["www.example.org"], &["203.0.113.7"]);
    alpha
}

fn has(host: &Host, words: &[&str], parts: &[&str]) {
    let done = host.run(words);
    let told = format!("{}{}", done.stdout, done.stderr);
    for part in parts {
        assert!(told.contains(part), "{part}: {done}");
    }
}

#[test]
fn drill_delv_host_kdig_and_busybox_are_answered() {
    if !installed(&["delv", "host", "kdig"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let alpha = node(&lab);
    let host = alpha.host;
    let own = alpha.overlay_ipv4("alpha");
    let own_v6 = alpha.overlay_ipv6("alpha");
    let ip = alpha.dns().ip().to_string();
    let at = format!("@{ip}");
    let pointer = "alpha.lab.internal.";

    // Without DNSSEC here, but as it asks for it: DO and CD are set.
    has(host, &["delv", &at, "-i", "web.lab.internal", "A"], &[&own]);
    has(
        host,
        &["delv", &at, "-i", "+tcp", "long.lab.internal", "TXT"],
        &["7xxx"],
    );
    has(
        host,
        &["delv", &at, "-i", "nobody.lab.internal", "A"],
        &["ncache nxdomain"],
    );

    has(host, &["host", "web.lab.internal", &ip], &[&own, &own_v6]);
    has(
        host,
        &["host", "box.lab.internal", &ip],
        &["is an alias for", "198.51.100.9"],
    );
    has(host, &["host", &own, &ip], &[pointer]);
    has(host, &["host", &own_v6, &ip], &[pointer]);
    has(
        host,
        &["host", "-t", "MX", "lab.internal", &ip],
        &["10 tv.lab.internal."],
    );
    has(host, &["host", "-a", "tv.lab.internal", &ip], &["HINFO"]);
    has(host, &["host", "nobody.lab.internal", &ip], &["NXDOMAIN"]);
    has(
        host,
        &["host", "-T", "-t", "TXT", "long.lab.internal", &ip],
        &["7xxx"],
    );

    let web = "web.lab.internal";
    for options in [
        &["+notcp"][..],
        &["+tcp"],
        &["+tcp", "+keepopen"],
        &["+edns=0", "+bufsize=512"],
        &["+noedns"],
        &["+dnssec", "+cdflag"],
        &["+subnet=192.0.2.0/24"],
        &["+cookie=0123456789abcdef"],
        &["+padding"],
        &["+nsid", "+expire", "+alignment"],
        &["+norec"],
    ] {
        let words = [&["kdig", &at, web, "+retry=0"], options].concat();
        has(host, &words, &["NOERROR", &own]);
    }
    has(host, &["kdig", &at, "+edns=9", web], &["BADVERS"]);
    // Cut over UDP, and asked again over TCP.
    has(
        host,
        &["kdig", &at, "long.lab.internal", "TXT"],
        &["7xxx", "(TCP)"],
    );
    has(
        host,
        &["kdig", &at, "+ignore", "long.lab.internal", "TXT"],
        &[" tc "],
    );

    if installed(&["busybox"]) {
        has(host, &["busybox", "nslookup", web, &ip], &[&own]);
        has(
            host,
            &["busybox", "nslookup", &own, &ip],
            &["alpha.lab.internal"],
        );
    }
    if installed(&["drill"]) {
        has(host, &["drill", &at, web, "A"], &["rcode: NOERROR", &own]);
        has(host, &["drill", "-D", &at, web, "AAAA"], &[&own_v6]);
        has(
            host,
            &["drill", "-t", &at, "long.lab.internal", "TXT"],
            &["7xxx"],
        );
        has(
            host,
            &["drill", "-a", &at, "long.lab.internal", "TXT"],
            &["7xxx"],
        );
        has(host, &["drill", "-x", &at, &own], &[pointer]);
        has(
            host,
            &["drill", &at, "nobody.lab.internal"],
            &["rcode: NXDOMAIN"],
        );
    }
}

/// What a program that asks libc is told with each way that a host may be set up in;
/// `look_up` gives a name's or an address's lines.
fn by_each_resolv_conf(alpha: &Agent, options: &[&str], look_up: impl Fn(&str) -> String) {
    let (own, own_v6) = (alpha.overlay_ipv4("alpha"), alpha.overlay_ipv6("alpha"));
    let resolver = alpha.dns().ip();
    for options in options {
        let text = format!("search lab.internal\nnameserver {resolver}\n{options}\n");
        alpha.host.write_resolv_conf(&text);
        for (name, parts) in [
            ("web.lab.internal", &[own.as_str(), &own_v6][..]),
            ("web", &[&own]),
            ("WEB.Lab.Internal", &[&own]),
            ("tv.lab.internal", &["198.51.100.9", "2001:db8:9::9"]),
            ("box.lab.internal", &["198.51.100.9"]),
            ("box2.lab.internal", &["203.0.113.7"]),
            ("x.y.lamps.lab.internal", &["198.51.100.10"]),
            ("www.example.org", &["203.0.113.7"]),
            (&own, &["alpha.lab.internal"]),
        ] {
            let told = look_up(name);
            for part in parts {
                assert!(told.contains(part), "{name}, {options:?}: {told}");
            }
        }
        let told = look_up("nobody.lab.internal");
        assert!(!told.contains("203.0.113"), "{options:?}: {told}");
    }
}

#[test]
fn glibc_finds_names_with_every_option_of_resolv_conf() {
    let Some(lab) = Lab::new(2) else { return };
    let alpha = node(&lab);
    let options = [
        "",
        "options ndots:3",
        "options edns0 trust-ad",
        "options use-vc",
        "options single-request",
        "options single-request-reopen rotate",
        "options timeout:1 attempts:1",
        "nameserver 192.0.2.250\noptions timeout:1",
    ];
    by_each_resolv_conf(&alpha, &options, |name| {
        let ahosts = alpha.host.run(&["getent", "ahosts", name]);
        let hosts = alpha.host.run(&["getent", "hosts", name]);
        format!("{}{}", ahosts.stdout, hosts.stdout)
    });
    for (database, name, part) in [
        ("ahostsv4", "tv", "198.51.100.9"),
        ("ahostsv6", "tv", "2001:db8:9::9"),
    ] {
        has(alpha.host, &["getent", database, name], &[part]);
    }
}

#[test]
fn a_program_with_musl_finds_names() {
    if !installed(&["musl-gcc"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let source = lab.hosts[0].directory.join("look-up.c");
    let program = lab.hosts[0].directory.join("look-up");
    fs::write(&source, LOOK_UP).expect("a file of the laboratory");
    let (source, program) = (source.to_string_lossy(), program.to_string_lossy());
    let compiled = lab.hosts[0].run(&["musl-gcc", "-static", "-o", &program, &source]);
    if compiled.code != 0 {
        return skip(format!("musl-gcc compiles nothing: {compiled}"));
    }
    let alpha = node(&lab);
    // It sends A and AAAA together, and knows no others of these options.
    let options = ["", "options ndots:3", "options timeout:2 attempts:2"];
    by_each_resolv_conf(&alpha, &options, |name| {
        alpha.host.run(&[&program, name]).ok()
    });
    let told = wait_for("an answer", PATIENCE, || {
        alpha.host.run(&[&program, "nobody.lab.internal"]).result()
    });
    assert!(told.contains("does not resolve"), "{told}");
}
