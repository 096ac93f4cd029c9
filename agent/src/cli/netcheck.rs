//! `agent netcheck`.

use super::{failure::Failure, network::milliseconds, output::Output, port_mapping, show::now};
use crate::control::{
    Client,
    node::{NatKind, Netcheck, NetcheckRequest, RelaySeen},
};

/// Find out what keeps others from reaching this node straight.
///
/// Asks other nodes where they see this one's tunnel, relays for their round trip, and the
/// router what it maps.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    output: Output,
}

pub async fn netcheck(arguments: &Arguments, client: &Client) -> Result<(), Failure> {
    let told = client.ask(&NetcheckRequest {}).await?;
    arguments.output.print(&told, || {
        let mapping = port_mapping::text(&told, now());
        text(&told) + &mapping
    })
}

fn text(told: &Netcheck) -> String {
    let mut out = format!("tunnel: UDP port {}\n", told.port);
    let places: Vec<String> = told.places.iter().map(ToString::to_string).collect();
    match &places[..] {
        [] => out.push_str("others are told: no address yet\n"),
        places => out.push_str(&format!("others are told: {}\n", places.join(", "))),
    }
    for seen in &told.seen {
        match seen.place {
            Some(place) => out.push_str(&format!("{} sees it at {place}\n", seen.node)),
            None => out.push_str(&format!(
                "{} has heard nothing straight from it in the last three minutes\n",
                seen.node
            )),
        }
    }
    if told.lanes.is_empty() {
        out.push_str(&format!("NAT: {}\n", nat(told)));
    } else {
        let lanes = told.lanes.join(", ");
        out.push_str(&format!(
            "UDP is blocked here; connected over TCP, by a lane with {lanes}. It is slower than \
             UDP, which is tried again each minute; what helps is a network that lets UDP out\n"
        ));
    }
    out.push_str(&relays(told));
    out
}

fn nat(told: &Netcheck) -> String {
    let port = told.port;
    match told.nat {
        NatKind::None => "none that another node could see".into(),
        NatKind::OneMapping => {
            "one address and port for all; others behind NATs meet this node straight, mostly".into()
        }
        NatKind::ForEachDestination => format!(
            "another port for each destination; others behind NATs are mostly reached by a relay. \
             What helps is UDP port {port}, forwarded on the router to this machine, and \
             `endpoint = \"ADDRESS:{port}\"` with the router's address under [tunnel]"
        ),
        NatKind::SeenByOne => {
            "there is one, and only one node sees it; with a second that can be dialled its kind is told"
                .into()
        }
        NatKind::Unseen => format!(
            "not known, as no node hears this one's tunnel straight; does a firewall drop UDP to \
             port {port} of others?"
        ),
    }
}

fn relays(told: &Netcheck) -> String {
    if told.relays.is_empty() {
        return "relays: none; `agent role add NODE relay` makes a node one that all others can dial\n"
            .into();
    }
    let each: Vec<String> = told.relays.iter().map(relay).collect();
    let own = match &told.relay {
        Some(relay) => format!("; this node is reached by {relay}"),
        None => "; this node is connected with none".into(),
    };
    format!("relays: {}{own}\n", each.join(", "))
}

fn relay(seen: &RelaySeen) -> String {
    match seen.rtt_us {
        _ if seen.is_own => format!("{} (this node)", seen.name),
        Some(us) => format!("{} {}", seen.name, milliseconds(us as f64 / 1000.0)),
        None => format!("{} doesn't answer", seen.name),
    }
}

#[cfg(test)]
mod tests {
    use crate::control::node::{PortMapping, SeenBy};

    use super::*;

    #[test]
    fn what_was_found_is_told_with_what_helps() {
        let mut told = Netcheck {
            port: 51820,
            places: vec!["192.168.1.7:51820".parse().unwrap()],
            seen: vec![
                SeenBy {
                    node: "birch".into(),
                    place: "203.0.113.1:4000".parse().ok(),
                },
                SeenBy {
                    node: "cedar".into(),
                    place: None,
                },
            ],
            nat: NatKind::ForEachDestination,
            relay: Some("harbor".into()),
            relays: vec![
                RelaySeen {
                    name: "harbor".into(),
                    is_own: false,
                    rtt_us: Some(31_000),
                },
                RelaySeen {
                    name: "quay".into(),
                    is_own: false,
                    rtt_us: None,
                },
            ],
            lanes: Vec::new(),
            port_mapping: PortMapping {
                on: false,
                router: None,
                answered: Vec::new(),
                ports: Vec::new(),
                problems: Vec::new(),
                next_ms: None,
            },
        };
        let said = text(&told);
        for part in [
            "others are told: 192.168.1.7:51820\n",
            "birch sees it at 203.0.113.1:4000\n",
            "cedar has heard nothing",
            "another port for each destination",
            "relays: harbor 31.0 ms, quay doesn't answer; this node is reached by harbor\n",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        told.lanes.push("harbor".into());
        let said = text(&told);
        assert!(said.contains("UDP is blocked here; connected over TCP, by a lane with harbor"));
        assert!(!said.contains("NAT:"), "{said}");
        (told.relays, told.relay) = (Vec::new(), None);
        assert!(text(&told).contains("agent role add NODE relay"));
    }
}
