//! What of a peer's message may reach the library. Its own checks assert: a
//! message that says what no correct voter says would end the process.

#![allow(missing_docs, reason = "the names say it")]

use innermesh_proto::limits;

use super::message::{Base, Body, Change, Conf, Entry, Message, Payload, VoterId};

/// What a message is held against.
pub struct Own {
    pub id: VoterId,
    /// The newest term known here.
    pub term: u64,
    /// The last entry.
    pub last: u64,
    /// Who leads, as far as it is known; 0 is nobody.
    pub leader: VoterId,
    /// Whether this voter does.
    pub leads: bool,
}

/// Why a message was dropped. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It is for another voter, or from nobody or from this one.
    #[error("it is not for this voter")]
    Address,
    /// A term, an index or a number of entries that no correct voter names.
    #[error("it names numbers that can't be")]
    Numbers,
    /// Entries that don't follow from each other, or are too large.
    #[error("its entries don't follow from each other")]
    Entries,
    /// A configuration or change that can't be.
    #[error("its configuration of voters can't be")]
    Conf,
    /// The leader holds entries for acknowledged that aren't in the log here:
    /// the sender lies, or this voter's disk lost what was synced.
    #[error("it acknowledges entries that are not in this voter's log")]
    Ahead,
    /// Only the leader says that.
    #[error("it comes from another than the leader")]
    NotLeader,
}

pub fn check(message: &Message, own: &Own) -> Result<(), Rejected> {
    if message.from == 0 || message.from == own.id || message.to != own.id {
        return Err(Rejected::Address);
    }
    sane_term(message.term, own)?;
    match &message.body {
        Body::Append {
            index,
            log_term,
            commit,
            entries,
        } => {
            numbers(&[*index, *commit])?;
            // Index 0 and only that has term 0: the library takes term 0 for a
            // match with anything that isn't there.
            if (*index == 0) != (*log_term == 0) || *log_term > message.term {
                return Err(Rejected::Numbers);
            }
            check_entries(*index, *log_term, message.term, entries)
        }
        Body::AppendResponse {
            index,
            commit,
            reject,
        } => {
            numbers(&[*index, *commit])?;
            if let Some(reject) = reject {
                numbers(&[reject.hint, reject.term])?;
                if reject.hint > *index {
                    return Err(Rejected::Numbers);
                }
            }
            // Of a later term it only ends this one.
            if own.leads && message.term == own.term && *index > own.last {
                Err(Rejected::Numbers)
            } else {
                Ok(())
            }
        }
        Body::Vote {
            index,
            log_term,
            commit,
            commit_term,
            ..
        } => {
            numbers(&[*index, *log_term, *commit, *commit_term])?;
            if commit > index || *log_term > message.term {
                Err(Rejected::Numbers)
            } else {
                Ok(())
            }
        }
        Body::VoteResponse {
            commit,
            commit_term,
            ..
        } => numbers(&[*commit, *commit_term]),
        Body::Heartbeat { commit } => {
            numbers(&[*commit])?;
            if message.term >= own.term && *commit > own.last {
                Err(Rejected::Ahead)
            } else {
                Ok(())
            }
        }
        Body::HeartbeatResponse { commit } => numbers(&[*commit]),
        Body::Snapshot(base) => check_base(base, message.term, own.id),
        Body::TimeoutNow => {
            if message.from == own.leader && message.term == own.term {
                Ok(())
            } else {
                Err(Rejected::NotLeader)
            }
        }
    }
}

fn sane_term(term: u64, own: &Own) -> Result<(), Rejected> {
    let latest = own.term.saturating_add(limits::RAFT_TERM_JUMP);
    if term == 0 || term > latest || term > limits::RAFT_NUMBER {
        Err(Rejected::Numbers)
    } else {
        Ok(())
    }
}

fn numbers(numbers: &[u64]) -> Result<(), Rejected> {
    if numbers.iter().all(|n| *n <= limits::RAFT_NUMBER) {
        Ok(())
    } else {
        Err(Rejected::Numbers)
    }
}

/// Entries that may follow one at `index` with `log_term`, in a log of `term`.
pub fn check_entries(
    index: u64,
    log_term: u64,
    term: u64,
    entries: &[Entry],
) -> Result<(), Rejected> {
    if entries.len() > limits::RAFT_ENTRIES {
        return Err(Rejected::Entries);
    }
    let mut before = (index, log_term);
    for entry in entries {
        let follows = entry.index == before.0 + 1
            && entry.term >= before.1.max(1)
            && entry.term <= term
            && entry.index <= limits::RAFT_NUMBER;
        let small = match &entry.payload {
            Payload::Empty => true,
            Payload::Data(data) => !data.is_empty() && data.len() <= limits::RAFT_ENTRY_BYTES,
            Payload::Roster { changes, context } => {
                changes.len() <= limits::RAFT_CHANGES
                    && changes.iter().all(|change| named(*change) != 0)
                    && context.len() <= limits::RAFT_ENTRY_BYTES
            }
        };
        if !follows || !small {
            return Err(Rejected::Entries);
        }
        before = (entry.index, entry.term);
    }
    Ok(())
}

fn named(change: Change) -> VoterId {
    match change {
        Change::Voter(id) | Change::Learner(id) | Change::Remove(id) => id,
    }
}

fn check_base(base: &Base, term: u64, me: VoterId) -> Result<(), Rejected> {
    numbers(&[base.index, base.term])?;
    if base.index == 0 || base.term == 0 || base.term > term {
        return Err(Rejected::Numbers);
    }
    check_conf(&base.conf)?;
    if base.conf.contains(me) {
        Ok(())
    } else {
        Err(Rejected::Conf)
    }
}

/// What the library can start from, without asserting.
pub fn check_conf(conf: &Conf) -> Result<(), Rejected> {
    let sets = [
        &conf.voters,
        &conf.learners,
        &conf.outgoing,
        &conf.learners_next,
    ];
    let few = sets.iter().all(|set| set.len() <= limits::RAFT_VOTERS);
    let named = sets.iter().all(|set| !set.contains(&0));
    let learners_apart =
        conf.learners.is_disjoint(&conf.voters) && conf.learners.is_disjoint(&conf.outgoing);
    let next_leave = conf.learners_next.is_subset(&conf.outgoing)
        && conf.learners_next.is_disjoint(&conf.voters);
    let joint = conf.is_joint() || (!conf.auto_leave && conf.learners_next.is_empty());
    if few && named && learners_apart && next_leave && joint && !conf.voters.is_empty() {
        Ok(())
    } else {
        Err(Rejected::Conf)
    }
}
