//! `agent peers` and `agent ping`.

use innermesh_proto::{
    limits,
    name::{Label, NameError},
};

use super::{
    failure::Failure,
    output::{Output, or_dash, table, yes_no},
};
use crate::control::{
    Client,
    node::{PeersRequest, PingReply, PingRequest},
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
        [
            peer.name.clone(),
            peer.path.to_string(),
            or_dash(peer.endpoint),
            or_dash(peer.rtt_ms.map(milliseconds)),
            yes_no(peer.psk),
        ]
    });
    arguments.output.print(&peers, || {
        table(
            ["PEER", "PATH", "ENDPOINT", "RTT", "PSK"],
            &rows.collect::<Vec<_>>(),
        )
    })
}

/// Measure the round trip to a node and test its tunnel.
///
/// The tunnel works when a packet came back through it just now. Ends with 4
/// when the machine doesn't answer.
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
    if reply.rtt_ms.is_empty() {
        let node = &reply.node;
        return Err(Failure::timed_out(format!(
            "{node} does not answer; is the agent running there, and its UDP port open?"
        )));
    }
    Ok(())
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
            let works = if tunnel.works {
                "works"
            } else {
                "no packet came back"
            };
            let age = age.unwrap_or_else(|| "no handshake yet".into());
            format!("\ntunnel: {works}, {age}\n")
        }
    });
    out
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
    use crate::control::node::{Path, TunnelPing};

    #[test]
    fn a_node_may_be_named_in_full() {
        assert_eq!(node_label("beta").unwrap().as_str(), "beta");
        assert_eq!(node_label("Beta.in.example.org.").unwrap().as_str(), "beta");
        assert!(node_label("").is_err());
        assert!(node_label("a_b").is_err());
    }

    #[test]
    fn a_ping_tells_what_was_answered_and_whether_the_tunnel_works() {
        let mut reply = PingReply {
            node: "beta".into(),
            path: Path::Direct,
            endpoint: "192.0.2.1:51819".parse().ok(),
            sent: 3,
            rtt_ms: vec![1.0, 3.0],
            tunnel: Some(TunnelPing {
                works: true,
                handshake: true,
                age_s: Some(4),
            }),
        };
        assert_eq!(
            text(&reply),
            "beta (direct, 192.0.2.1:51819): 2 of 3 answered, 1.0 ms least, 2.0 ms on average, 3.0 ms most\n\
             tunnel: works, handshake 4 s ago\n"
        );
        // A handshake alone is no packet (S29).
        reply.tunnel = Some(TunnelPing {
            works: false,
            handshake: true,
            age_s: Some(4),
        });
        let told = text(&reply);
        assert!(told.ends_with("\ntunnel: no packet came back, handshake 4 s ago\n"));
        reply.rtt_ms.clear();
        reply.tunnel = None;
        assert_eq!(
            text(&reply),
            "beta (direct, 192.0.2.1:51819): 0 of 3 answered\ntunnel: none\n"
        );
    }
}
