//! Asking to be let in without a token: see [`innermesh_proto::admission`].
//! Whoever answers at the seed isn't believed in anything until an admin's
//! agent has proved that it was told this machine's code.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use innermesh_proto::{
    admission::{
        Ask, Code, Ending, KeyReveal, KeyedWait, News, Nonce, Offer, Reveal, Transcript, Wait,
        commitment,
    },
    codec,
    ledger::{Role, SignedGenesis, State, request::Admit},
    limits,
    message::{JoinHello, JoinQuery},
    name::Label,
    rpc::{Failure, method},
};

use super::{
    fetch::Place,
    join_error::{JoinError, JoinReport, report},
    seed::{self, STEP},
};
use crate::{
    host::{Host, Mono, key_files as keys, keys::NodeKey},
    quic::{CallError, Channel, Transport},
    tls::MeshTls,
    tunnel,
};

/// How long one wait for news may take: longer than the member holds it back.
const NEWS: Duration = Duration::from_secs(9);
/// Between two attempts to reach the member again.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct AskOptions {
    /// A member's address: `host`, `host:port`, `[v6]:port`, or the URL of a lane.
    pub seed: String,
    /// The name that this machine wants.
    pub name: Label,
    /// The tunnel's interface: routes on it don't clash with the overlay.
    pub interface: String,
}

/// How far it has come, for the person at this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskStep {
    /// The member has the request; an admin is to ask for it. With it, the
    /// domain that the member says is its mesh's.
    Asked(String),
    /// An admin's agent answered: this is the code to be typed there.
    Code(String),
}

/// Asks, tells each step, and joins once an admin has typed the code. The
/// ledger is written last: until then this machine is in no mesh.
///
/// # Errors
/// [`JoinError`].
#[tracing::instrument(name = "ask", skip_all, fields(seed = %options.seed, node = %options.name))]
pub async fn ask(
    host: &Host,
    options: AskOptions,
    tell: &(dyn Fn(AskStep) + Send + Sync),
) -> Result<JoinReport, JoinError> {
    seed::check_free(host).await?;
    let identity = keys::identity_or_new(host).await?;
    let tls = MeshTls::asking(Arc::new(AtomicU64::new(0)), host.keys.clone());
    let transport = seed::open(host, &identity, &tls)?;
    let asking = Applicant {
        host,
        options: &options,
        identity: &identity,
        transport: &transport,
    };
    let joined = asking.run(tell).await;
    transport.close().await;
    joined
}

struct Applicant<'a> {
    host: &'a Host,
    options: &'a AskOptions,
    identity: &'a Arc<dyn NodeKey>,
    transport: &'a Transport,
}

/// What this machine keeps to itself for now.
struct Own {
    signed: SignedGenesis,
    genesis: State,
    nonce: Nonce,
    secret: [u8; 4],
}

impl Own {
    /// What follows from an admin's answer.
    fn transcript(&self, asking: &Applicant<'_>, offer: Offer) -> Transcript {
        Transcript {
            mesh: self.genesis.mesh,
            node: asking.identity.public(),
            name: asking.options.name.clone(),
            nonce: self.nonce,
            offer,
        }
    }
}

/// An admin's agent has answered.
struct AdminAnswer {
    transcript: Transcript,
    /// Unless the member that relays is of an older build.
    key: Option<KeyReveal>,
}

impl AdminAnswer {
    fn without_key(self) -> Self {
        Self { key: None, ..self }
    }
}

