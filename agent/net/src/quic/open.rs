//! Opens the transport that a host's network has.

use std::sync::Arc;

use super::{
    error::TransportError,
    over_quinn::Quinn,
    transport::{Messages, Settings, Transport},
};
use crate::host::Host;

impl Transport {
    /// Opens the one that `host`'s network has. Peers are answered from
    /// [`serve`](super::TransportBackend::serve) on.
    ///
    /// # Errors
    /// [`TransportError`]; nothing was changed.
    pub fn open(host: &Host, settings: Settings) -> Result<Self, TransportError> {
        let messages = host.net.messages();
        match messages
            .as_deref()
            .and_then(|m| m.downcast_ref::<Messages>())
        {
            Some(Messages(messages)) => messages.open(host, settings),
            None => Self::quic(host, settings),
        }
    }

    /// Opens one over quinn, on a UDP socket of `host`'s network.
    ///
    /// # Errors
    /// [`TransportError`]; nothing was changed.
    pub fn quic(host: &Host, settings: Settings) -> Result<Self, TransportError> {
        Ok(Self::new(Arc::new(Quinn::open(host, settings)?)))
    }
}
