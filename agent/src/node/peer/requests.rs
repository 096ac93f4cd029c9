//! Machines that ask this member to be let in: it keeps what they and an
//! admin's agent tell each other, a few and not for long, and never in gossip.
//! It decides nothing, and needn't be trusted.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use innermesh_proto::{
    admission::{
        AdmissionAnswer, AdmissionQuery, Approved, Ask, Asking, Ending, KeyReveal, News, Offer,
        Reveal, Verdict, Wait,
    },
    crypto::{Hash, PublicKey},
    id::NodeId,
    ledger::{Outcome, Refusal, Role, State},
    limits,
    message::Joined,
    rpc::Failure,
};
use tokio::sync::watch;

use crate::{
    host::{Host, Mono},
    ledger::Ledger,
    node::shared::handles::Handles,
    quic::Caller,
};

/// How long the answer to a machine that waits for news is held back.
const HOLD_BACK: Duration = Duration::from_secs(5);

/// The machines that wait.
pub(crate) struct Requests {
    host: Host,
    ledger: Ledger,
    waiting: Mutex<Vec<WaitingRequest>>,
    changed: watch::Sender<u64>,
}

struct WaitingRequest {
    ask: Ask,
    remote: SocketAddr,
    since: Mono,
    offer: Option<(NodeId, Offer)>,
    reveal: Option<Reveal>,
    key: Option<KeyReveal>,
    verdict: Option<Verdict>,
}

