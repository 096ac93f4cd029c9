//! `agent wait`: for scripts that need a mesh that works.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde::Serialize;
use tokio::{
    net::UdpSocket,
    time::{Instant, sleep, timeout},
};

use super::{failure::Failure, output::Output, show::Progress};
use crate::control::{
    Client, ClientError,
    node::{Status, StatusRequest},
};
use crate::host::duration::Span;

/// Wait until nodes are live and names are answered.
///
/// Ends with 4 when that takes too long, and says what is missing.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Wait for this many live nodes, this one included [default: all].
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Give up after this time.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    timeout: Span,
    #[command(flatten)]
    output: Output,
}

/// How often to look.
const PAUSE: Duration = Duration::from_millis(200);
/// How long an answer over DNS may take.
const DNS: Duration = Duration::from_secs(1);

pub async fn wait(arguments: &Arguments, client: &Client) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Done {
        live: usize,
        nodes: usize,
        waited_ms: u128,
    }
    let began = Instant::now();
    let mut progress = Progress::default();
    let mut missing = "an answer of the agent".to_string();
    let waiting = async {
        loop {
            match look(arguments.nodes, client).await? {
                Seen::Whole(found) => return Ok::<Status, Failure>(*found),
                Seen::Missing(what) => {
                    if !arguments.output.is_json() {
                        progress.show(&format!("waiting for {what}"));
                    }
                    missing = what;
                }
            }
            sleep(PAUSE).await;
        }
    };
    let found = timeout(arguments.timeout.duration(), waiting).await;
    drop(progress);
    let status: Status = match found {
        Ok(found) => found?,
        Err(_) => {
            let time = arguments.timeout;
            return Err(Failure::timed_out(format!(
                "after {time} still missing: {missing}"
            )));
        }
    };
    let done = Done {
        live: live(&status),
        nodes: status.nodes.len(),
        waited_ms: began.elapsed().as_millis(),
    };
    arguments.output.print(&done, || {
        format!(
            "{} of {} nodes are live, and names are answered\n",
            done.live, done.nodes
        )
    })
}

/// What is looked at again and again.
enum Seen {
    /// Nothing is missing.
    Whole(Box<Status>),
    /// This is.
    Missing(String),
}

async fn look(nodes: Option<usize>, client: &Client) -> Result<Seen, Failure> {
    let status = match client.ask(&StatusRequest {}).await {
        Ok(status) => status,
        // It may be about to start.
        Err(ClientError::NotRunning(socket)) => {
            return Ok(Seen::Missing(format!(
                "the agent, which isn't running (no answer on {})",
                socket.display()
            )));
        }
        Err(ClientError::Broken(_)) => {
            return Ok(Seen::Missing("the agent, which breaks off".into()));
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(what) = missing_nodes(&status, nodes) {
        return Ok(Seen::Missing(what));
    }
    let Some(address) = status.dns.address else {
        return Ok(Seen::Missing("DNS, which doesn't listen".into()));
    };
    let name = format!("{}.{}", status.node, status.domain);
    Ok(if answers(address, &name).await {
        Seen::Whole(Box::new(status))
    } else {
        Seen::Missing(format!("an answer for {name} by DNS at {address}"))
    })
}

fn live(status: &Status) -> usize {
    status.nodes.iter().filter(|node| node.live).count()
}

fn missing_nodes(status: &Status, wanted: Option<usize>) -> Option<String> {
    let (live, wanted) = (live(status), wanted.unwrap_or(status.nodes.len()));
    if live >= wanted {
        return None;
    }
    let dead: Vec<&str> = status
        .nodes
        .iter()
        .filter(|node| !node.live)
        .map(|node| node.name.as_str())
        .take(10)
        .collect();
    Some(match dead.as_slice() {
        [] => format!("more nodes: {live} of {wanted} are live, and there are no others yet"),
        _ => format!(
            "nodes: {live} of {wanted} are live, not {}",
            dead.join(", ")
        ),
    })
}

/// Whether a name has an IPv4 address by the DNS server at `address`.
async fn answers(address: SocketAddr, name: &str) -> bool {
    let id = std::process::id() as u16;
    let asking = async {
        let any = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
        };
        let socket = UdpSocket::bind(any).await.ok()?;
        socket.connect(address).await.ok()?;
        socket.send(&question(id, name)?).await.ok()?;
        let mut reply = [0; 512];
        let length = socket.recv(&mut reply).await.ok()?;
        reply.get(..length).map(|reply| is_answer(id, reply))
    };
    timeout(DNS, asking).await.ok().flatten().unwrap_or(false)
}

/// A question for the A records of a name (RFC 1035 §4.1); `None` for what is
/// no name.
fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut out = id.to_be_bytes().to_vec();
    // Recursion desired; one question.
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|n| (1..=63).contains(n))?;
        out.push(length);
        out.extend(label.as_bytes());
    }
    // The root, type A, class IN.
    out.extend([0, 0, 1, 0, 1]);
    Some(out)
}

