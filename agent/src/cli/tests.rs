//! The whole command line: what it takes, and what it refuses.

use clap::CommandFactory;

use super::*;

pub(super) fn parse(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(std::iter::once("agent").chain(line.split_whitespace()))
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Arguments::command().debug_assert();
}

/// A line of help, without what it says of a default.
fn summary(help: Option<&clap::builder::StyledStr>) -> String {
    let help = help.map(ToString::to_string).unwrap_or_default();
    let line = help.lines().next().unwrap_or_default().to_owned();
    line.split(" [default: ")
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_line_of_help_has_sixty_characters_at_most() {
    let mut commands = vec![Arguments::command()];
    let mut long = Vec::new();
    while let Some(command) = commands.pop() {
        let arguments = command.get_arguments().map(|arg| arg.get_help());
        let lines = arguments.chain([command.get_about()]).map(summary);
        long.extend(lines.filter(|line| line.chars().count() > 60));
        commands.extend(command.get_subcommands().cloned());
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn the_lines_that_scripts_rely_on_are_taken() {
    for line in [
        "init --domain in.example.org --name a --ipv4 10.9.0.0/16 --no-start --json",
        "--dir /x init --domain lab.internal",
        "join 192.0.2.1 --token t --name b --no-start",
        "join [2001:db8::1]:51819 --token t --json",
        "run",
        "run --print-config --dir /x",
        "invite",
        "invite --ttl 1h --uses 3 --role admin --names web-* --names db --json",
        "status --json",
        "status --watch",
        "peers --json",
        "ping beta --count 1",
        "netcheck --json",
        "seed add 192.0.2.1:51819",
        "wait --nodes 3 --timeout 30s",
        "service add photos --port 8080 --proto tcp --check http://localhost:8080/health",
        "service add dns --port 53 --proto udp --address 192.0.2.1 --share beta --json",
        "service rm photos --release",
        "service list --json",
        "join 192.0.2.1",
        "invite --role ca --role gateway --route 192.168.1.0/24",
        "invite list --json",
        "invite revoke 00ff --json",
        "role add beta admin --root-key /x --json",
        "role rm beta admin --yes --json",
        "requests --json",
        "approve abcd-efgh-ijkm --role relay --route 192.168.1.0/24 --names web-* --json",
        "deny tablet --json",
        "evict beta",
        "evict beta --root-key /x --json",
        "evict beta --undo",
        "evict beta --withdraw --json",
        "evict beta --yes",
        "log level",
        "log level debug --json",
        "log level configured",
        "log level info,innermesh_net::quic=trace",
        "leave --json",
        "leave --yes",
        "record add tv A 192.0.2.9",
        "record add @ MX 10 mail.example.org --public --json",
        "record add tv txt two words",
        "record add site HTTPS 1 . alpn=h2 --ttl 1h --json",
        "record add site TXT -x --ttl=300",
        "record rm tv A --json",
        "record rm tv A 192.0.2.9 --json",
        "record list --json",
        "cert issue photos --out /x --days 30 --json",
        "cert issue photos --also www --exec true --owner postgres:postgres --mode 600",
        "cert issue photos --group postgres --renew-before 20d --new-key",
        "cert issue photos --no-renew",
        "cert issue photos --no-exec",
        "cert renew photos --new-key --out /x --json",
        "cert rm photos --out /x --json",
        "cert list",
        "cert revoke 00112233445566778899aabbccddeeff --json",
        "ca status --json",
        "ca root",
        "ca promote beta --root-key /x --timeout 30s --json",
        "ca demote beta --json",
        "ca demote beta --root-key /x --yes --timeout 30s",
        "ca log --since 2d --until 2027-01-15T08:00:00Z --kind join --kind evict --limit 5",
        "ca recover --root-key /x --yes --leave-behind --json",
        "ca log --file /x",
        "ca root-key export /media/stick",
        "ca root-key export /media/stick --root-key /x --json",
        "ca trust install --json",
        "ca trust uninstall --json",
        "ca trust status --json",
        "ca root-key seal --copy /media/stick/root-recovery.pem --json",
        "ca log --node beta --refused --json",
        "dns query alpha",
        "dns query alpha.in.example.org AAAA --json",
        "dns query 10.9.0.2 --json",
        "dns zone",
        "dns zone --zone in.example.org --json",
        "dns zone --out /x --json",
        "dns secondary add ns2 --address 192.0.2.53 --address 192.0.2.54:5300 --json",
        "dns secondary add ns2 --address fd00::53 --zone in.example.org --key - --print nsd",
        "dns secondary list -v --json",
        "dns secondary rm ns2 --json",
        "completions bash",
        "man",
        "version --json",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn a_wrong_line_ends_with_2_and_says_what_would_be_right() {
    for (line, part) in [
        ("", "Usage"),
        ("strat", "unrecognized subcommand"),
        ("init", "--domain"),
        ("init --domain foo.local", ".local"),
        ("init --domain in.example.org --name wpad", "reserved"),
        ("init --domain in.example.org --ipv4 10.0.0.0", "invalid"),
        ("invite --role king", "possible values: admin"),
        ("invite --route nonsense", "invalid"),
        ("approve 123", "14 letters"),
        ("approve abcd-efgh-ijkm-aa", "mistyped"),
        ("role add beta king", "possible values: admin"),
        ("invite revoke", "ID"),
        ("invite --ttl soon", "such as 30s"),
        ("log level debgu", "no log level"),
        ("invite --uses 0", "0 is not in"),
        ("wait --timeout 1y", "such as 30s"),
        ("ping beta --count 100", "100 is not in"),
        ("service add photos", "--port"),
        ("service add photos --port 0", "0 is not in"),
        (
            "service add photos --port 80 --check exec:true",
            "tcp, or an address",
        ),
        ("service add acme --port 80", "reserved"),
        ("record add tv A", "VALUE"),
        ("record add tv NS ns.example.org", "A, AAAA, CNAME"),
        ("dns zone --zone x --out y", "cannot be used"),
        (
            "dns secondary add ns2 --address ns2.example.org",
            "an IP address",
        ),
        (
            "dns secondary add ns2 --address 192.0.2.5 --algorithm md5",
            "hmac-sha256",
        ),
        ("cert revoke 12", "32 hexadecimal digits"),
        ("cert revoke photos", "agent cert list"),
        ("cert issue photos --days 826", "826 is not in"),
        ("cert issue photos --mode 644", "600, 640"),
        ("cert issue photos --no-renew --exec true", "cannot be used"),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), i32::from(failure::USAGE), "{line}");
        let text = error.to_string();
        assert!(text.contains(part), "{line}: {text}");
    }
}
