//! Gossip: who is. Each node publishes one signed head; this module owns what
//! a head and its body say, and the table of heads that a node holds.
//!
//! A node's gossip address isn't in the head: it follows from the key
//! ([`crate::gate::gossip_address`]), so nobody can claim another's.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use crate::{
    codec,
    crypto::{Hash, PublicKey, Purpose, SealError, Sealed, Sign, Verify},
    endpoint,
    hold::Hold,
    id::{MeshId, NodeId},
    ledger::{
        Position,
        device::{DeviceId, DeviceSeen},
    },
    limits,
    name::Label,
    service_address::is_service_address,
    tunnel::{HostPort, TunnelKey},
    zone::{Protocol, ServiceType},
};

/// What a node signs about itself, whole: a member that passes it on can't
/// leave a part of it out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Whose head it is.
    pub node: NodeId,
    /// Rises at each start of the node.
    pub generation: u64,
    /// Rises with each head of a generation; also chitchat's version of it.
    pub seq: u64,
    /// The node is live for this long after its newest head arrived, in
    /// milliseconds; 0 says goodbye.
    pub lease_ms: u32,
    /// Hash of the encoded body.
    pub body: Hash,
    /// Length of the encoded body, in bytes.
    pub body_len: u32,
    /// How far the node follows the ledger.
    pub position: Position,
    /// The node's own clock, in milliseconds since 1970: others compare a
    /// leader's with it.
    pub clock_ms: u64,
}

/// Longest lease that is believed, in milliseconds.
const MAX_LEASE_MS: u32 = 90_000;

impl Head {
    /// Signs it, for this mesh.
    pub fn seal(&self, key: &dyn Sign, mesh: &MeshId) -> Sealed {
        Sealed::new(key, Purpose::Head, mesh, self)
    }

    /// Where it stands among the heads of its node.
    pub fn order(&self) -> (u64, u64) {
        (self.generation, self.seq)
    }
}

/// How often a head is renewed in a mesh of `nodes`: 1.5 s up to 50 nodes,
/// then in proportion, so that the renewals' traffic per node stays level.
pub fn renewal_interval(nodes: usize) -> Duration {
    let ms = (nodes as u64).saturating_mul(1500) / 50;
    Duration::from_millis(ms.clamp(1500, 15_000))
}

/// The lease that goes with [`renewal_interval`]: three renewals may be lost in
/// a mesh of less than 250 nodes, and five from 500 on, where the rounds that
/// carry a renewal to the last node take longer than the time between two.
pub fn lease_ms(nodes: usize) -> u32 {
    let renewals = 3 + (nodes as u128 / 250).min(2);
    u32::try_from(renewal_interval(nodes).as_millis() * renewals).unwrap_or(MAX_LEASE_MS)
}

/// A sealed head as text, for gossip that carries strings.
pub fn to_text(sealed: &Sealed) -> String {
    BASE64URL_NOPAD.encode(&codec::encode(sealed))
}

/// A sealed head from its text; `None` when it isn't one.
pub fn from_text(text: &str) -> Option<Sealed> {
    if text.len() > limits::HEAD_BYTES * 2 {
        return None;
    }
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    codec::decode(&bytes, limits::HEAD_BYTES + 128).ok()
}