/// Whether it is a response to that question, without an error and with records.
fn is_answer(id: u16, reply: &[u8]) -> bool {
    match reply {
        [a, b, flags, rcode, _, _, c, d, ..] => {
            [*a, *b] == id.to_be_bytes()
                && flags & 0x80 != 0
                && rcode & 0x0f == 0
                && (*c, *d) != (0, 0)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::{FakeAgent, sample_status, served};

    #[test]
    fn what_is_missing_is_named() {
        let status = sample_status();
        assert_eq!(missing_nodes(&status, Some(1)), None);
        let all = missing_nodes(&status, None).unwrap();
        assert_eq!(all, "nodes: 1 of 2 are live, not beta");
        let mut alone = status;
        alone.nodes.truncate(1);
        assert!(missing_nodes(&alone, Some(3)).unwrap().contains("1 of 3"));
    }

    #[test]
    fn a_question_is_one_that_rfc_1035_describes() {
        let expected =
            b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x02bc\x00\x00\x01\x00\x01";
        assert_eq!(question(0x1234, "a.bc").unwrap(), expected);
        assert_eq!(question(1, "a..b"), None);
        assert_eq!(question(1, &"x".repeat(64)), None);
    }

    #[test]
    fn only_an_answer_with_records_to_this_question_counts() {
        let reply = |id: u16, flags, rcode, records: u8| {
            let [a, b] = id.to_be_bytes();
            [a, b, flags, rcode, 0, 1, 0, records, 0, 0, 0, 0]
        };
        assert!(is_answer(7, &reply(7, 0x85, 0x80, 1)));
        assert!(!is_answer(7, &reply(8, 0x85, 0x80, 1)), "another id");
        assert!(!is_answer(7, &reply(7, 0x05, 0x80, 1)), "a question");
        assert!(!is_answer(7, &reply(7, 0x85, 0x83, 1)), "NXDOMAIN");
        assert!(!is_answer(7, &reply(7, 0x85, 0x80, 0)), "nothing in it");
        assert!(!is_answer(7, &[0, 7]));
    }

    fn arguments(command: &[&str]) -> Arguments {
        use clap::Parser;
        #[derive(Parser)]
        struct Wait {
            #[command(flatten)]
            arguments: Arguments,
        }
        Wait::parse_from(std::iter::once(&"wait").chain(command)).arguments
    }

    #[tokio::test(start_paused = true)]
    async fn a_mesh_that_stays_incomplete_ends_the_wait_with_4() {
        let served = served(FakeAgent::new()).await;
        let failure = wait(&arguments(&["--timeout", "2s"]), &served.client)
            .await
            .unwrap_err();
        assert_eq!(failure.code, super::super::failure::TIMED_OUT);
        assert!(failure.to_string().contains("not beta"), "{failure}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_never_starts_ends_the_wait_with_4() {
        let client = Client::new("/nonexistent/agent.sock".as_ref());
        let failure = wait(&arguments(&["--timeout", "2s"]), &client)
            .await
            .unwrap_err();
        assert_eq!(failure.code, super::super::failure::TIMED_OUT);
        assert!(failure.to_string().contains("isn't running"), "{failure}");
    }
}
