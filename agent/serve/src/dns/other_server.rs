//! Another DNS server on this host: what its configuration takes to have it ask
//! the agent for the mesh's names.

use std::net::SocketAddr;

use innermesh_host::holder::Holder;

/// The port that resolvers ask.
pub const PORT: u16 = 53;
/// Where the mesh's resolver addresses answer beside [`PORT`]: for another server
/// on this host that has that port and forwards the mesh's names.
pub const FORWARDED_PORT: u16 = 5354;

/// A DNS server, by the name of its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherServer {
    /// dnsmasq.
    Dnsmasq,
    /// Pi-hole, which is a dnsmasq of its own.
    PiHole,
    /// BIND 9.
    Bind,
    /// Unbound.
    Unbound,
    /// AdGuard Home.
    AdGuardHome,
    /// One whose name can't be seen, or that isn't known here.
    Unknown,
}

impl OtherServer {
    /// By who has the port.
    pub fn of(holder: Option<&Holder>) -> Self {
        let process = holder.and_then(|holder| holder.process.as_ref());
        let unit = holder.and_then(|holder| holder.unit.as_deref());
        match (process, unit) {
            (Some(process), _) => Self::named(&process.name),
            (None, Some("bind9.service")) => Self::Bind,
            // Debian, Fedora, Pi-hole and AdGuard Home call theirs after the program.
            (None, Some(unit)) => Self::named(unit.trim_end_matches(".service")),
            (None, None) => Self::Unknown,
        }
    }

    fn named(program: &str) -> Self {
        match program {
            "dnsmasq" => Self::Dnsmasq,
            "pihole-FTL" => Self::PiHole,
            "named" => Self::Bind,
            "unbound" => Self::Unbound,
            "AdGuardHome" => Self::AdGuardHome,
            _ => Self::Unknown,
        }
    }

    /// What a person has to add so that it forwards the names of `domain` to the
    /// agent at `to`: a sentence without its end.
    pub fn forwarding(self, domain: &str, to: SocketAddr) -> String {
        match self {
            Self::Dnsmasq => format!(
                "Have dnsmasq ask the agent: add `{}` to its configuration",
                dnsmasq(domain, to)
            ),
            Self::PiHole => format!(
                "Have Pi-hole ask the agent: add `{}` to its dnsmasq lines (`misc.dnsmasq_lines`)",
                dnsmasq(domain, to)
            ),
            Self::Bind => format!(
                "Have BIND ask the agent: add `{}`, and in its `options` `{}`",
                bind(domain, to),
                bind_option(domain)
            ),
            Self::Unbound => format!(
                "Have unbound ask the agent: add `{}` to its configuration",
                unbound(domain, to)
            ),
            Self::AdGuardHome => format!(
                "Have AdGuard Home ask the agent: add `{}` to its upstream DNS servers",
                adguard(domain, to)
            ),
            Self::Unknown => format!(
                "Have that server ask the agent for {domain}, at {to}: dnsmasq and Pi-hole take `{}`, \
                 AdGuard Home `{}`, unbound `{}`, and BIND `{}` with `{}` in its `options`",
                dnsmasq(domain, to),
                adguard(domain, to),
                unbound(domain, to),
                bind(domain, to),
                bind_option(domain)
            ),
        }
    }
}

/// dnsmasq(8), `--server`.
fn dnsmasq(domain: &str, to: SocketAddr) -> String {
    format!("server=/{domain}/{}", with_port(to, "#"))
}

/// named.conf(5).
fn bind(domain: &str, to: SocketAddr) -> String {
    let at = with_port(to, " port ");
    format!("zone \"{domain}\" {{ type forward; forward only; forwarders {{ {at}; }}; }};")
}

/// Without it the root's signatures prove that the mesh's domain can't exist.
fn bind_option(domain: &str) -> String {
    format!("validate-except {{ \"{domain}\"; }};")
}

/// unbound.conf(5); as for BIND, its signatures can't be checked.
fn unbound(domain: &str, to: SocketAddr) -> String {
    format!(
        "server: domain-insecure: \"{domain}.\" forward-zone: name: \"{domain}.\" forward-addr: {}",
        with_port(to, "@")
    )
}

/// AdGuard Home's "upstreams for domains".
fn adguard(domain: &str, to: SocketAddr) -> String {
    let at = match to.port() {
        PORT => to.ip().to_string(),
        _ => to.to_string(),
    };
    format!("[/{domain}/]{at}")
}

fn with_port(to: SocketAddr, sign: &str) -> String {
    match to.port() {
        PORT => to.ip().to_string(),
        port => format!("{}{sign}{port}", to.ip()),
    }
}

#[cfg(test)]
mod tests {
    use innermesh_host::holder::Process;

    use super::*;

    fn forwarding(program: &str, to: &str) -> String {
        let holder = Holder {
            process: Some(Process {
                pid: 7,
                name: program.into(),
            }),
            ..Holder::of_user(0)
        };
        OtherServer::of(Some(&holder)).forwarding("lab.internal", to.parse().unwrap())
    }

    #[test]
    fn each_server_is_told_in_its_own_words_whom_to_ask() {
        for (program, line) in [
            ("dnsmasq", "`server=/lab.internal/10.7.0.53#5354`"),
            ("pihole-FTL", "`server=/lab.internal/10.7.0.53#5354`"),
            (
                "named",
                "`zone \"lab.internal\" { type forward; forward only; forwarders { 10.7.0.53 port 5354; }; };`",
            ),
            ("named", "`validate-except { \"lab.internal\"; };`"),
            (
                "unbound",
                "forward-zone: name: \"lab.internal.\" forward-addr: 10.7.0.53@5354`",
            ),
            ("AdGuardHome", "`[/lab.internal/]10.7.0.53:5354`"),
        ] {
            let words = forwarding(program, "10.7.0.53:5354");
            assert!(words.contains(line), "{words}");
        }
    }

    #[test]
    fn the_usual_port_is_left_out_and_ipv6_is_written_as_each_server_reads_it() {
        for (program, line) in [
            ("dnsmasq", "server=/lab.internal/fd00::53`"),
            ("named", "forwarders { fd00::53; }"),
            ("unbound", "forward-addr: fd00::53`"),
            ("AdGuardHome", "[/lab.internal/]fd00::53`"),
        ] {
            let words = forwarding(program, "[fd00::53]:53");
            assert!(words.contains(line), "{words}");
        }
        let words = forwarding("AdGuardHome", "[fd00::53]:5354");
        assert!(words.contains("[/lab.internal/][fd00::53]:5354"), "{words}");
    }

    #[test]
    fn a_server_that_cannot_be_told_is_shown_all_ways() {
        let at = "10.7.0.53:5354".parse().unwrap();
        let words = OtherServer::of(None).forwarding("lab.internal", at);
        for part in ["server=/", "[/lab.internal/]", "forward-zone:", "zone \""] {
            assert!(words.contains(part), "{words}");
        }
        assert_eq!(
            OtherServer::of(Some(&Holder::of_user(53))),
            OtherServer::Unknown
        );
    }
}
