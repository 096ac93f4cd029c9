//! A member that sits in between when a machine joins by its code: it neither
//! gets the machine into a mesh of its own choosing nor itself into this one.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_agent::{
    control::members::{AdmissionsRequest, ApproveRequest, Grants},
    enroll::{self, AskOptions, AskStep, JoinError},
    host::keys::NodeKey,
    node::Agent,
    quic::{Caller, Handler, Transport},
};
use innermesh_proto::{
    admission::{
        AdmissionAnswer, AdmissionQuery, Approved, Ask, Asking, KeyedWait, News, Nonce, Offer,
        Reveal, Transcript, commitment,
    },
    codec,
    crypto::Hash,
    ledger::{Outcome, request::Admit},
    message::{JoinQuery, Joined},
    rpc::{Failure, method},
};
use simulations::{
    Machine, World,
    mesh::{meet, until},
    stand_in::Place,
    world::PORT,
};

const PATIENCE: Duration = Duration::from_secs(20);
const NONCE: Nonce = [7; 32];

/// What it does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trick {
    /// Plays the admin of the mesh towards the machine, and says that the code
    /// was typed.
    TakeIn,
    /// Passes on all that the admin says, and asks to be let in in the
    /// machine's place with a key of its own.
    SlipIn,
}

/// The member in between.
struct Middle {
    trick: Trick,
    place: Place,
    /// The key that it wants let in.
    own: Arc<dyn NodeKey>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    ask: Option<Ask>,
    offer: Option<Offer>,
}

impl Middle {
    fn commitment(&self, ask: &Ask) -> Hash {
        commitment(
            &self.place.state().mesh,
            &self.own.public(),
            &ask.name,
            &NONCE,
        )
    }

    fn news(&self, revealed: bool) -> News {
        let seen = self.seen.lock().unwrap();
        match (self.trick, revealed) {
            (Trick::TakeIn, false) => News::Offer(Offer {
                admin: self.place.key.public(),
                nonce: NONCE,
                position: self.place.state().position,
            }),
            (Trick::TakeIn, true) => News::Approved(Box::new(Approved {
                proof: Hash([0; 32]),
                joined: Joined {
                    outcome: Outcome::Done(1),
                    leaf: self.place.chain.leaf.clone(),
                    issuer: self.place.chain.issuer.clone(),
                },
            })),
            (Trick::SlipIn, _) => seen.offer.map_or(News::Nothing, News::Offer),
        }
    }

    fn admission(&self, query: AdmissionQuery) -> AdmissionAnswer {
        let mut seen = self.seen.lock().unwrap();
        let Some(ask) = seen.ask.clone().filter(|_| self.trick == Trick::SlipIn) else {
            return AdmissionAnswer::List(Vec::new());
        };
        match query {
            AdmissionQuery::List => AdmissionAnswer::List(vec![Asking {
                node: self.own.public(),
                name: ask.name.clone(),
                remote: "192.0.2.9:4000".parse().unwrap(),
                commitment: self.commitment(&ask),
                age_ms: 0,
                admin: None,
            }]),
            AdmissionQuery::Offer(_, nonce, position) => {
                let state = self.place.state();
                let admins = state.members.values();
                let admin = admins.into_iter().find(|member| !member.roles.is_empty());
                seen.offer = Some(Offer {
                    admin: admin.expect("the founder").key,
                    nonce,
                    position,
                });
                AdmissionAnswer::Done
            }
            AdmissionQuery::Collect(_) => {
                let reveal = seen.offer.map(|offer| self.reveal(&ask, offer));
                AdmissionAnswer::Reveal(reveal)
            }
            AdmissionQuery::Key(_) => AdmissionAnswer::Key(None),
            AdmissionQuery::End(..) => AdmissionAnswer::Done,
        }
    }

    /// In the best order, by its own key.
    fn reveal(&self, ask: &Ask, offer: Offer) -> Reveal {
        let mesh = self.place.state().mesh;
        let transcript = Transcript {
            mesh,
            node: self.own.public(),
            name: ask.name.clone(),
            nonce: NONCE,
            offer,
        };
        let message = Admit::possession_message(&mesh, &offer.admin, &transcript.hash());
        Reveal {
            nonce: NONCE,
            possession: self.own.sign(&message),
        }
    }
}

