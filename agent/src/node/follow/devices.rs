//! Watches the devices that come in by this node: who made a handshake is
//! announced, so that the others send to it by this gateway, and a device that
//! uses its next key has the ledger drop the one before.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use innermesh_proto::{
    id::NodeId,
    ledger::{
        Content,
        device::{ChangeDevice, DeviceChange, DeviceId},
    },
    limits,
    tunnel::TunnelKey,
    view::MeshView,
};
use tokio::sync::watch;

use crate::{
    host::{Host, Mono, until_next},
    ledger::client::Client,
    node::shared::{
        announce::Announcer,
        devices_seen::{DevicesSeen, Seen},
        handles::Handles,
    },
    tunnel::{Tunnel, TunnelState},
};

/// How often the tunnel's device is looked at, which says nothing by itself.
const LOOK: Duration = Duration::from_secs(1);
/// A WireGuard session takes no packets any more from then on (whitepaper §6.1):
/// the device isn't here.
const SESSION: Duration = Duration::from_secs(180);
/// How often bytes and times are told where nothing else is new.
const TELL: Duration = Duration::from_secs(60);
/// Ages are told in whole seconds, and clocks may be set: a handshake is a new one
/// from this much later on.
const LATER: Duration = Duration::from_secs(2);
/// How long the ledger may take to drop a key.
const PATIENCE: Duration = Duration::from_secs(15);

/// Watches devices, for as long as the agent runs.
pub(crate) struct DeviceWatch {
    host: Host,
    me: NodeId,
    view: watch::Sender<Arc<MeshView>>,
    client: Client,
    tunnel: Arc<dyn Tunnel>,
    announcer: Announcer,
    seen: Arc<DevicesSeen>,
    /// New keys that the ledger is being told of.
    switching: Arc<Mutex<BTreeSet<TunnelKey>>>,
}

/// Which device has a key, and whether it is the one that replaces another.
type Keys = BTreeMap<TunnelKey, (DeviceId, bool)>;

impl DeviceWatch {
    pub fn new(node: &Handles, tunnel: Arc<dyn Tunnel>, announcer: Announcer) -> Self {
        Self {
            host: node.host.clone(),
            me: node.me,
            view: node.view.clone(),
            client: node.client.clone(),
            tunnel,
            seen: announcer.devices.clone(),
            announcer,
            switching: Arc::default(),
        }
    }

    pub async fn run(self) {
        let clock = self.host.clock.clone();
        let mut views = self.view.subscribe();
        let mut log = Log::default();
        loop {
            let view = views.borrow_and_update().clone();
            let keys = keys_here(&view);
            if keys.is_empty() && log.told.is_empty() {
                if views.changed().await.is_err() {
                    return;
                }
                continue;
            }
            if let Ok(state) = self.tunnel.observe().await {
                let now = clock.now();
                let seen = readings(&keys, &state, now);
                let is_here = |device: &DeviceId| {
                    let home = view.device_home(device);
                    home.is_some_and(|home| home.gateway == self.me)
                };
                let has_news = log.take(&seen, now, is_here);
                self.seen.set(seen, has_news);
                if has_news {
                    self.announcer.announce();
                }
                self.switch(&keys, &state);
            }
            clock.sleep(until_next(LOOK, clock.now())).await;
        }
    }

    /// Has the ledger drop what a key replaces that is in use.
    fn switch(&self, keys: &Keys, state: &TunnelState) {
        for (key, (device, is_next)) in keys {
            let seen = state.peers.get(key).and_then(|peer| peer.last_handshake);
            if !is_next || seen.is_none_or(|age| age >= SESSION) {
                continue;
            }
            let switching = self.switching.clone();
            if !lock(&switching).insert(*key) {
                continue;
            }
            let (client, key) = (self.client.clone(), *key);
            let content = Content::ChangeDevice(Box::new(ChangeDevice {
                device: *device,
                change: DeviceChange::Switched(key),
            }));
            self.host.tasks.spawn(async move {
                if let Err(error) = client.ask(&content, PATIENCE).await {
                    tracing::warn!(%error, "a device's old key counts still; trying again");
                }
                lock(&switching).remove(&key);
            });
        }
    }
}

fn lock(keys: &Mutex<BTreeSet<TunnelKey>>) -> std::sync::MutexGuard<'_, BTreeSet<TunnelKey>> {
    keys.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keys of the devices that are configured for this node.
fn keys_here(view: &MeshView) -> Keys {
    let mut keys = Keys::new();
    for (id, device) in view.ledger.devices() {
        for (key, profile) in device.keys() {
            if profile.gateways.contains_key(&view.me) {
                keys.insert(key, (*id, key != device.key));
            }
        }
    }
    keys
}

/// The devices with a session here, each by the key that it used last.
fn readings(keys: &Keys, state: &TunnelState, now: Mono) -> BTreeMap<DeviceId, Seen> {
    let mut seen: BTreeMap<DeviceId, Seen> = BTreeMap::new();
    for (key, (device, _)) in keys {
        let Some(peer) = state.peers.get(key) else {
            continue;
        };
        let Some(age) = peer.last_handshake.filter(|age| *age < SESSION) else {
            continue;
        };
        let reading = Seen {
            key: *key,
            handshake: now.saturating_sub(age),
            endpoint: peer.endpoint,
            rx: peer.rx_bytes,
            tx: peer.tx_bytes,
        };
        let known = seen.entry(*device).or_insert(reading);
        if reading.handshake > known.handshake {
            *known = reading;
        }
    }
    // Of more than a head has room for, those that came last.
    let mut newest: Vec<Mono> = seen.values().map(|seen| seen.handshake).collect();
    newest.sort_unstable_by(|a, b| b.cmp(a));
    if let Some(first_out) = newest.get(limits::DEVICES_SEEN) {
        seen.retain(|_, seen| seen.handshake > *first_out);
    }
    seen
}

