//! `agent peers` and `agent ping`.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use innermesh_proto::{
    limits,
    name::{Label, NameError},
};

use super::{
    failure::Failure,
    output::{Detail, Output, yes_no},
    show::{Cell, Column, Frame, Screen, Table, Watch, ago},
};
use crate::control::{
    Client,
    node::{
        NodeRow, PairKey, Path, Peer, PeerTunnel, PeersRequest, PingReply, PingRequest,
        StatusRequest, TunnelPing, TunnelWay,
    },
};

/// Show how each peer is reached.
#[derive(Debug, clap::Args)]
pub struct PeersArguments {
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    detail: Detail,
    #[command(flatten)]
    output: Output,
}

pub async fn peers(arguments: &PeersArguments, client: &Client) -> Result<(), Failure> {
    let PeersArguments {
        watch,
        detail,
        output,
    } = *arguments;
    let look = async || {
        let mut peers = client.ask(&PeersRequest {}).await?;
        let shown = output.render(detail, &peers, |screen| draw(screen, &peers))?;
        peers.iter_mut().for_each(without_ages);
        Ok(Frame {
            shown,
            news: format!("{peers:?}"),
            warnings: Vec::new(),
        })
    };
    watch.run(output, look).await
}

/// What goes on by itself is no news.
fn without_ages(peer: &mut Peer) {
    peer.seen_s = peer.seen_s.map(|_| 0);
    peer.rtt_ms = peer.rtt_ms.map(|_| 0.0);
    if let Some(tunnel) = &mut peer.tunnel {
        tunnel.handshake_s = tunnel.handshake_s.map(|_| 0);
        (tunnel.rx_bytes, tunnel.tx_bytes) = (0, 0);
    }
}

fn draw(screen: &mut Screen, peers: &[Peer]) {
    if peers.is_empty() {
        return screen.say("there is no other node yet; `agent invite` lets one in\n");
    }
    let mut table = Table::new([
        Column::whole("PEER"),
        Column::whole("PATH"),
        Column::whole("RTT"),
        Column::whole("SEEN"),
        Column::whole("HANDSHAKE"),
        Column::new("ENDPOINT"),
        Column::extra("ADDRESSES"),
        Column::extra("LIVE BY"),
        Column::extra("TUNNEL TO"),
        Column::extra("RECEIVED"),
        Column::extra("SENT"),
        Column::extra("PRE-SHARED KEY"),
    ]);
    for peer in peers {
        let tunnel = peer.tunnel.as_ref();
        table.add([
            Cell::new(if peer.device {
                format!("{} (device)", peer.name)
            } else {
                peer.name.clone()
            }),
            path(
                peer.path,
                peer.linked,
                &peer.through,
                (relay_of(peer), peer.tcp),
            ),
            Cell::or_dash(peer.rtt_ms.map(milliseconds)),
            Cell::new(peer.seen_s.map_or_else(|| "never".into(), ago)),
            handshake(tunnel),
            Cell::or_dash(peer.endpoint),
            Cell::new(super::init::join(&peer.addresses)),
            Cell::or_dash(peer.live_by),
            Cell::or_dash(tunnel.and_then(|tunnel| tunnel.endpoint)),
            Cell::or_dash(tunnel.map(|tunnel| bytes(tunnel.rx_bytes))),
            Cell::or_dash(tunnel.map(|tunnel| bytes(tunnel.tx_bytes))),
            pre_shared(peer),
        ]);
    }
    screen.table(&table.sorted());
}

/// How a node is reached: straight, as a neighbour's too, by a relay, or by neighbours of
/// its; and whether over TCP.
pub fn path(
    path: Path,
    linked: bool,
    through: &[String],
    (relay, tcp): (Option<&str>, bool),
) -> Cell {
    match path {
        Path::Direct if tcp => Cell::care(if linked {
            "linked (tcp)"
        } else {
            "direct (tcp)"
        }),
        Path::Relay if tcp => Cell::care(format!("relay {} (tcp)", relay.unwrap_or_default())),
        Path::Direct if linked => Cell::good("linked"),
        Path::Direct => Cell::good(path),
        Path::Relay => Cell::care(match relay {
            Some(relay) => format!("relay {relay}"),
            None => path.to_string(),
        }),
        Path::None => match through {
            [] => Cell::bad(path),
            [one] => Cell::good(format!("through {one}")),
            [one, others @ ..] => Cell::good(format!("through {one}, {} more", others.len()))
                .in_full(format!("through {}", through.join(", "))),
        },
    }
}

