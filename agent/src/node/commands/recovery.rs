//! A new roster by the root's word: what is to be signed for this node, also
//! while the agent doesn't run.

#![allow(missing_docs, reason = "the names say it")]

use std::{collections::BTreeSet, path::Path};

use innermesh_proto::{
    certificate::Serial,
    codec,
    id::NodeId,
    ledger::{BatchError, Position, Recovery, SignedRecovery, State, stamp, state::Member},
    limits,
    message::IssuerKeys,
};

use crate::{
    control::{
        ControlError, Der,
        ca::{CaRecovery, Life},
    },
    enroll::kept::Kept,
    gossip::known,
    host::{Host, key_files as keys, state_folder},
    ledger::{IssuerKeysError, Ledger, Stored, TakeError},
    node::{
        build_error::BuildError,
        commands::ca_status,
        config::LOCK,
        shared::{
            handles::Handles,
            refusals::{invalid, not_member, refused, unavailable},
        },
    },
};

/// What the root is to sign so that this node decides alone.
///
/// # Errors
/// When nothing is lost.
pub async fn asked(node: &Handles) -> Result<CaRecovery, ControlError> {
    let view = node.view.borrow().clone();
    let state = &view.ledger;
    let own = view.own_member().ok_or_else(not_member)?;
    let deciding = ca_status::deciding(node, state).await;
    // Only who leads tells of the others.
    if let Some(leader) = deciding.leader.filter(|_| !deciding.voters.is_empty()) {
        return Err(refused(format!(
            "{} leads the CA nodes and answers: nothing is lost; to take one out that is gone, \
             use `agent ca demote NODE`",
            state.name_of(leader)
        )));
    }
    let keys = node.ledger.issuer_keys().await.map_err(unavailable)?;
    let position = *node.ledger.durable().borrow();
    let gossip = &node.gossip;
    let ahead = gossip.read(|table| {
        let live = table
            .iter()
            .filter(|(node, known)| gossip.standing(node, known).live);
        let further = live.filter(|(node, known)| gossip.position_of(node, known) > position.index);
        let nodes = further.map(|(node, _)| state.name_of(*node));
        nodes.collect()
    });
    let (me, now_ms) = ((view.me, own), node.client.now_ms());
    Ok(wanted(state, me, position, keys, ahead, now_ms))
}

/// Goes on from what the root signed.
///
/// # Errors
/// Why the ledger doesn't take it.
pub async fn recover(node: &Handles, signed: Der) -> Result<(), ControlError> {
    let signed: SignedRecovery = codec::decode(&signed.0, 2 * limits::HEADER_BYTES)
        .map_err(|error| invalid(format!("what the root signed: {error}")))?;
    match node.ledger.recover(signed).await {
        Ok(_) => Ok(()),
        Err(error) if is_overtaken(&error) => Err(refused(
            "the root didn't sign this for the newest batch here; the ledger went on \
             meanwhile: run `agent ca recover` again",
        )),
        Err(error) => Err(unavailable(error)),
    }
}
/// What the root is to sign so that this node decides alone behind `position`.
pub(crate) fn wanted(
    state: &State,
    (me, own): (NodeId, &Member),
    position: Position,
    keys: IssuerKeys,
    ahead: Vec<String>,
    now_ms: u64,
) -> CaRecovery {
    let recovery = Recovery {
        mesh: state.mesh,
        number: state.recovery + 1,
        position,
        roster: [own.key].into(),
        issuers: Vec::new(),
    };
    let roster = state.roster.iter().map(|node| state.name_of(*node));
    CaRecovery {
        mesh: state.mesh.to_string(),
        node: own.name.to_string(),
        roster: roster.collect(),
        index: position.index,
        ahead,
        now_ms,
        held: held(state, me, keys.held),
        offered: keys.offered.into_iter().map(Der).collect(),
        recovery: Der(codec::encode(&recovery)),
    }
}

/// From when to when each issuer of a node is in force that isn't revoked and
/// that it has the key of.
pub(crate) fn held(state: &State, node: NodeId, serials: Vec<Serial>) -> Vec<Life> {
    let serials: BTreeSet<Serial> = serials.into_iter().collect();
    let held = state
        .issuers_of(node)
        .filter(|issuer| issuer.revoked.is_none() && serials.contains(&issuer.certificate.serial));
    held.map(|issuer| Life {
        begin_ms: issuer.certificate.not_before_ms,
        end_ms: issuer.certificate.not_after_ms,
    })
    .collect()
}

