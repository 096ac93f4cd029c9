//! Which name servers the host uses for other names, from resolv.conf(5).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

use innermesh_proto::limits;

use crate::resolver;

/// The host's resolver configuration.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systemd-resolved lists the servers behind its stub.
pub const RESOLVED_UPSTREAMS: &str = "/run/systemd/resolve/resolv.conf";
/// Addresses of systemd-resolved's stub (resolved.conf(5)).
const STUBS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];

/// What reading the configuration takes; the host has it.
pub trait ReadResolvConf {
    /// The text of a file, if there is one that can be read.
    fn read(&self, path: &str) -> Option<String>;
    /// The index of an interface, for the scope of a link-local address.
    fn interface_index(&self, name: &str) -> Option<u32>;
}

/// The host's name servers, best first. Where the host's first one is
/// systemd-resolved's stub, these are the servers behind it: resolved may be
/// told to ask us, and asking it in turn would go round in a circle.
pub fn upstreams(host: &impl ReadResolvConf) -> Vec<SocketAddr> {
    let servers = |path: &str| {
        let text = host.read(path).unwrap_or_default();
        name_servers(&text, |name| host.interface_index(name))
    };
    let first = match host.read(RESOLV_CONF) {
        // The agent stands there itself, before those that it asks.
        Some(text) if resolver::is_ours(&text) => servers(&format!("/{}", resolver::BACKUP)),
        _ => servers(RESOLV_CONF),
    };
    let stubbed = first
        .first()
        .is_some_and(|server| STUBS.iter().any(|stub| server.ip() == *stub));
    match stubbed.then(|| servers(RESOLVED_UPSTREAMS)) {
        Some(behind) if !behind.is_empty() => behind,
        _ => first,
    }
}

/// The name servers in the text of a resolv.conf, in order and without
/// repetition. What can't be read is passed over, as libc does.
pub fn name_servers(text: &str, interface_index: impl Fn(&str) -> Option<u32>) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if !line.starts_with("nameserver") || words.next() != Some("nameserver") {
            continue;
        }
        if let Some(server) = words
            .next()
            .and_then(|word| address(word, &interface_index))
            && !servers.contains(&server)
            && servers.len() < limits::DNS_UPSTREAMS
        {
            servers.push(server);
        }
    }
    servers
}

/// A server as libc reads it: without a remark behind it, and without an
/// interface where the address needs none. Neither is a reason to be without the
/// server, as in `127.0.0.1#eth0` or `192.0.2.1%eth0`.
pub(crate) fn bare(word: &str) -> &str {
    let word = word.split(['#', ';']).next().unwrap_or_default();
    let address = word.split('%').next().unwrap_or_default();
    match address.parse() {
        Ok(IpAddr::V6(ip)) if ip.is_unicast_link_local() => word,
        _ => address,
    }
}

