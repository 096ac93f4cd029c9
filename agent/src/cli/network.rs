//! `agent peers` and `agent ping`.

use innermesh_proto::{
    limits,
    name::{Label, NameError},
};

use super::{
    failure::Failure,
    output::{Output, or_dash, table},
};
use crate::control::{
    Client,
    node::{PeerTunnel, PeersRequest, PingReply, PingRequest, TunnelPing},
};

/// Show how each peer is reached.
#[derive(Debug, clap::Args)]
pub struct PeersArguments {
    #[command(flatten)]
    output: Output,
}

pub async fn peers(arguments: &PeersArguments, client: &Client) -> Result<(), Failure> {
    let peers = client.ask(&PeersRequest {}).await?;
    let rows = peers.iter().map(|peer| {
        let seen = peer.seen_s.map(|age| format!("{age} s ago"));
        [
            peer.name.clone(),
            peer.path.to_string(),
            or_dash(peer.endpoint),
            or_dash(peer.rtt_ms.map(milliseconds)),
            seen.unwrap_or_else(|| "never".into()),
            handshake(peer.tunnel.as_ref()),
        ]
    });
    arguments.output.print(&peers, || {
        table(
            ["PEER", "PATH", "ENDPOINT", "RTT", "SEEN", "HANDSHAKE"],
            &rows.collect::<Vec<_>>(),
        )
    })
}

/// When the tunnel's last one was.
fn handshake(tunnel: Option<&PeerTunnel>) -> String {
    match tunnel {
        None => "no tunnel".into(),
        Some(tunnel) => match tunnel.handshake_s {
            Some(age) => format!("{age} s ago"),
            None => "never".into(),
        },
    }
}

/// Measure the round trip to a node and test its tunnel.
///
/// Sends a small packet and one that fills the tunnel's packets through it. Ends
/// with 4 when the machine doesn't answer, or what was sent doesn't come back.
#[derive(Debug, clap::Args)]
pub struct PingArguments {
    /// Its name.
    #[arg(value_name = "NODE", value_parser = node_label)]
    node: Label,
    /// Ask this many times.
    #[arg(long, short, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::PINGS)))]
    count: u32,
    #[command(flatten)]
    output: Output,
}

pub async fn ping(arguments: &PingArguments, client: &Client) -> Result<(), Failure> {
    let request = PingRequest {
        node: arguments.node.clone(),
        count: arguments.count,
    };
    let reply = client.ask(&request).await?;
    arguments.output.print(&reply, || text(&reply))?;
    let node = &reply.node;
    if reply.rtt_ms.is_empty() {
        return Err(Failure::timed_out(format!(
            "{node} does not answer; is the agent running there, and its UDP port open?"
        )));
    }
    match reply.tunnel.as_ref().and_then(trouble) {
        Some(trouble) => Err(Failure::timed_out(format!(
            "the tunnel to {node} {trouble}"
        ))),
        None => Ok(()),
    }
}

/// What a tunnel doesn't do, and where to look.
fn trouble(tunnel: &TunnelPing) -> Option<String> {
    if !tunnel.works {
        let why = if tunnel.handshake {
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
    Some(format!(
        "loses packets of {} bytes: a hop on the way is narrower and doesn't say so",
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
    let answered = reply.rtt_ms.len();
    let mut out = format!("{node} ({at}): {answered} of {sent} answered");
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
            let age = tunnel.age_s.map(|age| format!("handshake {age} s ago"));
            let age = age.unwrap_or_else(|| "no handshake yet".into());
            format!("\ntunnel: {}, {age}\n", passed(tunnel))
        }
    });
    out
}

/// What came back through a tunnel.
fn passed(tunnel: &TunnelPing) -> String {
    if !tunnel.works {
        return "no packet came back".into();
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
        None => "packets come back, of pings none".into(),
        Some(ms) if lost.is_empty() => {
            format!("packets of {back} bytes came back in {}", milliseconds(ms))
        }
        Some(_) => format!("packets of {back} bytes came back, of {lost} bytes not"),
    }
}

fn milliseconds(ms: f64) -> String {
    format!("{ms:.1} ms")
}

/// A node's name, also where its full name is given.
fn node_label(text: &str) -> Result<Label, NameError> {
    text.split('.').next().unwrap_or_default().parse()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::node::{Path, TunnelPacket};

    #[test]
    fn a_node_may_be_named_in_full() {
        assert_eq!(node_label("beta").unwrap().as_str(), "beta");
        assert_eq!(node_label("Beta.in.example.org.").unwrap().as_str(), "beta");
        assert!(node_label("").is_err());
        assert!(node_label("a_b").is_err());
    }

    fn reply(tunnel: Option<TunnelPing>) -> PingReply {
        PingReply {
            node: "beta".into(),
            path: Path::Direct,
            endpoint: "192.0.2.1:51819".parse().ok(),
            sent: 3,
            rtt_ms: vec![1.0, 3.0],
            tunnel,
        }
    }

    fn tunnel(works: bool, packets: &[(u32, Option<f64>)]) -> TunnelPing {
        let packets = packets.iter();
        TunnelPing {
            works,
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
            (true, &[], "packets come back, of pings none"),
            (false, &[(84, None)], "no packet came back"),
        ] {
            assert_eq!(
                text(&reply(Some(tunnel(works, packets)))),
                format!("{head}{told}, handshake 4 s ago\n")
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
        let full = |passed| trouble(&tunnel(true, &[(84, Some(0.4)), (1280, passed)]));
        assert_eq!(full(Some(1.0)), None);
        assert!(full(None).unwrap().contains("1280 bytes"));
        assert!(trouble(&tunnel(false, &[])).unwrap().contains("nothing"));
        // A host that answers no pings.
        assert_eq!(trouble(&tunnel(true, &[(84, None)])), None);
    }
}
