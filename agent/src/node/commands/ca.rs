//! What is asked of the running agent about the certificate authority.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_proto::{
    codec,
    crypto::Hash,
    id::NodeId,
    ledger::{
        Content, Outcome, Refusal, Role, SignedRecovery, State,
        request::Promote,
        state::{Issuer, Member},
    },
    limits,
    message::{Deciding, IssuerKeys},
    name::Label,
    rpc::method,
    view::MeshView,
};

use super::{AgentControl, PATIENCE, no_node, not_member, refused};
use crate::node::commands::recovery;
use crate::{
    ca::{expiry, pem},
    control::api::{
        CaControl, CaKeys, CaRecovery, CaRoot, CaStatus, ControlError, Der, ErrorCode, IssuerRow,
        IssuerState, LedgerStatus, PromoteRequest, VoterRow, WaitingRow,
    },
    host::{UnixTime, state_folder},
    quic::CallError,
};

/// How long another node may take for a question.
const ASK: Duration = Duration::from_secs(5);
/// Between two attempts to reach one.
const PAUSE: Duration = Duration::from_millis(250);
/// How many nodes are asked who leads.
const ASKED: usize = 3;

#[async_trait]
impl CaControl for AgentControl {
    async fn ca_status(&self) -> CaStatus {
        let view = self.view();
        let state = &view.ledger;
        let deciding = self.deciding(state).await;
        let alone = || state.roster.first().filter(|_| state.roster.len() == 1);
        let leader = deciding.leader.or_else(|| alone().copied());
        let voters = state.voters.keys().map(|node| {
            let seen = deciding.voters.get(node);
            VoterRow {
                node: state.name_of(*node),
                decides: state.roster.contains(node),
                behind: seen.map(|seen| seen.behind),
                active: seen.map(|seen| seen.active),
            }
        });
        CaStatus {
            leader: leader.map(|node| state.name_of(node)),
            term: deciding.term,
            roster: state
                .roster
                .iter()
                .map(|node| state.name_of(*node))
                .collect(),
            waiting: waiting(state),
            voters: voters.collect(),
            issuers: self.issuer_rows(state),
            ledger: LedgerStatus {
                index: state.position.index,
                hash: state.position.hash.to_string(),
            },
            epoch: state.epoch,
            recovery: state.recovery,
            warnings: self.ca_warnings(&view).await,
        }
    }

    async fn ca_root(&self) -> CaRoot {
        let state = self.0.ledger.state();
        CaRoot {
            mesh: state.mesh.to_string(),
            pem: pem::encode("CERTIFICATE", state.root.der()),
            fingerprint_sha256: Hash::of(state.root.der()).to_string(),
            not_after: UnixTime::from_ms(state.root.not_after_ms),
        }
    }

    async fn ca_keys(&self, node: Label) -> Result<CaKeys, ControlError> {
        let (id, _) = self.promotable(&node)?;
        let keys = if id == self.0.me {
            self.0.ledger.issuer_keys().await.map_err(unavailable)?
        } else {
            self.keys_of(&node, id).await?
        };
        let state = self.0.ledger.state();
        Ok(CaKeys {
            mesh: state.mesh.to_string(),
            is_ca: state.is_voter(id),
            now_ms: self.0.now_ms(),
            held: recovery::held(&state, id, keys.held),
            offered: keys.offered.into_iter().map(Der).collect(),
        })
    }

    async fn ca_promote(&self, request: PromoteRequest) -> Result<(), ControlError> {
        let (node, _) = self.promotable(&request.node)?;
        let issuers = request.issuers.into_iter().map(|der| der.0).collect();
        self.decide(&Content::Promote(Promote { node, issuers }))
            .await
    }

    async fn ca_demote(&self, node: Label) -> Result<(), ControlError> {
        let state = self.0.ledger.state();
        let (id, _) = state.member_by_name(&node).ok_or_else(|| no_node(&node))?;
        match self.decide(&Content::Demote(id)).await {
            Err(error) if error.message == Refusal::LastCa.to_string() => Err(refused(format!(
                "{node} is the only CA node: nobody could decide anything any more; \
                 `agent ca promote` two others first"
            ))),
            other => other,
        }
    }

    async fn ca_recovery(&self) -> Result<CaRecovery, ControlError> {
        let view = self.view();
        let state = &view.ledger;
        let own = view.own_member().ok_or_else(not_member)?;
        let deciding = self.deciding(state).await;
        // Only who leads tells of the others.
        if let Some(leader) = deciding.leader.filter(|_| !deciding.voters.is_empty()) {
            return Err(refused(format!(
                "{} leads the CA nodes and answers: nothing is lost; to take one out that is gone, \
                 use `agent ca demote NODE`",
                state.name_of(leader)
            )));
        }
        let keys = self.0.ledger.issuer_keys().await.map_err(unavailable)?;
        let position = *self.0.ledger.durable().borrow();
        let now = self.0.gossip.now();
        let ahead = self.0.gossip.read(|table| {
            let further = table.iter().filter(|(_, known)| {
                known.is_live(now) && known.head.position.index > position.index
            });
            let nodes = further.map(|(node, _)| state.name_of(*node));
            nodes.collect()
        });
        let (me, now_ms) = ((view.me, own), self.0.now_ms());
        Ok(recovery::wanted(state, me, position, keys, ahead, now_ms))
    }

