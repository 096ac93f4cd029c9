//! A machine's WireGuard key comes with its join, by a token and by a code: what
//! a member that passes the join on can do about it, and what an older one does.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use innermesh_agent::{
    control::members::{AdmissionsRequest, ApproveRequest, Grants},
    enroll::{self, AskOptions, AskStep, JoinError, JoinReport},
    host::key_files as keys,
    node::Agent,
    quic::{Caller, Handler},
    tunnel::public_key,
};
use innermesh_proto::{
    admission::{
        AdmissionAnswer, AdmissionQuery, Approved, Ask, Asking, News, Offer, Reveal, Verdict, Wait,
    },
    codec,
    crypto::Sealed,
    id::NodeId,
    ledger::{Content, Outcome, Request, State},
    limits,
    message::{JoinQuery, Joined, Propose, Submitted},
    rpc::{Failure, method},
    tunnel::TunnelKey,
};
use simulations::{
    Machine, World,
    mesh::{ask, invite, join_with, meet, start, until},
    stand_in::Place,
    world::PORT,
};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_secs(5);

/// A founder, a member, and a machine that isn't one yet.
async fn scene(world: &mut World) -> ([Machine; 3], Agent, Agent) {
    let ([one, mid], [admin, member]) = meet(world, ["one", "mid"]).await;
    ([one, mid, world.machine("new")], admin, member)
}

async fn own_key(machine: &Machine) -> TunnelKey {
    public_key(&keys::wireguard(&machine.host).await.unwrap())
}

async fn id(machine: &Machine) -> NodeId {
    let key = keys::identity_or_new(&machine.host).await.unwrap();
    key.public().node_id()
}

fn ledger(agent: &Agent) -> Arc<State> {
    agent.view().borrow().ledger.clone()
}

/// A machine that asks to be let in.
struct Newcomer {
    code: Arc<Mutex<Option<String>>>,
    joined: JoinHandle<Result<JoinReport, JoinError>>,
}

impl Newcomer {
    fn by(machine: &Machine, seed: &str) -> Self {
        let options = AskOptions {
            seed: seed.into(),
            name: machine.name.parse().unwrap(),
            interface: "im0".into(),
        };
        let code = Arc::new(Mutex::new(None));
        let (host, shown) = (machine.host.clone(), code.clone());
        let joined = tokio::spawn(async move {
            enroll::ask(&host, options, &|step| {
                if let AskStep::Code(code) = step {
                    *shown.lock().unwrap() = Some(code);
                }
            })
            .await
        });
        Self { code, joined }
    }

    /// Once the machine shows its code.
    async fn code(&self, admin: &Agent) -> String {
        let control = admin.control();
        until("the request to be seen", PATIENCE, async || {
            control.ask(AdmissionsRequest {}).await.unwrap().len() == 1
        })
        .await;
        until("a code", PATIENCE, async || {
            self.code.lock().unwrap().is_some()
        })
        .await;
        self.code.lock().unwrap().clone().unwrap()
    }
}

