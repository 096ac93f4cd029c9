//! Between our own types and the library's. Its protobuf encoding of a change
//! is written and read in this process only.

use protobuf::Message as _;
use raft::eraftpb::{
    self, ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, EntryType, HardState,
    MessageType, Snapshot,
};

use super::message::{Base, Body, Change, Conf, Entry, Hard, Message, Payload, Reject};
use innermesh_proto::codec;

/// What the library writes into votes that the leader asked for.
const TRANSFER: &[u8] = b"CampaignTransfer";

pub fn change_v2(changes: &[Change]) -> ConfChangeV2 {
    let mut out = ConfChangeV2::default();
    let singles = changes.iter().map(|change| {
        let (kind, node) = match *change {
            Change::Voter(id) => (ConfChangeType::AddNode, id),
            Change::Learner(id) => (ConfChangeType::AddLearnerNode, id),
            Change::Remove(id) => (ConfChangeType::RemoveNode, id),
        };
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = node;
        single
    });
    out.set_changes(singles.collect::<Vec<_>>().into());
    out
}

fn changes(bytes: &[u8]) -> Vec<Change> {
    let mut change = ConfChangeV2::default();
    // Only what `change_v2` made, here or of a message or file in our own
    // encoding, ever comes this way.
    if change.merge_from_bytes(bytes).is_err() {
        return Vec::new();
    }
    let singles = change.get_changes().iter();
    singles
        .map(|single| match single.get_change_type() {
            ConfChangeType::AddNode => Change::Voter(single.node_id),
            ConfChangeType::AddLearnerNode => Change::Learner(single.node_id),
            ConfChangeType::RemoveNode => Change::Remove(single.node_id),
        })
        .collect()
}

pub fn entry_in(entry: Entry) -> eraftpb::Entry {
    let mut out = eraftpb::Entry {
        index: entry.index,
        term: entry.term,
        ..Default::default()
    };
    match entry.payload {
        Payload::Empty => {}
        Payload::Data(data) => out.data = data.into(),
        Payload::Roster { changes, context } => {
            out.set_entry_type(EntryType::EntryConfChangeV2);
            out.data = change_v2(&changes)
                .write_to_bytes()
                .unwrap_or_default()
                .into();
            out.context = context.into();
        }
    }
    out
}

pub fn entry_out(entry: &eraftpb::Entry) -> Entry {
    let payload = match entry.get_entry_type() {
        EntryType::EntryNormal if entry.data.is_empty() => Payload::Empty,
        EntryType::EntryNormal => Payload::Data(entry.data.to_vec()),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => Payload::Roster {
            changes: changes(&entry.data),
            context: entry.context.to_vec(),
        },
    };
    Entry {
        index: entry.index,
        term: entry.term,
        payload,
    }
}

pub fn conf_in(conf: &Conf) -> ConfState {
    let list = |set: &std::collections::BTreeSet<u64>| set.iter().copied().collect::<Vec<_>>();
    let mut out = ConfState::default();
    out.set_voters(list(&conf.voters));
    out.set_learners(list(&conf.learners));
    out.set_voters_outgoing(list(&conf.outgoing));
    out.set_learners_next(list(&conf.learners_next));
    out.auto_leave = conf.auto_leave;
    out
}

pub fn conf_out(conf: &ConfState) -> Conf {
    let set = |list: &[u64]| list.iter().copied().collect();
    Conf {
        voters: set(conf.get_voters()),
        learners: set(conf.get_learners()),
        outgoing: set(conf.get_voters_outgoing()),
        learners_next: set(conf.get_learners_next()),
        auto_leave: conf.auto_leave,
    }
}

pub fn snapshot_in(base: &Base) -> Snapshot {
    let mut out = Snapshot {
        data: codec::encode(&base.position).into(),
        ..Default::default()
    };
    let meta = out.mut_metadata();
    meta.index = base.index;
    meta.term = base.term;
    meta.set_conf_state(conf_in(&base.conf));
    out
}

/// None when its data isn't what [`snapshot_in`] wrote.
pub fn snapshot_out(snapshot: &Snapshot) -> Option<Base> {
    let meta = snapshot.get_metadata();
    Some(Base {
        index: meta.index,
        term: meta.term,
        conf: conf_out(meta.get_conf_state()),
        position: codec::decode(&snapshot.data, 256).ok()?,
    })
}

