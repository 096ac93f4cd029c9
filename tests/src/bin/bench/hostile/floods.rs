//! What one member can say to others, each kind without end.

use std::sync::atomic::Ordering;

use innermesh_proto::{
    admission::Ask,
    certificate::Serial,
    codec,
    crypto::{Hash, Sealed, Signature},
    head::{Announcement, Head},
    id::NodeId,
    ledger::{
        Content, Position,
        record::RecordData,
        request::{AddRecord, Certify, Evict, Join, Share},
    },
    limits,
    message::{
        HeadsQuery, JoinQuery, LedgerQuery, Propose, Push, PushedHead, RecoveryQuery, Renew,
        RevocationsQuery, SnapshotPartQuery, SnapshotQuery,
    },
    rpc::method,
};

use super::identity::Identity;

/// How far ahead a false position is.
const AHEAD: u64 = 100_000;
/// Bytes of what is no request.
const NOISE: usize = 32 * 1024;
/// Names that it claims, one after the other.
const NAMES: u64 = 100_000;

/// A kind of what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Certificates,
    Records,
    Claims,
    Shares,
    Refused,
    Renewals,
    Noise,
    Joins,
    Ledger,
    States,
    Small,
    Bodies,
    Generations,
    Positions,
}

impl Kind {
    pub const ALL: [Self; 14] = [
        Self::Certificates,
        Self::Records,
        Self::Claims,
        Self::Shares,
        Self::Refused,
        Self::Renewals,
        Self::Noise,
        Self::Joins,
        Self::Ledger,
        Self::States,
        Self::Small,
        Self::Bodies,
        Self::Generations,
        Self::Positions,
    ];

    /// The kind with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Certificates => "certificates",
            Self::Records => "records",
            Self::Claims => "claims",
            Self::Shares => "shares",
            Self::Refused => "refused",
            Self::Renewals => "renewals",
            Self::Noise => "noise",
            Self::Joins => "joins",
            Self::Ledger => "ledger queries",
            Self::States => "state queries",
            Self::Small => "small queries",
            Self::Bodies => "bodies",
            Self::Generations => "generations",
            Self::Positions => "positions",
        }
    }
}

/// One thing that is said.
pub enum Said {
    /// A request, which is answered.
    Call(u16, Vec<u8>),
    /// A message without an answer.
    Notice(u16, Vec<u8>),
}

impl Identity {
    /// The one with this number; `others` are all but itself.
    pub fn say(&self, kind: Kind, number: u64, others: &[NodeId]) -> Said {
        let other = others[number as usize % others.len()];
        match kind {
            Kind::Certificates => self.propose(&Content::Certify(self.certify(number))),
            Kind::Records => self.propose(&Content::AddRecord(AddRecord {
                name: text(&format!("x{number}.{}", self.own_name())),
                data: RecordData::Txt(vec![vec![b'x'; 250]; 4]),
                ttl_s: None,
                public: number.is_multiple_of(2),
            })),
            Kind::Claims => {
                let name = text(&format!("h{}", number / 2 % NAMES));
                self.propose(&match number % 2 {
                    0 => Content::Claim(name),
                    _ => Content::Release(name),
                })
            }
            Kind::Shares => {
                let share = Share {
                    name: text("mine"),
                    with: other,
                };
                self.propose(&match number / others.len() as u64 % 2 {
                    0 => Content::Share(share),
                    _ => Content::Unshare(share),
                })
            }
            Kind::Refused => self.propose(&match number % 3 {
                0 => Content::Evict(Evict {
                    node: other,
                    hold: None,
                    root: None,
                }),
                1 => Content::Revoke(Serial(u128::from(number).to_be_bytes())),
                _ => Content::Demote(other),
            }),
            Kind::Renewals => match number % 2 {
                0 => self.propose(&Content::Renew),
                _ => {
                    let request = self.request(&Content::Renew);
                    Said::Call(method::RENEW, codec::encode(&Renew { request }))
                }
            },
            Kind::Noise => {
                let mut noise = vec![0; NOISE - 1024];
                self.host.keys.random(&mut noise);
                let request = Sealed {
                    bytes: noise,
                    ..self.request(&Content::Leave)
                };
                Said::Call(method::PROPOSE, codec::encode(&Propose { request }))
            }
            Kind::Joins => Said::Call(method::JOIN, codec::encode(&self.join(number))),
            Kind::Ledger => {
                let newest = self.state.position.index.max(1);
                let from = 1 + number % newest;
                Said::Call(method::LEDGER, codec::encode(&LedgerQuery { from }))
            }
            Kind::States => match number % 3 {
                0 => {
                    let most = self.state.position.index + number % AHEAD;
                    Said::Call(method::SNAPSHOT, codec::encode(&SnapshotQuery { most }))
                }
                1 => {
                    let query = SnapshotPartQuery {
                        index: number % (self.state.position.index + 1),
                        from: 0,
                    };
                    Said::Call(method::SNAPSHOT_PART, codec::encode(&query))
                }
                _ => {
                    let query = RecoveryQuery { number: 0 };
                    Said::Call(method::RECOVERY, codec::encode(&query))
                }
            },
            Kind::Small => self.small(number),
            Kind::Bodies => {
                // Another one each time, and the largest that there may be.
                let body = codec::encode(&vec![(60_000u16, {
                    let mut bytes = vec![0; limits::BODY_BYTES - 4096];
                    self.host.keys.random(&mut bytes[..64]);
                    bytes
                })]);
                let head = Head {
                    body: Hash::of(&body),
                    body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
                    ..self.head(number)
                };
                self.answers.keep(body);
                self.push(&head, None)
            }
            Kind::Generations => {
                let body = Announcement {
                    version: format!("0.1.{number}"),
                    ..Announcement::default()
                };
                let body = body.encode();
                self.generation.fetch_max(number, Ordering::Relaxed);
                let head = Head {
                    body: Hash::of(&body),
                    body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
                    ..self.head(number)
                };
                self.push(&head, Some(body))
            }
            Kind::Positions => {
                let forged = self.forged(AHEAD + number);
                self.answers.forge(&forged);
                let position = forged.at.as_ref().and_then(|at| at.position().ok());
                let head = Head {
                    position: position.unwrap_or(Position {
                        index: u64::MAX,
                        hash: Hash::of(b"nobody's"),
                    }),
                    ..self.head(number)
                };
                self.push(&head, None)
            }
        }
    }

