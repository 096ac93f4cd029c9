//! Has a router map ports for as long as that is wanted: found, renewed, looked after, and
//! given back.

use std::{collections::BTreeMap, net::SocketAddrV4, time::Duration};

use futures_util::future::join_all;
use innermesh_proto::crypto::Hash;
use tokio::sync::{Mutex, watch};

use super::{Client, Gateway, MapError, Nonce, Protocol, Schedule, Speaks, Todo, Wanted};
use crate::{Host, Mono, until_next, within};

/// How often it is looked whether there is something to do.
const LOOK: Duration = Duration::from_secs(10);
/// How long giving all back may take.
const END: Duration = Duration::from_secs(2);

/// What a router maps, as it was last heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappings {
    /// Who was asked.
    pub gateway: Option<Gateway>,
    /// How it maps.
    pub protocol: Option<Protocol>,
    /// What it maps.
    pub ports: Vec<Mapped>,
    /// Why not all is mapped: by each protocol, or of each port.
    pub why: Vec<MapError>,
    /// When it is asked next, where nothing is mapped.
    pub next: Option<Mono>,
}

/// A port that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// This host's.
    pub port: u16,
    /// Where others find it.
    pub external: SocketAddrV4,
    /// When that ends; `None` once it is deleted.
    pub until: Option<Mono>,
}

impl Mappings {
    /// Where others find a port of this host.
    pub fn external(&self, port: u16) -> Option<SocketAddrV4> {
        let mapped = self.ports.iter().find(|mapped| mapped.port == port)?;
        Some(mapped.external)
    }
}

/// See the module.
pub struct Keeper {
    host: Host,
    client: Client,
    secret: Hash,
    told: watch::Sender<Mappings>,
    held: Mutex<Held>,
    ended: watch::Sender<bool>,
}

/// What a router may have been left with.
#[derive(Default)]
struct Held {
    schedule: Schedule,
    gateway: Option<Gateway>,
    speaks: Option<Speaks>,
    /// What it was asked to map, from before the question on.
    asked: BTreeMap<u16, Wanted>,
}

impl Keeper {
    /// `secret` is the same at each start, and nobody else's.
    pub fn new(host: &Host, secret: Hash, told: watch::Sender<Mappings>) -> Self {
        Self {
            host: host.clone(),
            client: Client::new(host),
            secret,
            told,
            held: Mutex::default(),
            ended: watch::Sender::new(false),
        }
    }