#[async_trait]
impl Handler for Middle {
    async fn call(&self, _: &Caller, method: u16, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let bad = |_| Failure::Malformed;
        match method {
            method::ADMISSION => {
                let query = codec::decode(&body, 4096).map_err(bad)?;
                Ok(codec::encode(&self.admission(query)))
            }
            method::JOIN => Ok(match codec::decode(&body, 4096).map_err(bad)? {
                JoinQuery::Hello => codec::encode(&self.place.hello().await),
                JoinQuery::Ask(ask) => {
                    self.seen.lock().unwrap().ask = Some(ask);
                    Vec::new()
                }
                JoinQuery::Wait(wait) | JoinQuery::KeyedWait(KeyedWait { wait, .. }) => {
                    codec::encode(&self.news(wait.reveal.is_some()))
                }
                JoinQuery::Join(_) => return Err(Failure::Malformed),
            }),
            _ => Err(Failure::UnknownMethod),
        }
    }

    async fn notice(&self, _: &Caller, _: u16, _: Vec<u8>) {}
}

/// An admin's agent, and a machine without a token; between them a member
/// whose agent has ended.
struct Scene {
    world: World,
    admin: Agent,
    admin_at: SocketAddr,
    middle: Transport,
}

async fn scene(trick: Trick) -> Scene {
    let mut world = World::new(1);
    let ([one, mut mid], [admin, member]) = meet(&mut world, ["one", "mid"]).await;
    mid.crash().await;
    let middle = between(&mid, &member, trick).await;
    Scene {
        world,
        admin,
        admin_at: SocketAddr::new(one.address, PORT),
        middle,
    }
}

async fn between(machine: &Machine, agent: &Agent, trick: Trick) -> Transport {
    let place = Place::of(machine, agent.view()).await;
    let transport = place.transport.clone();
    transport.serve(Arc::new(Middle {
        trick,
        own: machine.host.keys.generate_ed25519(),
        place,
        seen: Mutex::default(),
    }));
    transport
}

fn options() -> AskOptions {
    AskOptions {
        seed: "mid".into(),
        name: "new".parse().unwrap(),
        interface: "im0".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_not_told_the_code_can_not_take_the_machine_in() {
    let mut scene = scene(Trick::TakeIn).await;
    let new = scene.world.machine("new");
    let shown = Mutex::new(0);
    let joined = enroll::ask(&new.host, options(), &|step| {
        if let AskStep::Code(_) = step {
            *shown.lock().unwrap() += 1;
        }
    })
    .await;
    assert!(matches!(joined, Err(JoinError::InBetween)), "{joined:?}");
    assert_eq!(*shown.lock().unwrap(), 1);
    let kept = new.host.disk.read("ledger".as_ref()).await.unwrap();
    assert!(kept.is_none(), "nothing was kept");
}

#[tokio::test(start_paused = true)]
async fn who_puts_its_own_key_in_place_of_the_machine_s_is_not_let_in_by_its_code() {
    let mut scene = scene(Trick::SlipIn).await;
    scene.middle.dial(scene.admin_at, None).await.unwrap();
    let new = scene.world.machine("new");
    let code = Arc::new(Mutex::new(None));
    let told = code.clone();
    let host = new.host.clone();
    tokio::spawn(async move {
        let _ = enroll::ask(&host, options(), &|step| {
            if let AskStep::Code(code) = step {
                *told.lock().unwrap() = Some(code);
            }
        })
        .await;
    });
    let control = scene.admin.control();
    until("the request to be seen", PATIENCE, async || {
        control.ask(AdmissionsRequest {}).await.unwrap().len() == 1
    })
    .await;
    until("a code", PATIENCE, async || code.lock().unwrap().is_some()).await;
    let code = code.lock().unwrap().clone().unwrap();
    let request = ApproveRequest {
        code: code.clone(),
        grants: Grants::default(),
    };
    let refused = control.ask(request.clone()).await.unwrap_err();
    assert!(refused.message.contains("man-in-the-middle"), "{refused}");
    // It was the one attempt.
    let refused = control.ask(request).await.unwrap_err();
    assert!(refused.message.contains("agent requests"), "{refused}");
    assert_eq!(scene.admin.view().borrow().ledger.members.len(), 2);
}
