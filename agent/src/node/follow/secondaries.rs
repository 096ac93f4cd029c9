//! Has secondaries copy what the mesh's zones say now: each change gets a serial, is
//! written down, and is told to them.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use innermesh_proto::{view::MeshView, zone::DomainName};
use tokio::sync::watch;

use crate::{
    dns::{Dns, ZoneContent},
    host::{Host, Mono, bucket::Bucket},
    node::{
        follow::dns::BesideListeners,
        shared::{
            announce::Announcer, handles::Handles, secondaries::Secondaries, zone::ZonePublisher,
        },
    },
};

/// How long what comes in bursts is gathered before it is given a serial.
const GATHER: Duration = Duration::from_millis(20);
/// How many serials there may be at once, and in an hour: each has every secondary told
/// of it, ask, and be given it. One change after another waits for nothing; a zone that
/// changes all the time has one every 400 ms.
const SERIALS: u64 = 4;
const SERIALS_PER_HOUR: u64 = 9_000;
/// How long a zone may lack what isn't known yet, after a start or when a service is
/// new. Then what is known counts: a service's node may be away for good.
const INCOMPLETE: Duration = Duration::from_secs(10);
/// How soon it is tried again to listen, or to write.
const AGAIN: Duration = Duration::from_secs(5);

/// Follows the zone for as long as the agent runs.
pub(crate) struct SecondaryKeeper {
    host: Host,
    dns: Arc<Dns>,
    view: watch::Sender<Arc<MeshView>>,
    zone: ZonePublisher,
    announcer: Announcer,
    secondaries: Arc<Secondaries>,
    listeners: BesideListeners,
    /// Since when the zone lacks something.
    incomplete: Option<Mono>,
    serials: Bucket,
    /// Whether this is the first zone since there are secondaries here.
    had_secondaries: bool,
}

impl SecondaryKeeper {
    pub fn new(
        node: &Handles,
        zone: ZonePublisher,
        announcer: Announcer,
        listeners: BesideListeners,
    ) -> Self {
        let secondaries = zone.secondaries.clone();
        Self {
            had_secondaries: !secondaries.list().is_empty(),
            host: node.host.clone(),
            dns: zone.dns.clone(),
            view: node.view.clone(),
            zone,
            announcer,
            secondaries,
            listeners,
            incomplete: None,
            serials: Bucket::default(),
        }
    }

    pub async fn run(mut self) {
        let clock = self.host.clock.clone();
        let transfers = self.dns.transfers().clone();
        self.host
            .tasks
            .spawn(async move { transfers.notify().await });
        loop {
            let wanted = self.secondaries.list();
            let wanted: BTreeSet<SocketAddr> =
                wanted.iter().map(|secondary| secondary.listen).collect();
            let listens = self.listeners.listen(wanted).await;
            if !self.dns.transfers().has_secondaries() {
                self.had_secondaries = false;
                self.announce();
                self.secondaries.changed.notified().await;
                continue;
            }
            let is_done = self.take_in().await;
            self.announce();
            let wait = self.serials.wait(1, SERIALS, SERIALS_PER_HOUR, clock.now());
            clock.sleep(wait).await;
            tokio::select! {
                () = self.zone.news.notified() => {}
                () = self.secondaries.changed.notified() => {}
                () = clock.sleep(AGAIN), if !(listens && is_done) => {}
            }
            clock.sleep(GATHER).await;
        }
    }

    /// Takes in what the zones say now; whether all of that is done.
    async fn take_in(&mut self) -> bool {
        let zone = self.dns.zone();
        let now = self.host.clock.now();
        if zone.is_complete() {
            self.incomplete = None;
        } else if now < *self.incomplete.get_or_insert(now) + INCOMPLETE {
            return false;
        }
        let transfers = self.dns.transfers().clone();
        let content = ZoneContent::of(&zone);
        let origins: BTreeSet<DomainName> =
            content.iter().map(|zone| zone.origin.clone()).collect();
        transfers.retain(&origins);
        let changed = transfers.changed(content);
        if changed.is_empty() {
            return true;
        }
        self.serials.take(1, SERIALS_PER_HOUR, now);
        // What this node said before it had secondaries counts too.
        let floor = (!self.had_secondaries).then(|| self.zone.serial.last());
        let announced = self.announced();
        match self.secondaries.number(changed, floor, &announced).await {
            Ok(numbered) => {
                self.had_secondaries = true;
                transfers.publish(numbered);
                if let Some(latest) = self.secondaries.latest() {
                    self.zone.serial.raise(latest);
                }
                self.zone.publish_quietly();
                true
            }
            Err(error) => {
                tracing::warn!(%error, "secondaries don't get what is new, as its serial can't be written");
                false
            }
        }
    }

    /// The serials that other nodes say their secondaries were given.
    fn announced(&self) -> BTreeSet<u32> {
        let view = self.view.borrow();
        let others = view.nodes.iter().filter(|(node, _)| **node != view.me);
        others
            .filter_map(|(_, seen)| seen.announcement.zone_serial)
            .collect()
    }

    fn announce(&self) {
        let latest = self.secondaries.latest();
        let is_new = self.announcer.zone_serial.send_if_modified(|announced| {
            let is_new = *announced != latest;
            *announced = latest;
            is_new
        });
        if is_new {
            self.announcer.announce();
        }
    }
}