/// Types the code, once the machine's own words have come to the admin's agent.
async fn approve(admin: &Agent, code: &str) {
    let control = admin.control();
    until("the approval", PATIENCE, async || {
        let request = ApproveRequest {
            code: code.into(),
            grants: Grants::default(),
        };
        control.ask(request).await.is_ok()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_joins_by_its_code_has_its_key_in_the_entry_that_makes_it_a_member() {
    let mut world = World::new(1);
    let ([_, _, new], admin, _member) = scene(&mut world).await;
    let request = Newcomer::by(&new, "mid");
    let code = request.code(&admin).await;
    approve(&admin, &code).await;
    // Its agent hasn't started, so nobody else can have asked for the key.
    let node = id(&new).await;
    until("the member to be seen", PATIENCE, async || {
        ledger(&admin).members.contains_key(&node)
    })
    .await;
    let state = ledger(&admin);
    let listed = state.tunnel_keys(&node).expect("a key");
    assert_eq!(
        (listed.current, listed.previous),
        (own_key(&new).await, None)
    );
    request.joined.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_that_takes_the_key_of_who_joins_by_a_code_costs_it_a_new_key() {
    let mut world = World::new(1);
    let ([_, mid, new], admin, member) = scene(&mut world).await;
    let request = Newcomer::by(&new, "mid");
    let code = request.code(&admin).await;
    let stolen = own_key(&new).await;
    ask(&member, &Content::TunnelKey(stolen)).await.unwrap();
    approve(&admin, &code).await;
    // The code was good for one attempt, and that let it in.
    request.joined.await.unwrap().unwrap();
    let node = id(&new).await;
    let _agent = start(&new).await;
    until("another key", PATIENCE, async || {
        let state = ledger(&admin);
        let listed = state.tunnel_keys(&node).copied();
        listed.is_some_and(|listed| listed.current != stolen)
    })
    .await;
    let state = ledger(&admin);
    assert_eq!(state.tunnel_key_holder(&stolen), Some(id(&mid).await));
    until("its file to have it", PATIENCE, async || {
        state.tunnel_keys(&node).unwrap().current == own_key(&new).await
    })
    .await;
}

/// A seed that has each key which it is to pass on written down as its own.
struct FrontRunner {
    place: Place,
    leader: NodeId,
    taken: Mutex<Vec<TunnelKey>>,
}

impl FrontRunner {
    async fn take(&self, key: TunnelKey) -> Outcome {
        self.taken.lock().unwrap().push(key);
        let request = self.place.request(&Content::TunnelKey(key));
        self.submit(request).await
    }

    async fn submit(&self, request: Sealed) -> Outcome {
        let body = codec::encode(&Propose { request });
        let transport = &self.place.transport;
        let answer = transport
            .call(self.leader, method::SUBMIT, body, STEP)
            .await;
        match codec::decode(&answer.unwrap(), limits::RPC_BYTES).unwrap() {
            Submitted::Outcome(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }
}

#[async_trait]
impl Handler for FrontRunner {
    async fn call(&self, _: &Caller, method: u16, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        if method != method::JOIN {
            return Err(Failure::UnknownMethod);
        }
        match codec::decode(&body, limits::RPC_BYTES).unwrap() {
            JoinQuery::Hello => Ok(codec::encode(&self.place.hello().await)),
            JoinQuery::Join(sealed) => {
                let request: Request = sealed.peek(limits::REQUEST_BYTES).unwrap();
                if let Some(Content::KeyedJoin(keyed)) =
                    Content::decode(request.kind, &request.content)
                {
                    let taken = self.take(keyed.tunnel).await;
                    assert!(matches!(taken, Outcome::Done(_)), "{taken:?}");
                }
                Ok(codec::encode(&Joined {
                    outcome: self.submit(sealed).await,
                    leaf: Vec::new(),
                    issuer: Vec::new(),
                }))
            }
            _ => Err(Failure::Malformed),
        }
    }

    async fn notice(&self, _: &Caller, _: u16, _: Vec<u8>) {}
}

#[tokio::test(start_paused = true)]
async fn a_seed_that_takes_the_key_of_who_joins_by_a_token_costs_it_new_keys_and_another_seed() {
    let mut world = World::new(1);
    let ([one, mut mid, new], admin, _member) = scene(&mut world).await;
    let thief = id(&mid).await;
    mid.crash().await;
    let place = Place::of(&mid, admin.view()).await;
    let transport = place.transport.clone();
    let runner = Arc::new(FrontRunner {
        place,
        leader: id(&one).await,
        taken: Mutex::default(),
    });
    transport.serve(runner.clone());
    let at = SocketAddr::new(one.address, PORT);
    transport.dial(at, None).await.unwrap();

    let token = invite(&admin).await.unwrap();
    let refused = join_with(&new, "mid", token.clone()).await.map(|_| ());
    let why = refused.unwrap_err();
    assert!(why.contains("another seed"), "{why}");
    let kept = new.host.disk.read("ledger".as_ref()).await.unwrap();
    assert!(kept.is_none(), "nothing was kept");
    let taken = runner.taken.lock().unwrap().clone();
    assert_eq!(taken.len(), 2, "a second key was tried");
    assert_ne!(taken[0], taken[1]);
    assert_eq!(ledger(&admin).members.len(), 2, "nobody was let in");

    // Neither its identity nor its token is spent, only the keys are.
    let _agent = join_with(&new, "one", token).await.unwrap();
    let (node, own) = (id(&new).await, own_key(&new).await);
    assert!(!taken.contains(&own));
    until("the member to be seen", PATIENCE, async || {
        ledger(&admin).members.contains_key(&node)
    })
    .await;
    let state = ledger(&admin);
    assert_eq!(state.tunnel_keys(&node).unwrap().current, own);
    for key in taken {
        assert_eq!(state.tunnel_key_holder(&key), Some(thief));
    }
}

/// A member of the build before keys came with a code.
struct OldRelay {
    place: Place,
    leader: NodeId,
    waiting: Mutex<Option<Waiting>>,
    /// What it couldn't read.
    unread: AtomicU32,
}

struct Waiting {
    ask: Ask,
    offer: Option<Offer>,
    reveal: Option<Reveal>,
    verdict: Option<Verdict>,
}

impl OldRelay {
    fn joined(&self, ask: &Ask) -> Option<Joined> {
        let state = self.place.state();
        let (_, member) = state.member_by_key(&ask.node)?;
        let issued = &state.certificates[&member.certificate?];
        Some(Joined {
            outcome: Outcome::Done(member.joined),
            leaf: issued.der.to_vec(),
            issuer: state.issuer_of(issued)?.der().to_vec(),
        })
    }

    fn news(&self, wait: &Wait) -> News {
        let mut waiting = self.waiting.lock().unwrap();
        let request = waiting.as_mut().expect("it has asked");
        match &request.verdict {
            Some(Verdict::Approved(proof)) => {
                return self.joined(&request.ask).map_or(News::Nothing, |joined| {
                    News::Approved(Box::new(Approved {
                        proof: *proof,
                        joined,
                    }))
                });
            }
            Some(Verdict::Ended(ending)) => return News::Ended(ending.clone()),
            None => {}
        }
        match (request.offer, &wait.reveal) {
            (Some(offer), None) => News::Offer(offer),
            (Some(_), Some(reveal)) => {
                request.reveal = Some(reveal.clone());
                News::Nothing
            }
            (None, _) => News::Nothing,
        }
    }

    fn admission(&self, query: AdmissionQuery) -> Result<AdmissionAnswer, Failure> {
        let mut waiting = self.waiting.lock().unwrap();
        let Some(request) = waiting.as_mut() else {
            return Ok(AdmissionAnswer::List(Vec::new()));
        };
        Ok(match query {
            AdmissionQuery::List => AdmissionAnswer::List(vec![Asking {
                node: request.ask.node,
                name: request.ask.name.clone(),
                remote: "192.0.2.9:4000".parse().unwrap(),
                commitment: request.ask.commitment,
                age_ms: 0,
                admin: request.offer.map(|offer| offer.admin.node_id()),
            }]),
            AdmissionQuery::Offer(_, nonce, position) => {
                request.offer = Some(Offer {
                    admin: self.place.state().members[&self.leader].key,
                    nonce,
                    position,
                });
                AdmissionAnswer::Done
            }
            AdmissionQuery::Collect(_) => AdmissionAnswer::Reveal(request.reveal.clone()),
            AdmissionQuery::End(_, verdict) => {
                request.verdict = Some(verdict);
                AdmissionAnswer::Done
            }
            AdmissionQuery::Key(_) => return Err(self.cant_read()),
        })
    }

    fn cant_read(&self) -> Failure {
        self.unread.fetch_add(1, Ordering::Relaxed);
        Failure::Malformed
    }
}

#[async_trait]
impl Handler for OldRelay {
    async fn call(&self, _: &Caller, method: u16, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let limit = limits::RPC_BYTES;
        match method {
            method::ADMISSION => {
                let answer = self.admission(codec::decode(&body, limit).unwrap())?;
                Ok(codec::encode(&answer))
            }
            method::JOIN => match codec::decode(&body, limit).unwrap() {
                JoinQuery::Hello => Ok(codec::encode(&self.place.hello().await)),
                JoinQuery::Ask(ask) => {
                    *self.waiting.lock().unwrap() = Some(Waiting {
                        ask,
                        offer: None,
                        reveal: None,
                        verdict: None,
                    });
                    Ok(Vec::new())
                }
                JoinQuery::Wait(wait) => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Ok(codec::encode(&self.news(&wait)))
                }
                JoinQuery::KeyedWait(_) | JoinQuery::Join(_) => Err(self.cant_read()),
            },
            method::LEDGER | method::SNAPSHOT | method::SNAPSHOT_PART => {
                let transport = &self.place.transport;
                let answer = transport.call(self.leader, method, body, STEP).await;
                answer.map_err(|_| Failure::Busy)
            }
            _ => Err(Failure::UnknownMethod),
        }
    }

    async fn notice(&self, _: &Caller, _: u16, _: Vec<u8>) {}
}

#[tokio::test(start_paused = true)]
async fn a_member_that_cannot_pass_a_key_on_lets_the_machine_in_and_it_asks_for_the_key_itself() {
    let mut world = World::new(1);
    let ([one, mut mid, new], admin, _member) = scene(&mut world).await;
    mid.crash().await;
    let place = Place::of(&mid, admin.view()).await;
    let transport = place.transport.clone();
    let relay = Arc::new(OldRelay {
        place,
        leader: id(&one).await,
        waiting: Mutex::default(),
        unread: AtomicU32::new(0),
    });
    transport.serve(relay.clone());
    let at = SocketAddr::new(one.address, PORT);
    transport.dial(at, None).await.unwrap();

    let request = Newcomer::by(&new, "mid");
    let code = request.code(&admin).await;
    approve(&admin, &code).await;
    request.joined.await.unwrap().unwrap();
    // The machine's word of its key, and the admin's question for it.
    assert!(relay.unread.load(Ordering::Relaxed) >= 2);
    let node = id(&new).await;
    assert!(ledger(&admin).tunnel_keys(&node).is_none());
    // It knows no other member than the one that it asked.
    mid.crash().await;
    let _relay = start(&mid).await;
    let _agent = start(&new).await;
    let own = own_key(&new).await;
    until("its key to be listed", PATIENCE, async || {
        let listed = ledger(&admin).tunnel_keys(&node).copied();
        listed.is_some_and(|listed| listed.current == own)
    })
    .await;
}
