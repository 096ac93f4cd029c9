//! Requests about devices: WireGuard clients without an agent, such as phones.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
};

use innermesh_host::UnixTime;
use innermesh_proto::{name::Label, tunnel::HostPort};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    error::{ControlError, ErrorCode},
    request::{Done, requests},
};

requests! {
    /// What is asked about devices.
    DevicesRequest {
        looks GET "/v1/devices": List(DeviceListRequest) -> Vec<DeviceRow>,
        // It has the pre-shared key, where this node can read it.
        changes GET "/v1/devices/{name}": Show(DeviceShowRequest) -> DeviceConfigured,
        changes POST "/v1/devices": Add(DeviceAddRequest) -> DeviceConfigured
            where DeviceAddRequest::validate,
        changes POST "/v1/device-keys": Renew(DeviceRenewRequest) -> DeviceConfigured
            where DeviceRenewRequest::validate,
        changes POST "/v1/device-names": Rename(DeviceRenameRequest) -> Done,
        changes DELETE "/v1/devices/{name}": Rm(DeviceRmRequest) -> DeviceRemoved,
    }
}

/// All devices of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceListRequest {}

/// One device, with its configuration but for the private key, which nobody has
/// but itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceShowRequest {
    pub name: Label,
}

/// Adds a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceAddRequest {
    pub name: Label,
    /// Its WireGuard key, in base64.
    pub public_key: String,
    /// The node that it belongs to; this one without it.
    #[serde(default)]
    pub owner: Option<Label>,
    /// Nodes by which it comes in, each a configuration of its own; the mesh's own
    /// choice where empty.
    #[serde(default)]
    pub gateways: Vec<Label>,
    /// Networks behind gateways that it reaches by the tunnel.
    #[serde(default)]
    pub routes: Vec<IpNet>,
    /// Whether everything goes by the tunnel.
    #[serde(default)]
    pub full_tunnel: bool,
    /// Whether it asks the mesh's resolver for names.
    #[serde(default = "yes")]
    pub dns: bool,
    #[serde(default)]
    pub groups: Vec<Label>,
    /// Seconds until it ends by itself; never without it.
    #[serde(default)]
    pub ttl_s: Option<u64>,
}

impl DeviceAddRequest {
    fn validate(&self) -> Result<(), ControlError> {
        no_default_route(&self.routes)
    }
}

/// Gives a device another key. The one before ends when the new one is first used.
/// What isn't said stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRenewRequest {
    pub name: Label,
    /// Its new WireGuard key, in base64.
    pub public_key: String,
    #[serde(default)]
    pub gateways: Option<Vec<Label>>,
    #[serde(default)]
    pub routes: Option<Vec<IpNet>>,
    #[serde(default)]
    pub full_tunnel: Option<bool>,
    #[serde(default)]
    pub dns: Option<bool>,
    /// Seconds until it ends by itself.
    #[serde(default)]
    pub ttl_s: Option<u64>,
}

impl DeviceRenewRequest {
    fn validate(&self) -> Result<(), ControlError> {
        no_default_route(self.routes.as_deref().unwrap_or_default())
    }
}

/// Everything by the tunnel is another thing than a network behind a gateway, and
/// has a switch of its own.
fn no_default_route(routes: &[IpNet]) -> Result<(), ControlError> {
    match routes.iter().find(|net| net.prefix_len() == 0) {
        Some(net) => {
            let why = format!(
                "{net} is everything, which --full-tunnel is for; give the networks that the device is \
                 to reach"
            );
            Err(ControlError::new(ErrorCode::Invalid, why))
        }
        None => Ok(()),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRenameRequest {
    pub name: Label,
    pub to: Label,
}

/// Takes a device out of the mesh, and cuts it off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRmRequest {
    pub name: Label,
}

/// One row of `device list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRow {
    pub name: String,
    /// Stays the same when its name or its key changes.
    pub id: String,
    /// Its full name.
    pub fqdn: String,
    /// The node that it belongs to.
    pub owner: String,
    pub addresses: Vec<IpAddr>,
    pub groups: Vec<String>,
    /// Its WireGuard key, in base64.
    pub key: String,
    /// Nodes that it has a configuration for.
    pub gateways: Vec<String>,
    /// The one that it comes in by now; null where it was not seen within three
    /// minutes.
    pub gateway: Option<String>,
    /// Seconds since it made a handshake there.
    pub seen_s: Option<u64>,
    /// Where from.
    pub endpoint: Option<SocketAddr>,
    /// Bytes that the gateway received from it.
    pub rx_bytes: u64,
    /// Bytes that the gateway sent to it.
    pub tx_bytes: u64,
    pub routes: Vec<IpNet>,
    pub full_tunnel: bool,
    pub dns: bool,
    pub added: UnixTime,
    /// When it ends by itself; null for never.
    pub expires: Option<UnixTime>,
    /// Whether it has yet to use its new key; the one before counts until then.
    pub renewing: bool,
    /// Whether it is cut off until the ledger has removed it, or the node that it
    /// belongs to.
    #[serde(default)]
    pub suspended: bool,
    /// Why what it was last configured with is no longer right; empty where it is.
    pub stale: Vec<String>,
}

/// A device and what to configure it with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceConfigured {
    pub device: DeviceRow,
    /// One for each gateway, the one to use first first.
    pub configurations: Vec<DeviceConfiguration>,
    /// What may keep it from working.
    pub warnings: Vec<String>,
}

