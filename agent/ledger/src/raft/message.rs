//! What voters tell each other, and what they write down.

#![allow(missing_docs, reason = "the names say it")]

use std::collections::BTreeSet;

use innermesh_proto::{
    codec::{self, CodecError, raw},
    ledger::Position,
    limits,
};
use serde::{Deserialize, Serialize};

/// Raft's name for a voter: assigned in the ledger, never 0, never used again.
pub type VoterId = u64;

/// One message to one voter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub from: VoterId,
    /// To whom.
    pub to: VoterId,
    /// The sender's term; of a vote, the term that is asked for.
    pub term: u64,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// The leader's entries.
    Append {
        /// The entry before them.
        index: u64,
        log_term: u64,
        /// How far the leader's log is committed.
        commit: u64,
        /// In order, without a gap; may be none.
        entries: Vec<Entry>,
    },
    /// What became of an append.
    AppendResponse {
        /// The last entry that matches; of a refusal, [`Body::Append::index`].
        index: u64,
        /// How far the sender's log is committed.
        commit: u64,
        /// Why it was refused, if it was.
        reject: Option<Reject>,
    },
    /// Asks for a vote, or whether there would be one.
    Vote {
        /// Only whether there would be one.
        pre: bool,
        /// The candidate's last entry.
        index: u64,
        log_term: u64,
        /// How far the candidate's log is committed.
        commit: u64,
        /// The term of the entry there.
        commit_term: u64,
        /// The leader itself asked for it.
        transfer: bool,
    },
    /// The answer to [`Body::Vote`].
    VoteResponse {
        pre: bool,
        /// Whether it is refused.
        reject: bool,
        /// How far the sender's log is committed, when it refuses.
        commit: u64,
        /// The term of the entry there.
        commit_term: u64,
    },
    /// The leader lives.
    Heartbeat {
        /// How far the log is committed, as far as the receiver has it.
        commit: u64,
    },
    /// So does the sender.
    HeartbeatResponse {
        /// How far the sender's log is committed.
        commit: u64,
    },
    /// The entries that the receiver lacks were compacted: it starts from here.
    Snapshot(Base),
    /// The leader hands over.
    TimeoutNow,
}

/// Why an append was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// The entry to try next.
    pub hint: u64,
    pub term: u64,
}

/// One entry of the voters' log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place.
    pub index: u64,
    /// The term in which it was proposed.
    pub term: u64,
    /// Its content.
    pub payload: Payload,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing: a leader's first, or a proposal that came to nothing.
    Empty,
    /// What was proposed.
    Data(#[serde(with = "raw")] Vec<u8>),
    /// A change of the voters.
    Roster {
        /// Its steps; without any, the end of a joint configuration.
        changes: Vec<Change>,
        /// What was proposed with it.
        #[serde(with = "raw")]
        context: Vec<u8>,
    },
}

/// A step of a change of the voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// It votes from now on.
    Voter(VoterId),
    /// It gets the log and doesn't vote.
    Learner(VoterId),
    /// It is neither any more.
    Remove(VoterId),
}

/// Who votes. While a change is under way two majorities are needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conf {
    /// They vote.
    pub voters: BTreeSet<VoterId>,
    /// They get the log.
    pub learners: BTreeSet<VoterId>,
    /// They voted before the change that is under way.
    pub outgoing: BTreeSet<VoterId>,
    /// Of these, who will be learners.
    pub learners_next: BTreeSet<VoterId>,
    /// The change ends by itself.
    pub auto_leave: bool,
}

impl Conf {
    /// One voter, alone.
    pub fn sole(id: VoterId) -> Self {
        Self {
            voters: BTreeSet::from([id]),
            ..Self::default()
        }
    }

    /// Whether a change is under way.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Who votes, before or after the change that is under way.
    pub fn all_voters(&self) -> BTreeSet<VoterId> {
        self.voters.union(&self.outgoing).copied().collect()
    }

    /// Whether `id` is named at all.
    pub fn contains(&self, id: VoterId) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id) || self.outgoing.contains(&id)
    }
}

/// Where a log starts: everything up to here is applied and in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The last entry that the log no longer has; 0 when there was none.
    pub index: u64,
    pub term: u64,
    /// Who votes after it.
    pub conf: Conf,
    /// Where the ledger is after it.
    pub position: Position,
}

/// What a voter promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hard {
    /// The newest term that it knows.
    pub term: u64,
    /// For whom it voted in that term; 0 is nobody.
    pub vote: VoterId,
    /// How far it knows the log to be committed.
    pub commit: u64,
}

impl Message {
    /// Its bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads one. That it is sane is another matter: [`super::Engine::step`]'s.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, limits::RAFT_MESSAGE_BYTES)
    }
}
