mod cookies;
pub(in crate::dns) mod corpus;
mod logged;
mod strangers;
mod upstream;
mod zone;

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_host::{Clock, Mono, tasks::Tasks};
use innermesh_proto::zone::{LanAddresses, Zone, ZoneInput};

use super::*;
use crate::dns::{Served, Source};

pub(super) const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 66));
pub(super) const TELEVISION: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 9));
pub(in crate::dns) const MEMBER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 1));

/// Stands still but for what a test adds; waits are real.
#[derive(Default)]
pub(super) struct StillClock(pub AtomicU64);

#[async_trait]
impl Clock for StillClock {
    fn now(&self) -> Mono {
        Duration::from_secs(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
    fn wall_ms(&self) -> u64 {
        1_000_000_000_000
    }
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

pub(in crate::dns) fn served(input: &ZoneInput) -> Served {
    Served {
        zone: Arc::new(Zone::build(input)),
        lan: Some(Arc::new(Zone::build(&of_lan(input)))),
        sources: Arc::new(|source: IpAddr| {
            if source == STRANGER {
                Source::Stranger
            } else if source == TELEVISION {
                Source::Lan
            } else {
                Source::Internal
            }
        }),
    }
}

fn of_lan(input: &ZoneInput) -> ZoneInput {
    let address = IpAddr::from([192, 168, 1, 7]);
    let lan = LanAddresses {
        own: [address].into(),
        reached: [("a".parse().unwrap(), [address].into())].into(),
    };
    let nets = ["192.168.1.0/24".parse().unwrap()];
    input.clone().for_lan(&lan, &nets)
}

pub(super) fn dns(input: &ZoneInput, clock: Arc<StillClock>) -> Dns {
    let zone = Zone::build(input);
    let dns = Dns::new(clock, Tasks::default(), || zone, input.ipv4, input.ula);
    let served = served(input);
    dns.publish(|| served);
    dns
}