/// What the others were told.
#[derive(Default)]
struct Log {
    told: BTreeMap<DeviceId, Seen>,
    at: Mono,
}

impl Log {
    /// Whether the others are to hear at once of what is seen: a device came, went,
    /// changed its key, or made a handshake here since, while `is_here` has it
    /// elsewhere.
    fn take(
        &mut self,
        seen: &BTreeMap<DeviceId, Seen>,
        now: Mono,
        is_here: impl Fn(&DeviceId) -> bool,
    ) -> bool {
        let keys = |seen: &BTreeMap<DeviceId, Seen>| -> Vec<(DeviceId, TunnelKey)> {
            seen.iter()
                .map(|(device, seen)| (*device, seen.key))
                .collect()
        };
        let came_or_went = keys(seen) != keys(&self.told);
        let came_back = seen.iter().any(|(device, seen)| {
            let told = self.told.get(device);
            told.is_some_and(|told| seen.handshake >= told.handshake + LATER) && !is_here(device)
        });
        let is_due = now >= self.at + TELL && *seen != self.told;
        let has_news = came_or_went || came_back || is_due;
        if has_news {
            self.told.clone_from(seen);
            self.at = now;
        }
        has_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::PeerState;

    const PHONE: DeviceId = DeviceId([1; 16]);

    fn at(seconds: u64) -> Mono {
        Mono::from_secs(seconds)
    }

    fn seen(handshake: u64) -> BTreeMap<DeviceId, Seen> {
        let seen = Seen {
            key: TunnelKey([1; 32]),
            handshake: at(handshake),
            endpoint: None,
            rx: 0,
            tx: 0,
        };
        [(PHONE, seen)].into()
    }

    #[test]
    fn the_others_hear_when_a_device_comes_comes_back_and_goes() {
        let mut log = Log::default();
        let (here, elsewhere) = (|_: &DeviceId| true, |_: &DeviceId| false);
        assert!(log.take(&seen(1000), at(1001), here));
        assert!(!log.take(&seen(1000), at(1002), here));
        // A handshake more of one that is here anyway is no news.
        assert!(!log.take(&seen(1010), at(1011), here));
        // It was at another gateway meanwhile.
        assert!(log.take(&seen(1010), at(1012), elsewhere));
        assert!(!log.take(&seen(1010), at(1013), elsewhere));
        assert!(log.take(&BTreeMap::new(), at(1014), here));
    }

    #[test]
    fn a_handshake_of_long_ago_takes_a_device_back_from_nobody() {
        let mut log = Log::default();
        assert!(log.take(&seen(1000), at(1001), |_| false));
        for second in 1002..1060 {
            assert!(!log.take(&seen(1000), at(second), |_| false), "{second}");
        }
    }

    #[test]
    fn bytes_are_told_now_and_then() {
        let mut log = Log::default();
        let mut now = seen(1000);
        assert!(log.take(&now, at(1001), |_| true));
        now.get_mut(&PHONE).unwrap().rx = 7;
        assert!(!log.take(&now, at(1002), |_| true));
        assert!(log.take(&now, at(1061), |_| true));
        assert!(!log.take(&now, at(1200), |_| true));
    }

    #[test]
    fn of_two_keys_the_one_that_was_used_last_counts_and_old_sessions_do_not() {
        let (old, new) = (TunnelKey([1; 32]), TunnelKey([2; 32]));
        let keys = [(old, (PHONE, false)), (new, (PHONE, true))].into();
        let state = |old_age: u64, new_age: Option<u64>| {
            let peer = |age: Option<u64>, rx_bytes| PeerState {
                last_handshake: age.map(Duration::from_secs),
                rx_bytes,
                ..PeerState::default()
            };
            TunnelState {
                peers: [(old, peer(Some(old_age), 1)), (new, peer(new_age, 2))].into(),
                ..TunnelState::default()
            }
        };
        let rx = |state: &TunnelState| {
            let seen = readings(&keys, state, at(1000));
            seen.get(&PHONE).map(|seen| (seen.rx, seen.handshake))
        };
        assert_eq!(rx(&state(50, None)), Some((1, at(950))));
        assert_eq!(rx(&state(50, Some(3))), Some((2, at(997))));
        assert_eq!(rx(&state(180, None)), None);
    }

    #[test]
    fn a_head_has_room_for_those_that_came_last() {
        let most = limits::DEVICES_SEEN;
        let number = |n: usize| u16::try_from(n).unwrap().to_le_bytes();
        let keys: Keys = (0..most + 10)
            .map(|n| {
                let (mut key, mut id) = ([9; 32], [9; 16]);
                key[..2].copy_from_slice(&number(n));
                id[..2].copy_from_slice(&number(n));
                (TunnelKey(key), (DeviceId(id), false))
            })
            .collect();
        let peers = keys.keys().enumerate().map(|(n, key)| {
            let age = Duration::from_millis(n as u64 * 100);
            let peer = PeerState {
                last_handshake: Some(age),
                ..PeerState::default()
            };
            (*key, peer)
        });
        let state = TunnelState {
            peers: peers.collect(),
            ..TunnelState::default()
        };
        let seen = readings(&keys, &state, at(1000));
        assert_eq!(seen.len(), most);
        let oldest = seen.values().map(|seen| seen.handshake).min().unwrap();
        assert_eq!(
            oldest,
            at(1000) - Duration::from_millis((most as u64 - 1) * 100)
        );
    }
}
