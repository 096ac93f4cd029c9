//! What a node says of itself in the body of its head.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use crate::{
    codec, endpoint,
    hold::Hold,
    ledger::device::{DeviceId, DeviceSeen},
    limits,
    links::NamedLinks,
    name::Label,
    path::{LaneUrl, Places},
    service_address::is_service_address,
    tunnel::{HostPort, TunnelKey},
    zone::{Protocol, ServiceType},
};

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
    /// The links that it has with its neighbours; `None` where its build knows leases
    /// alone.
    pub links: Option<NamedLinks>,
    /// Where its tunnel may be found.
    pub places: Places,
    /// Where it takes in lanes; it counts where it is a relay.
    pub lane: Option<LaneUrl>,
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
    pub const LINKS: u16 = 16;
    pub const PLACES: u16 = 17;
    pub const LANE: u16 = 18;
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
        items.extend(
            self.links
                .iter()
                .map(|links| item(kind::LINKS, links.encode())),
        );
        if self.places != Places::default() {
            items.push(item(kind::PLACES, codec::encode(&self.places)));
        }
        items.extend(
            self.lane
                .iter()
                .map(|url| item(kind::LANE, codec::encode(url))),
        );
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
            kind::LINKS => self.links = Some(NamedLinks::decode(&item.data)?),
            kind::PLACES => {
                let places: Places = codec::decode(&item.data, limits::PLACES_BYTES).ok()?;
                self.places = places.bounded();
            }
            kind::LANE => {
                let limit = limits::LANE_URL_BYTES + 8;
                self.lane = Some(codec::decode(&item.data, limit).ok()?);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_node_names_its_links_and_one_of_an_older_build_has_no_word_of_them() {
        let links = NamedLinks {
            behind_nat: true,
            links: BTreeMap::from([(7, (1, 2)), (u64::MAX, (3, 4))]),
        };
        for links in [None, Some(NamedLinks::default()), Some(links)] {
            let announcement = Announcement {
                version: "1".into(),
                links,
                ..Announcement::default()
            };
            let read = Announcement::decode(&announcement.encode());
            assert_eq!(read, Some(announcement));
        }
        let many = Announcement {
            version: "1".into(),
            links: Some(NamedLinks {
                behind_nat: false,
                links: (0..9999).map(|peer| (peer, (1, 1))).collect(),
            }),
            ..Announcement::default()
        };
        assert_eq!(Announcement::decode(&many.encode()), None);
        // What fits a body and is too many counts as none, and the rest stands.
        let many = Announcement {
            links: many.links.map(|mut links| {
                links.links.retain(|peer, _| *peer < 65);
                links
            }),
            ..many
        };
        let read = Announcement::decode(&many.encode()).unwrap();
        assert_eq!((read.version.as_str(), read.links), ("1", None));
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
    fn where_lanes_begin_is_a_url_or_nothing() {
        let announcement = Announcement {
            lane: "wss://relay.example.org/innermesh".parse().ok(),
            ..Announcement::default()
        };
        assert!(announcement.lane.is_some());
        let read = Announcement::decode(&announcement.encode());
        assert_eq!(read, Some(announcement));
        for bad in ["relay.example.org", "wss://relay.example.org/\r\nHost: x"] {
            let items = vec![Item {
                kind: kind::LANE,
                data: codec::encode(&bad.to_owned()),
            }];
            let read = Announcement::decode(&codec::encode(&items)).unwrap();
            assert_eq!(read.lane, None, "{bad}");
        }
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