fn pre_shared(peer: &Peer) -> Cell {
    match peer.pair_key {
        Some(key @ PairKey::PostQuantum) => Cell::good(key),
        Some(key) => Cell::new(key),
        None => Cell::new(yes_no(peer.psk)),
    }
}

/// The relay by which a peer's tunnel goes.
fn relay_of(peer: &Peer) -> Option<&str> {
    peer.tunnel.as_ref()?.way.as_ref()?.relay.as_deref()
}

/// When the tunnel's last one was.
fn handshake(tunnel: Option<&PeerTunnel>) -> Cell {
    match tunnel {
        None => Cell::new("no tunnel"),
        Some(tunnel) => match tunnel.handshake_s {
            Some(age) => Cell::new(ago(age)),
            None => Cell::care("never"),
        },
    }
}

/// A number of bytes in its largest unit.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut amount = count as f64;
    let mut unit = None;
    for larger in UNITS {
        if amount < 1024.0 {
            break;
        }
        amount /= 1024.0;
        unit = Some(larger);
    }
    match unit {
        None => format!("{count} B"),
        Some(unit) => format!("{amount:.1} {unit}"),
    }
}

/// Measure the round trip to a node and test its tunnel.
///
/// Sends a small packet and one that fills the tunnel's packets through it. Ends
/// with 4 when the node doesn't answer, or what was sent doesn't come back.
#[derive(Debug, clap::Args)]
pub struct PingArguments {
    /// Its name or address.
    ///
    /// One of its addresses in the mesh, or where it is reached on the network
    /// below.
    #[arg(value_name = "NODE")]
    node: Target,
    /// Ask this many times.
    #[arg(long, short, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::PINGS)))]
    count: u32,
    #[command(flatten)]
    output: Output,
}

/// A node as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Name(Label),
    Address(IpAddr),
}

impl FromStr for Target {
    type Err = NameError;

    /// A name may be a full one, and an address may have a port behind it.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        let address = bare.unwrap_or(text).parse();
        let address = address.or_else(|_| text.parse().map(|at: SocketAddr| at.ip()));
        if let Ok(address) = address {
            return Ok(Self::Address(address));
        }
        let label = text.split('.').next().unwrap_or_default();
        label.parse().map(Self::Name)
    }
}

/// The node that has an address in the mesh, or is reached at it.
fn who_has(address: IpAddr, nodes: &[NodeRow], peers: &[Peer]) -> Option<String> {
    let own = nodes.iter().find(|node| node.addresses.contains(&address));
    let reached = || {
        let mut nodes = peers.iter().filter(|peer| !peer.device);
        nodes.find(|peer| {
            let tunnel = peer.tunnel.as_ref().and_then(|tunnel| tunnel.endpoint);
            let mut endpoints = peer.endpoint.into_iter().chain(tunnel);
            endpoints.any(|endpoint| endpoint.ip().to_canonical() == address.to_canonical())
        })
    };
    let own = own.map(|node| node.name.clone());
    own.or_else(|| reached().map(|peer| peer.name.clone()))
}

async fn named(target: &Target, client: &Client) -> Result<Label, Failure> {
    let address = match target {
        Target::Name(name) => return Ok(name.clone()),
        Target::Address(address) => *address,
    };
    let status = client.ask(&StatusRequest {}).await?;
    let peers = client.ask(&PeersRequest {}).await?;
    let name = who_has(address, &status.nodes, &peers).ok_or_else(|| {
        Failure::failed(format!(
            "no node has the address {address} in the mesh, and none is reached at it; `agent \
             status -v` lists addresses, `agent peers` where each node is reached"
        ))
    })?;
    name.parse().map_err(Failure::failed)
}

