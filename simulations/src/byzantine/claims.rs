//! Heads and bodies of its own that claim what is another's: a WireGuard key, an
//! address, a position in the ledger. And, to whoever asks for the state at that
//! position, one that never ends.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use innermesh_agent::{
    host::Clock,
    quic::{Caller, Handler},
};
use innermesh_proto::{
    codec,
    crypto::Hash,
    head::{Announcement, Head, Instance, WireGuard},
    hold::Hold,
    id::NodeId,
    ledger::{
        Batch, Content, Header, HoldId, Position,
        record::RecordData,
        request::{AddRecord, Evict},
    },
    limits,
    message::{Propose, Push, PushedHead, SnapshotHead},
    rpc::{Failure, method},
    zone::Protocol,
};

use super::{Byzantine, PATIENCE, text};

/// How far ahead of what is known a false position is: far enough for a state
/// to be fetched in place of batches.
const AHEAD: u64 = 3 * limits::SNAPSHOT_SPARES;
/// How long the liar takes for each byte of its state: just short of what a
/// request may take.
const PER_BYTE: Duration = Duration::from_secs(8);

impl Byzantine {
    /// Announces the WireGuard key of another member as its own: of each in turn.
    pub(super) fn stolen_key(&mut self, to: NodeId) -> bool {
        let victims: Vec<&WireGuard> = self
            .tunnels
            .iter()
            .filter(|(node, _)| **node != to)
            .map(|(_, wireguard)| wireguard)
            .collect();
        self.asked += 1;
        let turn = self.asked as usize;
        let Some(stolen) = turn
            .checked_rem(victims.len())
            .map(|turn| victims[turn].clone())
        else {
            return false;
        };
        let announcement = Announcement {
            wireguard: Some(stolen),
            ..self.announcement()
        };
        self.announce(to, &announcement)
    }

    /// Points its own name, and a service of its own, at another member, at a
    /// machine of the LAN, and at a name outside.
    pub(super) async fn names_elsewhere(&mut self, to: NodeId) -> bool {
        self.follow(to).await;
        let Some(own) = self.state.members.get(&self.id()).cloned() else {
            return false;
        };
        let Some(victim) = self.state.members.get(&to).cloned() else {
            return false;
        };
        let domain = self.state.domain.clone();
        let lan = Ipv4Addr::new(192, 168, 1, 1);
        self.asked += 1;
        let name = |what: &str| text(&format!("{what}{}.{}.{domain}", self.asked, own.name));
        let wanted = [
            ("a", RecordData::A(victim.ipv4)),
            ("aaaa", RecordData::Aaaa(victim.ipv6)),
            ("lan", RecordData::A(lan)),
            (
                "cname",
                RecordData::Cname(text(&format!("{}.{domain}", victim.name))),
            ),
        ];
        let wanted = wanted.map(|(what, data)| {
            Content::AddRecord(AddRecord {
                name: name(what),
                data,
                ttl_s: None,
                public: false,
            })
        });
        let service = text(&format!("elsewhere-{}", self.id()));
        for content in wanted.iter().chain([&Content::Claim(service)]) {
            let propose = codec::encode(&Propose {
                request: self.request(content),
            });
            // Refused or not: that is what is looked at.
            let _ = self
                .transport
                .call(to, method::PROPOSE, propose, PATIENCE)
                .await;
        }
        let address = match self.asked % 2 {
            0 => IpAddr::V4(victim.ipv4),
            _ => IpAddr::V4(lan),
        };
        let service = Instance {
            port: 80,
            protocol: Protocol::Tcp,
            address: Some(address),
            healthy: true,
        };
        let announcement = Announcement {
            services: BTreeMap::from([(text(&format!("elsewhere-{}", self.id())), service)]),
            ..self.announcement()
        };
        self.announce(to, &announcement)
    }

    /// To take out the founder and another member, to be a CA node, to give up
    /// another's name. No answer but a refusal is right; the checks see the rest.
    pub(super) async fn not_allowed(&mut self, peer: NodeId) -> bool {
        self.follow(peer).await;
        let others = self.state.members.keys().filter(|node| **node != self.id());
        let mut contents: Vec<Content> = others
            .map(|node| {
                Content::Evict(Evict {
                    node: *node,
                    hold: None,
                    root: None,
                })
            })
            .collect();
        let taken = self.state.names.iter();
        let taken = taken.filter(|(_, held)| held.owner != self.id());
        contents.extend(taken.map(|(name, _)| Content::Release(name.clone())));
        self.propose(peer, contents).await
    }