pub fn hard_in(hard: &Hard) -> HardState {
    HardState {
        term: hard.term,
        vote: hard.vote,
        commit: hard.commit,
        ..Default::default()
    }
}

pub fn hard_out(hard: &HardState) -> Hard {
    Hard {
        term: hard.term,
        vote: hard.vote,
        commit: hard.commit,
    }
}

pub fn message_in(message: Message) -> eraftpb::Message {
    let mut out = eraftpb::Message {
        from: message.from,
        to: message.to,
        term: message.term,
        ..Default::default()
    };
    let kind = match message.body {
        Body::Append {
            index,
            log_term,
            commit,
            entries,
        } => {
            (out.index, out.log_term, out.commit) = (index, log_term, commit);
            let entries = entries.into_iter().map(entry_in);
            out.set_entries(entries.collect::<Vec<_>>().into());
            MessageType::MsgAppend
        }
        Body::AppendResponse {
            index,
            commit,
            reject,
        } => {
            (out.index, out.commit) = (index, commit);
            if let Some(Reject { hint, term }) = reject {
                (out.reject, out.reject_hint, out.log_term) = (true, hint, term);
            }
            MessageType::MsgAppendResponse
        }
        Body::Vote {
            pre,
            index,
            log_term,
            commit,
            commit_term,
            transfer,
        } => {
            (out.index, out.log_term) = (index, log_term);
            (out.commit, out.commit_term) = (commit, commit_term);
            if transfer {
                out.context = TRANSFER.to_vec().into();
            }
            if pre {
                MessageType::MsgRequestPreVote
            } else {
                MessageType::MsgRequestVote
            }
        }
        Body::VoteResponse {
            pre,
            reject,
            commit,
            commit_term,
        } => {
            (out.reject, out.commit, out.commit_term) = (reject, commit, commit_term);
            if pre {
                MessageType::MsgRequestPreVoteResponse
            } else {
                MessageType::MsgRequestVoteResponse
            }
        }
        Body::Heartbeat { commit } => {
            out.commit = commit;
            MessageType::MsgHeartbeat
        }
        Body::HeartbeatResponse { commit } => {
            out.commit = commit;
            MessageType::MsgHeartbeatResponse
        }
        Body::Snapshot(base) => {
            out.set_snapshot(snapshot_in(&base));
            MessageType::MsgSnapshot
        }
        Body::TimeoutNow => MessageType::MsgTimeoutNow,
    };
    out.set_msg_type(kind);
    out
}

/// None for what no other voter is told.
pub fn message_out(message: &eraftpb::Message) -> Option<Message> {
    let body = match message.get_msg_type() {
        MessageType::MsgAppend => Body::Append {
            index: message.index,
            log_term: message.log_term,
            commit: message.commit,
            entries: message.entries.iter().map(entry_out).collect(),
        },
        MessageType::MsgAppendResponse => Body::AppendResponse {
            index: message.index,
            commit: message.commit,
            reject: message.reject.then_some(Reject {
                hint: message.reject_hint,
                term: message.log_term,
            }),
        },
        kind @ (MessageType::MsgRequestVote | MessageType::MsgRequestPreVote) => Body::Vote {
            pre: kind == MessageType::MsgRequestPreVote,
            index: message.index,
            log_term: message.log_term,
            commit: message.commit,
            commit_term: message.commit_term,
            transfer: message.context == TRANSFER,
        },
        kind @ (MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse) => {
            Body::VoteResponse {
                pre: kind == MessageType::MsgRequestPreVoteResponse,
                reject: message.reject,
                commit: message.commit,
                commit_term: message.commit_term,
            }
        }
        MessageType::MsgHeartbeat => Body::Heartbeat {
            commit: message.commit,
        },
        MessageType::MsgHeartbeatResponse => Body::HeartbeatResponse {
            commit: message.commit,
        },
        MessageType::MsgSnapshot => Body::Snapshot(snapshot_out(message.get_snapshot())?),
        MessageType::MsgTimeoutNow => Body::TimeoutNow,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp => return None,
    };
    Some(Message {
        from: message.from,
        to: message.to,
        term: message.term,
        body,
    })
}
