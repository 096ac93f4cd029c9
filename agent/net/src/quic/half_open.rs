//! Addresses whose handshakes began here and never ended: their packets arrive, and
//! what this node answers doesn't come back to them, or they are no agents.

use std::{collections::BTreeMap, net::IpAddr, sync::Mutex, time::Duration};

use crate::host::Mono;

/// Most addresses that are remembered.
const MOST: usize = 256;
/// How long one is: longer than the dialer's pauses.
const REMEMBERED: Duration = Duration::from_secs(120);

#[derive(Default)]
pub(super) struct HalfOpen(Mutex<BTreeMap<IpAddr, Mono>>);

impl HalfOpen {
    /// A handshake from there wasn't finished in time. Whoever makes addresses up
    /// displaces others: it is a hint, and nothing is decided by it.
    pub(super) fn note(&self, from: IpAddr, now: Mono) {
        let mut seen = self.0.lock().unwrap_or_else(|e| e.into_inner());
        seen.retain(|_, at| now < at.saturating_add(REMEMBERED));
        if seen.len() >= MOST && !seen.contains_key(&from) {
            let oldest = seen.iter().min_by_key(|(_, at)| **at);
            let Some(oldest) = oldest.map(|(ip, _)| *ip) else {
                return;
            };
            seen.remove(&oldest);
        }
        seen.insert(from, now);
    }

    pub(super) fn recent(&self, now: Mono) -> Vec<IpAddr> {
        let mut seen = self.0.lock().unwrap_or_else(|e| e.into_inner());
        seen.retain(|_, at| now < at.saturating_add(REMEMBERED));
        seen.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_remembered_for_a_while_and_never_too_many() {
        let seen = HalfOpen::default();
        let at = |s| Duration::from_secs(s);
        let ip = |n: u16| IpAddr::from([0, 0, 0, 0, 0, 0, 1, n]);
        for n in 0..400 {
            seen.note(ip(n), at(u64::from(n) / 100));
        }
        let recent = seen.recent(at(4));
        assert_eq!(recent.len(), MOST);
        assert!(recent.contains(&ip(399)) && !recent.contains(&ip(0)));
        assert!(seen.recent(at(4) + REMEMBERED).is_empty());
    }
}
