//! The words of the cross-platform configuration protocol
//! (<https://www.wireguard.com/xplatform/>): what is asked, and what is answered.

use std::{collections::BTreeSet, fmt::Write, io, net::SocketAddr, str::FromStr, time::Duration};

use data_encoding::HEXLOWER_PERMISSIVE;
use innermesh_engine::{Engine, PeerReading, PeerSettings};
use ipnet::IpNet;
use nix::errno::Errno;

use super::{Running, seed};

/// What somebody asks through the socket.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// The device as it is.
    Get,
    /// Changes, which are made in their order.
    Set(Changes),
}

/// What is to change; the rest stays.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    private_key: Option<[u8; 32]>,
    listen_port: Option<u16>,
    fwmark: Option<u32>,
    replace_peers: bool,
    peers: Vec<PeerChanges>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct PeerChanges {
    key: [u8; 32],
    remove: bool,
    update_only: bool,
    replace_allowed_ips: bool,
    preshared_key: Option<[u8; 32]>,
    endpoint: Option<SocketAddr>,
    keepalive_s: Option<u16>,
    allow: BTreeSet<IpNet>,
    deny: BTreeSet<IpNet>,
}

/// Why a request isn't understood; nothing is changed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// It begins with neither `get=1` nor `set=1`.
    #[error("a request begins with `get=1` or `set=1`")]
    Operation,
    /// A line isn't `key=value`, or its key isn't known there.
    #[error("a line of the request isn't known")]
    Line,
    /// A value can't be read.
    #[error("a value of the request can't be read")]
    Value,
}

impl FromStr for Request {
    type Err = BadRequest;

    /// Reads the lines of a request, without the empty one at its end.
    fn from_str(text: &str) -> Result<Self, BadRequest> {
        let mut lines = text.lines();
        match lines.next() {
            Some("get=1") if lines.next().is_none() => return Ok(Self::Get),
            Some("set=1") => {}
            _ => return Err(BadRequest::Operation),
        }
        let mut changes = Changes::default();
        for line in lines {
            let (key, value) = line.split_once('=').ok_or(BadRequest::Line)?;
            match (key, changes.peers.last_mut()) {
                ("public_key", _) => changes.peers.push(PeerChanges {
                    key: secret(value)?,
                    ..PeerChanges::default()
                }),
                (key, Some(peer)) => peer.take(key, value)?,
                (key, None) => changes.take(key, value)?,
            }
        }
        Ok(Self::Set(changes))
    }
}

impl Changes {
    fn take(&mut self, key: &str, value: &str) -> Result<(), BadRequest> {
        match key {
            // A device without a key is none: zeros ask for that.
            "private_key" => {
                let key = secret(value)?;
                let is_one = key != [0; 32];
                self.private_key = Some(is_one.then_some(key).ok_or(BadRequest::Value)?);
            }
            "listen_port" => self.listen_port = Some(number(value)?),
            "fwmark" => {
                let hex = value.strip_prefix("0x");
                let mark = hex.map_or_else(|| value.parse(), |hex| u32::from_str_radix(hex, 16));
                self.fwmark = Some(mark.map_err(|_| BadRequest::Value)?);
            }
            "replace_peers" => self.replace_peers = is_true(value)?,
            _ => return Err(BadRequest::Line),
        }
        Ok(())
    }
}

impl PeerChanges {
    fn take(&mut self, key: &str, value: &str) -> Result<(), BadRequest> {
        match key {
            "remove" => self.remove = is_true(value)?,
            "update_only" => self.update_only = is_true(value)?,
            "replace_allowed_ips" => self.replace_allowed_ips = is_true(value)?,
            "preshared_key" => self.preshared_key = Some(secret(value)?),
            "endpoint" => self.endpoint = Some(number(value)?),
            "persistent_keepalive_interval" => self.keepalive_s = Some(number(value)?),
            "protocol_version" if value == "1" => {}
            "allowed_ip" => {
                let is_taken = value.strip_prefix('-');
                let net: IpNet = number(is_taken.unwrap_or(value))?;
                let (to, from) = match is_taken {
                    Some(_) => (&mut self.deny, &mut self.allow),
                    None => (&mut self.allow, &mut self.deny),
                };
                from.remove(&net.trunc());
                to.insert(net.trunc());
            }
            _ => return Err(BadRequest::Line),
        }
        Ok(())
    }
}

/// Makes the changes.
///
/// # Errors
/// The port or the mark can't be had, which are tried first; nothing was changed then.
pub(super) fn change(running: &mut Running, changes: Changes) -> io::Result<()> {
    let seed = changes.private_key.map(|_| seed()).transpose()?;
    if let Some(mark) = changes.fwmark {
        running.device.wire.set_mark(mark)?;
    }
    if let Some(port) = changes.listen_port {
        running.rebind(port)?;
    }
    let now = running.device.now;
    let engine = &mut running.device.engine;
    if let (Some(key), Some(seed)) = (changes.private_key, seed) {
        engine.set_private_key(key, seed, now);
    }
    if changes.replace_peers {
        let all: Vec<[u8; 32]> = engine.peers(now).map(|peer| peer.key).collect();
        for key in all {
            engine.remove_peer(&key);
        }
    }
    for peer in changes.peers {
        change_peer(engine, peer, now);
    }
    Ok(())
}

