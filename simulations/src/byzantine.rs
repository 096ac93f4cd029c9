//! A member that lies: it has a valid identity and certificate, speaks QUIC,
//! and says what no agent of ours says.

#![allow(missing_docs, reason = "the names say it")]

mod claims;
mod neighbour;
mod spam;
mod thief;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use innermesh_agent::{
    host::{Host, keys::NodeKey},
    node::Agent,
    quic::{Membership, MembershipCheck, Transport},
};
use innermesh_proto::{
    codec,
    crypto::{Hash, PublicKey, Purpose, Sealed},
    head::{Head, WireGuard},
    id::NodeId,
    ledger::{Author, Content, Entry, Position, Request, RequestId, State},
    limits,
    message::{Batches, Endorse, LedgerQuery, Push, PushedHead},
    rpc::method,
};

use serde::{Deserialize, Serialize};

pub use self::claims::Asked;
use self::neighbour::LyingLinks;
use crate::{Machine, stand_in::Place};

/// How long a liar waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a liar does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lie {
    /// A head of another, with the liar's own signature.
    ForgedAuthor,
    /// A head of its own with the highest numbers there are.
    HighestVersion,
    /// Heads of nodes that nobody has heard of, by the hundred.
    FloodOfIds,
    /// Gossip in few bytes that is many when unpacked.
    Bomb,
    /// Two heads of its own with one number.
    Equivocation,
    /// An old head of another, again.
    Replay,
    /// A place in the ledger that nobody has come to.
    FarAhead,
    /// Frames that are none.
    Garbage,
    /// A batch of its own as the ledger's next, signed by itself alone.
    Fork,
    /// A signature over a header that isn't the one at that place.
    FalseEndorsement,
    /// Requests that the liar may not make, to whoever decides.
    NotAllowed,
    /// As an admin: others of its own are to be admins, and all that matter to go.
    TakesOver,
    /// As many requests at once as can be, of each kind, allowed or not.
    Spam,
    /// The WireGuard key of another as its own.
    StolenKey,
    /// Names of its own that lead to others, and out of the mesh.
    NamesElsewhere,
    /// A place far ahead, and a state there that comes a byte at a time.
    EndlessSnapshot,
    /// A hold on every other member.
    HoldsOnAll,
    /// Links with all with whom it ever had one, long after they died.
    NamesTheDead,
    /// No link with this member any more, although it answers there.
    DropsLinks,
    /// No lie: what a later version may say, kinds and methods that this one
    /// doesn't know.
    Newer,
}

impl Lie {
    /// All that are lies.
    pub const ALL: [Self; 8] = [
        Self::ForgedAuthor,
        Self::HighestVersion,
        Self::FloodOfIds,
        Self::Bomb,
        Self::Equivocation,
        Self::Replay,
        Self::FarAhead,
        Self::Garbage,
    ];

    /// Those that a CA node is in the place to tell.
    pub const OF_A_VOTER: [Self; 5] = [
        Self::Fork,
        Self::FalseEndorsement,
        Self::NotAllowed,
        Self::FarAhead,
        Self::Garbage,
    ];

    /// Those of an ordinary member gone mad.
    pub const OF_A_MEMBER: [Self; 6] = [
        Self::Spam,
        Self::StolenKey,
        Self::NamesElsewhere,
        Self::EndlessSnapshot,
        Self::FarAhead,
        Self::NotAllowed,
    ];

    /// Its name in counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::ForgedAuthor => "lie: forged author",
            Self::HighestVersion => "lie: highest version",
            Self::FloodOfIds => "lie: flood of ids",
            Self::Bomb => "lie: bomb",
            Self::Equivocation => "lie: equivocation",
            Self::Replay => "lie: replay",
            Self::FarAhead => "lie: far ahead",
            Self::Garbage => "lie: garbage",
            Self::Fork => "lie: fork",
            Self::FalseEndorsement => "lie: false endorsement",
            Self::NotAllowed => "lie: not allowed",
            Self::TakesOver => "lie: takes over",
            Self::Spam => "lie: spam",
            Self::StolenKey => "lie: stolen key",
            Self::NamesElsewhere => "lie: names elsewhere",
            Self::EndlessSnapshot => "lie: endless snapshot",
            Self::HoldsOnAll => "lie: holds on all",
            Self::NamesTheDead => "lie: names the dead",
            Self::DropsLinks => "lie: drops links",
            Self::Newer => "newer version",
        }
    }
}

/// The liar.
pub struct Byzantine {
    host: Host,
    key: Arc<dyn NodeKey>,
    state: Arc<State>,
    transport: Transport,
    /// Heads of others as they once were, to be said again.
    old: Vec<(Head, Sealed)>,
    /// The WireGuard interfaces of others.
    tunnels: BTreeMap<NodeId, WireGuard>,
    address: IpAddr,
    seq: u64,
    /// Counts what it asks for, so that each time is another.
    asked: u64,
    /// The key that it has a certificate for again and again.
    again: Option<Vec<u8>>,
    /// What it was asked for of a state that it claims to have.
    was_asked: Asked,
    /// Its links, once it lies about them.
    links: Option<LyingLinks>,
}

