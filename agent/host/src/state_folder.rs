//! Names and places in the state folder that more than one part knows.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use innermesh_proto::{codec, id::NodeId, limits, path::LaneUrl};
use serde::{Deserialize, Serialize};

use super::Disk;

/// The recovery file of a new mesh's root.
pub const RECOVERY: &str = "root-recovery.pem";
/// Says that this machine belongs to no mesh any more, and since when.
const LEFT: &str = "left";
/// The addresses by which this machine joined.
const SEEDS: &str = "seeds";
/// Bytes of [`SEEDS`].
const SEEDS_BYTES: usize = 4096;
/// Where relays take in lanes.
const LANES: &str = "lanes";
/// Bytes of [`LANES`].
const LANES_BYTES: usize = 16 * 1024;

/// The UDP port that WireGuard has here, where another program had the usual one.
const WIREGUARD_PORT: &str = "wireguard.port";

/// Whether the folder holds the key of a mesh's root, perhaps the only copy. Where
/// that can't be told, it does.
pub async fn holds_root(disk: &dyn Disk) -> bool {
    !matches!(disk.read(Path::new(RECOVERY)).await, Ok(None))
}

/// How to make room in a folder for another mesh. Nobody is told to throw a
/// root's key away.
pub async fn make_room(disk: &dyn Disk) -> String {
    room_in(&disk.root().display().to_string(), holds_root(disk).await)
}

/// As [`make_room`], of a folder of which that is known.
pub fn room_in(folder: &str, holds_root: bool) -> String {
    if holds_root {
        return format!(
            "{folder} holds the key of the mesh's root ({RECOVERY}), perhaps the only copy: take it \
             out first with `agent ca root-key export FILE` and `agent ca root-key seal --copy \
             FILE`, then do this again"
        );
    }
    format!("move {folder} away")
}

/// Writes down that this machine has left its mesh.
///
/// # Errors
/// The disk's.
pub async fn mark_left(disk: &dyn Disk, text: &str) -> io::Result<()> {
    disk.replace(Path::new(LEFT), text.as_bytes()).await
}

/// The first line of what [`mark_left`] wrote; `None` on a machine that hasn't left.
///
/// # Errors
/// The disk's.
pub async fn left(disk: &dyn Disk) -> io::Result<Option<String>> {
    let bytes = disk.read(Path::new(LEFT)).await?;
    Ok(bytes.map(|bytes| {
        let text = String::from_utf8_lossy(&bytes);
        let first: String = text.lines().next().unwrap_or_default().into();
        first
            .chars()
            .filter(|c| !c.is_control())
            .take(300)
            .collect()
    }))
}

/// Stores the addresses by which this machine joined, for a start without any
/// live peer.
///
/// # Errors
/// The disk's.
pub async fn store_seeds(disk: &dyn Disk, seeds: &[SocketAddr]) -> io::Result<()> {
    disk.replace(Path::new(SEEDS), &codec::encode(&seeds)).await
}

/// What [`store_seeds`] stored; none where it can't be read.
pub async fn load_seeds(disk: &dyn Disk) -> Vec<SocketAddr> {
    let bytes = disk.read(Path::new(SEEDS)).await.ok().flatten();
    let seeds = bytes.and_then(|bytes| codec::decode::<Vec<SocketAddr>>(&bytes, SEEDS_BYTES).ok());
    let mut seeds = seeds.unwrap_or_default();
    seeds.truncate(limits::ENDPOINTS);
    seeds
}

/// Where a relay takes in lanes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownLane {
    /// The relay.
    pub node: NodeId,
    /// As it announced it.
    pub url: LaneUrl,
    /// The address by which it was reached last.
    pub last: Option<IpAddr>,
}

/// Keeps where relays take in lanes, for a start where UDP goes nowhere.
///
/// # Errors
/// The disk's.
pub async fn store_lanes(disk: &dyn Disk, lanes: &[KnownLane]) -> io::Result<()> {
    disk.replace(Path::new(LANES), &codec::encode(&lanes)).await
}

/// What [`store_lanes`] stored; none where it can't be read.
pub async fn load_lanes(disk: &dyn Disk) -> Vec<KnownLane> {
    let bytes = disk.read(Path::new(LANES)).await.ok().flatten();
    let lanes = bytes.and_then(|bytes| codec::decode(&bytes, LANES_BYTES).ok());
    let mut lanes: Vec<KnownLane> = lanes.unwrap_or_default();
    lanes.truncate(limits::LANES_KNOWN);
    lanes
}

/// Keeps the UDP port that WireGuard has here: peers, routers and firewalls know it.
///
/// # Errors
/// The disk's.
pub async fn store_wireguard_port(disk: &dyn Disk, port: u16) -> io::Result<()> {
    let text = format!("{port}\n");
    disk.replace(Path::new(WIREGUARD_PORT), text.as_bytes())
        .await
}

/// What [`store_wireguard_port`] stored; none where it can't be read.
pub async fn wireguard_port(disk: &dyn Disk) -> Option<u16> {
    let bytes = disk.read(Path::new(WIREGUARD_PORT)).await.ok().flatten()?;
    let port = std::str::from_utf8(&bytes).ok()?.trim().parse().ok()?;
    (port != 0).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SystemDisk;

    #[tokio::test]
    async fn where_relays_take_lanes_in_is_kept_and_what_is_damaged_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new(folder.path().to_owned());
        assert_eq!(load_lanes(&disk).await, []);
        let lanes = [None, Some([192, 0, 2, 7].into())].map(|last| KnownLane {
            node: NodeId([7; 16]),
            url: "wss://relay.example.org/innermesh".parse().unwrap(),
            last,
        });
        store_lanes(&disk, &lanes).await.unwrap();
        assert_eq!(load_lanes(&disk).await, lanes);
        disk.replace(Path::new(LANES), b"\x01nonsense")
            .await
            .unwrap();
        assert_eq!(load_lanes(&disk).await, []);
    }

    #[tokio::test]
    async fn the_port_of_wireguard_is_kept_and_what_is_no_port_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new(folder.path().to_owned());
        assert_eq!(wireguard_port(&disk).await, None);
        store_wireguard_port(&disk, 51821).await.unwrap();
        assert_eq!(wireguard_port(&disk).await, Some(51821));
        for damaged in ["", "0", "70000", "51821x", "\u{e9}"] {
            std::fs::write(folder.path().join(WIREGUARD_PORT), damaged).unwrap();
            assert_eq!(wireguard_port(&disk).await, None, "{damaged:?}");
        }
    }
}