/// Why a node can't go on while its agent doesn't run. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The state folder can't be used.
    #[error(transparent)]
    Folder(#[from] BuildError),
    #[error("the agent runs on {0}: leave out --offline, or stop the agent first")]
    Runs(String),
    /// It isn't listed in what is left of its ledger.
    #[error(
        "what this machine's ledger holds, up to batch {0}, doesn't list this machine, so it can't \
         go on from there: run this on another machine, or start the agent, which fetches the \
         ledger again from the other nodes"
    )]
    NotMember(u64),
    /// It decides alone as it is.
    #[error("this machine is the only CA node already: nothing is lost; start the agent")]
    DecidesAlone,
    /// The keys of its issuers can't be had.
    #[error("the keys of this machine's issuers can't be had: {0}")]
    Keys(IssuerKeysError),
    /// The root didn't sign that, or the disk failed.
    #[error("the ledger doesn't take what the root signed: {0}")]
    Take(#[from] TakeError),
}

/// A ledger that was opened without an agent.
pub struct Offline {
    host: Host,
    ledger: Ledger,
    asked: CaRecovery,
    _lock: Box<dyn Send + Sync>,
}

impl Offline {
    /// Opens the ledger in a folder on which no agent runs, and says what is to
    /// be signed. Nobody else is asked: who is ahead is what was known of the
    /// others when the agent last ran, and that of this node's own ledger is
    /// lost counts too.
    ///
    /// # Errors
    /// [`OfflineError`].
    pub async fn open(host: &Host) -> Result<Self, OfflineError> {
        let folder = host.disk.root().display().to_string();
        let io = |error| BuildError::Io(folder.clone(), error);
        let lock = host.disk.lock(Path::new(LOCK));
        let lock = lock.map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => OfflineError::Runs(folder.clone()),
            _ => io(error).into(),
        })?;
        if let Some(said) = state_folder::left(&*host.disk).await.map_err(io)? {
            let room = state_folder::make_room(&*host.disk).await;
            return Err(BuildError::Left { said, room }.into());
        }
        let key = keys::require_identity(host)
            .await
            .map_err(BuildError::from)?;
        let stored = Stored::read(host).await.map_err(BuildError::from)?;
        let kept = Kept::load(&*host.disk).await;
        let me = key.public().node_id();
        let (state, reached) = (stored.state().clone(), stored.reached());
        let Some(own) = state.members.get(&me) else {
            return Err(OfflineError::NotMember(state.position.index));
        };
        let mut ahead: Vec<String> = known::positions(&*host.disk)
            .await
            .into_iter()
            .filter(|(node, at)| *node != me && at.index > state.position.index)
            .map(|(node, at)| format!("{} (batch {})", state.name_of(node), at.index))
            .collect();
        let had = kept.filter(|kept| kept.recovery >= state.recovery);
        let had = had.map_or(0, |kept| kept.position.index).max(reached.index);
        if had > state.position.index {
            ahead.push(format!(
                "this machine before its files were damaged (batch {had})"
            ));
        }
        let ledger = stored.open(host, key.clone()).await;
        let ledger = ledger.map_err(BuildError::from)?;
        // As with a running agent: who leads a majority, this node here alone,
        // has lost nothing.
        if ledger.raft_progress().await.leader.is_some() {
            return Err(OfflineError::DecidesAlone);
        }
        let offered = ledger.issuer_keys().await.map_err(OfflineError::Keys)?;
        let now_ms = stamp::estimate(state.stamp_ms, host.clock.wall_ms(), &[], 0);
        let state = ledger.state();
        let position = *ledger.durable().borrow();
        let asked = wanted(&state, (me, own), position, offered, ahead, now_ms);
        Ok(Self {
            host: host.clone(),
            ledger,
            asked,
            _lock: lock,
        })
    }

    /// What is to be signed.
    pub fn asked(&self) -> &CaRecovery {
        &self.asked
    }

    /// Writes what was signed as the ledger's next batch: the agent goes on
    /// from it when it starts.
    ///
    /// # Errors
    /// [`OfflineError::Take`].
    pub async fn recover(self, signed: SignedRecovery) -> Result<(), OfflineError> {
        let done = self.ledger.recover(signed).await;
        drop(self.ledger);
        self.host.tasks.end().await;
        done?;
        Ok(())
    }
}

/// Whether the root signed it for another place than the newest one.
pub(crate) fn is_overtaken(error: &TakeError) -> bool {
    matches!(error, TakeError::Batch(BatchError::Recovery))
}