    async fn ca_recover(&self, signed: Der) -> Result<(), ControlError> {
        let signed: SignedRecovery = codec::decode(&signed.0, 2 * limits::HEADER_BYTES)
            .map_err(|error| super::invalid(format!("what the root signed: {error}")))?;
        match self.0.ledger.recover(signed).await {
            Ok(_) => Ok(()),
            Err(error) if recovery::is_overtaken(&error) => Err(refused(
                "the root didn't sign this for the newest batch here; the ledger went on \
                 meanwhile: run `agent ca recover` again",
            )),
            Err(error) => Err(unavailable(error)),
        }
    }
}

impl AgentControl {
    /// The member, if this machine may make it a CA node or renew it as one.
    fn promotable(&self, node: &Label) -> Result<(NodeId, Member), ControlError> {
        let view = self.view();
        let state = &view.ledger;
        let own = view.own_member().ok_or_else(not_member)?;
        let (id, member) = state.member_by_name(node).ok_or_else(|| no_node(node))?;
        let may = own.roles.contains(&Role::Admin) || (id == view.me && state.is_voter(id));
        if may {
            Ok((id, member.clone()))
        } else {
            Err(refused(
                "this machine is not an admin; run `agent ca promote` on one that is \
                 (`agent status` shows roles)",
            ))
        }
    }

    async fn keys_of(&self, name: &Label, node: NodeId) -> Result<IssuerKeys, ControlError> {
        let clock = &self.0.host.clock;
        let end = clock.now() + PATIENCE;
        let answer = loop {
            let call = self
                .0
                .transport
                .call(node, method::ISSUER_KEYS, Vec::new(), ASK);
            match call.await {
                Ok(answer) => break answer,
                // It may just have started.
                Err(CallError::NotConnected(_)) if clock.now() < end => clock.sleep(PAUSE).await,
                Err(error) => {
                    return Err(unavailable(format!(
                        "{name} can't be asked for the keys of its issuers ({error}); its agent \
                         must run and be reached from here, see `agent ping {name}`"
                    )));
                }
            }
        };
        codec::decode(&answer, limits::RPC_BYTES)
            .map_err(|error| unavailable(format!("{name}'s answer can't be read: {error}")))
    }