    fn own_name(&self) -> String {
        let own = self.state.members.get(&self.id());
        let own = own.map(|own| own.name.to_string()).unwrap_or_default();
        format!("{own}.{}", self.state.domain)
    }

    /// For another key each time, with as many and as long names as there may be.
    fn certify(&self, number: u64) -> Certify {
        let name = |n: usize| format!("{n:0>40}{number:0>20}.{}", self.own_name());
        Certify {
            spki: self.host.keys.generate_p256().spki(),
            names: (0..limits::CERTIFICATE_NAMES).map(name).collect(),
            days: limits::LEAF_DAYS,
        }
    }

    fn propose(&self, content: &Content) -> Said {
        let request = self.request(content);
        Said::Call(method::PROPOSE, codec::encode(&Propose { request }))
    }

    /// What may be asked without being a member; members may as well.
    fn join(&self, number: u64) -> JoinQuery {
        match number % 3 {
            0 => JoinQuery::Hello,
            1 => JoinQuery::Join(self.request(&Content::Join(Box::new(Join {
                node: self.key.public(),
                name: text(&format!("j{number}")),
                exporter: [0; 32],
                grant: self.request(&Content::Leave),
                possession: Signature::from_bytes(&[0; 64]),
            })))),
            _ => JoinQuery::Ask(Ask {
                node: self.key.public(),
                name: text(&format!("j{number}")),
                commitment: Hash::of(&number.to_be_bytes()),
                possession: Signature::from_bytes(&[0; 64]),
            }),
        }
    }

    fn small(&self, number: u64) -> Said {
        match number % 5 {
            0 => Said::Call(
                method::HEADS,
                codec::encode(&HeadsQuery {
                    position: Position {
                        index: self.state.position.index + AHEAD,
                        hash: Hash::of(b"nobody's"),
                    },
                }),
            ),
            1 => Said::Call(method::GENESIS, Vec::new()),
            2 => Said::Call(method::COUNCIL, Vec::new()),
            3 => {
                let query = RevocationsQuery {
                    issuer: self.issuer,
                    above: 0,
                };
                Said::Call(method::REVOCATIONS, codec::encode(&query))
            }
            _ => Said::Call(method::PING, vec![7; 1024 * 1024]),
        }
    }

    /// Of its newest generation.
    fn head(&self, seq: u64) -> Head {
        Head {
            node: self.id(),
            generation: (1 << 20) + self.generation.load(Ordering::Relaxed),
            seq,
            lease_ms: 4500,
            body: Hash::of(b""),
            body_len: 0,
            position: self.state.position,
            clock_ms: self.host.clock.wall_ms(),
        }
    }

    fn push(&self, head: &Head, body: Option<Vec<u8>>) -> Said {
        let head = head.seal(&*self.key, &self.state.mesh);
        let heads = vec![PushedHead { head, body }];
        Said::Notice(method::PUSH, codec::encode(&Push { heads }))
    }
}

fn text<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str) -> T {
    name.parse().expect("a name")
}
