//! What comes by relays, and what ways are chosen by.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use innermesh_proto::{
    codec,
    head::Announcement,
    id::NodeId,
    limits,
    message::{Punch, TunnelPlace},
    pair_key::{Brought, Reply, Request, Statement},
    path::{Frame, Halves, Heard, LaneUrl, Output, Selector, Via, lane},
};

/// A frame, what it completes, and the small messages that go with it.
pub fn relayed(bytes: &[u8]) {
    let mut halves = Halves::default();
    if let Some(frame) = Frame::decode(bytes) {
        assert_eq!(Frame::decode(&frame.encode()), Some(frame));
        for node in [frame.node, NodeId([1; 16]), frame.node] {
            if let Some(whole) = halves.take(node, frame.part, frame.bytes) {
                assert!(whole.len() <= 2 * bytes.len());
            }
        }
    }
    let _ = codec::decode::<Punch>(bytes, limits::RPC_BYTES);
    let _ = codec::decode::<TunnelPlace>(bytes, limits::RPC_BYTES);
    if let Some(said) = Announcement::decode(bytes) {
        assert!(said.places.candidates.len() <= limits::CANDIDATES);
    }
}

/// The steps of two nodes towards a pre-shared key, and what is signed in them.
pub fn pair_key(bytes: &[u8]) {
    if let Ok(Request::Said(said)) = codec::decode(bytes, limits::RPC_BYTES) {
        let _ = said.peek::<Statement>(limits::RPC_BYTES);
    }
    let _ = codec::decode::<Reply>(bytes, limits::RPC_BYTES);
    let _ = codec::decode::<Brought>(bytes, limits::RPC_BYTES);
    let _ = codec::decode::<Statement>(bytes, limits::RPC_BYTES);
}

/// A message of a lane, and the URL of one.
pub fn lane(bytes: &[u8]) {
    if let Some(found) = lane::datagrams(bytes) {
        let again = found.into_iter().flat_map(|range| {
            let datagram = &bytes[range];
            let header = lane::header(datagram).expect("it was read");
            [&header[..], datagram].concat()
        });
        assert_eq!(again.collect::<Vec<u8>>(), bytes);
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(url) = text.parse::<LaneUrl>()
    {
        let written = url.to_string();
        assert!(written.len() <= limits::LANE_URL_BYTES && written.is_ascii());
        assert!(!written.contains(char::is_whitespace));
        assert_eq!(written.parse(), Ok(url));
    }
}

/// A selector under any events: only ways that something came by are used (S30), each
/// event leads to a bounded number of packets (S31), and no timer stands still.
pub fn way(bytes: &[u8]) {
    let mut selector = Selector::new(0);
    let mut now = Duration::ZERO;
    let mut heard = BTreeSet::new();
    for event in bytes.chunks_exact(3) {
        let [kind, a, b] = event else { return };
        let via = match a % 6 {
            0 => Via::Relay,
            _ => Via::Direct(address(*a)),
        };
        match kind % 9 {
            0 => now += Duration::from_millis(u64::from(*a) * u64::from(*b)),
            1 => {
                let candidates: Vec<SocketAddr> = (*a..*b).map(address).collect();
                selector.set_remote(&candidates, b % 2 == 0, now);
            }
            2 => selector.handshake(None, now),
            3 => {
                let _ = selector.punch(now);
            }
            4 => selector.traffic(Some(now), None, now),
            5 => {
                let since = now.saturating_sub(Duration::from_millis(u64::from(*a) * 20));
                selector.traffic(None, Some(since), now);
            }
            kind => {
                let what = match kind {
                    6 => Heard::Traffic,
                    7 => Heard::Probe(u64::from(*b)),
                    _ => Heard::Reply(u64::from(*b)),
                };
                heard.insert(via);
                selector.heard(via, what, now);
            }
        }
        selector.handle_timeout(now);
        let mut sent = 0;
        while let Some(output) = selector.poll_output() {
            sent += 1;
            if let Output::Use(via) = output {
                assert!(heard.contains(&via), "{via:?}");
            }
        }
        assert!(sent <= MOST, "{sent}");
        assert!(selector.poll_timeout().is_none_or(|at| at > now));
        let in_use = selector.in_use();
        assert!(in_use.is_none_or(|via| heard.contains(&via)), "{in_use:?}");
    }
}

/// A round of a hunt, and three times everywhere.
const MOST: usize = limits::CANDIDATES + limits::REFLEXIVE + 3 * 8;

fn address(n: u8) -> SocketAddr {
    let net = if n.is_multiple_of(2) {
        [10, 0]
    } else {
        [198, 51]
    };
    ([net[0], net[1], 100, n / 8], 51820).into()
}
