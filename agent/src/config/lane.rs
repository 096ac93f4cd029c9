//! `[lane]`: where a relay takes in lanes.

use std::net::SocketAddr;

use innermesh_proto::path::LaneUrl;
use serde::{Deserialize, Serialize};

use super::{
    ADDRESSES,
    values::{Address, with_port},
};

/// Where a proxy on this host finds the agent, unless said otherwise.
const PLAIN_PORT: u16 = 8443;
/// The one port that every network lets out.
const TLS_PORT: u16 = 443;

/// `[lane]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LaneConfig {
    /// Where lanes are taken in by plain HTTP, for a proxy that has TLS. See
    /// [`LaneConfig::listens`].
    listen: Vec<Address>,
    /// Where they are taken in by TLS, at port 443 unless said otherwise. See
    /// [`LaneConfig::listens_tls`].
    listen_tls: Vec<Address>,
    /// Where other nodes are told to dial; that of `listen_tls` without it.
    pub address: Option<LaneUrl>,
}

/// What of `[lane]` can't work.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaneConfigError {
    #[error(
        "`listen` of [lane] is for a proxy, and nobody knows where that is; set `address` of \
         [lane] to the URL that the proxy forwards, such as wss://relay.example.org/innermesh"
    )]
    NoAddress,
    #[error(
        "`address` of [lane] has no use where nothing listens; set `listen` or `listen_tls` of [lane]"
    )]
    NoListener,
    #[error("[lane] has port 0; choose one of 1 to 65535")]
    Port,
    #[error("[lane] has {0} addresses; at most {ADDRESSES} are used")]
    Many(usize),
}

impl LaneConfig {
    /// Where it listens without TLS.
    pub fn listens(&self) -> Vec<SocketAddr> {
        with_port(&self.listen, PLAIN_PORT)
    }

    /// Where it listens with TLS.
    pub fn listens_tls(&self) -> Vec<SocketAddr> {
        with_port(&self.listen_tls, TLS_PORT)
    }

    pub(super) fn check(&self) -> Result<(), LaneConfigError> {
        let (plain, tls) = (self.listens(), self.listens_tls());
        let count = plain.len() + tls.len();
        if count > ADDRESSES {
            return Err(LaneConfigError::Many(count));
        }
        if plain.iter().chain(&tls).any(|at| at.port() == 0) {
            return Err(LaneConfigError::Port);
        }
        match &self.address {
            Some(_) if count == 0 => Err(LaneConfigError::NoListener),
            None if tls.is_empty() && !plain.is_empty() => Err(LaneConfigError::NoAddress),
            _ => Ok(()),
        }
    }
}
