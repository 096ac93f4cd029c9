//! `agent requests`, `approve` and `deny`: an admin's agent asks every
//! connected member who waits to be let in, answers, and lets in the machine
//! whose code the admin types.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use innermesh_proto::{
    admission::{
        AdmissionAnswer, AdmissionQuery, Asking, Code, Ending, KeyReveal, Nonce, Offer, Transcript,
        Verdict,
    },
    codec,
    crypto::{Hash, PublicKey, Signature},
    id::NodeId,
    ledger::{
        Content, Refusal, Role, State,
        request::{Admit, KeyedAdmit},
    },
    limits,
    name::Label,
    rpc::method,
    view::MeshView,
};
use tokio::task::JoinSet;

use crate::{
    control::{
        ControlError, ErrorCode,
        members::{Admitted, ApproveRequest, Denied, RequestRow, RequestState},
    },
    host::Mono,
    ledger::client::RequestError,
    node::{
        commands::invite,
        peer::requests::Requests,
        shared::{
            handles::Handles,
            refusals::{PATIENCE, decide, invalid, not_done, refused},
        },
    },
    quic::CallError,
};

/// How long one member may take to answer.
const STEP: Duration = Duration::from_secs(4);
/// How often a member is told the verdict that can't be told it.
const TRIES: u32 = 3;

/// Answers who asks to be let in.
#[derive(Clone)]
pub(crate) struct Approvals {
    node: Handles,
    /// Who asks this node.
    requests: Arc<Requests>,
    /// The requests that this agent has answered.
    admissions: Arc<Admissions>,
}

impl Approvals {
    pub fn new(node: &Handles, requests: Arc<Requests>) -> Self {
        Self {
            node: node.clone(),
            requests,
            admissions: Arc::default(),
        }
    }
}

#[derive(Default)]
struct Admissions(Mutex<Vec<Session>>);

#[derive(Clone)]
struct Session {
    /// The member that relays.
    via: NodeId,
    node: PublicKey,
    name: Label,
    remote: SocketAddr,
    commitment: Hash,
    offer: Offer,
    since: Mono,
    shown: Option<Revealed>,
}

/// What a machine has shown.
#[derive(Clone)]
struct Revealed {
    /// All that was said.
    transcript: Transcript,
    /// That its key is its own.
    possession: Signature,
    /// Which WireGuard key it is to have. Older builds don't say so, and ask for
    /// it later.
    key: Option<KeyReveal>,
}

impl Admissions {
    fn sessions(&self, now: Mono) -> MutexGuard<'_, Vec<Session>> {
        let mut sessions = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let most = Duration::from_millis(limits::REQUEST_WAIT_MS);
        sessions.retain(|session| now < session.since + most);
        sessions
    }

    fn remove(&self, commitments: &BTreeSet<Hash>) {
        let mut sessions = self.0.lock().unwrap_or_else(|e| e.into_inner());
        sessions.retain(|session| !commitments.contains(&session.commitment));
    }
}

impl Approvals {
    fn require_admin(&self, command: &str) -> Result<Arc<State>, ControlError> {
        let state = self.node.ledger.state();
        let own = state.members.get(&self.node.me);
        if !own.is_some_and(|own| own.roles.contains(&Role::Admin)) {
            return Err(refused(format!(
                "this machine is not an admin; run `agent {command}` on one that is"
            )));
        }
        Ok(state)
    }

    /// Who asks to be let in, at any connected member; those that no admin has
    /// answered yet are answered, on which they show their codes.
    ///
    /// # Errors
    /// When this node is no admin.
    pub async fn list(&self) -> Result<Vec<RequestRow>, ControlError> {
        let state = self.require_admin("requests")?;
        let mut rows = Vec::new();
        let mut known = BTreeSet::new();
        for (via, asking) in self.ask_all().await {
            if !known.insert(asking.commitment) {
                continue;
            }
            let answered = self.answer(via, &asking).await;
            rows.push(RequestRow {
                name: asking.name.to_string(),
                node: asking.node.node_id().to_string(),
                address: asking.remote,
                via: state.name_of(via),
                age_s: asking.age_ms / 1000,
                state: if answered {
                    RequestState::Ready
                } else {
                    RequestState::Elsewhere
                },
                admin: if answered {
                    Some(state.name_of(self.node.me))
                } else {
                    asking.admin.map(|admin| state.name_of(admin))
                },
            });
        }
        rows.sort_by(|a, b| (&a.name, &a.node).cmp(&(&b.name, &b.node)));
        Ok(rows)
    }

