//! The devices that made a handshake with this node lately, as it announces them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use innermesh_proto::{
    ledger::device::{DeviceId, DeviceSeen},
    tunnel::TunnelKey,
};

use crate::host::Mono;

/// One device, as the tunnel's device has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// By which of its keys.
    pub key: TunnelKey,
    /// When it made its newest handshake.
    pub handshake: Mono,
    pub endpoint: Option<SocketAddr>,
    /// Bytes received from it.
    pub rx: u64,
    /// Bytes sent to it.
    pub tx: u64,
}

/// What was seen at the last look, and whether the others are to hear of it.
#[derive(Default)]
pub(crate) struct DevicesSeen(Mutex<State>);

#[derive(Default)]
struct State {
    seen: BTreeMap<DeviceId, Seen>,
    has_news: bool,
}

impl DevicesSeen {
    /// Replaces what was seen before.
    pub fn set(&self, seen: BTreeMap<DeviceId, Seen>, has_news: bool) {
        let mut state = self.lock();
        state.seen = seen;
        state.has_news |= has_news;
    }

    pub fn get(&self, device: &DeviceId) -> Option<Seen> {
        self.lock().seen.get(device).copied()
    }

    /// What there is to announce in place of `announced`: that again, where nothing
    /// is new, so that ages alone are no reason to. Ages are those at `now`: who
    /// hears them counts on from there.
    pub fn to_announce(
        &self,
        announced: &BTreeMap<DeviceId, DeviceSeen>,
        now: Mono,
        is_told_anyway: bool,
    ) -> BTreeMap<DeviceId, DeviceSeen> {
        let mut state = self.lock();
        if !state.has_news && !is_told_anyway {
            return announced.clone();
        }
        state.has_news = false;
        let told = state.seen.iter().map(|(device, seen)| {
            let told = DeviceSeen {
                key: seen.key,
                age_s: age_s(*seen, now),
                endpoint: seen.endpoint,
                received: seen.rx,
                sent: seen.tx,
            };
            (*device, told)
        });
        told.collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds since its newest handshake.
pub(crate) fn age_s(seen: Seen, now: Mono) -> u32 {
    let age: Duration = now.saturating_sub(seen.handshake);
    u32::try_from(age.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_secs(seconds)
    }

    #[test]
    fn an_age_is_announced_as_of_now_and_is_no_news_by_itself() {
        let seen = DevicesSeen::default();
        let id = DeviceId([1; 16]);
        let one = Seen {
            key: TunnelKey([2; 32]),
            handshake: at(10),
            endpoint: None,
            rx: 1,
            tx: 2,
        };
        seen.set([(id, one)].into(), true);
        let first = seen.to_announce(&BTreeMap::new(), at(13), false);
        assert_eq!(first[&id].age_s, 3);
        seen.set([(id, one)].into(), false);
        assert_eq!(seen.to_announce(&first, at(50), false), first);
        // A head that is announced for another reason has the age of its time.
        assert_eq!(seen.to_announce(&first, at(50), true)[&id].age_s, 40);
        seen.set(BTreeMap::new(), true);
        assert!(seen.to_announce(&first, at(51), false).is_empty());
    }
}
