//! The zones that are transferred, and to whom. All that answers, tells and publishes
//! shares this one value.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use innermesh_host::{Clock, DatagramSender, Mono};
use innermesh_proto::{limits, name::Label, zone::DomainName};
use tokio::sync::{Notify, watch};

use super::{
    super::places::Places,
    journal::{ServedZone, ZoneContent},
    message::{Message, Tsig},
    notify::Notifier,
    report::{Copy, Fetched, ZoneReport},
    secondary::{Grant, Secondary},
};

/// How many serials that an address was given are remembered: it may ask from one
/// before the last, where it couldn't keep that.
const GIVEN: usize = 16;

/// Zone transfers of this node.
pub struct Transfers {
    clock: Arc<dyn Clock>,
    grants: watch::Sender<Vec<Arc<Grant>>>,
    zones: ArcSwap<BTreeMap<DomainName, Arc<ServedZone>>>,
    copies: Mutex<BTreeMap<(Label, DomainName), Copy>>,
    notifier: Mutex<Notifier>,
    /// Something is to be sent.
    wake: Notify,
    senders: Mutex<BTreeMap<SocketAddr, Arc<dyn DatagramSender>>>,
    pub(super) places: Places,
}

impl Transfers {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            grants: watch::Sender::default(),
            zones: ArcSwap::default(),
            copies: Mutex::default(),
            notifier: Mutex::default(),
            wake: Notify::new(),
            senders: Mutex::default(),
            places: Places::new(limits::TRANSFERS, limits::TRANSFERS_PER_ADDRESS),
        })
    }

    /// These may copy the zones from now on, and no others: transfers to those end at
    /// once. A secondary that is new or has changed is notified of all zones.
    pub fn grant(&self, secondaries: Vec<Secondary>) {
        let before = self.grants.borrow().clone();
        let mut fresh = Vec::new();
        let grants: Vec<Arc<Grant>> = secondaries
            .into_iter()
            .map(|secondary| {
                let same = before.iter().find(|grant| grant.secondary == secondary);
                same.cloned().unwrap_or_else(|| {
                    let grant = Arc::new(Grant::new(secondary, self.now()));
                    fresh.push(grant.clone());
                    grant
                })
            })
            .collect();
        let is_kept = |name: &Label| {
            let mut kept = grants
                .iter()
                .filter(|grant| !fresh.iter().any(|new| Arc::ptr_eq(new, grant)));
            kept.any(|grant| grant.secondary.name == *name)
        };
        lock(&self.copies).retain(|(name, _), _| is_kept(name));
        let (zones, now) = (self.zones.load(), self.now());
        let mut notifier = lock(&self.notifier);
        notifier.keep(&grants);
        self.grants.send_replace(grants);
        for grant in &fresh {
            for zone in zones.values() {
                tell(&mut notifier, grant, zone, now);
            }
        }
        drop(notifier);
        if self.grants.borrow().is_empty() {
            self.zones.store(Arc::default());
        }
        self.wake.notify_one();
    }

    /// Whether anybody may copy the zones.
    pub fn has_secondaries(&self) -> bool {
        !self.grants.borrow().is_empty()
    }

    /// What differs of what is transferred.
    pub fn changed(&self, content: Vec<ZoneContent>) -> Vec<ZoneContent> {
        let zones = self.zones.load();
        let is_new = |content: &ZoneContent| {
            let served = zones.get(&content.origin);
            served.is_none_or(|served| !served.content.is_same(content))
        };
        content.into_iter().filter(is_new).collect()
    }

    /// Transfers no zones any more but these.
    pub fn retain(&self, origins: &BTreeSet<DomainName>) {
        let zones = self.zones.load_full();
        if zones.keys().any(|origin| !origins.contains(origin)) {
            let mut kept = (*zones).clone();
            kept.retain(|origin, _| origins.contains(origin));
            self.zones.store(Arc::new(kept));
        }
    }

    /// Transfers these from now on, each with a serial of its own, and tells all who
    /// may have them.
    pub fn publish(&self, changed: Vec<(ZoneContent, u32)>) {
        if changed.is_empty() || !self.has_secondaries() {
            return;
        }
        let mut zones = (**self.zones.load()).clone();
        let mut fresh = Vec::new();
        for (content, serial) in changed {
            let zone = match zones.get(&content.origin) {
                Some(before) => before.followed_by(content, serial),
                None => ServedZone::new(content, serial),
            };
            let zone = Arc::new(zone);
            zones.insert(zone.content.origin.clone(), zone.clone());
            fresh.push(zone);
        }
        self.zones.store(Arc::new(zones));
        let (grants, now) = (self.grants.borrow().clone(), self.now());
        let mut notifier = lock(&self.notifier);
        for grant in &grants {
            for zone in &fresh {
                tell(&mut notifier, grant, zone, now);
            }
        }
        drop(notifier);
        self.wake.notify_one();
    }

    /// Sends what is to be sent, for as long as it is polled.
    pub async fn notify(&self) {
        loop {
            let due = lock(&self.notifier).take_due(self.now(), self.wall_s());
            for outgoing in due {
                let sender = self.sender(outgoing.from);
                let sent = sender.map(|(sender, from)| {
                    let from = from.is_unspecified().then_some(outgoing.from.ip());
                    sender.send(&outgoing.bytes, outgoing.to, from)
                });
                if !matches!(sent, Some(Ok(()))) {
                    tracing::debug!(to = %outgoing.to, ?sent, "a NOTIFY was not sent");
                }
            }
            let next = lock(&self.notifier).next_due();
            tokio::select! {
                () = self.wake.notified() => {}
                () = self.until(next) => {}
            }
        }
    }

    /// How it stands with each secondary's copies.
    pub fn report(&self, secondary: &Secondary) -> Vec<ZoneReport> {
        let zones = self.zones.load();
        let grants = self.grants.borrow().clone();
        let grant = grants
            .iter()
            .find(|grant| grant.secondary.name == secondary.name);
        let since = grant.map_or(self.now(), |grant| grant.since);
        let (copies, notifier) = (lock(&self.copies), lock(&self.notifier));
        let zones = zones
            .values()
            .filter(|zone| secondary.may_have(&zone.content.origin));
        zones
            .map(|zone| {
                let key = (secondary.name.clone(), zone.content.origin.clone());
                let copy = copies.get(&key);
                ZoneReport {
                    serial: zone.serial,
                    fetched: copy.and_then(|copy| copy.fetched),
                    asked: copy.and_then(|copy| copy.asked),
                    since,
                    notice: notifier.state(&key.0, &key.1),
                    zone: key.1,
                }
            })
            .collect()
    }

    /// Has what is sent from there go out by this.
    pub(in crate::dns) fn listens(&self, at: SocketAddr, sender: Arc<dyn DatagramSender>) {
        lock(&self.senders).insert(at, sender);
        self.wake.notify_one();
    }

    pub(in crate::dns) fn listens_no_more(&self, addresses: &[SocketAddr]) {
        lock(&self.senders).retain(|at, _| !addresses.contains(at));
    }

    pub(super) fn now(&self) -> Mono {
        self.clock.now()
    }

    pub(super) fn wall_s(&self) -> u64 {
        self.clock.wall_ms() / 1000
    }

    /// Whether a secondary may be there.
    pub(super) fn is_known(&self, source: IpAddr) -> bool {
        let grants = self.grants.borrow();
        grants.iter().any(|grant| grant.secondary.is_at(source))
    }

    /// Who has signed so, from where.
    pub(super) fn grant_of(&self, tsig: &Tsig<'_>, source: IpAddr) -> Option<Arc<Grant>> {
        let grants = self.grants.borrow();
        let mut signed = grants.iter().filter(|grant| grant.signed(tsig, source));
        signed.next().cloned()
    }

    pub(super) fn has(&self, grant: &Arc<Grant>) -> bool {
        self.grants
            .borrow()
            .iter()
            .any(|one| Arc::ptr_eq(one, grant))
    }

    pub(super) async fn until_without(&self, grant: &Arc<Grant>) {
        let mut grants = self.grants.subscribe();
        let gone = |grants: &Vec<Arc<Grant>>| !grants.iter().any(|one| Arc::ptr_eq(one, grant));
        // It fails when the service ends.
        let _ = grants.wait_for(gone).await;
    }

    pub(super) fn zone(&self, origin: &DomainName) -> Option<Arc<ServedZone>> {
        self.zones.load().get(origin).cloned()
    }

    /// Whether no zone is transferred yet.
    pub fn is_empty(&self) -> bool {
        self.zones.load().is_empty()
    }

    pub(super) fn take_answer(&self, message: &Message<'_>, source: SocketAddr) {
        let wall_s = self.wall_s();
        lock(&self.notifier).take_answer(message, source, wall_s);
    }

    pub(super) fn was_asked(&self, grant: &Grant, zone: &ServedZone) {
        let now = self.now();
        self.change_copy(grant, zone, |copy| copy.asked = Some(now));
    }

    /// It has what there is.
    pub(super) fn is_current(&self, grant: &Grant, zone: &ServedZone) {
        let (now, serial) = (self.now(), zone.serial);
        self.change_copy(grant, zone, |copy| {
            if copy.fetched.is_none_or(|fetched| fetched.serial != serial) {
                copy.fetched = Some(Fetched {
                    at: now,
                    serial,
                    is_whole: false,
                    bytes: 0,
                });
            }
        });
    }

    /// Whether it has that serial from this node.
    pub(super) fn gave(
        &self,
        grant: &Grant,
        source: IpAddr,
        zone: &ServedZone,
        serial: u32,
    ) -> bool {
        let mut gave = false;
        self.change_copy(grant, zone, |copy| {
            gave = copy
                .given
                .get(&source)
                .is_some_and(|given| given.contains(&serial));
        });
        gave
    }

    pub(super) fn fetched(
        &self,
        grant: &Grant,
        source: IpAddr,
        zone: &ServedZone,
        fetched: Fetched,
    ) {
        self.change_copy(grant, zone, |copy| {
            copy.fetched = Some(fetched);
            let given = copy.given.entry(source).or_default();
            given.push_back(fetched.serial);
            if given.len() > GIVEN {
                given.pop_front();
            }
        });
    }

    fn change_copy(&self, grant: &Grant, zone: &ServedZone, change: impl FnOnce(&mut Copy)) {
        let key = (grant.secondary.name.clone(), zone.content.origin.clone());
        change(lock(&self.copies).entry(key).or_default());
    }

    /// What sends from there, and where that is bound.
    fn sender(&self, from: SocketAddr) -> Option<(Arc<dyn DatagramSender>, IpAddr)> {
        let senders = lock(&self.senders);
        let any: IpAddr = if from.is_ipv4() {
            [0, 0, 0, 0].into()
        } else {
            [0u16; 8].into()
        };
        let places = [from, SocketAddr::new(any, from.port())];
        places
            .iter()
            .find_map(|at| Some((senders.get(at)?.clone(), at.ip())))
    }

    async fn until(&self, at: Option<Mono>) {
        match at {
            Some(at) => {
                let pause = at.saturating_sub(self.now());
                // Never twice in a moment.
                self.clock.sleep(pause.max(Duration::from_millis(1))).await;
            }
            None => std::future::pending().await,
        }
    }
}

fn tell(notifier: &mut Notifier, grant: &Arc<Grant>, zone: &ServedZone, now: Mono) {
    let origin = &zone.content.origin;
    if grant.secondary.may_have(origin) {
        let soa = zone.content.encode_soa(zone.serial);
        notifier.tell(grant, origin, &soa, now);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here panics half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