/// A name, of whichever kind.
fn text<T: FromStr<Err: Debug>>(name: &str) -> T {
    name.parse().expect("a name")
}

/// It believes everybody.
struct Believes;

impl MembershipCheck for Believes {
    fn check(&self, _: &PublicKey) -> Membership {
        Membership::Member
    }
}

impl Byzantine {
    /// Takes the identity of a machine whose agent has ended. `agent` is that
    /// agent, for what it knew.
    ///
    /// # Panics
    /// When the machine is no member.
    pub async fn new(machine: &Machine, agent: &Agent) -> Self {
        let view = agent.view().borrow().clone();
        let open = BTreeSet::new();
        let place = Place::with(machine, agent.view(), Arc::new(Believes), open).await;
        let others = view.nodes.iter().filter(|(node, _)| **node != place.id());
        let tunnels = others
            .filter_map(|(node, seen)| Some((*node, seen.announcement.wireguard.clone()?)))
            .collect();
        Self {
            host: machine.host.clone(),
            state: view.ledger.clone(),
            transport: place.transport,
            key: place.key,
            old: agent.heads(),
            tunnels,
            address: machine.address,
            // Above what its agent has announced.
            seq: 1 << 32,
            asked: 0,
            again: None,
            was_asked: Asked::default(),
            links: None,
        }
    }

    /// How often it was asked for a state that it claims to have.
    pub fn asked(&self) -> Asked {
        self.was_asked.clone()
    }

    /// Lies to the agent at an address; `false` when that can't be reached.
    pub async fn tell(&mut self, to: SocketAddr, lie: Lie) -> bool {
        let Ok(peer) = self.transport.dial(to, None).await else {
            return false;
        };
        match lie {
            Lie::ForgedAuthor => {
                let victims: Vec<NodeId> = self.state.members.keys().copied().collect();
                let forged = victims.into_iter().map(|node| Head {
                    node,
                    generation: 1 << 20,
                    ..self.head(1)
                });
                let forged: Vec<Sealed> = forged.map(|head| self.seal(&head)).collect();
                self.push(peer, forged)
            }
            Lie::HighestVersion => {
                let own = Head {
                    generation: u64::MAX,
                    ..self.head(u64::MAX)
                };
                let late = self.head(u64::MAX);
                self.push(peer, vec![self.seal(&own), self.seal(&late)])
            }
            Lie::FloodOfIds => {
                let strange = (0..400u64).map(|number| {
                    let mut id = [0; 16];
                    id[..8].copy_from_slice(&number.to_le_bytes());
                    let node = NodeId(id);
                    self.seal(&Head {
                        node,
                        ..self.head(1)
                    })
                });
                let strange = strange.collect();
                self.push(peer, strange)
            }
            Lie::Bomb => self.bomb(peer),
            Lie::Equivocation => {
                self.seq += 1;
                let one = self.head(self.seq);
                let other = Head {
                    clock_ms: one.clock_ms + 1,
                    ..one.clone()
                };
                self.push(peer, vec![self.seal(&one), self.seal(&other)])
            }
            Lie::Replay => {
                let old = self.old.iter().map(|(_, sealed)| sealed.clone()).collect();
                self.push(peer, old)
            }
            Lie::FarAhead => {
                self.seq += 1;
                let ahead = Head {
                    position: Position {
                        index: u64::MAX,
                        hash: Hash::of(b"nobody's"),
                    },
                    ..self.head(self.seq)
                };
                self.push(peer, vec![self.seal(&ahead)])
            }
            Lie::Newer => self.newer(peer),
            Lie::Fork => self.fork(peer).await,
            Lie::FalseEndorsement => self.endorse(peer).await,
            Lie::NotAllowed => self.not_allowed(peer).await,
            Lie::TakesOver => self.takes_over(peer).await,
            Lie::Spam => self.spam(peer).await,
            Lie::StolenKey => self.stolen_key(peer),
            Lie::NamesElsewhere => self.names_elsewhere(peer).await,
            Lie::EndlessSnapshot => self.endless_snapshot(peer),
            Lie::HoldsOnAll => self.holds_on_all(peer),
            Lie::NamesTheDead => self.neighbour(None),
            Lie::DropsLinks => self.neighbour(Some(peer)),
            Lie::Garbage => {
                let mut noise = vec![0; 3000];
                self.host.keys.random(&mut noise);
                let methods = [
                    method::GOSSIP,
                    method::PUSH,
                    method::LEDGER,
                    method::BATCHES,
                    method::RAFT,
                    method::ENDORSE,
                ];
                methods
                    .into_iter()
                    .chain([method::HELLO, 999])
                    .all(|method| self.transport.notify(peer, method, noise.clone()))
            }
        }
    }

