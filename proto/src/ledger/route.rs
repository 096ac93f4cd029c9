//! What is asked about networks that gateways bring.

#![allow(missing_docs, reason = "the names say it")]

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// A gateway is to bring a network, or no longer; from rules 4 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChange {
    pub net: IpNet,
    pub gateway: NodeId,
}
