//! Encrypted datagrams on their way out, one behind the other, so that those for one
//! place are sent by one call.

use std::net::SocketAddr;

use crate::limits;

/// Sends datagrams.
pub trait Wire {
    /// `bytes` are datagrams of `segment` bytes each, the last of which may be shorter.
    fn transmit(&mut self, to: SocketAddr, segment: usize, bytes: &[u8]);

    /// How many of them go at once; 1 where the network can't cut them.
    fn segments(&self) -> usize {
        limits::BURST_SEGMENTS
    }
}

/// The datagrams that wait, all for one place.
pub(crate) struct Outgoing {
    buffer: Box<[u8]>,
    used: usize,
    burst: Option<Burst>,
}

struct Burst {
    to: SocketAddr,
    segment: usize,
    count: usize,
    /// Whether one was shorter, after which none fits.
    is_ended: bool,
}

impl Outgoing {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; limits::OUTGOING_BYTES].into_boxed_slice(),
            used: 0,
            burst: None,
        }
    }

    /// Room for a datagram of `length` bytes, behind those that wait.
    pub(crate) fn room(&mut self, length: usize, wire: &mut impl Wire) -> &mut [u8] {
        if self.used + length > self.buffer.len() {
            self.flush(wire);
        }
        self.buffer.get_mut(self.used..).unwrap_or_default()
    }

    /// Takes the datagram of `length` bytes that was written into the room.
    pub(crate) fn push(&mut self, to: SocketAddr, length: usize, wire: &mut impl Wire) {
        let joins = self.burst.as_ref().is_some_and(|burst| {
            burst.to == to
                && !burst.is_ended
                && length <= burst.segment
                && burst.count < wire.segments()
                && self.used + length <= limits::BURST_BYTES
        });
        if !joins {
            let from = self.used;
            self.flush(wire);
            // What is new moves to the front; seldom, as bursts are long.
            self.buffer.copy_within(from..from + length, 0);
            self.burst = Some(Burst {
                to,
                segment: length,
                count: 0,
                is_ended: false,
            });
        }
        if let Some(burst) = &mut self.burst {
            burst.count += 1;
            burst.is_ended = length < burst.segment;
        }
        self.used += length;
    }

    /// Sends a datagram that was made elsewhere.
    pub(crate) fn send(&mut self, to: SocketAddr, bytes: &[u8], wire: &mut impl Wire) {
        let room = self.room(bytes.len(), wire);
        if let Some(place) = room.get_mut(..bytes.len()) {
            place.copy_from_slice(bytes);
            self.push(to, bytes.len(), wire);
        }
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self, wire: &mut impl Wire) {
        if let Some(burst) = self.burst.take()
            && let Some(bytes) = self.buffer.get(..self.used)
        {
            wire.transmit(burst.to, burst.segment, bytes);
        }
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Sent(Vec<(SocketAddr, usize, Vec<u8>)>);

    impl Wire for Sent {
        fn transmit(&mut self, to: SocketAddr, segment: usize, bytes: &[u8]) {
            self.0.push((to, segment, bytes.to_vec()));
        }
    }

    #[test]
    fn datagrams_of_one_length_to_one_place_go_together_and_a_shorter_one_ends_them() {
        let mut outgoing = Outgoing::new();
        let mut wire = Sent::default();
        let here: SocketAddr = ([10, 0, 0, 1], 1).into();
        let there: SocketAddr = ([10, 0, 0, 2], 1).into();
        for (to, bytes) in [
            (here, &[1; 100][..]),
            (here, &[2; 100]),
            (here, &[3; 40]),
            (here, &[4; 40]),
            (there, &[5; 40]),
            (there, &[6; 50]),
        ] {
            outgoing.send(to, bytes, &mut wire);
        }
        outgoing.flush(&mut wire);
        outgoing.flush(&mut wire);
        let shapes: Vec<_> = wire
            .0
            .iter()
            .map(|(to, segment, bytes)| (*to, *segment, bytes.len()))
            .collect();
        assert_eq!(
            shapes,
            [
                (here, 100, 240),
                (here, 40, 40),
                (there, 40, 40),
                (there, 50, 50)
            ]
        );
        assert_eq!(wire.0[0].2[100..102], [2, 2]);
        assert_eq!(wire.0[1].2[0], 4);
    }

    #[test]
    fn no_burst_is_greater_than_what_the_kernel_takes() {
        let mut outgoing = Outgoing::new();
        let mut wire = Sent::default();
        for length in [1000, 1312, 9000] {
            for _ in 0..200 {
                outgoing.send(([10, 0, 0, 1], 1).into(), &vec![7; length], &mut wire);
            }
        }
        outgoing.flush(&mut wire);
        let total: usize = wire.0.iter().map(|(_, _, bytes)| bytes.len()).sum();
        assert_eq!(total, 200 * (1000 + 1312 + 9000));
        for (_, segment, bytes) in &wire.0 {
            assert!(bytes.len() <= limits::BURST_BYTES);
            assert!(bytes.len().div_ceil(*segment) <= limits::BURST_SEGMENTS);
        }
    }
}