fn change_peer(engine: &mut Engine, peer: PeerChanges, now: std::time::Instant) {
    let key = &peer.key;
    if peer.remove {
        engine.remove_peer(key);
        return;
    }
    if !engine.has_peer(key) {
        if !peer.update_only {
            let secret = peer.preshared_key.filter(|secret| *secret != [0; 32]);
            let settings = PeerSettings {
                allowed_ips: peer.allow,
                endpoint: peer.endpoint,
                keepalive_s: peer.keepalive_s.filter(|seconds| *seconds > 0),
                preshared_key: secret.map(Into::into),
            };
            engine.add_peer(peer.key, settings, now);
        }
        return;
    }
    if peer.replace_allowed_ips {
        engine.set_allowed(key, peer.allow);
    } else {
        engine.deny(key, &peer.deny);
        engine.allow(key, peer.allow);
    }
    if let Some(endpoint) = peer.endpoint {
        engine.set_endpoint(key, endpoint);
    }
    if let Some(seconds) = peer.keepalive_s {
        engine.set_keepalive(key, Some(seconds), now);
    }
    if let Some(secret) = peer.preshared_key {
        engine.set_preshared_key(key, Some(secret.into()), now);
    }
}

/// The device as it is, with the line that ends an answer; `unix` is the time since 1970.
pub(super) fn describe(running: &Running, unix: Duration) -> String {
    let engine = &running.device.engine;
    let mut text = format!(
        "private_key={}\nlisten_port={}\n",
        HEXLOWER_PERMISSIVE.encode(&*engine.private_key()),
        running.device.wire.port(),
    );
    if running.device.wire.mark() != 0 {
        // Writing into a string doesn't fail.
        let _ = writeln!(text, "fwmark={}", running.device.wire.mark());
    }
    for peer in engine.peers(running.device.now) {
        let _ = describe_peer(&mut text, &peer, unix);
    }
    text + "errno=0\n"
}

fn describe_peer(text: &mut String, peer: &PeerReading, unix: Duration) -> std::fmt::Result {
    let settings = &peer.settings;
    writeln!(text, "public_key={}", HEXLOWER_PERMISSIVE.encode(&peer.key))?;
    if let Some(secret) = &settings.preshared_key {
        let secret = HEXLOWER_PERMISSIVE.encode(&**secret);
        writeln!(text, "preshared_key={secret}")?;
    }
    writeln!(text, "protocol_version=1")?;
    if let Some(endpoint) = settings.endpoint {
        writeln!(text, "endpoint={endpoint}")?;
    }
    if let Some(age) = peer.last_handshake {
        let at = unix.saturating_sub(age);
        writeln!(text, "last_handshake_time_sec={}", at.as_secs())?;
        writeln!(text, "last_handshake_time_nsec={}", at.subsec_nanos())?;
    }
    writeln!(text, "rx_bytes={}", peer.rx_bytes)?;
    writeln!(text, "tx_bytes={}", peer.tx_bytes)?;
    if let Some(seconds) = settings.keepalive_s {
        writeln!(text, "persistent_keepalive_interval={seconds}")?;
    }
    for net in &settings.allowed_ips {
        writeln!(text, "allowed_ip={net}")?;
    }
    Ok(())
}

/// What ends the answer to changes.
pub(super) fn outcome(result: io::Result<()>) -> String {
    let code = match result {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(Errno::EIO as i32),
    };
    format!("errno={code}\n")
}

fn secret(text: &str) -> Result<[u8; 32], BadRequest> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes());
    let bytes = bytes.map_err(|_| BadRequest::Value)?;
    bytes.try_into().map_err(|_| BadRequest::Value)
}

fn number<T: FromStr>(text: &str) -> Result<T, BadRequest> {
    text.parse().map_err(|_| BadRequest::Value)
}

fn is_true(text: &str) -> Result<bool, BadRequest> {
    match text {
        "true" => Ok(true),
        _ => Err(BadRequest::Value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33";

    #[test]
    fn a_request_as_wg_sends_it_is_read() {
        let text = format!(
            "set=1\nlisten_port=51820\nfwmark=0x69\nreplace_peers=true\npublic_key={KEY}\n\
             replace_allowed_ips=true\nendpoint=[2001:db8::1]:51820\n\
             persistent_keepalive_interval=25\nallowed_ip=10.0.0.9/8\nallowed_ip=fd00::/8\n\
             public_key={KEY}\nremove=true\n"
        );
        let Ok(Request::Set(changes)) = text.parse() else {
            panic!("it isn't read");
        };
        assert_eq!(
            (changes.listen_port, changes.fwmark),
            (Some(51820), Some(0x69))
        );
        assert!(changes.replace_peers && changes.peers[1].remove);
        let peer = &changes.peers[0];
        assert_eq!(peer.endpoint, "[2001:db8::1]:51820".parse().ok());
        assert_eq!(peer.keepalive_s, Some(25));
        let nets = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap());
        assert_eq!(peer.allow, nets.into());
        assert_eq!("get=1\n".parse(), Ok(Request::Get));
    }

    #[test]
    fn what_is_not_known_is_refused_whole() {
        for text in [
            "",
            "get=2",
            "get=1\nlisten_port=1",
            "set=1\nlisten_port",
            "set=1\nlisten_port=70000",
            "set=1\nendpoint=10.0.0.1:1",
            "set=1\nprivate_key=00",
            "set=1\nprivate_key=0000000000000000000000000000000000000000000000000000000000000000",
            "set=1\nreplace_peers=no",
            "set=1\npublic_key=b8\n",
        ] {
            assert!(text.parse::<Request>().is_err(), "{text}");
        }
        for line in [
            "allowed_ip=10.0.0.0/33",
            "listen_port=1",
            "remove=1",
            "protocol_version=2",
        ] {
            let text = format!("set=1\npublic_key={KEY}\n{line}\n");
            assert!(text.parse::<Request>().is_err(), "{line}");
        }
    }
}