    /// Has these ports mapped until [`Keeper::end`]. The first is worth most.
    pub async fn run(&self, ports: &[u16]) {
        let mut ended = self.ended.subscribe();
        loop {
            let step = async {
                self.step(&mut *self.held.lock().await, ports).await;
                let now = self.host.clock.now();
                self.host.clock.sleep(until_next(LOOK, now)).await;
            };
            tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => return,
                () = step => {}
            }
        }
    }

    /// Gives back what is mapped, also what was just being asked for.
    pub async fn end(&self) {
        self.ended.send_replace(true);
        let giving = async {
            let held = std::mem::take(&mut *self.held.lock().await);
            let (Some(gateway), Some(speaks)) = (held.gateway, held.speaks) else {
                return;
            };
            let all = held.asked.values();
            let all = all.map(|wanted| self.client.unmap(&gateway, &speaks, wanted));
            for error in join_all(all).await.into_iter().filter_map(Result::err) {
                tracing::warn!(%error, "a port stays mapped at the router until its time is over");
            }
        };
        if within(&*self.host.clock, END, giving).await.is_none() {
            tracing::warn!("the router didn't say in time that its mappings are gone");
        }
        self.told.send_replace(Mappings::default());
    }

    async fn step(&self, held: &mut Held, ports: &[u16]) {
        let gateway = self.host.net.gateway().await;
        if gateway != held.gateway {
            // What another router mapped, or this one for another address, ends by itself.
            (held.gateway, held.speaks) = (gateway, None);
            held.asked.clear();
            self.told.send_replace(Mappings {
                gateway,
                ..Mappings::default()
            });
        }
        let now = self.host.clock.now();
        let todo = held.schedule.next(now, gateway);
        let Some(gateway) = gateway else { return };
        match todo {
            Todo::Wait => {}
            Todo::Find => self.find(held, &gateway, ports).await,
            Todo::Look => {
                if self.is_lost(held, &gateway).await {
                    self.renew(held, &gateway, ports).await;
                }
            }
            Todo::Renew => self.renew(held, &gateway, ports).await,
        }
        let next = held.schedule.next_find();
        self.told.send_if_modified(|told| {
            let is_new = told.next != next;
            told.next = next;
            is_new
        });
    }

    /// Asks by each protocol until one maps.
    async fn find(&self, held: &mut Held, gateway: &Gateway, ports: &[u16]) {
        // Why not before is told until it is known why not now.
        let before = self.told.borrow().why.clone();
        self.tell(None, Vec::new(), before);
        let mut all = Vec::new();
        for protocol in Protocol::ALL {
            let speaks = match protocol {
                Protocol::Pcp => Ok(Speaks::Pcp),
                Protocol::NatPmp => Ok(Speaks::NatPmp),
                Protocol::Upnp => {
                    let found = self.client.find(gateway, protocol).await;
                    found.map(|(speaks, _)| speaks)
                }
            };
            let mut why = match speaks {
                Ok(speaks) => {
                    held.speaks = Some(speaks);
                    match self.map(held, gateway, ports).await {
                        Ok(()) => return,
                        Err(why) => why,
                    }
                }
                Err(error) => vec![error],
            };
            // Each port has the same trouble, mostly.
            why.dedup();
            all.extend(why);
        }
        held.speaks = None;
        held.schedule.failed(self.host.clock.now());
        tracing::debug!(router = %gateway.router, ?all, "the router maps no port");
        self.tell(None, Vec::new(), all);
    }

    async fn renew(&self, held: &mut Held, gateway: &Gateway, ports: &[u16]) {
        let Err(why) = self.map(held, gateway, ports).await else {
            return;
        };
        let mut refused = why
            .iter()
            .filter(|why| matches!(why, MapError::Refused(..)));
        let Some(first) = refused.next().or(why.first()) else {
            return;
        };
        let now = self.host.clock.now();
        let stays = held.schedule.renewal_failed(now, first);
        tracing::info!(router = %gateway.router, error = %first, "ports couldn't be renewed");
        if !stays {
            self.tell(None, Vec::new(), why);
        }
    }

    /// Has all ports mapped, or renewed. What is mapped counts at once, also where others
    /// aren't; where none is, it is returned why.
    async fn map(
        &self,
        held: &mut Held,
        gateway: &Gateway,
        ports: &[u16],
    ) -> Result<(), Vec<MapError>> {
        let Some(speaks) = held.speaks.clone() else {
            return Err(Vec::new());
        };
        let before = self.told.borrow().ports.clone();
        let (mut now_mapped, mut granted, mut why) = (Vec::new(), Vec::new(), Vec::new());
        for port in ports.iter().copied() {
            let known = before.iter().find(|mapped| mapped.port == port);
            let mut wanted = Wanted {
                port,
                before: known.map(|mapped| mapped.external),
                nonce: self.nonce(gateway, port),
            };
            held.asked.insert(port, wanted);
            let now = self.host.clock.now();
            match self.client.map(gateway, &speaks, &wanted).await {
                Ok(it) => {
                    wanted.before = Some(it.external);
                    held.asked.insert(port, wanted);
                    now_mapped.push(Mapped {
                        port,
                        external: it.external,
                        until: it.lifetime.map(|lifetime| now + lifetime),
                    });
                    granted.push(it);
                }
                Err(error) => {
                    let goes_on = |known: &&Mapped| known.until.is_none_or(|end| now < end);
                    match known.filter(goes_on) {
                        Some(known) => now_mapped.push(*known),
                        None => _ = held.asked.remove(&port),
                    }
                    why.push(error);
                }
            }
        }
        if granted.is_empty() {
            return Err(why);
        }
        held.schedule.mapped(self.host.clock.now(), &granted);
        let protocol = speaks.protocol();
        let places = |ports: &[Mapped]| -> Vec<_> { ports.iter().map(|it| it.external).collect() };
        let at = places(&now_mapped);
        if at != places(&before) {
            tracing::info!(router = %gateway.router, %protocol, ?at, "ports mapped");
        }
        self.tell(Some(protocol), now_mapped, why);
        Ok(())
    }

    /// Whether the router lost what it mapped, or began anew.
    async fn is_lost(&self, held: &mut Held, gateway: &Gateway) -> bool {
        let Some(speaks) = held.speaks.clone() else {
            return false;
        };
        let seen = self.client.look(gateway, &speaks).await;
        let mut there = true;
        if seen.is_ok() {
            for wanted in held.asked.values() {
                let is_there = self.client.is_there(gateway, &speaks, wanted).await;
                there &= is_there.unwrap_or(true);
            }
        }
        let now = self.host.clock.now();
        held.schedule.looked(now, seen.as_ref().ok(), there)
    }

    /// The same at each start, so that a mapping that was left behind is still this host's.
    fn nonce(&self, gateway: &Gateway, port: u16) -> Nonce {
        let about = [
            &self.secret.0[..],
            &gateway.router.octets(),
            &gateway.own.octets(),
            &port.to_be_bytes(),
        ];
        let mut nonce = Nonce::default();
        nonce.copy_from_slice(&Hash::of(&about.concat()).0[..12]);
        nonce
    }

    fn tell(&self, protocol: Option<Protocol>, ports: Vec<Mapped>, why: Vec<MapError>) {
        self.told.send_modify(|told| {
            (told.protocol, told.ports, told.why) = (protocol, ports, why);
        });
    }
}