    /// Learns what the peer's ledger holds by now.
    async fn follow(&mut self, peer: NodeId) {
        let mut state = State::clone(&self.state);
        loop {
            let query = codec::encode(&LedgerQuery {
                from: state.position.index + 1,
            });
            let answer = self
                .transport
                .call(peer, method::LEDGER, query, PATIENCE)
                .await;
            let batches = answer.ok().and_then(|bytes| {
                let batches: Option<Batches> = codec::decode(&bytes, limits::RPC_BYTES).ok();
                batches
            });
            let before = state.position;
            for batch in batches.into_iter().flat_map(|answer| answer.batches) {
                if let Ok((next, _)) = state.next(&batch, &*self.host.keys) {
                    state = next;
                }
            }
            if state.position == before {
                break;
            }
        }
        self.state = Arc::new(state);
    }

    fn request(&self, content: &Content) -> Sealed {
        let mut id = [0; 16];
        self.host.keys.random(&mut id);
        let expires_ms = self.state.stamp_ms + limits::REQUEST_LIFETIME_MS;
        let author = Author::Node(self.id());
        let (id, mesh) = (RequestId(id), self.state.mesh);
        Request::seal(&*self.key, mesh, id, author, expires_ms, content)
    }

    async fn fork(&mut self, peer: NodeId) -> bool {
        self.follow(peer).await;
        let mut draft = self.state.draft(self.state.stamp_ms + 1);
        let content = Content::Claim("forked".parse().expect("a label"));
        let entry = Entry {
            request: self.request(&content),
            attachment: Vec::new(),
        };
        draft.add(entry, &*self.host.keys);
        let (_, mut batch) = draft.finish();
        let (node, signature) = batch.endorse(&self.state.mesh, &*self.key);
        batch.proof.insert(node, signature);
        let batches = codec::encode(&Batches {
            batches: vec![batch],
        });
        self.transport.notify(peer, method::BATCHES, batches)
    }

    async fn endorse(&mut self, peer: NodeId) -> bool {
        self.follow(peer).await;
        let endorsements = (0..3).map(|ahead| {
            let header = Hash::of(b"nobody's");
            let message = Purpose::Batch.message(&self.state.mesh, &header.0);
            codec::encode(&Endorse {
                index: self.state.position.index + ahead,
                header,
                signature: self.key.sign(&message),
                wanting: true,
            })
        });
        let endorsements: Vec<Vec<u8>> = endorsements.collect();
        endorsements
            .into_iter()
            .all(|bytes| self.transport.notify(peer, method::ENDORSE, bytes))
    }

    /// Says a gossip message of chitchat's, whatever it is; `false` when the
    /// agent at that address can't be reached.
    pub async fn gossip(&self, to: SocketAddr, message: &[u8]) -> bool {
        const RAW: u8 = 0;
        let Ok(peer) = self.transport.dial(to, None).await else {
            return false;
        };
        let enveloped = [&[RAW], message].concat();
        self.transport.notify(peer, method::GOSSIP, enveloped)
    }

    /// The name of its mesh in gossip.
    pub fn cluster(&self) -> String {
        self.state.mesh.to_string()
    }

    pub fn id(&self) -> NodeId {
        self.key.public().node_id()
    }

    /// A head whose body has a kind of the future beside one of today, and a
    /// method of the future.
    fn newer(&mut self, to: NodeId) -> bool {
        const VERSION: u16 = 1;
        const FUTURE: u16 = 60_000;
        let items: Vec<(u16, Vec<u8>)> = vec![
            (VERSION, codec::encode(&"99.0.0")),
            (FUTURE, b"of the future".to_vec()),
        ];
        let body = codec::encode(&items);
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
            && self.transport.notify(to, FUTURE, b"of the future".to_vec())
    }

    /// A head of its own, with nothing to say.
    fn head(&self, seq: u64) -> Head {
        Head {
            node: self.id(),
            generation: 1 << 20,
            seq,
            lease_ms: 4500,
            body: Hash::of(b""),
            body_len: 0,
            position: self.state.position,
            clock_ms: self.host.clock.wall_ms(),
        }
    }

    fn seal(&self, head: &Head) -> Sealed {
        head.seal(&*self.key, &self.state.mesh)
    }

    fn push(&self, to: NodeId, heads: Vec<Sealed>) -> bool {
        let heads = heads
            .into_iter()
            .map(|head| PushedHead { head, body: None })
            .collect();
        let body = codec::encode(&Push { heads });
        self.transport.notify(to, method::PUSH, body)
    }

    /// A Syn whose digest is megabytes of zeros, in chitchat's own form and in
    /// the envelope's.
    fn bomb(&self, to: NodeId) -> bool {
        const BYTES: usize = 64 << 20;
        let zeros = vec![0; BYTES];
        let Ok(small) = zstd::bulk::compress(&zeros, 1) else {
            return false;
        };
        let mut enveloped = vec![1];
        enveloped.extend(&small);
        // A SynAck with one compressed block that is all of it.
        let mut message = vec![0];
        message.extend(45139u16.to_le_bytes());
        message.extend([0, 1, 0, 0, 1]);
        message.extend((small.len() as u16).to_le_bytes());
        message.extend(&small);
        message.push(0);
        assert!(message.len() < limits::GOSSIP_MESSAGE_BYTES);
        self.transport.notify(to, method::GOSSIP, enveloped)
            && self.transport.notify(to, method::GOSSIP, message)
    }
}