pub async fn ping(arguments: &PingArguments, client: &Client) -> Result<(), Failure> {
    let request = PingRequest {
        node: named(&arguments.node, client).await?,
        count: arguments.count,
    };
    let reply = client.ask(&request).await?;
    arguments.output.print(&reply, || text(&reply))?;
    let node = &reply.node;
    let by_tunnel = reply.tunnel.as_ref().is_some_and(|tunnel| tunnel.works);
    if reply.rtt_ms.is_empty() && !by_tunnel {
        return Err(Failure::timed_out(format!(
            "{node} does not answer; is the agent running there, and its UDP port open?"
        )));
    }
    let tunnel = reply.tunnel.as_ref();
    match tunnel.and_then(|tunnel| trouble(tunnel, reply.endpoint)) {
        Some(trouble) => Err(Failure::timed_out(format!(
            "the tunnel to {node} {trouble}"
        ))),
        None => Ok(()),
    }
}

/// What a tunnel to a peer that is reached at `endpoint` doesn't do, and where to look.
fn trouble(tunnel: &TunnelPing, endpoint: Option<SocketAddr>) -> Option<String> {
    if !tunnel.works {
        let why = if tunnel.forbidden {
            "the policy lets this node reach nothing of that one: `agent policy explain`"
        } else if tunnel.handshake {
            "is the host's firewall in the way there?"
        } else {
            "is UDP to its WireGuard port open, both ways?"
        };
        return Some(format!("carries nothing; {why}"));
    }
    let lost = tunnel
        .packets
        .iter()
        .skip(1)
        .find(|it| it.rtt_ms.is_none())?;
    // Of IPv4 routers cut what doesn't fit, of IPv6 only who sends it (RFC 8200 §5).
    let remedy = match endpoint.map(|endpoint| endpoint.ip().to_canonical()) {
        Some(IpAddr::V6(address)) => format!(
            ". Each of the two agents cuts what it sends over IPv6 once it has seen that, by a route \
             (`ip -6 route show {address} proto 105`): try again in a minute"
        ),
        _ => String::new(),
    };
    Some(format!(
        "loses packets of {} bytes: a hop on the way is narrower and doesn't say so{remedy}",
        lost.bytes
    ))
}

fn text(reply: &PingReply) -> String {
    let PingReply {
        node, path, sent, ..
    } = reply;
    let at = match reply.endpoint {
        Some(endpoint) => format!("{path}, {endpoint}"),
        None => path.to_string(),
    };
    let at = if reply.tcp {
        format!("{at}, over TCP")
    } else {
        at
    };
    let answered = reply.rtt_ms.len();
    let by_tunnel = reply.tunnel.as_ref().is_some_and(|tunnel| tunnel.works);
    let mut out = if answered == 0 && by_tunnel {
        format!("{node} ({at}): reached by the tunnel alone")
    } else {
        format!("{node} ({at}): {answered} of {sent} answered")
    };
    let least = reply.rtt_ms.iter().copied().reduce(f64::min);
    let most = reply.rtt_ms.iter().copied().reduce(f64::max);
    if let (Some(least), Some(most)) = (least, most) {
        let mean = reply.rtt_ms.iter().sum::<f64>() / answered as f64;
        out.push_str(&format!(
            ", {} least, {} on average, {} most",
            milliseconds(least),
            milliseconds(mean),
            milliseconds(most)
        ));
    }
    out.push_str(&match &reply.tunnel {
        None => "\ntunnel: none\n".to_string(),
        Some(tunnel) => {
            let age = tunnel.age_s.map(|age| format!("handshake {}", ago(age)));
            let age = age.unwrap_or_else(|| "no handshake yet".into());
            format!("\ntunnel: {}, {age}\n", passed(tunnel))
        }
    });
    if let Some(way) = &reply.way {
        out.push_str(&format!("way: {}\n", by(way)));
    }
    out
}

/// Which way a tunnel goes, and why that.
fn by(way: &TunnelWay) -> String {
    let rtt = way.rtt_us.map(|us| milliseconds(us as f64 / 1000.0));
    let rtt = rtt.map(|rtt| format!(", {rtt}")).unwrap_or_default();
    let relay = way.relay.as_deref();
    let mut said = match (way.path, way.at) {
        (Path::Direct, Some(at)) => {
            let seen = if way.announced {
                ""
            } else {
                ", where it was seen"
            };
            format!("straight to {at}{seen}{rtt}")
        }
        (Path::Relay, _) => format!("by the relay {}{rtt}", relay.unwrap_or("that is gone")),
        _ => "none is known to work".into(),
    };
    if let Some(why) = &way.why {
        said.push_str(&format!("; not straight, as {why}"));
    }
    said
}