/// What a device is configured with for one gateway, but for its private key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceConfiguration {
    /// Name of the gateway.
    pub gateway: String,
    pub addresses: Vec<IpAddr>,
    /// Resolvers; none where it keeps its own.
    pub dns: Vec<IpAddr>,
    /// Search domain; it goes with the resolvers.
    pub domain: String,
    /// The gateway's WireGuard key, in base64.
    pub gateway_key: String,
    /// In base64; null where only the gateway can read it.
    pub preshared_key: Option<String>,
    pub allowed_ips: Vec<IpNet>,
    pub endpoint: HostPort,
}

/// What becomes of a device that is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRemoved {
    pub name: String,
    /// Whether the ledger has it. Otherwise it is cut off by a hold, until the
    /// ledger can be asked.
    pub removed: bool,
}

/// Seconds between a device's keepalives: 25 keeps every usual NAT mapping.
const KEEPALIVE_S: u16 = 25;

/// In place of a private key that stays on the device.
pub const OWN_PRIVATE_KEY: &str =
    "# PrivateKey = the one of this device, which has never been anywhere else";
/// In place of a pre-shared key that cannot be read here.
pub const SECRET_ELSEWHERE: &str =
    "# PresharedKey = only the gateway has it: run `agent device show` there";

impl DeviceConfiguration {
    /// As WireGuard's apps and wg-quick read it; a placeholder stands for a private
    /// key that isn't given.
    #[must_use]
    pub fn text(&self, private_key: Option<&str>) -> String {
        let mut out = String::from("[Interface]\n");
        match private_key {
            Some(key) => line(&mut out, "PrivateKey", key),
            None => out.push_str(&format!("{OWN_PRIVATE_KEY}\n")),
        }
        let addresses = self.addresses.iter().copied().map(IpNet::from);
        line(&mut out, "Address", &list(addresses));
        if !self.dns.is_empty() {
            let servers = self.dns.iter().map(ToString::to_string);
            let domain = std::iter::once(self.domain.clone());
            line(&mut out, "DNS", &list(servers.chain(domain)));
        }
        out.push_str("[Peer]\n");
        line(&mut out, "PublicKey", &self.gateway_key);
        match &self.preshared_key {
            Some(key) => line(&mut out, "PresharedKey", key),
            None => out.push_str(&format!("{SECRET_ELSEWHERE}\n")),
        }
        line(&mut out, "AllowedIPs", &list(&self.allowed_ips));
        line(&mut out, "Endpoint", &self.endpoint.to_string());
        line(&mut out, "PersistentKeepalive", &KEEPALIVE_S.to_string());
        out
    }
}

fn line(out: &mut String, key: &str, value: &str) {
    // Writing to a string doesn't fail.
    let _ = writeln!(out, "{key} = {value}");
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|it| it.to_string()).collect();
    items.join(", ")
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration() -> DeviceConfiguration {
        DeviceConfiguration {
            gateway: "gw".into(),
            addresses: vec![
                "10.48.122.200".parse().unwrap(),
                "fd2e:4b1c:77aa:0:8d3f:21c4:9b70:55e1".parse().unwrap(),
            ],
            dns: vec![
                "10.48.0.53".parse().unwrap(),
                "fd2e:4b1c:77aa::53".parse().unwrap(),
            ],
            domain: "in.example.org".into(),
            gateway_key: "g".repeat(44),
            preshared_key: Some("p".repeat(44)),
            allowed_ips: vec![
                "10.48.0.0/16".parse().unwrap(),
                "fd2e:4b1c:77aa::/48".parse().unwrap(),
            ],
            endpoint: "gw.example.org:51820".parse().unwrap(),
        }
    }

    #[test]
    fn a_configuration_reads_as_wireguard_apps_read_it_and_fits_a_small_code() {
        let text = configuration().text(Some(&"k".repeat(44)));
        let wanted = format!(
            "[Interface]\n\
             PrivateKey = {}\n\
             Address = 10.48.122.200/32, fd2e:4b1c:77aa:0:8d3f:21c4:9b70:55e1/128\n\
             DNS = 10.48.0.53, fd2e:4b1c:77aa::53, in.example.org\n\
             [Peer]\n\
             PublicKey = {}\n\
             PresharedKey = {}\n\
             AllowedIPs = 10.48.0.0/16, fd2e:4b1c:77aa::/48\n\
             Endpoint = gw.example.org:51820\n\
             PersistentKeepalive = 25\n",
            "k".repeat(44),
            "g".repeat(44),
            "p".repeat(44),
        );
        assert_eq!(text, wanted);
        // What a QR code of version 13-L holds, which is 77 columns wide.
        assert!(text.len() <= 425, "{} bytes", text.len());
    }

    #[test]
    fn without_dns_the_device_keeps_its_own_and_what_is_unknown_is_a_comment() {
        let configuration = DeviceConfiguration {
            dns: Vec::new(),
            preshared_key: None,
            ..configuration()
        };
        let text = configuration.text(None);
        assert!(!text.contains("DNS"), "{text}");
        assert!(text.contains(OWN_PRIVATE_KEY) && text.contains(SECRET_ELSEWHERE));
        assert!(!text.contains("\nPrivateKey") && !text.contains("\nPresharedKey"));
    }

    #[test]
    fn everything_is_no_network_behind_a_gateway() {
        for net in ["0.0.0.0/0", "::/0"] {
            let error = no_default_route(&[net.parse().unwrap()]).unwrap_err();
            assert!(error.message.contains("--full-tunnel"), "{error:?}");
        }
        no_default_route(&["0.0.0.0/1".parse().unwrap()]).unwrap();
    }
}