    async fn ask_all(&self) -> Vec<(NodeId, Asking)> {
        let view = self.node.view.borrow().clone();
        let live = view.nodes.iter().filter(|(_, of)| of.live);
        let members = live.map(|(node, _)| *node);
        let mut answers = JoinSet::new();
        for via in members {
            let desk = self.clone();
            answers.spawn(async move { (via, desk.call(via, AdmissionQuery::List).await) });
        }
        let mut found = Vec::new();
        while let Some(answer) = answers.join_next().await {
            if let Ok((via, Ok(AdmissionAnswer::List(asking)))) = answer {
                found.extend(
                    asking
                        .into_iter()
                        .take(limits::REQUESTS)
                        .map(|asking| (via, asking)),
                );
            }
        }
        // In the same order each time, whoever answers first.
        found.sort_by_key(|(via, asking)| (*via, asking.commitment));
        found
    }

    /// Asks a member, or this node itself.
    async fn call(&self, via: NodeId, query: AdmissionQuery) -> Result<AdmissionAnswer, CallError> {
        if via == self.node.me {
            return Ok(self.requests.answer(self.node.me, query)?);
        }
        let body = codec::encode(&query);
        let answer = self
            .node
            .transport
            .call(via, method::ADMISSION, body, STEP)
            .await?;
        Ok(codec::decode(&answer, limits::STRANGER_RPC_BYTES)?)
    }

    /// Answers a request, unless that was done; whether it is this agent's to
    /// decide.
    async fn answer(&self, via: NodeId, asking: &Asking) -> bool {
        let now = self.node.host.clock.now();
        let full = {
            let sessions = self.admissions.sessions(now);
            let known = |session: &Session| session.commitment == asking.commitment;
            if sessions.iter().any(known) {
                return true;
            }
            sessions.len() >= limits::ADMISSIONS
        };
        if full || asking.admin.is_some() {
            return false;
        }
        let Some(own) = self.node.ledger.state().members.get(&self.node.me).cloned() else {
            return false;
        };
        let mut nonce: Nonce = [0; 32];
        self.node.host.keys.random(&mut nonce);
        let offer = Offer {
            admin: own.key,
            nonce,
            position: *self.node.ledger.durable().borrow(),
        };
        let query = AdmissionQuery::Offer(asking.commitment, nonce, offer.position);
        if let Err(why) = self.call(via, query).await {
            tracing::info!(%why, name = %asking.name, "a request could not be answered");
            return false;
        }
        self.admissions.sessions(now).push(Session {
            via,
            node: asking.node,
            name: asking.name.clone(),
            remote: asking.remote,
            commitment: asking.commitment,
            offer,
            since: now,
            shown: None,
        });
        true
    }

    /// The requests that this agent has answered, with what their machines have
    /// shown by now.
    async fn shown(&self) -> Vec<Session> {
        let mut sessions = self.admissions.sessions(self.node.host.clock.now()).clone();
        let mesh = self.node.ledger.state().mesh;
        for session in &mut sessions {
            if session.shown.is_some() {
                continue;
            }
            let query = AdmissionQuery::Collect(session.commitment);
            let Ok(AdmissionAnswer::Reveal(Some(reveal))) = self.call(session.via, query).await
            else {
                continue;
            };
            let transcript = Transcript {
                mesh,
                node: session.node,
                name: session.name.clone(),
                nonce: reveal.nonce,
                offer: session.offer,
            };
            if transcript.is_of(
                &session.commitment,
                &reveal.possession,
                &*self.node.host.keys,
            ) {
                session.shown = Some(Revealed {
                    key: self.key_of(session, &transcript).await,
                    transcript,
                    possession: reveal.possession,
                });
            }
        }
        sessions
    }

    async fn key_of(&self, session: &Session, transcript: &Transcript) -> Option<KeyReveal> {
        let query = AdmissionQuery::Key(session.commitment);
        // An older member can't read the question.
        let Ok(AdmissionAnswer::Key(key)) = self.call(session.via, query).await else {
            return None;
        };
        key.filter(|key| transcript.has_key(key, &*self.node.host.keys))
    }