/// What a node announces: the content of its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// Version of its software.
    pub version: String,
    /// Where it answers QUIC, best first.
    pub quic: Vec<SocketAddr>,
    /// Its WireGuard interface, if it has one.
    pub wireguard: Option<WireGuard>,
    pub services: BTreeMap<Label, Instance>,
    /// Members that it cuts off; they count where it is an admin.
    pub holds: Vec<Hold>,
    /// The newest rules of the ledger that its build knows.
    pub rules: u32,
    /// Another machine runs with its key.
    pub cloned: bool,
    /// Those of its services that nothing checks: they count as healthy, and
    /// nobody knows whether they are.
    pub unchecked: BTreeSet<Label>,
    /// Devices whose tunnel this gateway has open; at most
    /// [`limits::DEVICES_SEEN`].
    pub devices: BTreeMap<DeviceId, DeviceSeen>,
    /// Where devices find it as a gateway, where its configuration says so.
    pub endpoint: Option<HostPort>,
    /// Devices that it cuts off until the ledger has removed them; they count where
    /// it is an admin, or the node that they belong to.
    pub device_holds: BTreeSet<DeviceId>,
    /// By which address families it leads to the internet, where it is an exit.
    pub exit: Option<ExitWays>,
    /// The latest serial of a zone that it transfers to secondaries: whoever does that
    /// after it goes on from there.
    pub zone_serial: Option<u32>,
    /// Public addresses at which it answers strangers' DNS, where it is a sinkhole; at
    /// most [`limits::SINKHOLE_NAME_SERVER_ADDRESSES`].
    pub name_server: BTreeSet<IpAddr>,
    /// What its services speak, where their ports don't say it.
    pub types: BTreeMap<Label, ServiceType>,
}

/// Address families that an exit has a default route for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitWays {
    pub ipv4: bool,
    pub ipv6: bool,
}

/// A node's WireGuard interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireGuard {
    /// Its public key.
    pub key: TunnelKey,
    /// The UDP port it listens on.
    pub port: u16,
}

/// One service on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub port: u16,
    /// Its transport.
    pub protocol: Protocol,
    /// Where it answers, when not on the node's overlay addresses.
    pub address: Option<IpAddr>,
    /// Whether its owner's check passes.
    pub healthy: bool,
}

/// One part of a body. A kind that this build doesn't know is passed over, so
/// that newer nodes can say more (S22).
#[derive(Serialize, Deserialize)]
struct Item {
    kind: u16,
    data: Vec<u8>,
}

mod kind {
    pub const VERSION: u16 = 1;
    pub const QUIC: u16 = 2;
    pub const WIREGUARD: u16 = 3;
    pub const SERVICE: u16 = 4;
    pub const HOLD: u16 = 5;
    pub const RULES: u16 = 6;
    pub const CLONED: u16 = 7;
    pub const UNCHECKED: u16 = 8;
    pub const DEVICE: u16 = 9;
    pub const ENDPOINT: u16 = 10;
    pub const DEVICE_HOLD: u16 = 11;
    pub const EXIT: u16 = 12;
    pub const ZONE_SERIAL: u16 = 13;
    pub const NAME_SERVER: u16 = 14;
    pub const TYPES: u16 = 15;
}

impl Announcement {
    /// What one of its services speaks, where that is known.
    pub fn service_type(&self, name: &Label, instance: &Instance) -> Option<ServiceType> {
        let said = self.types.get(name).cloned();
        said.or_else(|| ServiceType::of_port(instance.protocol, instance.port))
    }

    /// As a body.
    pub fn encode(&self) -> Vec<u8> {
        let item = |kind, data| Item { kind, data };
        let mut items = vec![
            item(kind::VERSION, codec::encode(&self.version)),
            item(kind::QUIC, codec::encode(&self.quic)),
        ];
        items.extend(
            self.wireguard
                .iter()
                .map(|wireguard| item(kind::WIREGUARD, codec::encode(wireguard))),
        );
        items.extend(
            self.services
                .iter()
                .map(|service| item(kind::SERVICE, codec::encode(&service))),
        );
        items.extend(
            self.holds
                .iter()
                .map(|hold| item(kind::HOLD, codec::encode(hold))),
        );
        if self.rules > 0 {
            items.push(item(kind::RULES, codec::encode(&self.rules)));
        }
        if self.cloned {
            items.push(item(kind::CLONED, Vec::new()));
        }
        items.extend(
            self.unchecked
                .iter()
                .map(|name| item(kind::UNCHECKED, codec::encode(name))),
        );
        items.extend(
            self.devices
                .iter()
                .map(|device| item(kind::DEVICE, codec::encode(&device))),
        );
        items.extend(
            self.endpoint
                .iter()
                .map(|endpoint| item(kind::ENDPOINT, codec::encode(endpoint))),
        );
        items.extend(
            self.device_holds
                .iter()
                .map(|device| item(kind::DEVICE_HOLD, codec::encode(device))),
        );
        items.extend(
            self.exit
                .iter()
                .map(|ways| item(kind::EXIT, codec::encode(ways))),
        );
        items.extend(
            self.zone_serial
                .iter()
                .map(|serial| item(kind::ZONE_SERIAL, codec::encode(serial))),
        );
        if !self.name_server.is_empty() {
            items.push(item(kind::NAME_SERVER, codec::encode(&self.name_server)));
        }
        // One item for all: a body has so many.
        if !self.types.is_empty() {
            items.push(item(kind::TYPES, codec::encode(&self.types)));
        }
        codec::encode(&items)
    }

