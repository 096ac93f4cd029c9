//! The member at which a machine asks that is none yet: where it is, and how it is
//! asked.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use innermesh_proto::{
    codec, crypto::PublicKey, ledger::State, limits, path::LaneUrl, rpc::Failure,
};
use ipnet::IpNet;

use super::join_error::JoinError;
use crate::{
    host::{Host, keys::NodeKey, state_folder},
    ledger::file::LEDGER,
    quic::{CallError, Channel, DialError, Membership, MembershipCheck, Settings, Transport},
    tls::MeshTls,
};

/// The port of agents, unless another is given.
pub const DEFAULT_PORT: u16 = 51819;
/// How long one step with a seed may take.
pub(super) const STEP: Duration = Duration::from_secs(10);
/// How long after one address the next is tried beside it (RFC 8305 section 5).
const BESIDE: Duration = Duration::from_millis(250);
/// Most addresses that are tried.
const TRIED: usize = 16;

/// Whether this machine is in no mesh yet.
pub(super) async fn check_free(host: &Host) -> Result<(), JoinError> {
    if host.disk.read(LEDGER.as_ref()).await?.is_some() {
        return Err(match state_folder::left(&*host.disk).await? {
            Some(said) => JoinError::Left {
                said,
                room: state_folder::make_room(&*host.disk).await,
            },
            None => JoinError::Exists,
        });
    }
    Ok(())
}

/// What a machine that is no member yet dials from; its kernel may have no IPv6.
pub(super) fn open(
    host: &Host,
    identity: &Arc<dyn NodeKey>,
    tls: &MeshTls,
) -> Result<Transport, JoinError> {
    let open = |listen: IpAddr| -> Result<Transport, JoinError> {
        let settings = Settings {
            me: identity.public().node_id(),
            listen: SocketAddr::new(listen, 0),
            server: None,
            client: tls.client()?,
            membership: Arc::new(Nobody),
            open_to_strangers: Default::default(),
        };
        Ok(Transport::open(host, settings)?)
    };
    open(Ipv6Addr::UNSPECIFIED.into())
        .or_else(|error| open(Ipv4Addr::UNSPECIFIED.into()).map_err(|_| error))
}

/// Ranges that this machine has already end it before anything is spent.
pub(super) async fn check_clash(
    host: &Host,
    genesis: &State,
    interface: &str,
) -> Result<(), JoinError> {
    for net in [IpNet::V4(genesis.ipv4), IpNet::V6(genesis.mesh.ula())] {
        if let Some(clash) = host.net.clash(net, interface).await {
            return Err(JoinError::Clash(net, clash));
        }
    }
    Ok(())
}

/// Connects to the first that answers of the seed's addresses; where all are silent,
/// of `others`. A seed that answers, and isn't of this mesh, is told. One that is the URL of
/// a lane is connected with over that alone.
pub(super) async fn connect(
    host: &Host,
    seed: &str,
    others: &[SocketAddr],
    transport: &Transport,
) -> Result<Channel, JoinError> {
    if let Ok(url) = seed.parse::<LaneUrl>() {
        return by_lane(host, &url, transport).await;
    }
    let (name, port) = parse_seed(seed)?;
    let (error, tried) = match host.net.resolve(&name, port).await {
        Ok(addresses) => match first_of(host, &addresses, transport).await {
            Ok(channel) => return Ok(channel),
            Err(Some(error)) if !matches!(error, DialError::Timeout) => {
                return Err(unreachable(seed, &error.to_string()));
            }
            Err(error) => {
                let why = error.map(|error| error.to_string());
                let why = why.unwrap_or_else(|| "it has no address".into());
                (unreachable(seed, &why), addresses)
            }
        },
        Err(error) => (JoinError::Resolve(name, error), Vec::new()),
    };
    let others = others.iter().filter(|other| !tried.contains(other));
    let others: Vec<SocketAddr> = others.copied().collect();
    first_of(host, &others, transport).await.map_err(|_| error)
}

