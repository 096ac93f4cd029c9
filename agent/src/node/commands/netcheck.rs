//! What stands between this node's tunnel and others, as far as the others see it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::future::join_all;
use innermesh_proto::{
    codec, id::NodeId, limits, message::TunnelPlace, rpc::method, view::MeshView,
};
use tokio::sync::watch;

use crate::{
    control::{
        finding::{Finding, code},
        node::{NatKind, Netcheck, RelaySeen, SeenBy},
    },
    host::port_map::Mappings,
    node::{commands::port_mapping::port_mapping, shared::handles::Handles},
    quic::CallError,
};

/// Nodes that are asked.
const ASKED: usize = 8;
/// How long an answer may take, with the connection where there is none.
const ANSWER: Duration = Duration::from_secs(3);

/// Asks others where they see this node's tunnel, relays for their round trip, and the
/// router what it maps.
pub async fn netcheck(node: &Handles, port_maps: &watch::Sender<Mappings>) -> Netcheck {
    let view = node.view.borrow().clone();
    let own = node.gossip.own();
    let connected = node.transport.peers().into_iter();
    let asked: Vec<NodeId> = connected
        .filter(|peer| view.ledger.members.contains_key(peer))
        .take(ASKED)
        .collect();
    let relays = view.ledger.members.keys().copied();
    let relays = relays.filter(|relay| view.is_relay(relay)).take(ASKED);
    let (seen, relays, port_mapping) = tokio::join!(
        join_all(asked.into_iter().map(|peer| ask(node, &view, peer))),
        join_all(relays.map(|relay| reach(node, &view, relay))),
        port_mapping(node, port_maps),
    );
    let local = node.host.net.local_addresses().await;
    let local: BTreeSet<IpAddr> = local.into_iter().map(|(_, ip)| ip).collect();
    let seen: Vec<SeenBy> = seen.into_iter().flatten().collect();
    Netcheck {
        port: node.config.tunnel_port,
        places: own.places.candidates.clone(),
        nat: kind(&seen, &local),
        seen,
        relay: own.places.relay.map(|relay| view.ledger.name_of(relay)),
        relays,
        lanes: lanes(node, &view),
        port_mapping,
    }
}

/// Names of the relays that this node is connected with by lanes of its own.
fn lanes(node: &Handles, view: &MeshView) -> Vec<String> {
    let connected = node.transport.connected().into_iter();
    let lanes = connected.filter(|peer| peer.by_tcp && peer.dialed_by_us);
    lanes.map(|peer| view.ledger.name_of(peer.node)).collect()
}

/// What a person should know where UDP goes nowhere.
pub fn finding(node: &Handles, view: &MeshView) -> Option<Finding> {
    let lanes = lanes(node, view);
    let text = format!(
        "UDP is blocked here: connected over TCP, by a lane with {}",
        lanes.join(", ")
    );
    let remedy = "Nothing has to be done. UDP is faster: it is tried again each minute";
    (!lanes.is_empty()).then(|| Finding::warning(code::UDP_BLOCKED, text, remedy))
}

/// `None` of one whose build knows no such question, or that doesn't answer.
async fn ask(node: &Handles, view: &MeshView, peer: NodeId) -> Option<SeenBy> {
    let call = node
        .transport
        .call(peer, method::TUNNEL_PLACE, Vec::new(), ANSWER);
    let answer = call.await.ok()?;
    let seen: TunnelPlace = codec::decode(&answer, limits::RPC_BYTES).ok()?;
    Some(SeenBy {
        node: view.ledger.name_of(peer),
        place: seen.place,
    })
}

async fn reach(node: &Handles, view: &MeshView, relay: NodeId) -> RelaySeen {
    let name = view.ledger.name_of(relay);
    let is_own = relay == view.me;
    // A connection that has to be made first isn't measured.
    let is_reached = is_own || node.transport.connect(relay, ANSWER).await;
    let clock = &node.host.clock;
    let start = clock.now();
    let answer: Result<_, CallError> = node
        .transport
        .call(relay, method::PING, Vec::new(), ANSWER)
        .await;
    let took = clock.now().saturating_sub(start);
    let is_answered = is_reached && !is_own && answer.is_ok();
    RelaySeen {
        name,
        is_own,
        rtt_us: is_answered.then_some(took.as_micros() as u64),
    }
}

/// What the places that others see say of the NAT before this node. Those within its own
/// network see no NAT, whatever there is beyond.
fn kind(seen: &[SeenBy], local: &BTreeSet<IpAddr>) -> NatKind {
    let places = seen.iter().filter_map(|seen| seen.place);
    let (inside, outside): (Vec<SocketAddr>, Vec<SocketAddr>) =
        places.partition(|place| local.contains(&place.ip()));
    let of_one_family = outside.iter().filter(|place| place.is_ipv4());
    let distinct: BTreeSet<_> = of_one_family.clone().collect();
    match (inside.len(), of_one_family.count(), distinct.len()) {
        (0, 0, _) if outside.is_empty() => NatKind::Unseen,
        (_, 0, _) => NatKind::None,
        (_, 1, _) => NatKind::SeenByOne,
        (_, _, 1) => NatKind::OneMapping,
        _ => NatKind::ForEachDestination,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nat_is_told_by_what_others_see() {
        let local = BTreeSet::from(["192.168.1.7".parse().unwrap()]);
        for (places, expected) in [
            (&[][..], NatKind::Unseen),
            (&[None], NatKind::Unseen),
            (&[Some("192.168.1.7:51820")], NatKind::None),
            (&[Some("[2001:db8::1]:51820")], NatKind::None),
            (&[Some("203.0.113.1:4000")], NatKind::SeenByOne),
            (
                &[Some("192.168.1.7:51820"), Some("203.0.113.1:4000")],
                NatKind::SeenByOne,
            ),
            (
                &[Some("203.0.113.1:4000"), Some("203.0.113.1:4000")],
                NatKind::OneMapping,
            ),
            (
                &[Some("203.0.113.1:4000"), Some("203.0.113.1:4001")],
                NatKind::ForEachDestination,
            ),
        ] {
            let seen: Vec<SeenBy> = places
                .iter()
                .map(|place| SeenBy {
                    node: "beta".into(),
                    place: place.map(|place| place.parse().unwrap()),
                })
                .collect();
            assert_eq!(kind(&seen, &local), expected, "{places:?}");
        }
    }
}