    /// Reads a body. Items that are unknown or malformed are passed over: one
    /// bad item blocks no other (S4). `None` when the whole isn't a body.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let items: Vec<Item> = codec::decode(bytes, limits::BODY_BYTES).ok()?;
        let mut out = Self::default();
        for item in items.into_iter().take(limits::BODY_ITEMS) {
            out.take(&item);
        }
        Some(out)
    }

    fn take(&mut self, item: &Item) -> Option<()> {
        let limit = limits::BODY_BYTES;
        match item.kind {
            kind::VERSION => {
                let version: String = codec::decode(&item.data, 64).ok()?;
                if version.chars().all(|c| c.is_ascii_graphic()) {
                    self.version = version;
                }
            }
            kind::QUIC => {
                let mut endpoints: Vec<SocketAddr> = codec::decode(&item.data, limit).ok()?;
                endpoints.truncate(limits::ENDPOINTS);
                endpoints.retain(|endpoint| is_dialable(*endpoint));
                self.quic = endpoints;
            }
            kind::WIREGUARD => self.wireguard = Some(codec::decode(&item.data, limit).ok()?),
            kind::SERVICE => {
                let (name, mut instance): (Label, Instance) =
                    codec::decode(&item.data, limit).ok()?;
                instance.address = instance
                    .address
                    .filter(|address| is_service_address(*address));
                self.services.insert(name, instance);
            }
            kind::HOLD if self.holds.len() < limits::HOLDS => {
                self.holds.push(codec::decode(&item.data, 64).ok()?);
            }
            kind::RULES => self.rules = codec::decode(&item.data, 8).ok()?,
            kind::CLONED => self.cloned = true,
            kind::UNCHECKED => {
                let name: Label = codec::decode(&item.data, 64).ok()?;
                self.unchecked.insert(name);
            }
            kind::DEVICE if self.devices.len() < limits::DEVICES_SEEN => {
                let (id, seen) = codec::decode(&item.data, 160).ok()?;
                self.devices.insert(id, seen);
            }
            kind::ENDPOINT => {
                let limit = limits::DEVICE_ENDPOINT_BYTES + 8;
                self.endpoint = Some(codec::decode(&item.data, limit).ok()?);
            }
            kind::DEVICE_HOLD if self.device_holds.len() < limits::DEVICE_HOLDS => {
                let device: DeviceId = codec::decode(&item.data, 32).ok()?;
                self.device_holds.insert(device);
            }
            kind::EXIT => self.exit = Some(codec::decode(&item.data, 8).ok()?),
            kind::ZONE_SERIAL => self.zone_serial = Some(codec::decode(&item.data, 8).ok()?),
            kind::NAME_SERVER => {
                let all: BTreeSet<IpAddr> = codec::decode(&item.data, 256).ok()?;
                let public = all.into_iter().filter(|ip| endpoint::is_public(*ip));
                let most = limits::SINKHOLE_NAME_SERVER_ADDRESSES;
                self.name_server = public.take(most).collect();
            }
            kind::TYPES => self.types = codec::decode(&item.data, limit).ok()?,
            _ => {}
        }
        Some(())
    }
}

/// Whether an announced endpoint may be dialed: no member can point others at
/// their own loopback or at everybody.
fn is_dialable(endpoint: SocketAddr) -> bool {
    let ip = endpoint.ip();
    endpoint.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !ip.is_loopback()
        && ip != IpAddr::from([255; 4])
}