/// Connects over the first lane that opens of the URL's addresses. It ends with the
/// transport, or once nobody is connected over it.
async fn by_lane(host: &Host, url: &LaneUrl, transport: &Transport) -> Result<Channel, JoinError> {
    let failed = |why: String| JoinError::Lane {
        url: url.clone(),
        why,
    };
    let lanes = transport.lanes();
    let lanes = lanes.ok_or_else(|| failed("there are none here".into()))?;
    let (name, port) = url.host();
    let addresses = match url.address() {
        Some(address) => vec![address],
        None => {
            let found = host.net.resolve(name, port).await;
            found.map_err(|error| JoinError::Resolve(name.to_owned(), error))?
        }
    };
    let mut why = "it has no address".to_owned();
    for address in addresses.into_iter().take(TRIED) {
        let open = match lanes.dial(&*host.net, url, address).await {
            Ok(open) => open,
            Err(error) => {
                why = error.to_string();
                continue;
            }
        };
        let at = open.address();
        host.tasks.spawn(open.carry());
        match transport.dial_unregistered(at, None).await {
            Ok(channel) => return Ok(channel),
            Err(error) => why = error.to_string(),
        }
    }
    Err(failed(why))
}

/// Dials them beside each other, each soon after the one before.
///
/// # Errors
/// Why one of them wouldn't, else why none answered; `None` where there are none.
async fn first_of(
    host: &Host,
    addresses: &[SocketAddr],
    transport: &Transport,
) -> Result<Channel, Option<DialError>> {
    let dials = addresses.iter().take(TRIED).zip(0..);
    let mut dials: FuturesUnordered<_> = dials
        .map(|(address, place)| async move {
            host.clock.sleep(BESIDE * place).await;
            transport.dial_unregistered(*address, None).await
        })
        .collect();
    let mut why = None;
    while let Some(dialed) = dials.next().await {
        match dialed {
            Ok(channel) => return Ok(channel),
            Err(DialError::Timeout) if why.is_some() => {}
            Err(error) => why = Some(error),
        }
    }
    Err(why)
}

pub(super) fn unreachable(seed: &str, why: &str) -> JoinError {
    let port = parse_seed(seed).map_or(DEFAULT_PORT, |(_, port)| port);
    JoinError::Unreachable {
        seed: seed.to_string(),
        port,
        why: why.to_string(),
    }
}

/// Host and port of `host`, `host:port`, `v6`, `[v6]` or `[v6]:port`.
pub(crate) fn parse_seed(seed: &str) -> Result<(String, u16), JoinError> {
    let bad = || JoinError::Seed(seed.chars().take(200).collect());
    if let Ok(ip) = seed.parse::<IpAddr>() {
        return Ok((ip.to_string(), DEFAULT_PORT));
    }
    if let Ok(address) = seed.parse::<SocketAddr>() {
        return Ok((address.ip().to_string(), address.port()));
    }
    let (host, port) = match seed.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| bad())?),
        None => (seed, DEFAULT_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let good = !host.is_empty()
        && host.len() <= 253
        && !host.contains(|c: char| c.is_whitespace() || c == '/');
    if good && port != 0 {
        Ok((host.to_string(), port))
    } else {
        Err(bad())
    }
}

pub(super) async fn ask<Q: serde::Serialize, A: serde::de::DeserializeOwned>(
    channel: &Channel,
    method: u16,
    query: &Q,
    patience: Duration,
) -> Result<A, JoinError> {
    let answer = channel
        .call(method, codec::encode(query), patience)
        .await
        .map_err(|error| match error {
            CallError::Failed(Failure::Refused(why) | Failure::Unavailable(why)) => {
                JoinError::Refused(why)
            }
            CallError::Failed(Failure::Malformed) => JoinError::NotRead,
            error => JoinError::Seeded(error.to_string()),
        })?;
    codec::decode(&answer, limits::RPC_BYTES).map_err(|e| JoinError::Seeded(e.to_string()))
}

/// While joining, nobody is a member: there is no ledger to say so.
struct Nobody;

impl MembershipCheck for Nobody {
    fn check(&self, _: &PublicKey) -> Membership {
        Membership::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_host_with_a_port_or_without() {
        let parsed = |seed: &str| {
            parse_seed(seed)
                .map(|(host, port)| format!("{host} {port}"))
                .ok()
        };
        assert_eq!(parsed("a.example").as_deref(), Some("a.example 51819"));
        assert_eq!(parsed("a.example:7").as_deref(), Some("a.example 7"));
        assert_eq!(parsed("192.0.2.1").as_deref(), Some("192.0.2.1 51819"));
        assert_eq!(parsed("2001:db8::1").as_deref(), Some("2001:db8::1 51819"));
        assert_eq!(parsed("[2001:db8::1]:9").as_deref(), Some("2001:db8::1 9"));
        for bad in ["", ":1", "a:b", "a b", "http://x/", "a:0", "a:70000"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
