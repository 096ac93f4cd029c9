//! Reading the kernel's WireGuard device and changing it, through
//! wireguard-control.
//!
//! Must not know how the device came about.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use innermesh_proto::tunnel::{InstalledPeer, PresharedKey, Step, TunnelKey};
use ipnet::IpNet;
use wireguard_control::{
    Backend, Device, DeviceUpdate, InterfaceName, Key, PeerConfigBuilder, PeerInfo,
};

use super::{PeerState, Reading, TunnelError, device::is_session};

/// Allowed IPs of one peer in one netlink attribute list: a message holds 8 KiB
/// and an IPv6 network takes 44 bytes of it.
const ALLOWED_IPS_PER_ENTRY: usize = 128;

/// Reads the device. `wall_ms` is the present, for the age of handshakes.
pub(super) async fn read(name: InterfaceName, wall_ms: u64) -> Result<Reading, TunnelError> {
    let device = blocking(move || Device::get(&name, Backend::Kernel))
        .await
        .map_err(|source| TunnelError::system("read the tunnel's peers", source))?;
    let mut peers: BTreeMap<TunnelKey, (InstalledPeer, PeerState)> = BTreeMap::new();
    for info in device.peers {
        let key = TunnelKey(info.config.public_key.0);
        let nets = networks(&info);
        // The kernel spreads a peer with many networks over several messages,
        // each of which comes back as a peer of its own.
        peers
            .entry(key)
            .or_insert_with(|| peer(&info, wall_ms))
            .0
            .allowed_ips
            .extend(nets);
    }
    Ok(Reading {
        public_key: device.public_key.map(|key| TunnelKey(key.0)),
        listen_port: device.listen_port.unwrap_or_default(),
        peers,
    })
}

/// Takes `steps` in their order.
pub(super) async fn take_steps(name: InterfaceName, steps: &[Step]) -> io::Result<()> {
    let entries: Vec<_> = steps
        .iter()
        .flat_map(|step| entries(step, ALLOWED_IPS_PER_ENTRY))
        .collect();
    if entries.is_empty() {
        return Ok(());
    }
    update(name, DeviceUpdate::new().add_peers(&entries)).await
}

/// Applies `update` to a device that is there.
pub(super) async fn update(name: InterfaceName, update: DeviceUpdate) -> io::Result<()> {
    blocking(move || update.apply(&name, Backend::Kernel)).await
}

fn peer(info: &PeerInfo, wall_ms: u64) -> (InstalledPeer, PeerState) {
    let last_handshake = info.stats.last_handshake_time.map(|at| {
        let at = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Duration::from_millis(wall_ms).saturating_sub(at)
    });
    let endpoint: Option<SocketAddr> = info.config.endpoint;
    let installed = InstalledPeer {
        allowed_ips: BTreeSet::new(),
        endpoint,
        // Zero and an all-zero key are how both interfaces say "none".
        keepalive_s: info.config.persistent_keepalive_interval.filter(|s| *s > 0),
        preshared_key: info
            .config
            .preshared_key
            .as_ref()
            .filter(|key| key.0 != [0; 32])
            .map(|key| PresharedKey(key.0)),
        alive: last_handshake.is_some_and(is_session),
    };
    let state = PeerState {
        endpoint,
        last_handshake,
        rx_bytes: info.stats.rx_bytes,
        tx_bytes: info.stats.tx_bytes,
        way: None,
    };
    (installed, state)
}

fn networks(info: &PeerInfo) -> Vec<IpNet> {
    info.config
        .allowed_ips
        .iter()
        .filter_map(|allowed| IpNet::new(allowed.address, allowed.cidr).ok())
        .collect()
}

fn entries(step: &Step, per_entry: usize) -> Vec<PeerConfigBuilder> {
    match step {
        Step::Remove(key) => vec![PeerConfigBuilder::new(&Key(key.0)).remove()],
        Step::Narrow(key, keep) => {
            let first = PeerConfigBuilder::new(&Key(key.0)).replace_allowed_ips();
            with_networks(key, first, keep, per_entry)
        }
        Step::Add(key, peer) => {
            let mut first = PeerConfigBuilder::new(&Key(key.0)).replace_allowed_ips();
            if let Some(endpoint) = peer.endpoint {
                first = first.set_endpoint(endpoint);
            }
            if let Some(seconds) = peer.keepalive_s {
                first = first.set_persistent_keepalive_interval(seconds);
            }
            if let Some(secret) = &peer.preshared_key {
                first = first.set_preshared_key(Key(secret.0));
            }
            with_networks(key, first, &peer.allowed_ips, per_entry)
        }
        Step::Change(key, change) => {
            let mut first = PeerConfigBuilder::new(&Key(key.0));
            if let Some(endpoint) = change.endpoint {
                first = first.set_endpoint(endpoint);
            }
            if let Some(keepalive) = change.keepalive_s {
                first = first.set_persistent_keepalive_interval(keepalive.unwrap_or(0));
            }
            if let Some(secret) = &change.preshared_key {
                let secret = secret.as_ref().map_or([0; 32], |secret| secret.0);
                first = first.set_preshared_key(Key(secret));
            }
            with_networks(key, first, &change.allow, per_entry)
        }
    }
}

/// `first` with the first `per_entry` networks, and entries that only add for
/// the rest.
fn with_networks(
    key: &TunnelKey,
    first: PeerConfigBuilder,
    nets: &BTreeSet<IpNet>,
    per_entry: usize,
) -> Vec<PeerConfigBuilder> {
    let mut entries = Vec::new();
    let mut entry = first;
    for (n, net) in nets.iter().enumerate() {
        if n > 0 && n % per_entry == 0 {
            entries.push(entry);
            entry = PeerConfigBuilder::new(&Key(key.0));
        }
        entry = entry.add_allowed_ip(net.addr(), net.prefix_len());
    }
    entries.push(entry);
    entries
}

/// wireguard-control waits for the kernel.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(call)
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(n: u8) -> BTreeSet<IpNet> {
        (0..n)
            .map(|n| format!("10.7.0.{n}/32").parse().unwrap())
            .collect()
    }

    #[test]
    fn a_peer_with_many_networks_is_spread_and_only_its_first_entry_replaces() {
        let step = Step::Narrow(TunnelKey([1; 32]), nets(5));
        let entries: Vec<_> = entries(&step, 2);
        let replaces: Vec<bool> = entries
            .iter()
            .map(|entry| format!("{entry:?}").contains("replace_allowed_ips: true"))
            .collect();
        assert_eq!(replaces, [true, false, false]);
        let all: usize = entries
            .iter()
            .map(|entry| entry.clone().into_peer_config().allowed_ips.len())
            .sum();
        assert_eq!(all, 5);
    }

    #[test]
    fn a_peer_that_keeps_nothing_is_narrowed_all_the_same() {
        let step = Step::Narrow(TunnelKey([1; 32]), BTreeSet::new());
        assert_eq!(entries(&step, 2).len(), 1);
    }

    #[test]
    fn a_handshake_in_the_future_counts_as_just_now() {
        let mut info = PeerInfo::from_public_key(Key([1; 32]));
        info.stats.last_handshake_time =
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let (installed, state) = peer(&info, 5);
        assert_eq!(state.last_handshake, Some(Duration::ZERO));
        assert!(installed.alive);
    }
}