    /// Has the ledger decide; a refusal is told in its own words.
    pub(crate) async fn decide(&self, content: &Content) -> Result<(), ControlError> {
        let sealed = self.0.client.request(content, self.0.now_ms());
        match self.0.client.submit(&sealed, PATIENCE).await {
            Ok(Outcome::Done(_) | Outcome::Waiting(_)) => Ok(()),
            Ok(Outcome::Refused(refusal)) => Err(refused(refusal)),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// How deciding goes, as who leads sees it; as far as this node knows
    /// where that one can't be asked.
    async fn deciding(&self, state: &State) -> Deciding {
        let mut best = self.0.ledger.deciding().await;
        let mut asked = BTreeSet::from([self.0.me]);
        while best.voters.is_empty() && asked.len() <= ASKED {
            let hint = best.leader.filter(|node| !asked.contains(node));
            let mut others = state.roster.iter().filter(|node| !asked.contains(node));
            let next = hint.or_else(|| match best.leader {
                // It said all that it knows, or can't be reached.
                Some(_) => None,
                None => others.next().copied(),
            });
            let Some(node) = next else { break };
            asked.insert(node);
            let call = self
                .0
                .transport
                .call(node, method::COUNCIL, Vec::new(), ASK);
            let Ok(answer) = call.await else { continue };
            if let Ok(seen) = codec::decode::<Deciding>(&answer, limits::RPC_BYTES)
                && seen.term >= best.term
            {
                best = seen;
            }
        }
        best
    }

    fn issuer_rows(&self, state: &State) -> Vec<IssuerRow> {
        let now = self.wall();
        let mut issuers: Vec<&Issuer> = state.issuers.values().collect();
        issuers.sort_by_key(|issuer| {
            let certificate = &issuer.certificate;
            (state.name_of(issuer.node), certificate.not_before_ms)
        });
        let row = |issuer: &Issuer| {
            let certificate = &issuer.certificate;
            let not_after = UnixTime::from_ms(certificate.not_after_ms);
            IssuerRow {
                node: state.name_of(issuer.node),
                serial: certificate.serial.to_string(),
                state: match issuer.revoked {
                    Some(_) => IssuerState::Revoked,
                    None if now.ms() < certificate.not_before_ms => IssuerState::Next,
                    None if now.ms() > certificate.not_after_ms => IssuerState::Ended,
                    None => IssuerState::InForce,
                },
                not_before: UnixTime::from_ms(certificate.not_before_ms),
                not_after,
                days_left: not_after.days_from(now),
            }
        };
        issuers.into_iter().map(row).collect()
    }

    async fn ca_warnings(&self, view: &MeshView) -> Vec<String> {
        let mut warnings = self.expiry_warnings(view);
        let council = self.0.ledger.council().borrow().clone();
        warnings.extend(council.barred.map(|why| why.to_string()));
        warnings.extend(roster_advice(&view.ledger));
        warnings.extend(self.lost_warnings().await);
        let recovery = self.0.host.disk.read(state_folder::RECOVERY.as_ref()).await;
        if recovery.is_ok_and(|file| file.is_some()) {
            warnings.push(
                "the root's recovery file is still on this machine: whoever takes the machine has \
                 it, and with the machine it is lost. Copy it elsewhere with \
                 `agent ca root-key export FILE`, then `agent ca root-key seal --copy FILE`"
                    .into(),
            );
        }
        warnings
    }

    /// What a recovery left behind, as long as the copy of it is there.
    pub(crate) async fn lost_warnings(&self) -> Vec<String> {
        let lost = self.0.ledger.lost();
        if lost.is_empty() {
            return Vec::new();
        }
        let disk = &self.0.host.disk;
        let files = disk.list(Path::new("")).await.unwrap_or_default();
        let state = self.0.ledger.state();
        let told = lost
            .iter()
            .filter(|lost| files.contains(&PathBuf::from(lost.copy())));
        told.map(|lost| {
            let file = disk.root().join(lost.copy());
            let nodes: Vec<String> = lost.nodes.iter().map(|node| state.name_of(*node)).collect();
            let kept = if nodes.is_empty() {
String::new()
} else {
format!(
                    " This machine keeps out whom they evicted ({}); have an admin `agent evict` \
                     them again.",
                    nodes.join(", ")
                )
};
            format!(
                "the ledger was recovered from an earlier place: batches {} to {} that this \
                 machine held, with {} entries, are no part of it any more.{kept} See `agent ca log \
                 --file {file}`, ask again for what is missing, then remove that file",
                lost.from,
                lost.to,
                lost.entries,
                file = file.display()
            )
        })
        .collect()
    }

    /// Ends that are near: nothing here may expire as a surprise.
    pub(crate) fn expiry_warnings(&self, view: &MeshView) -> Vec<String> {
        let state = &view.ledger;
        let voters = state.voters.keys().filter(|node| state.is_voter(**node));
        let issuers: Vec<(String, Vec<expiry::Life>)> = voters
            .map(|node| {
                let usable = state
                    .issuers_of(*node)
                    .filter(|issuer| issuer.revoked.is_none());
                let lives = usable.map(|issuer| {
                    let certificate = &issuer.certificate;
                    (certificate.not_before_ms, certificate.not_after_ms)
                });
                (state.name_of(*node), lives.collect())
            })
            .collect();
        expiry::warnings(self.wall().ms(), state.root.not_after_ms, &issuers)
    }
}

/// What would make the roster survive more.
pub(crate) fn roster_advice(state: &State) -> Option<String> {
    let advice = match state.roster.len() {
        1 => {
            "one machine alone decides the ledger: while it is away nothing new is granted or \
             issued (what is there goes on). Make two more CA nodes with `agent ca promote NODE`"
        }
        2 => {
            "two CA nodes decide together, and neither may be away: add one with \
             `agent ca promote NODE`"
        }
        4 => {
            "four CA nodes survive the loss of one, as three do: add one with \
             `agent ca promote NODE`"
        }
        _ => return None,
    };
    Some(advice.into())
}

/// Members that are to decide and don't yet, and why.
fn waiting(state: &State) -> Vec<WaitingRow> {
    let queued = state.waiting();
    let come = state.wanted_roster().unwrap_or_default();
    let full = state.roster.len() >= limits::ROSTER;
    let with_issuer = queued.iter().map(|node| WaitingRow {
        node: state.name_of(*node),
        reason: match (come.contains(node), full) {
            (true, _) => "it is taken into the roster once it has the ledger and can be reached",
            (false, true) => "the roster is full: demote another first",
            (false, false) => "one more is needed: `agent ca promote` another",
        }
        .into(),
    });
    let members = state.members.iter();
    let without = members
        .filter(|(node, member)| member.roles.contains(&Role::Ca) && !state.is_voter(**node))
        .map(|(_, member)| WaitingRow {
            node: member.name.to_string(),
            reason: format!("it has no issuer: `agent ca promote {}`", member.name),
        });
    with_issuer.chain(without).collect()
}

fn unavailable(why: impl std::fmt::Display) -> ControlError {
    ControlError::new(ErrorCode::Unavailable, why)
}
