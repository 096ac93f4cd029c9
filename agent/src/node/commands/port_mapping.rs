//! What this host's router maps, or could.

use std::time::Duration;

use futures_util::future::join_all;
use innermesh_proto::endpoint::is_public;
use tokio::sync::watch;

use crate::{
    control::{
        finding::{Finding, code},
        node::{MappedPort, MappedUse, PortMapping, RouterProtocol},
    },
    host::{
        Mono,
        port_map::{Client, Gateway, MapError, Mapped, Mappings, Protocol},
        within,
    },
    node::shared::handles::Handles,
};

/// How long a router may take for what is asked by one protocol.
const ANSWER: Duration = Duration::from_secs(4);

/// What is mapped; where nothing is to be, which protocols the router answers.
pub async fn port_mapping(node: &Handles, told: &watch::Sender<Mappings>) -> PortMapping {
    if !node.config.port_mapping {
        let gateway = node.host.net.gateway().await;
        let answered = match &gateway {
            Some(gateway) => answered(node, gateway).await,
            None => Vec::new(),
        };
        return PortMapping {
            on: false,
            router: gateway.map(|gateway| gateway.router),
            answered,
            ports: Vec::new(),
            problems: Vec::new(),
            next_ms: None,
        };
    }
    let told = told.borrow().clone();
    let spoken = told.why.iter().filter_map(MapError::answered);
    let mut answered: Vec<Protocol> = told.protocol.into_iter().chain(spoken).collect();
    answered.dedup();
    PortMapping {
        on: true,
        router: told.gateway.map(|gateway| gateway.router),
        answered: answered.into_iter().map(word).collect(),
        ports: told.ports.iter().map(|port| mapped(node, port)).collect(),
        problems: told.why.iter().map(MapError::to_string).collect(),
        next_ms: told.next.map(|next| wall_ms(node, next)),
    }
}

/// A router that is to map ports and maps none.
pub fn finding(told: &Mappings) -> Option<Finding> {
    let router = told.gateway.filter(|_| told.ports.is_empty())?.router;
    let why: Vec<String> = told.why.iter().map(MapError::to_string).collect();
    (!why.is_empty()).then(|| {
        Finding::warning(
            code::PORT_NOT_MAPPED,
            format!(
                "the router {router} maps no port of this node: {}",
                why.join("; ")
            ),
            "Turn on PCP, NAT-PMP or UPnP in the router's settings, or forward the ports there; or \
             take `port_mapping` out of the configuration",
        )
    })
}

/// Which protocols a router answers, asked so that it keeps nothing of that.
async fn answered(node: &Handles, gateway: &Gateway) -> Vec<RouterProtocol> {
    let client = Client::new(&node.host);
    let all = Protocol::ALL.map(|protocol| {
        let (client, clock) = (&client, &node.host.clock);
        async move {
            let found = within(&**clock, ANSWER, client.find(gateway, protocol)).await;
            matches!(found, Some(Ok(_))).then(|| word(protocol))
        }
    });
    join_all(all).await.into_iter().flatten().collect()
}

fn mapped(node: &Handles, mapped: &Mapped) -> MappedPort {
    let external = mapped.external;
    MappedPort {
        of: if mapped.port == node.config.tunnel_port {
            MappedUse::Tunnel
        } else {
            MappedUse::Quic
        },
        port: mapped.port,
        external: external.into(),
        public: is_public((*external.ip()).into()),
        until_ms: mapped.until.map(|until| wall_ms(node, until)),
    }
}

fn wall_ms(node: &Handles, at: Mono) -> u64 {
    let clock = &node.host.clock;
    let left = at.saturating_sub(clock.now()).as_millis();
    clock.wall_ms() + u64::try_from(left).unwrap_or(u64::MAX / 2)
}

fn word(protocol: Protocol) -> RouterProtocol {
    match protocol {
        Protocol::Pcp => RouterProtocol::Pcp,
        Protocol::NatPmp => RouterProtocol::NatPmp,
        Protocol::Upnp => RouterProtocol::Upnp,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::host::port_map::Refusal;

    #[test]
    fn a_router_that_maps_nothing_is_told_once_it_was_asked() {
        let mut told = Mappings {
            gateway: Some(Gateway {
                router: Ipv4Addr::new(192, 168, 1, 1),
                own: Ipv4Addr::new(192, 168, 1, 7),
            }),
            ..Mappings::default()
        };
        assert_eq!(finding(&told), None);
        told.why = vec![
            MapError::Silent(Protocol::Pcp),
            MapError::Refused(Protocol::Upnp, Refusal::Full),
        ];
        let found = finding(&told).unwrap();
        assert_eq!(found.code, code::PORT_NOT_MAPPED);
        for part in [
            "192.168.1.1",
            "no answer by PCP; refused by UPnP: it has no room",
        ] {
            assert!(found.text.contains(part), "{found:?}");
        }
        told.ports.push(Mapped {
            port: 51820,
            external: "203.0.113.7:51820".parse().unwrap(),
            until: None,
        });
        assert_eq!(finding(&told), None);
    }
}
