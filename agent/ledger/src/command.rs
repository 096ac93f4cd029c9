//! What handles of the ledger ask of the pump.

use std::time::Duration;

use innermesh_proto::{
    crypto::Sealed,
    id::NodeId,
    ledger::{Batch, Outcome, Position, SignedRecovery},
    message::{Endorse, IssuerKeys, RaftProgress, Spenders},
};
use tokio::sync::oneshot;

use super::{
    decide::{Builds, InstallError, Lane, ProposeError, TakeError},
    issuers::IssuerKeysError,
    raft::Message,
    start::Start,
};

pub type Reply<T> = oneshot::Sender<T>;

pub enum Command {
    Propose(Proposal),
    /// Takes batches that a peer sent.
    Take(Vec<Batch>, Reply<Result<Position, TakeError>>),
    PeerClocks(Vec<u64>),
    Builds(Builds),
    KnownRules(u32),
    Raft(NodeId, Message),
    Endorse(NodeId, Endorse),
    Term(Duration),
    /// Asks for the keys of issuers.
    Keys(Reply<Result<IssuerKeys, IssuerKeysError>>),
    /// Asks how far the voters are.
    Progress(Reply<RaftProgress>),
    /// Asks whose requests were turned away.
    Spenders(Reply<Spenders>),
    /// Begins anew from a peer's state.
    Start(Box<Start>, Reply<Result<Position, InstallError>>),
    /// Votes no more: this node's state is older than what it has done.
    RolledBack,
    /// Goes on alone by what the root signed.
    Recover(SignedRecovery, Reply<Result<Position, TakeError>>),
}

/// A request for the next batch.
pub struct Proposal {
    pub request: Sealed,
    /// Who delivered it.
    pub by: Lane,
    /// Whether a refusal is written down.
    pub is_recorded: bool,
    pub reply: Reply<Result<Outcome, ProposeError>>,
}

impl Command {
    /// Answers whoever waits for it that the ledger can't be written, and `why`.
    /// Who asks no more isn't told.
    pub fn refuse(self, why: &str) {
        match self {
            Self::Propose(proposal) => {
                let _ = proposal.reply.send(Err(ProposeError::Stopped(why.into())));
            }
            Self::Take(_, reply) | Self::Recover(_, reply) => {
                let _ = reply.send(Err(TakeError::Stopped));
            }
            Self::Start(_, reply) => {
                let _ = reply.send(Err(InstallError::Stopped));
            }
            Self::Keys(reply) => {
                let _ = reply.send(Err(IssuerKeysError::Stopped(why.into())));
            }
            Self::Progress(reply) => {
                let _ = reply.send(RaftProgress::default());
            }
            Self::Spenders(reply) => {
                let _ = reply.send(Spenders::default());
            }
            Self::PeerClocks(_)
            | Self::Builds(_)
            | Self::KnownRules(_)
            | Self::RolledBack
            | Self::Raft(..)
            | Self::Endorse(..)
            | Self::Term(_) => {}
        }
    }
}