/// Why a head was not taken. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Malformed, or not signed by its node.
    #[error("the head is not its node's: {0}")]
    Seal(#[from] SealError),
    /// Of another node than its key's.
    #[error("the head is of another node")]
    Foreign,
    /// States a body or a lease beyond what is allowed.
    #[error("the head's body is larger than a body may be")]
    TooLarge,
}

/// Reads a head and checks that it is `key`'s.
///
/// # Errors
/// [`HeadError`].
pub fn open(
    sealed: &Sealed,
    key: &PublicKey,
    mesh: &MeshId,
    verify: &dyn Verify,
) -> Result<Head, HeadError> {
    let head: Head = sealed.open(verify, key, Purpose::Head, mesh, limits::HEAD_BYTES)?;
    if head.node != key.node_id() {
        return Err(HeadError::Foreign);
    }
    if head.body_len as usize > limits::BODY_BYTES {
        return Err(HeadError::TooLarge);
    }
    Ok(head)
}

/// What a node knows of another by gossip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The newest head.
    pub head: Head,
    /// As it was signed.
    pub sealed: Sealed,
    /// The body in force: the newest that was verified, which may be older
    /// than the head while its own is being fetched.
    pub body: Option<Arc<Body>>,
    /// When the newest head arrived, monotonic; `None` when it was read from
    /// disk and the node hasn't been heard of since.
    pub heard: Option<Duration>,
    /// Whether the ledger held here reached the node's own position since the
    /// node came or came back: only then is it known here what was revoked of
    /// those it meets (S13). It stays so while the node stays.
    pub ledger_caught_up: bool,
}

/// A verified body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Its bytes, for peers that ask.
    pub bytes: Vec<u8>,
    /// Hash of the bytes.
    pub hash: Hash,
    /// What it says.
    pub announcement: Arc<Announcement>,
    /// When it was put in force here, monotonic; `None` where it was read from
    /// disk.
    pub since: Option<Duration>,
}

impl Body {
    /// Reads a body; `None` when it isn't one.
    pub fn parse(bytes: Vec<u8>) -> Option<Self> {
        let announcement = Arc::new(Announcement::decode(&bytes)?);
        Some(Self {
            hash: Hash::of(&bytes),
            bytes,
            announcement,
            since: None,
        })
    }
}

impl Known {
    /// Whether the node is live at `now`.
    pub fn is_live(&self, now: Duration) -> bool {
        self.expires().is_some_and(|at| now < at)
    }

    /// Whether it is live, and no more than one renewal of its head is overdue: of two
    /// nodes that serve the same, the better one.
    pub fn is_prompt(&self, now: Duration) -> bool {
        let until = self.heard.map(|heard| heard + self.lease() * 3 / 4);
        until.is_some_and(|until| now < until)
    }

    /// When it stops being live unless a newer head arrives.
    pub fn expires(&self) -> Option<Duration> {
        Some(self.heard? + self.lease())
    }

    fn lease(&self) -> Duration {
        Duration::from_millis(u64::from(self.head.lease_ms.min(MAX_LEASE_MS)))
    }

    /// Whether it is new that the ledger held here reaches the node's position.
    fn compare(&mut self, reached: impl Fn(&Position) -> bool) -> bool {
        let new = !self.ledger_caught_up && self.heard.is_some() && reached(&self.head.position);
        self.ledger_caught_up |= new;
        new
    }

    /// The hash of the body that the head names, if that isn't in force yet.
    pub fn missing_body(&self) -> Option<Hash> {
        let have = self.body.as_ref().map(|body| body.hash);
        (have != Some(self.head.body)).then_some(self.head.body)
    }
}

/// What came of a head that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Older than what is held, or the same.
    Old,
    /// Newer, with the body that is in force.
    Renewed,
    /// Newer, and what it says differs: another body, or a goodbye.
    Changed,
    /// Another head with the same place as the one held: its key is in use
    /// twice (S10). The one held stands.
    Conflict,
}

