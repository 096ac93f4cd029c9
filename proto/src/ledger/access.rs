//! What rules 4 brought to the state.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    device::{Device, DeviceId},
    policy::PolicyInForce,
};
use crate::{id::NodeId, map::Map, tunnel::TunnelKey};

/// Facts that rules 4 brought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Access {
    pub devices: Map<DeviceId, Device>,
    /// Devices by their keys, by the next ones too.
    pub device_keys: Map<TunnelKey, DeviceId>,
    /// Devices by their IPv4 addresses.
    pub device_addresses: Map<Ipv4Addr, DeviceId>,
    /// Networks beside the overlay, and the gateways that bring them.
    pub routes: Map<IpNet, BTreeSet<NodeId>>,
    pub policy: PolicyInForce,
}
