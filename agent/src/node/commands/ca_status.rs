//! `agent ca status`: who decides the ledger, and who signs certificates.

use std::{collections::BTreeSet, time::Duration};

use innermesh_proto::{
    codec,
    crypto::Hash,
    ledger::{Role, State, state::Issuer},
    limits,
    message::RaftProgress,
    rpc::method,
    view::MeshView,
};

use crate::{
    ca::pem,
    control::{
        ca::{CaRoot, CaStatus, IssuerRow, IssuerState, VoterRow, WaitingRow},
        finding::{Finding, code},
        node::LedgerStatus,
    },
    host::{UnixTime, state_folder},
    node::{
        commands::{alone, warnings},
        shared::handles::Handles,
    },
};

/// How long another node may take for a question.
const ASK: Duration = Duration::from_secs(5);
/// How many nodes are asked who leads.
const ASKED: usize = 3;

/// How the roster and its issuers are.
pub async fn status(node: &Handles) -> CaStatus {
    let view = node.view.borrow().clone();
    let state = &view.ledger;
    let deciding = deciding(node, state).await;
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
    let findings = findings(node, &view).await;
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
        issuers: issuer_rows(node, state),
        ledger: LedgerStatus {
            index: state.position.index,
            hash: state.position.hash.to_string(),
        },
        epoch: state.epoch,
        recovery: state.recovery,
        warnings: findings.iter().map(Finding::sentence).collect(),
        findings,
    }
}

/// The mesh's root certificate.
pub fn root(node: &Handles) -> CaRoot {
    let state = node.ledger.state();
    CaRoot {
        mesh: state.mesh.to_string(),
        pem: pem::encode("CERTIFICATE", state.root.der()),
        fingerprint_sha256: Hash::of(state.root.der()).to_string(),
        not_after: UnixTime::from_ms(state.root.not_after_ms),
    }
}

/// How deciding goes, as who leads sees it; as far as this node knows
/// where that one can't be asked.
pub async fn deciding(node: &Handles, state: &State) -> RaftProgress {
    let mut best = node.ledger.raft_progress().await;
    let mut asked = BTreeSet::from([node.me]);
    while best.voters.is_empty() && asked.len() <= ASKED {
        let hint = best.leader.filter(|other| !asked.contains(other));
        let mut others = state.roster.iter().filter(|other| !asked.contains(other));
        let next = hint.or_else(|| match best.leader {
            // It said all that it knows, or can't be reached.
            Some(_) => None,
            None => others.next().copied(),
        });
        let Some(next) = next else { break };
        asked.insert(next);
        let call = node.transport.call(next, method::COUNCIL, Vec::new(), ASK);
        let Ok(answer) = call.await else { continue };
        if let Ok(seen) = codec::decode::<RaftProgress>(&answer, limits::RPC_BYTES)
            && seen.term >= best.term
        {
            best = seen;
        }
    }
    best
}

fn issuer_rows(node: &Handles, state: &State) -> Vec<IssuerRow> {
    let now = UnixTime::from_ms(node.host.clock.wall_ms());
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

async fn findings(node: &Handles, view: &MeshView) -> Vec<Finding> {
    let mut all = warnings::expiring(node.host.clock.wall_ms(), view);
    let council = node.ledger.raft_status().borrow().clone();
    all.extend(council.disabled.map(|why| {
        let remedy = "Then look at `agent ca status` again";
        Finding::error(code::VOTING_DISABLED, why.to_string(), remedy)
    }));
    all.extend(alone::only_ca(&view.ledger));
    all.extend(warnings::roster_advice(&view.ledger));
    all.extend(warnings::lost(node).await);
    let recovery = node.host.disk.read(state_folder::RECOVERY.as_ref()).await;
    if recovery.is_ok_and(|file| file.is_some()) {
        all.push(Finding::warning(
            code::ROOT_KEY_HERE,
            "the root's recovery file is still on this machine: whoever takes the machine has \
             it, and with the machine it is lost",
            "Copy it elsewhere with `agent ca root-key export FILE`, then `agent ca root-key seal \
             --copy FILE`",
        ));
    }
    all
}

/// Members that are to decide and don't yet, and why.
fn waiting(state: &State) -> Vec<WaitingRow> {
    let queued = state.waiting();
    let come = state.wanted_roster().unwrap_or_default();
    let full = state.roster.len() >= limits::ROSTER;
    let with_issuer = queued.iter().map(|node| WaitingRow {
        node: state.name_of(*node),
        reason: if come.contains(node) {
            "it is taken into the roster once it has the ledger and can be reached"
        } else if full {
            "the roster is full: demote another first"
        } else {
            "one more is needed: `agent ca promote` another"
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