impl Requests {
    pub fn new(node: &Handles) -> Self {
        Self {
            host: node.host.clone(),
            ledger: node.ledger.clone(),
            waiting: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// Those that haven't waited for too long.
    fn waiting(&self, now: Mono) -> MutexGuard<'_, Vec<WaitingRequest>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(|e| e.into_inner());
        let most = Duration::from_millis(limits::REQUEST_WAIT_MS);
        waiting.retain(|request| now < request.since + most);
        waiting
    }

    fn change(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// Why not, for the person at that machine.
    pub fn ask(&self, caller: &Caller, ask: Ask) -> Result<(), Failure> {
        let state = self.ledger.state();
        let message = Ask::message(&state.mesh, &caller.exporter, &ask.name, &ask.commitment);
        if !self.host.keys.ed25519(&ask.node, &message, &ask.possession) {
            return Err(Failure::Malformed);
        }
        check(&state, &ask).map_err(|error| Failure::Refused(error.to_string()))?;
        let now = self.host.clock.now();
        let mut waiting = self.waiting(now);
        // Asked again, the earlier request is over: its nonce isn't used twice.
        waiting.retain(|request| request.ask.node != ask.node);
        let ip = caller.remote.ip();
        let here = waiting.iter().filter(|request| request.remote.ip() == ip);
        if waiting.len() >= limits::REQUESTS || here.count() >= limits::REQUESTS_PER_ADDRESS {
            return Err(Failure::Refused(
                "too many machines wait here to be let in; try again in ten minutes, or ask another \
                 member"
                    .into(),
            ));
        }
        tracing::info!(name = %ask.name, remote = %caller.remote, "a machine asks to be let in");
        waiting.push(WaitingRequest {
            ask,
            remote: caller.remote,
            since: now,
            offer: None,
            reveal: None,
            key: None,
            verdict: None,
        });
        drop(waiting);
        self.change();
        Ok(())
    }

    /// The news of a request, held back for a while where there are none.
    ///
    /// # Errors
    /// When it isn't the machine that asks.
    pub async fn wait(
        &self,
        caller: &Caller,
        wait: Wait,
        key: Option<KeyReveal>,
    ) -> Result<News, Failure> {
        let mesh = self.ledger.state().mesh;
        let message = Wait::message(&mesh, &caller.exporter);
        if !self
            .host
            .keys
            .ed25519(&wait.node, &message, &wait.possession)
        {
            return Err(Failure::Malformed);
        }
        let clock = &self.host.clock;
        let end = clock.now() + HOLD_BACK;
        let mut changed = self.changed.subscribe();
        let mut ledger = self.ledger.durable();
        loop {
            changed.mark_unchanged();
            ledger.mark_unchanged();
            let news = self.news(&wait, key.as_ref());
            if news != News::Nothing || clock.now() >= end {
                return Ok(news);
            }
            tokio::select! {
                _ = changed.changed() => {}
                _ = ledger.changed() => {}
                () = clock.sleep(end.saturating_sub(clock.now())) => {}
            }
        }
    }

    fn news(&self, wait: &Wait, key: Option<&KeyReveal>) -> News {
        let mut waiting = self.waiting(self.host.clock.now());
        let Some(request) = waiting
            .iter_mut()
            .find(|request| request.ask.node == wait.node)
        else {
            return News::Ended(Ending::Expired);
        };
        match &request.verdict {
            Some(Verdict::Ended(ending)) => return News::Ended(ending.clone()),
            Some(Verdict::Approved(proof)) => {
                // The ledger here may be behind that of the admin's agent.
                let joined = self.joined(&wait.node);
                return joined.map_or(News::Nothing, |joined| {
                    News::Approved(Box::new(Approved {
                        proof: *proof,
                        joined,
                    }))
                });
            }
            None => {}
        }
        match (&request.offer, &wait.reveal, &request.reveal) {
            (Some((_, offer)), None, None) => News::Offer(*offer),
            (Some(_), Some(reveal), None) => {
                request.reveal = Some(reveal.clone());
                request.key = key.cloned();
                drop(waiting);
                self.change();
                News::Nothing
            }
            _ => News::Nothing,
        }
    }

    fn joined(&self, key: &PublicKey) -> Option<Joined> {
        let state = self.ledger.state();
        let (_, member) = state.member_by_key(key)?;
        // It fetches the ledger next, from this node's disk.
        if self.ledger.durable().borrow().index < member.joined {
            return None;
        }
        let issued = state.certificates.get(&member.certificate?)?;
        Some(Joined {
            outcome: Outcome::Done(member.joined),
            leaf: issued.der.to_vec(),
            issuer: state.issuer_of(issued)?.der().to_vec(),
        })
    }

    /// Answers an admin's agent.
    ///
    /// # Errors
    /// Why not.
    pub fn answer(&self, admin: NodeId, query: AdmissionQuery) -> Result<AdmissionAnswer, Failure> {
        let state = self.ledger.state();
        let member = state.members.get(&admin).ok_or(Failure::NotMember)?;
        if !member.roles.contains(&Role::Admin) {
            return Err(Failure::Refused("only admins let machines in".into()));
        }
        let now = self.host.clock.now();
        let mut waiting = self.waiting(now);
        let answer = match query {
            AdmissionQuery::List => {
                let open = waiting.iter().filter(|request| request.verdict.is_none());
                return Ok(AdmissionAnswer::List(
                    open.map(|request| asking(request, now)).collect(),
                ));
            }
            AdmissionQuery::Offer(commitment, nonce, position) => {
                let request = find(&mut waiting, &commitment)?;
                // One answer for each: with a second, to a nonce that is known by
                // then, the code could be chosen.
                if request.offer.is_some() {
                    return Err(Failure::Refused("another admin has answered it".into()));
                }
                let offer = Offer {
                    admin: member.key,
                    nonce,
                    position,
                };
                request.offer = Some((admin, offer));
                AdmissionAnswer::Done
            }
            AdmissionQuery::Collect(commitment) => {
                let request = find(&mut waiting, &commitment)?;
                return Ok(AdmissionAnswer::Reveal(request.reveal.clone()));
            }
            AdmissionQuery::Key(commitment) => {
                let request = find(&mut waiting, &commitment)?;
                return Ok(AdmissionAnswer::Key(request.key.clone()));
            }
            AdmissionQuery::End(commitment, verdict) => {
                let request = find(&mut waiting, &commitment)?;
                if request.offer.is_some_and(|(by, _)| by != admin) {
                    return Err(Failure::Refused("another admin has answered it".into()));
                }
                request.verdict = Some(verdict);
                AdmissionAnswer::Done
            }
        };
        drop(waiting);
        self.change();
        Ok(answer)
    }
}

/// Why a machine needn't wait for a person.
#[derive(Debug, thiserror::Error)]
enum AskError {
    /// It is in the mesh.
    #[error("{}", Refusal::AlreadyMember)]
    Member,
    /// Its key never comes back.
    #[error("this machine was evicted; join with a new state folder, which has a new key")]
    Evicted,
    /// Somebody has the name that it wants.
    #[error(transparent)]
    NameTaken(Refusal),
}

/// Whether the ledger might let it in.
fn check(state: &State, ask: &Ask) -> Result<(), AskError> {
    let node = ask.node.node_id();
    if state.members.contains_key(&node) {
        return Err(AskError::Member);
    }
    if state.evicted.contains_key(&node) {
        return Err(AskError::Evicted);
    }
    match state.names.get(&ask.name) {
        Some(held) => {
            let owner = state.members.get(&held.owner);
            Err(AskError::NameTaken(Refusal::NameTaken {
                name: ask.name.clone(),
                owner: owner.map_or_else(|| ask.name.clone(), |owner| owner.name.clone()),
            }))
        }
        None => Ok(()),
    }
}

fn find<'w>(
    waiting: &'w mut [WaitingRequest],
    commitment: &Hash,
) -> Result<&'w mut WaitingRequest, Failure> {
    let mut open = waiting
        .iter_mut()
        .filter(|request| request.verdict.is_none());
    open.find(|request| request.ask.commitment == *commitment)
        .ok_or_else(|| Failure::Refused("the request is over".into()))
}

fn asking(request: &WaitingRequest, now: Mono) -> Asking {
    let age = now.saturating_sub(request.since);
    Asking {
        node: request.ask.node,
        name: request.ask.name.clone(),
        remote: request.remote,
        commitment: request.ask.commitment,
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        admin: request.offer.as_ref().map(|(admin, _)| *admin),
    }
}
