//! The seam between the interface and what carries its packets: a WireGuard
//! device, in the kernel, in this process or in memory.

use std::{collections::BTreeMap, io, time::Duration};

use async_trait::async_trait;
use innermesh_proto::{
    path::Way,
    tunnel::{InstalledPeer, Step, TunnelKey},
};

use super::{PeerState, TunnelError};

/// A session outlives its handshake by at most this (REJECT_AFTER_TIME of the
/// WireGuard paper, section 6.1).
const SESSION: Duration = Duration::from_secs(180);

/// A WireGuard device behind an interface. It knows peers, and neither addresses
/// nor routes: those are the interface's on every device. Another engine comes
/// in here.
#[async_trait]
pub trait Device: Send + Sync {
    /// What `status` calls it: "kernel", "embedded", "none".
    fn name(&self) -> &'static str;

    /// The interface's MTU, so that no packet of its is longer on the wire than one of
    /// `most` bytes that isn't padded.
    fn mtu(&self, most: u32) -> u32 {
        most
    }

    /// The device as it is now.
    ///
    /// # Errors
    /// Where it can't be read.
    async fn read(&self) -> Result<Reading, TunnelError>;

    /// Takes `steps` in their order. A peer that stays is changed in place, and
    /// keeps its session.
    ///
    /// # Errors
    /// Steps before the error may have been taken.
    async fn take_steps(&mut self, steps: &[Step]) -> io::Result<()>;

    /// Has peers reached by these ways, where the device chooses among several. To be
    /// called after every change of peers.
    ///
    /// # Errors
    /// They are reached as before; calling again is fine.
    async fn set_ways(&mut self, ways: &BTreeMap<TunnelKey, Way>) -> io::Result<()> {
        let _ = ways;
        Ok(())
    }

    /// A peer looks for this node: what is sent to it now may meet what it sends.
    ///
    /// # Errors
    /// Nothing is sent.
    async fn punch(&self, key: TunnelKey) -> io::Result<()> {
        let _ = key;
        Ok(())
    }

    /// Gives the device another private key; its peers stay.
    ///
    /// # Errors
    /// It has the old one still; calling again is fine.
    async fn set_private_key(&mut self, private_key: [u8; 32]) -> io::Result<()>;

    /// Whether it gave up by itself and carries nothing any more: it has to be
    /// made anew.
    fn has_failed(&mut self) -> bool;

    /// Stops carrying packets. Its interface is deleted after that.
    async fn stop(self: Box<Self>);
}

/// A device as it is at one moment.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Its key, where it has one.
    pub public_key: Option<TunnelKey>,
    /// UDP port that it listens on; 0 before it has one.
    pub listen_port: u16,
    /// Its peers: what they were told to be, and what is seen of them.
    pub peers: BTreeMap<TunnelKey, (InstalledPeer, PeerState)>,
}

/// Whether a handshake of this age still makes a session.
pub(super) fn is_session(age: Duration) -> bool {
    age < SESSION
}
