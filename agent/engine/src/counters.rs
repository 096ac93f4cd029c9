//! What was dropped, by its reason.

/// Datagrams and packets that went nowhere, since the engine is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that are no message of the protocol, or not for this key.
    pub malformed: u64,
    /// Messages of sessions and keys that aren't known.
    pub unknown: u64,
    /// Messages that came before, or whose place in the window is gone.
    pub replayed: u64,
    /// Messages that don't decrypt.
    pub forged: u64,
    /// Packets of a peer from an address that isn't its own.
    pub spoofed: u64,
    /// Handshakes beyond what a source may ask for under load.
    pub limited: u64,
    /// Handshakes that were answered by a cookie instead.
    pub cookies: u64,
    /// Packets from the interface for an address that no peer has.
    pub unrouted: u64,
    /// Packets for a peer of which no address is known, or whose queue was full.
    pub unsent: u64,
    /// Frames from the interface that are no IP packets.
    pub bad_frames: u64,
}
