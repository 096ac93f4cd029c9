//! What `agent netcheck` says of the router's part.

use super::show::until;
use crate::{
    control::node::{MappedPort, NatKind, Netcheck, PortMapping},
    host::UnixTime,
};

/// A line, and one more for each port.
pub fn text(told: &Netcheck, now: UnixTime) -> String {
    let mapping = &told.port_mapping;
    let Some(router) = mapping.router else {
        return "port mapping: none; this host has no router for IPv4\n".into();
    };
    let mut out = match (mapping.on, &mapping.ports[..]) {
        (false, _) => format!("port mapping: off; the router {router} {}\n", offer(told)),
        (true, []) => format!(
            "port mapping: none by the router {router}: {}\n",
            trouble(mapping, now)
        ),
        (true, ports) => {
            let by = mapping.answered.first();
            let by = by.map(|by| format!(" by {by}")).unwrap_or_default();
            let ports = ports.iter().map(|port| line(port, now));
            let ports: String = ports.collect();
            format!("port mapping: the router {router} maps{by}\n{ports}")
        }
    };
    if !mapping.ports.is_empty() {
        for problem in &mapping.problems {
            out.push_str(&format!("  not all: {problem}\n"));
        }
    }
    out
}

/// What the router could do where it isn't asked to.
fn offer(told: &Netcheck) -> String {
    let answered: Vec<String> = told
        .port_mapping
        .answered
        .iter()
        .map(ToString::to_string)
        .collect();
    match &answered[..] {
        [] => "answers neither PCP, NAT-PMP nor UPnP".into(),
        all if told.nat == NatKind::None => format!("answers {}", all.join(", ")),
        all => format!(
            "answers {}; with `port_mapping = true` in the configuration it is asked to map this \
             node's ports",
            all.join(", ")
        ),
    }
}

fn trouble(mapping: &PortMapping, now: UnixTime) -> String {
    let again = mapping.next_ms.map(|at| until(now, UnixTime::from_ms(at)));
    let again = again
        .map(|again| format!("; asked again {again}"))
        .unwrap_or_default();
    if mapping.problems.is_empty() {
        return "it is being asked".into();
    }
    let advice = if mapping.answered.is_empty() {
        ". Turn on PCP, NAT-PMP or UPnP in its settings, or forward the ports there and set \
         `advertise`"
    } else {
        ""
    };
    format!("{}{again}{advice}", mapping.problems.join("; "))
}

fn line(port: &MappedPort, now: UnixTime) -> String {
    let end = match port.until_ms {
        Some(at) => format!("ends {} unless renewed", until(now, UnixTime::from_ms(at))),
        None => "until this agent stops".into(),
    };
    let reach = if port.public {
        ""
    } else {
        "; not an address on the internet: behind that router is another NAT, and whoever is \
         beyond it doesn't get here"
    };
    format!(
        "  UDP port {} of {} at {}, {end}{reach}\n",
        port.port, port.of, port.external
    )
}

#[cfg(test)]
mod tests {
    use crate::control::node::{MappedUse, RouterProtocol};

    use super::*;

    fn told(port_mapping: PortMapping) -> Netcheck {
        Netcheck {
            port: 51820,
            places: Vec::new(),
            seen: Vec::new(),
            nat: NatKind::ForEachDestination,
            relay: None,
            relays: Vec::new(),
            lanes: Vec::new(),
            port_mapping,
        }
    }

    fn mapping(on: bool) -> PortMapping {
        PortMapping {
            on,
            router: "192.168.1.1".parse().ok(),
            answered: vec![RouterProtocol::NatPmp],
            ports: Vec::new(),
            problems: Vec::new(),
            next_ms: None,
        }
    }

    fn said(mapping: PortMapping) -> String {
        text(&told(mapping), UnixTime::from_ms(1_000_000))
    }

    #[test]
    fn what_could_be_mapped_is_offered_where_there_is_a_nat() {
        let off = said(mapping(false));
        assert!(
            off.contains("answers NAT-PMP; with `port_mapping = true`"),
            "{off}"
        );
        let mut told = told(mapping(false));
        told.nat = NatKind::None;
        let off = text(&told, UnixTime::from_ms(0));
        assert_eq!(
            off,
            "port mapping: off; the router 192.168.1.1 answers NAT-PMP\n"
        );
        told.port_mapping.answered.clear();
        let off = text(&told, UnixTime::from_ms(0));
        assert!(off.contains("answers neither"), "{off}");
        told.port_mapping.router = None;
        assert!(text(&told, UnixTime::from_ms(0)).contains("no router"));
    }

    #[test]
    fn what_is_mapped_is_told_with_its_end_and_its_reach() {
        let mut mapping = mapping(true);
        let port = |of, external: &str, until_ms| MappedPort {
            of,
            port: 51820,
            external: external.parse().unwrap(),
            public: external.starts_with("203"),
            until_ms,
        };
        mapping.ports = vec![
            port(
                MappedUse::Tunnel,
                "203.0.113.7:40001",
                Some(1_000_000 + 3_600_000),
            ),
            port(MappedUse::Quic, "100.64.0.7:40002", None),
        ];
        mapping.problems = vec!["no answer by NAT-PMP".into()];
        let said = said(mapping);
        for part in [
            "port mapping: the router 192.168.1.1 maps by NAT-PMP\n",
            "UDP port 51820 of the tunnel at 203.0.113.7:40001, ends in ",
            "of QUIC at 100.64.0.7:40002, until this agent stops; not an address on the internet",
            "not all: no answer by NAT-PMP\n",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn why_nothing_is_mapped_is_told_with_what_helps() {
        let mut mapping = mapping(true);
        assert!(said(mapping.clone()).contains("it is being asked"));
        mapping.problems = vec!["refused by NAT-PMP: its error 77".into()];
        mapping.next_ms = Some(1_000_000 + 120_000);
        let refused = said(mapping.clone());
        assert!(
            refused.contains("its error 77; asked again in "),
            "{refused}"
        );
        mapping.answered.clear();
        assert!(said(mapping).contains("Turn on PCP, NAT-PMP or UPnP"));
    }
}
