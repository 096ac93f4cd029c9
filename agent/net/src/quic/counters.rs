//! What the transport counted since it was opened.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters since the transport was opened, for metrics and `status`.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
        pub struct Counters { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// Each with its name.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }

        #[derive(Debug, Default)]
        pub(super) struct Tally { $(pub(super) $name: Count,)* }

        impl Tally {
            pub(super) fn read(&self) -> Counters {
                Counters { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Handshakes by peers that succeeded.
    handshakes_accepted,
    /// Handshakes by peers that failed or took too long.
    handshakes_failed,
    /// Handshakes turned away because too many were under way, or the member
    /// has too many connections.
    handshakes_refused,
    /// Handshakes whose source had to prove its address first (QUIC Retry).
    retries_sent,
    /// Handshakes by this node that succeeded.
    dials,
    /// Handshakes by this node that failed.
    dials_failed,
    /// Lanes that were opened, by either end.
    lanes,
    /// TCP connections that became no lane: too slow, no WebSocket, or one too many.
    lanes_failed,
    /// Lanes that ended because what came wasn't of a lane.
    lanes_garbage,
    /// Datagrams that found no room on their lane.
    lane_datagrams_dropped,
    /// Connections closed because there were too many with strangers.
    strangers_refused,
    /// Connections with strangers closed because others had more right to their places.
    strangers_displaced,
    /// Connections closed because the stranger's time was up.
    strangers_expired,
    /// Connections closed because the peer's membership was revoked.
    revoked,
    /// Frames that couldn't be read.
    frames_malformed,
    /// Frames that were longer than allowed.
    frames_too_long,
    /// Frames that didn't arrive in time.
    frames_too_slow,
    /// Requests answered, well or not.
    requests,
    /// Requests and one-way messages turned away because their sender is not a member.
    not_member,
    /// Requests turned away because their sender had too many running.
    busy,
    /// Requests and one-way messages whose handler ran out of time.
    deadlines,
    /// One-way messages handed to the handler.
    notices_received,
    /// One-way messages put into a peer's queue.
    notices_queued,
    /// One-way messages dropped: no connection, a full queue, or a lost connection.
    notices_dropped,
    /// Datagrams dropped because their sender is not a member.
    datagrams_dropped,
}
