//! What bounds the engine.

use std::time::Duration;

/// Bytes of one frame from the interface: an IP packet of the greatest length and the
/// header before it.
pub const FRAME_BYTES: usize = (1 << 16) + 64;
/// Bytes of encrypted datagrams that wait for the end of a batch.
pub const OUTGOING_BYTES: usize = 1 << 18;
/// Bytes of decrypted packets that wait for the end of a batch.
pub const DECRYPTED_BYTES: usize = 1 << 18;
/// Bytes that one call of the kernel may send: the greatest datagram over IPv4.
pub const BURST_BYTES: usize = 65_507;
/// Segments of one burst (the kernel's UDP_MAX_SEGMENTS).
pub const BURST_SEGMENTS: usize = 64;
/// Packets that are joined to one.
pub const JOINED: usize = 64;
/// Flows of a batch that are looked at for one that a packet continues.
pub const FLOWS: usize = 16;
/// Packets that wait for the first session with a peer, and their bytes; the oldest go
/// first.
pub const STAGED: usize = 128;
/// Bytes of those.
pub const STAGED_BYTES: usize = 256 << 10;
/// Handshakes a second from which on strangers must show a cookie (whitepaper §5.3).
pub const HANDSHAKES_PER_SECOND: u64 = 100;
/// First messages of handshakes that are remembered, to know their copies.
pub const INITIATIONS: usize = 64;
/// Events of peers whose way is chosen that wait to be taken.
pub const EVENTS: usize = 4096;
/// Headers of a frame that is cut, in bytes.
pub const HEADER_BYTES: usize = 256;
/// Timers are looked at no sooner than after this.
pub const TIMER_STEP: Duration = Duration::from_millis(1);
/// How long after a new pre-shared key a handshake by it begins.
pub const SOON: Duration = Duration::from_secs(1);
/// Padding, header and tag of a data message (whitepaper §5.4.6).
pub const OVERHEAD: usize = 32 + 15;
