//! Links that are kept as they should be, and heads that lie about them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use innermesh_agent::{
    host::{Clock, Host, keys::NodeKey},
    quic::{Caller, Handler, Transport},
};
use innermesh_proto::{
    codec,
    crypto::Hash,
    head::{Announcement, Head},
    id::NodeId,
    ledger::State,
    links::{
        Effect, Key, Links, NamedLinks, Order, Place, Settings, key,
        packet::{PacketReader, PacketWriter},
    },
    message::{Push, PushedHead},
    rpc::{Failure, method},
};
use tokio::sync::Notify;

use super::Byzantine;

/// Above what its agent, or another lie, has announced.
const GENERATION: u64 = 1 << 20;
/// Between two heads, at the most.
const RENEWAL: Duration = Duration::from_millis(1500);

/// See the module. Clones are the same ones.
#[derive(Clone)]
pub(super) struct LyingLinks(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    wake: Notify,
    clock: Arc<dyn Clock>,
}

struct Inner {
    links: Links,
    /// All with whom it ever had a link.
    ever: BTreeMap<Key, Order>,
    keeps_the_dead: bool,
    drops: BTreeSet<Key>,
    seq: u64,
    connected: BTreeSet<NodeId>,
    renewed: Duration,
    is_silent: bool,
    spoken: BTreeMap<NodeId, (PacketWriter, PacketReader)>,
}

impl Byzantine {
    /// From now on it has links: with all that it ever had any with, or without `drops`.
    pub(super) fn neighbour(&mut self, drops: Option<NodeId>) -> bool {
        if self.links.is_none() {
            let links = LyingLinks::new(&self.host, self.id(), &self.state);
            self.transport.serve(Arc::new(links.clone()));
            let running = Running {
                links: links.clone(),
                host: self.host.clone(),
                key: self.key.clone(),
                state: self.state.clone(),
                transport: self.transport.clone(),
                announcement: self.announcement(),
            };
            self.host.tasks.spawn(running.run());
            self.links = Some(links);
        }
        if let Some(links) = &self.links {
            let mut inner = links.lock();
            match drops {
                Some(peer) => {
                    inner.drops.insert(key(&peer));
                }
                None => inner.keeps_the_dead = true,
            }
            // A head says so at once.
            inner.renewed = Duration::ZERO;
            drop(inner);
            links.0.wake.notify_one();
        }
        true
    }
}

impl Byzantine {
    /// Keeps up no links any more.
    pub fn fall_silent(&mut self) {
        if let Some(links) = self.links.take() {
            links.lock().is_silent = true;
        }
    }
}

impl LyingLinks {
    fn new(host: &Host, me: NodeId, state: &State) -> Self {
        let now = host.clock.now();
        let settings = Settings {
            me,
            mesh: state.mesh,
            generation: GENERATION,
            behind_nat: false,
        };
        let mut links = Links::new(settings, now);
        for node in state.members.keys() {
            links.handle_member(now, *node, None);
        }
        let inner = Inner {
            links,
            ever: BTreeMap::new(),
            keeps_the_dead: false,
            drops: BTreeSet::new(),
            seq: 1 << 33,
            connected: BTreeSet::new(),
            renewed: Duration::ZERO,
            is_silent: false,
            spoken: BTreeMap::new(),
        };
        Self(Arc::new(Shared {
            inner: Mutex::new(inner),
            wake: Notify::new(),
            clock: host.clock.clone(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Running {
    links: LyingLinks,
    host: Host,
    key: Arc<dyn NodeKey>,
    state: Arc<State>,
    transport: Transport,
    announcement: Announcement,
}

impl Running {
    async fn run(self) {
        while !self.links.lock().is_silent {
            let now = self.host.clock.now();
            let wait = self.turn(now).saturating_sub(now);
            tokio::select! {
                () = self.links.0.wake.notified() => {}
                () = self.host.clock.sleep(wait.max(Duration::from_millis(1))) => {}
            }
        }
    }

    /// Does what is due; gives when there is more.
    fn turn(&self, now: Duration) -> Duration {
        let mut inner = self.links.lock();
        let peers: BTreeSet<NodeId> = self.transport.peers().into_iter().collect();
        for gone in inner
            .connected
            .difference(&peers)
            .copied()
            .collect::<Vec<_>>()
        {
            inner.links.handle_disconnected(now, &gone);
        }
        for new in peers
            .difference(&inner.connected)
            .copied()
            .collect::<Vec<_>>()
        {
            inner.links.handle_connected(now, new);
        }
        inner.connected = peers;
        let position = Place::from(&self.state.position);
        inner
            .links
            .handle_position(now, position, self.host.clock.wall_ms());
        if inner.links.next_due() <= now {
            inner.links.poll(now);
        }
        let mut is_due = now >= inner.renewed + RENEWAL;
        while let Some(effect) = inner.links.poll_effect() {
            match effect {
                Effect::Send(peer, beat) => {
                    let (writer, _) = inner.spoken.entry(peer).or_default();
                    if let Some(packet) = writer.write(&beat, now) {
                        self.transport.send_datagram(peer, packet.into());
                    }
                }
                Effect::Publish(_) => is_due = true,
                _ => {}
            }
        }
        if is_due {
            self.publish(&mut inner, now);
        }
        inner.links.next_due().min(inner.renewed + RENEWAL)
    }

    fn publish(&self, inner: &mut Inner, now: Duration) {
        let named = inner.links.named();
        inner.ever.extend(named.clone());
        let mut said = if inner.keeps_the_dead {
            inner.ever.clone()
        } else {
            named.clone()
        };
        said.retain(|peer, _| !inner.drops.contains(peer));
        let announcement = Announcement {
            links: Some(NamedLinks {
                behind_nat: false,
                links: said,
            }),
            ..self.announcement.clone()
        };
        let body = announcement.encode();
        inner.seq += 1;
        inner.renewed = now;
        let head = Head {
            node: self.key.public().node_id(),
            generation: GENERATION,
            seq: inner.seq,
            lease_ms: 4500,
            body: Hash::of(&body),
            body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
            position: self.state.position,
            clock_ms: self.host.clock.wall_ms(),
        };
        let own = NamedLinks {
            behind_nat: false,
            links: named,
        };
        inner.links.handle_own_head(now, head.order(), &own);
        let pushed = PushedHead {
            head: head.seal(&*self.key, &self.state.mesh),
            body: Some(body),
        };
        let push = codec::encode(&Push {
            heads: vec![pushed],
        });
        for peer in &inner.connected {
            self.transport.notify(*peer, method::PUSH, push.clone());
        }
    }
}

#[async_trait]
impl Handler for LyingLinks {
    async fn call(&self, _: &Caller, _: u16, _: Vec<u8>) -> Result<Vec<u8>, Failure> {
        Err(Failure::UnknownMethod)
    }

    async fn notice(&self, _: &Caller, _: u16, _: Vec<u8>) {}

    fn datagram(&self, caller: &Caller, datagram: Bytes) {
        let Some(node) = caller.node else {
            return;
        };
        let now = self.0.clock.now();
        let mut inner = self.lock();
        let (writer, reader) = inner.spoken.entry(node).or_default();
        if let Ok(beat) = reader.read(&datagram, now) {
            writer.note_heard(&beat);
            if !inner.is_silent {
                inner.links.handle_packet(now, node, &beat, true);
            }
            drop(inner);
            self.0.wake.notify_one();
        }
    }
}