/// The newest head of each node: the truth about gossip on this node. It never
/// goes backwards (S2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadTable {
    known: BTreeMap<NodeId, Known>,
}

impl HeadTable {
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Known)> {
        self.known.iter()
    }

    pub fn get(&self, node: &NodeId) -> Option<&Known> {
        self.known.get(node)
    }

    /// The first node's from this id on.
    pub fn first_from(&self, node: &NodeId) -> Option<&Known> {
        let (_, known) = self.known.range(*node..).next()?;
        Some(known)
    }

    /// Takes a head that [`open`] accepted. `now` is when it arrived; `None`
    /// for one that is read from disk.
    pub fn offer(&mut self, head: Head, sealed: Sealed, now: Option<Duration>) -> Offer {
        let Some(known) = self.known.get_mut(&head.node) else {
            let node = head.node;
            let known = Known {
                head,
                sealed,
                body: None,
                heard: now,
                ledger_caught_up: false,
            };
            self.known.insert(node, known);
            return Offer::Changed;
        };
        if head.order() < known.head.order() {
            return Offer::Old;
        }
        if head.order() == known.head.order() {
            return if head == known.head {
                // Read from disk at start, then heard from a peer: it may be
                // stale news of a dead node, so it makes nobody live.
                Offer::Old
            } else {
                Offer::Conflict
            };
        }
        let changed = head.body != known.head.body
            || head.generation != known.head.generation
            || (head.lease_ms == 0) != (known.head.lease_ms == 0);
        let returns = now.is_some_and(|now| !known.is_live(now));
        if returns || head.generation != known.head.generation {
            known.ledger_caught_up = false;
        }
        let changed = changed || returns;
        known.head = head;
        known.sealed = sealed;
        known.heard = now.or(known.heard);
        if changed {
            Offer::Changed
        } else {
            Offer::Renewed
        }
    }

    /// Takes the body that a node's head names, at `now` (monotonic); false when
    /// it isn't that.
    pub fn put_body(&mut self, node: &NodeId, bytes: Vec<u8>, now: Duration) -> bool {
        let Some(known) = self.known.get_mut(node) else {
            return false;
        };
        if bytes.len() != known.head.body_len as usize
            || known.missing_body() != Some(Hash::of(&bytes))
        {
            return false;
        }
        match Body::parse(bytes) {
            Some(body) => {
                let since = Some(now);
                known.body = Some(Arc::new(Body { since, ..body }));
                true
            }
            None => false,
        }
    }

    /// Puts a body in force that an older head named: what is known of a node
    /// from disk stays in force until its newest body arrives.
    pub fn restore_body(&mut self, node: &NodeId, bytes: Vec<u8>) {
        if let Some(known) = self.known.get_mut(node)
            && known.body.is_none()
        {
            known.body = Body::parse(bytes).map(Arc::new);
        }
    }

    /// Forgets all nodes but these.
    pub fn retain(&mut self, is_known: impl Fn(&NodeId) -> bool) {
        self.known.retain(|node, _| is_known(node));
    }

    /// Marks each node that was heard and whose position `reached` confirms.
    /// Returns whether any is new.
    pub fn compare(&mut self, reached: impl Fn(&Position) -> bool) -> bool {
        let mut any = false;
        for known in self.known.values_mut() {
            any |= known.compare(&reached);
        }
        any
    }

    /// As [`Self::compare`], for one node.
    pub fn compare_one(&mut self, node: &NodeId, reached: impl Fn(&Position) -> bool) -> bool {
        let known = self.known.get_mut(node);
        known.is_some_and(|known| known.compare(reached))
    }

    /// Gives every node `pause` more: this observer itself stood still, so its
    /// silence says nothing of others (Lifeguard, arXiv 1707.00788). Those that
    /// were heard since are as fresh as at `now`, and no fresher.
    pub fn excuse(&mut self, pause: Duration, now: Duration) {
        for known in self.known.values_mut() {
            known.heard = known.heard.map(|heard| (heard + pause).min(now));
        }
    }

    /// The next moment after `now` at which some node stops being live.
    pub fn next_expiry(&self, now: Duration) -> Option<Duration> {
        self.known
            .values()
            .filter_map(Known::expires)
            .filter(|at| *at > now)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(generation: u64, seq: u64, body: &[u8]) -> Head {
        Head {
            node: NodeId([2; 16]),
            generation,
            seq,
            lease_ms: 4500,
            body: Hash::of(body),
            body_len: body.len() as u32,
            position: Position {
                index: 0,
                hash: Hash::default(),
            },
            clock_ms: 0,
        }
    }

    fn sealed() -> Sealed {
        Sealed {
            bytes: vec![1],
            signature: crate::crypto::Signature::from_bytes(&[0; 64]),
        }
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_larger_mesh_may_lose_more_renewals() {
        for (nodes, ms) in [
            (1, 4500),
            (50, 4500),
            (200, 18_000),
            (250, 30_000),
            (500, 75_000),
            (1000, 75_000),
        ] {
            assert_eq!(lease_ms(nodes), ms, "{nodes} nodes");
        }
        assert!(lease_ms(usize::MAX) <= MAX_LEASE_MS);
    }

    #[test]
    fn the_table_never_goes_backwards() {
        let mut table = HeadTable::default();
        assert_eq!(
            table.offer(head(1, 5, b""), sealed(), Some(at(0))),
            Offer::Changed
        );
        assert_eq!(
            table.offer(head(1, 4, b"x"), sealed(), Some(at(1))),
            Offer::Old
        );
        assert_eq!(
            table.offer(head(1, 5, b""), sealed(), Some(at(2))),
            Offer::Old
        );
        assert_eq!(
            table.offer(head(1, 5, b"x"), sealed(), Some(at(2))),
            Offer::Conflict
        );
        assert_eq!(
            table.offer(head(1, 6, b""), sealed(), Some(at(3))),
            Offer::Renewed
        );
        assert_eq!(
            table.offer(head(2, 1, b""), sealed(), Some(at(4))),
            Offer::Changed
        );
        assert_eq!(table.get(&NodeId([2; 16])).unwrap().head.order(), (2, 1));
    }

    #[test]
    fn a_node_is_live_while_its_head_is_fresh_and_a_replayed_head_refreshes_nothing() {
        let mut table = HeadTable::default();
        let node = NodeId([2; 16]);
        table.offer(head(1, 1, b""), sealed(), Some(at(0)));
        table.offer(head(1, 1, b""), sealed(), Some(at(4000)));
        assert!(table.get(&node).unwrap().is_live(at(4499)));
        assert!(!table.get(&node).unwrap().is_live(at(4500)));
        assert_eq!(table.next_expiry(at(0)), Some(at(4500)));
        table.excuse(at(1000), at(9000));
        assert!(table.get(&node).unwrap().is_live(at(5000)));
    }

    #[test]
    fn a_node_that_is_forgotten_leaves_nothing_behind() {
        let mut table = HeadTable::default();
        table.offer(head(1, 5, b""), sealed(), Some(at(0)));
        let before = table.clone();
        table.retain(|node| *node == NodeId([2; 16]));
        assert_eq!(table, before);
        table.retain(|_| false);
        assert_eq!(table, HeadTable::default());
    }

    #[test]
    fn what_was_read_from_disk_is_not_live() {
        let mut table = HeadTable::default();
        table.offer(head(1, 1, b""), sealed(), None);
        assert!(!table.get(&NodeId([2; 16])).unwrap().is_live(at(0)));
    }

    #[test]
    fn a_body_is_taken_only_if_the_head_names_it() {
        let announcement = Announcement {
            version: "1".into(),
            ..Announcement::default()
        };
        let body = announcement.encode();
        let mut table = HeadTable::default();
        let node = NodeId([2; 16]);
        table.offer(head(1, 1, &body), sealed(), Some(at(0)));
        assert!(!table.put_body(&node, Announcement::default().encode(), Duration::ZERO));
        assert!(table.put_body(&node, body, Duration::ZERO));
        let known = table.get(&node).unwrap();
        assert_eq!(*known.body.as_ref().unwrap().announcement, announcement);
        assert_eq!(known.missing_body(), None);
    }

    #[test]
    fn an_exit_says_by_which_address_families_it_leads_to_the_internet() {
        let announcement = Announcement {
            exit: Some(ExitWays {
                ipv4: true,
                ipv6: false,
            }),
            ..Announcement::default()
        };
        let read = Announcement::decode(&announcement.encode());
        assert_eq!(read, Some(announcement));
    }

    #[test]
    fn a_node_that_has_secondaries_says_which_serial_they_were_given() {
        for zone_serial in [None, Some(0), Some(u32::MAX)] {
            let announcement = Announcement {
                zone_serial,
                ..Announcement::default()
            };
            let read = Announcement::decode(&announcement.encode());
            assert_eq!(read, Some(announcement));
        }
    }

    #[test]
    fn what_a_service_speaks_is_said_or_follows_from_its_port() {
        let label = |text: &str| text.parse::<Label>().unwrap();
        let instance = |port| Instance {
            port,
            protocol: Protocol::Tcp,
            address: None,
            healthy: true,
        };
        let announcement = Announcement {
            services: [(label("a"), instance(443)), (label("b"), instance(8443))].into(),
            types: [(label("b"), "https".parse().unwrap())].into(),
            ..Announcement::default()
        };
        let read = Announcement::decode(&announcement.encode()).unwrap();
        assert_eq!(read, announcement);
        for (name, port, spoken) in [("a", 443, true), ("b", 8443, true), ("c", 8443, false)] {
            let said = read.service_type(&label(name), &instance(port));
            assert_eq!(said.is_some_and(|it| it.is_https()), spoken, "{name}");
        }
        let bad: BTreeMap<Label, String> = [(label("b"), "not a type".to_owned())].into();
        let items = vec![Item {
            kind: kind::TYPES,
            data: codec::encode(&bad),
        }];
        let read = Announcement::decode(&codec::encode(&items));
        assert_eq!(read, Some(Announcement::default()));
    }

    #[test]
    fn unknown_and_malformed_items_block_no_other() {
        let items = vec![
            Item {
                kind: 999,
                data: vec![1, 2, 3],
            },
            Item {
                kind: kind::QUIC,
                data: vec![9, 9],
            },
            Item {
                kind: kind::VERSION,
                data: codec::encode(&"7".to_string()),
            },
        ];
        assert_eq!(
            Announcement::decode(&codec::encode(&items))
                .unwrap()
                .version,
            "7"
        );
    }

    #[test]
    fn where_devices_find_a_gateway_is_a_place_on_the_network_or_nothing() {
        let announcement = Announcement {
            endpoint: "gw.example.org:51820".parse().ok(),
            ..Announcement::default()
        };
        let read = Announcement::decode(&announcement.encode());
        assert_eq!(read, Some(announcement));
        let bad = "gw.example.org:51820\nPostUp = reboot".to_owned();
        let items = vec![Item {
            kind: kind::ENDPOINT,
            data: codec::encode(&bad),
        }];
        let read = Announcement::decode(&codec::encode(&items)).unwrap();
        assert_eq!(read.endpoint, None);
    }

    #[test]
    fn nobody_can_point_others_at_their_own_loopback() {
        let announcement = Announcement {
            quic: vec![
                "127.0.0.1:5".parse().unwrap(),
                "192.0.2.1:5".parse().unwrap(),
            ],
            services: BTreeMap::from([(
                "x".parse().unwrap(),
                Instance {
                    port: 1,
                    protocol: Protocol::Tcp,
                    address: Some("127.0.0.1".parse().unwrap()),
                    healthy: true,
                },
            )]),
            ..Announcement::default()
        };
        let read = Announcement::decode(&announcement.encode()).unwrap();
        assert_eq!(read.quic, ["192.0.2.1:5".parse().unwrap()]);
        assert_eq!(read.services.values().next().unwrap().address, None);
    }
}