    /// Lets the machine in whose code this is. A code that is nobody's makes every
    /// request void that this agent has answered: one attempt is all there is.
    ///
    /// # Errors
    /// Why nobody was let in.
    pub async fn approve(&self, request: ApproveRequest) -> Result<Admitted, ControlError> {
        let state = self.require_admin("approve")?;
        let code: Code = request.code.parse().map_err(invalid)?;
        let grants = invite::grants(&state, self.node.me, &request.grants)?;
        let sessions = self.shown().await;
        let ready: Vec<&Session> = sessions.iter().filter(|s| s.shown.is_some()).collect();
        if ready.is_empty() {
            return Err(refused(
                "no machine that this one has answered shows a code: run `agent requests` here first, \
                 and type what the machine shows then",
            ));
        }
        let fits = ready.iter().find_map(|session| {
            let shown = session.shown.as_ref()?;
            code.fits(&shown.transcript).then_some((*session, shown))
        });
        let Some((session, shown)) = fits else {
            let names: Vec<String> = ready.iter().map(|s| s.name.to_string()).collect();
            let void: BTreeSet<Hash> = ready.iter().map(|s| s.commitment).collect();
            self.admissions.remove(&void);
            for session in &ready {
                self.end(session, Verdict::Ended(Ending::Void)).await;
            }
            return Err(refused(format!(
                "no machine shows this code. If it was typed wrong, that was the one attempt: what {} \
                 asked for is void, and is told so; have `agent join` run there again. If it was typed \
                 right: possible man-in-the-middle",
                names.join(" and ")
            )));
        };
        self.admissions.remove(&[session.commitment].into());
        let admit = Admit {
            node: session.node,
            name: session.name.clone(),
            roles: grants.roles,
            names: grants.names,
            routes: grants.routes,
            transcript: shown.transcript.hash(),
            possession: shown.possession,
        };
        if let Err(error) = self.let_in(admit, shown.key.as_ref()).await {
            let verdict = Verdict::Ended(Ending::Refused(error.message.clone()));
            self.end(session, verdict).await;
            return Err(error);
        }
        let told = self
            .end(session, Verdict::Approved(code.proof(&shown.transcript)))
            .await;
        let state = self.node.ledger.state();
        let member = state.member_by_key(&session.node).map(|(_, member)| member);
        if !told {
            return Err(ControlError::new(
                ErrorCode::Unavailable,
                format!(
                    "{} is a member now, but {}, through which it asked, can't tell it so: `agent evict \
                     {}`, and have it ask another member with a new state folder",
                    session.name,
                    state.name_of(session.via),
                    session.name
                ),
            ));
        }
        Ok(Admitted {
            name: session.name.to_string(),
            node: session.node.node_id().to_string(),
            addresses: member.map(MeshView::addresses).unwrap_or_default(),
        })
    }

    /// Has the ledger make the machine a member, with its WireGuard key where it may
    /// have that. The code was typed, so what is in the way of the key is in the way
    /// of nothing else: the machine asks for one at its first start then.
    async fn let_in(&self, admit: Admit, key: Option<&KeyReveal>) -> Result<(), ControlError> {
        let rules = self.node.ledger.state().rules;
        if let Some(key) = key.filter(|_| rules > 0) {
            let keyed = KeyedAdmit {
                admit: Admit {
                    possession: key.possession,
                    ..admit.clone()
                },
                tunnel: key.tunnel,
            };
            let content = Content::KeyedAdmit(Box::new(keyed));
            match self.node.client.ask(&content, PATIENCE).await {
                Err(RequestError::Refused(why @ (Refusal::TunnelKey | Refusal::NotUnderstood))) => {
                    tracing::warn!(
                        name = %admit.name, %why,
                        "a machine can't have the WireGuard key that it made; it makes another one at \
                         its first start"
                    );
                }
                done => return done.map(drop).map_err(not_done),
            }
        }
        decide(&self.node.client, &Content::Admit(Box::new(admit))).await?;
        Ok(())
    }

    /// Refuses a machine, by its code or the name that it asks for.
    ///
    /// # Errors
    /// When there is no such request.
    pub async fn deny(&self, which: &str) -> Result<Denied, ControlError> {
        self.require_admin("deny")?;
        let code: Option<Code> = which.parse().ok();
        let sessions = self.shown().await;
        let is_it = |session: &&Session| {
            let fits = |code: Code| {
                let shown = session.shown.as_ref();
                shown.is_some_and(|shown| code.fits(&shown.transcript))
            };
            session.name.as_str() == which || code.is_some_and(fits)
        };
        let denied: Vec<&Session> = sessions.iter().filter(is_it).collect();
        if denied.is_empty() {
            return Err(ControlError::new(
                ErrorCode::NotFound,
                "no machine asks with that name or code; `agent requests` shows who does",
            ));
        }
        self.admissions
            .remove(&denied.iter().map(|session| session.commitment).collect());
        for session in &denied {
            self.end(session, Verdict::Ended(Ending::Denied)).await;
        }
        Ok(Denied {
            name: denied[0].name.to_string(),
            addresses: denied.iter().map(|session| session.remote).collect(),
        })
    }

    /// Has the machine told how it ended; whether the member that relays took it.
    async fn end(&self, session: &Session, verdict: Verdict) -> bool {
        for _ in 0..TRIES {
            let query = AdmissionQuery::End(session.commitment, verdict.clone());
            match self.call(session.via, query).await {
                Ok(_) => return true,
                Err(why) => {
                    tracing::warn!(%why, name = %session.name, "a verdict could not be told")
                }
            }
        }
        false
    }
}