/// What came back through a tunnel.
fn passed(tunnel: &TunnelPing) -> String {
    if !tunnel.works {
        let forbidden = tunnel.forbidden.then_some(", as the policy forbids");
        return format!("no packet came back{}", forbidden.unwrap_or_default());
    }
    let sizes = |passed: bool| {
        let sizes = tunnel.packets.iter();
        let sizes = sizes.filter(|packet| packet.rtt_ms.is_some() == passed);
        let sizes: Vec<String> = sizes.map(|packet| packet.bytes.to_string()).collect();
        sizes.join(" and ")
    };
    let (back, lost) = (sizes(true), sizes(false));
    let slowest = tunnel.packets.iter().filter_map(|packet| packet.rtt_ms);
    let slowest = slowest.reduce(f64::max);
    match slowest {
        None if tunnel.packets.is_empty() => {
            "packets come back; this host lets the agent send no pings".into()
        }
        None => "packets come back, of pings none".into(),
        Some(ms) if lost.is_empty() => {
            format!("packets of {back} bytes came back in {}", milliseconds(ms))
        }
        Some(_) => format!("packets of {back} bytes came back, of {lost} bytes not"),
    }
}

pub fn milliseconds(ms: f64) -> String {
    format!("{ms:.1} ms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::show::fits, control::node::TunnelPacket};

    #[test]
    fn a_node_is_named_by_its_name_its_full_name_or_an_address() {
        let beta = || Ok(Target::Name("beta".parse().unwrap()));
        assert_eq!("beta".parse(), beta());
        assert_eq!("Beta.in.example.org.".parse(), beta());
        for bad in ["", "a_b"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
        let address = |text: &str| text.parse::<Target>().unwrap();
        let v4 = Target::Address("192.0.2.1".parse().unwrap());
        let v6 = Target::Address("2001:db8::1".parse().unwrap());
        assert_eq!(
            (address("192.0.2.1"), address("192.0.2.1:51819")),
            (v4.clone(), v4)
        );
        for text in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:51819"] {
            assert_eq!(address(text), v6, "{text}");
        }
    }

    #[test]
    fn an_address_leads_to_the_node_that_has_it_or_is_reached_at_it() {
        let nodes = crate::control::testing::sample_status().nodes;
        let mut peer = peer("beta", "[::ffff:192.0.2.1]:51819");
        peer.tunnel.as_mut().unwrap().endpoint = "198.51.100.7:51820".parse().ok();
        let peers = [peer];
        let who = |address: &str| who_has(address.parse().unwrap(), &nodes, &peers);
        assert_eq!(who("10.9.0.2").as_deref(), Some("alpha"));
        assert_eq!(who("fd00::2").as_deref(), Some("alpha"));
        assert_eq!(who("192.0.2.1").as_deref(), Some("beta"));
        assert_eq!(who("198.51.100.7").as_deref(), Some("beta"));
        assert_eq!(who("192.0.2.2"), None);
    }

    fn peer(name: &str, endpoint: &str) -> Peer {
        Peer {
            name: name.into(),
            path: Path::Direct,
            linked: false,
            through: Vec::new(),
            endpoint: endpoint.parse().ok(),
            tcp: false,
            rtt_ms: Some(123.4),
            psk: false,
            pair_key: None,
            seen_s: Some(59 * 60),
            live_by: None,
            tunnel: Some(PeerTunnel {
                endpoint: None,
                handshake_s: Some(170),
                rx_bytes: 5 << 30,
                tx_bytes: 900,
                way: None,
            }),
            device: false,
            addresses: Vec::new(),
        }
    }

    #[test]
    fn peers_fit_the_terminal_and_are_sorted() {
        let long = "raspberry-pi-in-the-garage-02";
        let endpoint = "[2001:db8:1234:5678:9abc:def0:1234:5678]:51819";
        let peers = [peer(long, endpoint), peer("alpha", "198.51.100.200:51819")];
        let text = fits(|screen| draw(screen, &peers));
        assert!(text.contains(long), "{text}");
        let alpha = text.find("alpha").unwrap();
        assert!(alpha < text.find(long).unwrap(), "{text}");
        for part in ["59m ago", "2m ago", "198.51.100."] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(
            (bytes(900), bytes(5 << 30)),
            ("900 B".into(), "5.0 GiB".into())
        );
    }

    #[test]
    fn a_peer_is_reached_straight_or_by_its_neighbours() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let ways = [
            (Path::Direct, true, names(&[]), "linked"),
            (Path::Direct, false, names(&[]), "direct"),
            (Path::Relay, false, names(&[]), "relay"),
            (Path::None, false, names(&[]), "none"),
            (Path::None, false, names(&["gw"]), "through gw"),
            (
                Path::None,
                false,
                names(&["gw", "nas", "pi"]),
                "through gw, 2 more",
            ),
        ];
        for (way, linked, through, text) in ways {
            let mut peer = peer("alpha", "198.51.100.200:51819");
            (peer.path, peer.linked, peer.through) = (way, linked, through);
            let shown = fits(|screen| draw(screen, &[peer.clone()]));
            assert!(shown.contains(text), "{shown}");
        }
    }

    fn reply(tunnel: Option<TunnelPing>) -> PingReply {
        PingReply {
            node: "beta".into(),
            path: Path::Direct,
            endpoint: "192.0.2.1:51819".parse().ok(),
            tcp: false,
            sent: 3,
            rtt_ms: vec![1.0, 3.0],
            tunnel,
            way: None,
        }
    }

    fn tunnel(works: bool, packets: &[(u32, Option<f64>)]) -> TunnelPing {
        let packets = packets.iter();
        TunnelPing {
            works,
            forbidden: false,
            packets: packets
                .map(|(bytes, rtt_ms)| TunnelPacket {
                    bytes: *bytes,
                    rtt_ms: *rtt_ms,
                })
                .collect(),
            handshake: true,
            age_s: Some(4),
        }
    }

    #[test]
    fn a_ping_tells_what_was_answered_and_what_came_back_through_the_tunnel() {
        let head = "beta (direct, 192.0.2.1:51819): 2 of 3 answered, 1.0 ms least, 2.0 ms on \
                    average, 3.0 ms most\ntunnel: ";
        // A handshake alone is no packet (S29).
        for (works, packets, told) in [
            (
                true,
                &[(84, Some(0.4)), (1280, Some(0.6))][..],
                "packets of 84 and 1280 bytes came back in 0.6 ms",
            ),
            (
                true,
                &[(84, Some(0.4)), (1280, None)],
                "packets of 84 bytes came back, of 1280 bytes not",
            ),
            (true, &[(84, None)], "packets come back, of pings none"),
            (
                true,
                &[],
                "packets come back; this host lets the agent send no pings",
            ),
            (false, &[(84, None)], "no packet came back"),
        ] {
            assert_eq!(
                text(&reply(Some(tunnel(works, packets)))),
                format!("{head}{told}, handshake 4s ago\n")
            );
        }
        let mut silent = reply(None);
        silent.rtt_ms.clear();
        assert_eq!(
            text(&silent),
            "beta (direct, 192.0.2.1:51819): 0 of 3 answered\ntunnel: none\n"
        );
    }

    #[test]
    fn a_tunnel_that_loses_what_fills_its_packets_is_in_trouble() {
        let at = |endpoint: &str| Some(endpoint.parse().unwrap());
        let [v4, v6] = ["192.0.2.1:51819", "[2001:db8::1]:51819"].map(at);
        let full = |passed, at| trouble(&tunnel(true, &[(84, Some(0.4)), (1280, passed)]), at);
        assert_eq!(full(Some(1.0), v6), None);
        let over_v4 = full(None, v4).unwrap();
        assert!(over_v4.contains("1280 bytes") && !over_v4.contains("route"));
        // Of either device.
        let over_v6 = full(None, v6).unwrap();
        assert!(
            over_v6.contains("`ip -6 route show 2001:db8::1 proto 105`"),
            "{over_v6}"
        );
        assert!(
            trouble(&tunnel(false, &[]), v4)
                .unwrap()
                .contains("nothing")
        );
        // A host that answers no pings.
        assert_eq!(trouble(&tunnel(true, &[(84, None)]), v4), None);
    }
}