/// The server that a word names.
fn address(word: &str, interface_index: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let word = bare(word);
    let (address, zone) = word.split_once('%').unwrap_or((word, ""));
    match address.parse().ok()? {
        // RFC 4007 §11: a link-local address means nothing without its link.
        IpAddr::V6(ip) if word.contains('%') => {
            let scope = zone.parse().ok().or_else(|| interface_index(zone))?;
            Some(SocketAddrV6::new(ip, 53, 0, scope).into())
        }
        // libc takes 0.0.0.0 for this host.
        ip if ip.is_unspecified() => Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53)),
        ip => Some(SocketAddr::new(ip, 53)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    struct Files(BTreeMap<&'static str, &'static str>);

    impl ReadResolvConf for Files {
        fn read(&self, path: &str) -> Option<String> {
            self.0.get(path).map(ToString::to_string)
        }
        fn interface_index(&self, name: &str) -> Option<u32> {
            (name == "eth0").then_some(2)
        }
    }

    fn of(files: &[(&'static str, &'static str)]) -> Vec<String> {
        let files = Files(files.iter().copied().collect());
        upstreams(&files).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn name_servers_are_read_in_order_and_once() {
        let text = "# made by hand\nsearch lan\nnameserver 192.0.2.1 # router\n\tnameserver 9.9.9.9\n\
                    nameserver\t2001:db8::1\nnameserver 192.0.2.1\nnameservers 8.8.8.8\nnameserver nonsense\n;nameserver 1.1.1.1\n";
        assert_eq!(
            of(&[(RESOLV_CONF, text)]),
            ["192.0.2.1:53", "[2001:db8::1]:53"]
        );
    }

    #[test]
    fn a_link_local_server_needs_its_interface() {
        let text = "nameserver fe80::1%eth0\nnameserver fe80::1%gone\nnameserver fe80::1%7\n";
        assert_eq!(
            of(&[(RESOLV_CONF, text)]),
            ["[fe80::1%2]:53", "[fe80::1%7]:53"]
        );
    }

    #[test]
    fn interfaces_and_remarks_behind_an_address_do_not_cost_the_server() {
        let text = "nameserver 127.0.0.1#eth0\nnameserver 192.0.2.1%eth0\n\
                    nameserver fe80::1%eth0#router\nnameserver 2001:db8::1%gone\n\
                    nameserver 192.0.2.2;old\nnameserver #\nnameserver %eth0\n\
                    nameserver fe80::1%\nnameserver 9.9.9.9\n";
        assert_eq!(
            of(&[(RESOLV_CONF, text)]),
            [
                "127.0.0.1:53",
                "192.0.2.1:53",
                "[fe80::1%2]:53",
                "[2001:db8::1]:53",
                "192.0.2.2:53",
                "9.9.9.9:53"
            ]
        );
        // The stub of resolved, too, is known by its address.
        assert_eq!(
            of(&[
                (RESOLV_CONF, "nameserver 127.0.0.53%lo\n"),
                (RESOLVED_UPSTREAMS, "nameserver 192.0.2.1#dns.example\n")
            ]),
            ["192.0.2.1:53"]
        );
    }

    #[test]
    fn behind_the_stub_of_resolved_are_the_servers_that_it_asks() {
        let stub = (
            RESOLV_CONF,
            "nameserver 127.0.0.53\noptions edns0 trust-ad\n",
        );
        assert_eq!(
            of(&[stub, (RESOLVED_UPSTREAMS, "nameserver 192.0.2.1\n")]),
            ["192.0.2.1:53"]
        );
        assert_eq!(of(&[stub]), ["127.0.0.53:53"]);
    }

    #[test]
    fn where_the_agent_stands_itself_it_asks_those_that_stood_before() {
        let ours = "# Written by innermesh.\nnameserver 100.77.0.53\nnameserver 192.0.2.1\n";
        let before = "nameserver 192.0.2.1\nnameserver 192.0.2.2\n";
        assert_eq!(
            of(&[
                (RESOLV_CONF, ours),
                ("/etc/resolv.conf.before-innermesh", before)
            ]),
            ["192.0.2.1:53", "192.0.2.2:53"]
        );
    }

    #[test]
    fn no_file_is_no_server() {
        assert!(of(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn any_text_gives_at_most_the_cap(text in "(nameserver|[ \t\n#;%:.]|[0-9a-f]{1,4}|\\PC){0,60}") {
            prop_assert!(name_servers(&text, |_| None).len() <= limits::DNS_UPSTREAMS);
        }

        #[test]
        fn every_address_is_read_back(servers in prop::collection::vec(any::<u32>(), 0..8)) {
            let text: String = servers.iter().map(|n| format!("nameserver {}\n", Ipv4Addr::from(*n))).collect();
            let read = name_servers(&text, |_| None);
            for address in servers.iter().filter(|n| **n != 0) {
                prop_assert!(read.contains(&SocketAddr::new(Ipv4Addr::from(*address).into(), 53)));
            }
        }
    }
}
