//! This node's part in Raft, for whoever asks.

use innermesh_proto::id::NodeId;

/// This node's part in the voters' log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftStatus {
    /// Who leads, as far as it is known here: only CA nodes know.
    pub leader: Option<NodeId>,
    /// Whether this node does.
    pub leads: bool,
    /// How often a leader was elected so far.
    pub term: u64,
    /// Whether this node votes, or waits to.
    pub votes: bool,
    /// Why it doesn't although it is a CA node.
    pub disabled: Option<VotingDisabled>,
    /// The rules that the ledger follows, where this node doesn't know them and
    /// so can't follow it.
    pub unknown_rules: Option<u32>,
}

/// Why a CA node doesn't vote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VotingDisabled {
    /// Its log is damaged, and it may have promised what it no longer knows.
    #[error(
        "{0}: this node doesn't vote any more; have an admin `agent ca demote` it and then \
         `agent ca promote` it"
    )]
    Damaged(String),
    /// Its log is gone.
    #[error(
        "raft.log is missing: this node doesn't vote any more; have an admin `agent ca demote` it \
         and then `agent ca promote` it"
    )]
    Missing,
    /// Its ledger was damaged, and what it has of its log doesn't make up for
    /// that.
    #[error(
        "the ledger's files on this machine were damaged: it follows the ledger, and doesn't vote \
         any more; have an admin `agent ca demote` it and then `agent ca promote` it"
    )]
    Lost,
    /// The same, of a node that was the only voter.
    #[error(
        "the ledger's files on this machine and its raft.log were damaged, and it was the only CA \
         node: it may have decided what it no longer knows, and decides nothing more. Once the \
         other nodes are connected, run `agent ca recover --root-key FILE` here"
    )]
    LostAlone,
    /// It is of an earlier time than what this node has done since.
    #[error(
        "this machine's state is older than what it has done, as after a restored snapshot or with \
         a second machine that has its key: it doesn't vote any more, as it may have promised what \
         it no longer knows; have an admin `agent ca demote` it and then `agent ca promote` it"
    )]
    RolledBack,
}