impl Applicant<'_> {
    async fn run(&self, tell: &(dyn Fn(AskStep) + Send + Sync)) -> Result<JoinReport, JoinError> {
        let clock = &self.host.clock;
        let end = clock.now() + Duration::from_millis(limits::REQUEST_WAIT_MS);
        let (mut channel, own) = self.begin().await?;
        tell(AskStep::Asked(own.genesis.domain.to_string()));
        let mut answered: Option<AdminAnswer> = None;
        loop {
            let news = match self.wait(&channel, &own, answered.as_ref()).await {
                Ok(Some(news)) => news,
                // It is asked without the key from now on.
                Ok(None) => {
                    answered = answered.map(AdminAnswer::without_key);
                    continue;
                }
                // A member keeps a stranger's connection for half a minute only.
                Err(_) => {
                    channel = self.again(end).await?;
                    continue;
                }
            };
            match (news, &answered) {
                (News::Ended(ending), _) => return Err(ending.into()),
                (News::Offer(offer), None) => {
                    let transcript = own.transcript(self, offer);
                    let code = Code::new(&transcript, own.secret);
                    tell(AskStep::Code(code.to_string()));
                    answered = Some(AdminAnswer {
                        key: Some(self.key(&transcript).await?),
                        transcript,
                    });
                }
                (News::Approved(approved), Some(AdminAnswer { transcript, .. })) => {
                    let code = Code::new(transcript, own.secret);
                    if approved.proof != code.proof(transcript) {
                        return Err(JoinError::InBetween);
                    }
                    let at = Place {
                        transport: self.transport,
                        seed: &self.options.seed,
                        remote: channel.remote(),
                    };
                    drop(channel);
                    return self.finish(&at, own, transcript, approved.joined).await;
                }
                // To a second answer nothing is shown: the nonce is known by now.
                (News::Offer(_) | News::Nothing | News::Approved(_), _) => {}
            }
            if clock.now() >= end {
                return Err(Ending::Expired.into());
            }
        }
    }

    /// Connects, looks at the mesh, and leaves the request.
    async fn begin(&self) -> Result<(Channel, Own), JoinError> {
        let keys = &*self.host.keys;
        let channel = seed::connect(self.host, &self.options.seed, &[], self.transport).await?;
        let hello: JoinHello = seed::ask(&channel, method::JOIN, &JoinQuery::Hello, STEP).await?;
        let genesis =
            State::genesis(&hello.genesis, keys).map_err(|e| JoinError::Seeded(e.to_string()))?;
        seed::check_clash(self.host, &genesis, &self.options.interface).await?;
        let (mut nonce, mut secret) = ([0; 32], [0; 4]);
        keys.random(&mut nonce);
        keys.random(&mut secret);
        let (node, name) = (self.identity.public(), self.options.name.clone());
        let commitment = commitment(&genesis.mesh, &node, &name, &nonce);
        let message = Ask::message(&genesis.mesh, &channel.exporter(), &name, &commitment);
        let query = JoinQuery::Ask(Ask {
            node,
            name,
            commitment,
            possession: self.identity.sign(&message),
        });
        let answer = channel
            .call(method::JOIN, codec::encode(&query), STEP)
            .await;
        answer.map_err(|error| match error {
            CallError::Failed(Failure::Refused(why) | Failure::Unavailable(why)) => {
                JoinError::Refused(why)
            }
            error => JoinError::Seeded(error.to_string()),
        })?;
        let own = Own {
            signed: hello.genesis,
            genesis,
            nonce,
            secret,
        };
        Ok((channel, own))
    }

    /// What the admin's agent may know now that it has answered.
    fn reveal(&self, transcript: &Transcript) -> Reveal {
        let message = Admit::possession_message(
            &transcript.mesh,
            &transcript.offer.admin,
            &transcript.hash(),
        );
        Reveal {
            nonce: transcript.nonce,
            possession: self.identity.sign(&message),
        }
    }

    /// The WireGuard key that this machine is to have, for that admin alone.
    async fn key(&self, transcript: &Transcript) -> Result<KeyReveal, JoinError> {
        let tunnel = tunnel::public_key(&keys::wireguard(self.host).await?);
        Ok(KeyReveal {
            tunnel,
            possession: self.identity.sign(&transcript.key_message(&tunnel)),
        })
    }

    /// Asks for news; `None` when the member's build can't read the message that
    /// carries the WireGuard key.
    async fn wait(
        &self,
        channel: &Channel,
        own: &Own,
        answered: Option<&AdminAnswer>,
    ) -> Result<Option<News>, JoinError> {
        let message = Wait::message(&own.genesis.mesh, &channel.exporter());
        let wait = Wait {
            node: self.identity.public(),
            possession: self.identity.sign(&message),
            reveal: answered.map(|answered| self.reveal(&answered.transcript)),
        };
        let Some(key) = answered.and_then(|answered| answered.key.clone()) else {
            let query = JoinQuery::Wait(wait);
            return seed::ask(channel, method::JOIN, &query, NEWS)
                .await
                .map(Some);
        };
        let query = JoinQuery::KeyedWait(KeyedWait { wait, key });
        match seed::ask(channel, method::JOIN, &query, NEWS).await {
            Err(JoinError::NotRead) => Ok(None),
            news => news.map(Some),
        }
    }

    /// Connects again, as long as there is time.
    async fn again(&self, end: Mono) -> Result<Channel, JoinError> {
        let clock = &self.host.clock;
        loop {
            match seed::connect(self.host, &self.options.seed, &[], self.transport).await {
                Ok(channel) => return Ok(channel),
                Err(error) if clock.now() >= end => return Err(error),
                Err(_) => clock.sleep(PAUSE).await,
            }
        }
    }

    /// Fetches the ledger as the member that this machine is by now. It was
    /// let in by the admin whose agent answered, and by nobody else.
    async fn finish(
        &self,
        at: &Place<'_>,
        own: Own,
        transcript: &Transcript,
        joined: innermesh_proto::message::Joined,
    ) -> Result<JoinReport, JoinError> {
        let Own { signed, .. } = own;
        let key = self.identity.public();
        let ledger = at
            .fetch(
                self.host,
                self.identity,
                &signed,
                joined,
                &transcript.offer.position,
            )
            .await?;
        ledger.check(&transcript.offer.position, &key)?;
        let admin = transcript.offer.admin.node_id();
        let member = ledger.state.members.get(&key.node_id());
        let by = ledger.state.members.get(&admin);
        let let_in = member.is_some_and(|member| member.invited_by == Some(admin))
            && by.is_none_or(|by| by.roles.contains(&Role::Admin));
        if !let_in {
            return Err(JoinError::InBetween);
        }
        ledger.store(self.host, &signed, &[at.remote]).await?;
        report(&ledger.state, &key)
    }
}
