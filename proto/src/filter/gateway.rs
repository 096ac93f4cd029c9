//! What a gateway forwards: devices' packets within the tunnel, and packets
//! between the tunnel and networks beside it.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::host::Lan;
use crate::limits;

/// What a node with the role `gateway` lets pass besides what is for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayFilter {
    /// Overlay addresses of the devices that the mesh reaches by this node.
    #[serde(default)]
    pub devices: BTreeSet<IpAddr>,
    /// Networks that this node announces, as far as an interface leads there.
    #[serde(default)]
    pub lans: BTreeSet<Lan>,
}

impl GatewayFilter {
    /// Whether what was read from a file keeps every bound.
    pub(super) fn is_bounded(&self) -> bool {
        self.devices.len() <= limits::DEVICES * 2
            && self.lans.len() <= limits::GATEWAY_LANS
            && self.lans.iter().all(|lan| is_narrow(&lan.net))
    }
}

/// Whether a network can be one beside the overlay: none that is half the world.
pub(super) fn is_narrow(net: &IpNet) -> bool {
    *net == net.trunc() && net.prefix_len() >= 8
}