    /// Claims a position far ahead, and answers who asks for the state there
    /// with a forged header and one byte at a time.
    pub(super) fn endless_snapshot(&mut self, to: NodeId) -> bool {
        let index = self.state.position.index + AHEAD;
        let header = Header {
            mesh: self.state.mesh,
            index,
            epoch: self.state.epoch,
            previous: Hash::of(b"nobody's"),
            stamp_ms: self.state.stamp_ms,
            entries: Hash::of(b"nobody's"),
            state: Some(Hash::of(b"nobody's")),
            next: None,
            recovery: None,
            rules: self.state.rules,
        };
        let mut at = Batch::unproved(&header, Vec::new());
        let (node, signature) = at.endorse(&self.state.mesh, &*self.key);
        at.proof.insert(node, signature);
        let forged = SnapshotHead {
            ends: Vec::new(),
            at: Some(at.clone()),
            length: limits::SNAPSHOT_BYTES as u64,
        };
        self.transport.serve(Arc::new(Endless {
            forged: codec::encode(&forged),
            clock: self.host.clock.clone(),
            asked: self.was_asked.clone(),
        }));
        self.seq += 1;
        let position = at.position().unwrap_or(Position {
            index,
            hash: Hash::of(b"nobody's"),
        });
        let ahead = Head {
            position,
            ..self.head(self.seq)
        };
        self.push(to, vec![self.seal(&ahead)])
    }

    /// As an admin: holds on all others, as many as there are.
    pub(super) fn holds_on_all(&mut self, to: NodeId) -> bool {
        let me = self.id();
        let others = self.state.members.keys().filter(|node| **node != me);
        let holds = others.map(|node| Hold {
            id: HoldId(node.0),
            node: *node,
        });
        let announcement = Announcement {
            holds: holds.collect(),
            ..self.announcement()
        };
        self.announce(to, &announcement)
    }

    pub(super) fn announcement(&self) -> Announcement {
        Announcement {
            version: "0.1.0".into(),
            quic: vec![SocketAddr::new(self.address, crate::world::PORT)],
            rules: self.state.rules,
            ..Announcement::default()
        }
    }

    /// A head of its own with this body.
    fn announce(&mut self, to: NodeId, announcement: &Announcement) -> bool {
        let body = announcement.encode();
        self.seq += 1;
        let head = Head {
            body: Hash::of(&body),
            body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
            ..self.head(self.seq)
        };
        let pushed = PushedHead {
            head: self.seal(&head),
            body: Some(body),
        };
        let push = codec::encode(&Push {
            heads: vec![pushed],
        });
        self.transport.notify(to, method::PUSH, push)
    }
}

/// Answers for a state what never comes to an end, and nothing else.
struct Endless {
    forged: Vec<u8>,
    clock: Arc<dyn Clock>,
    asked: Asked,
}

/// How often a liar was asked for the state that it claims to have.
#[derive(Clone, Default)]
pub struct Asked(Arc<[AtomicU64; 2]>);

impl Asked {
    /// Questions for its header.
    pub fn heads(&self) -> u64 {
        self.0[0].load(Ordering::Relaxed)
    }

    /// Questions for bytes of it.
    pub fn parts(&self) -> u64 {
        self.0[1].load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Handler for Endless {
    async fn call(&self, _: &Caller, method: u16, _: Vec<u8>) -> Result<Vec<u8>, Failure> {
        match method {
            method::SNAPSHOT => {
                self.asked.0[0].fetch_add(1, Ordering::Relaxed);
                Ok(self.forged.clone())
            }
            method::SNAPSHOT_PART => {
                self.asked.0[1].fetch_add(1, Ordering::Relaxed);
                self.clock.sleep(PER_BYTE).await;
                Ok(vec![0])
            }
            _ => {
                self.clock.sleep(PER_BYTE).await;
                Err(Failure::Busy)
            }
        }
    }

    async fn notice(&self, _: &Caller, _: u16, _: Vec<u8>) {}
}
