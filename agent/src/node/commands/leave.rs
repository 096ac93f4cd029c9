//! `agent leave`: seat and names are handed over, the ledger is told, and the
//! state folder says that this machine belongs to no mesh any more.

use std::{sync::Arc, time::Duration};

use innermesh_proto::ledger::{Content, Outcome, Refusal, State};

use crate::node::Inner;
use crate::node::follow::membership;
use crate::node::refusals::{by_refusal, decide, not_member, refused};
use crate::{
    control::{
        ControlError, ErrorCode,
        node::{LeaveState, Left, NameLeft},
    },
    host::{Host, UnixTime, state_folder},
};

/// How long the roster may take to go on without this node, per asking.
const HAND_OVER: Duration = Duration::from_secs(6);
/// How long the ledger may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long whoever asked has to hear the answer before the agent ends.
const GRACE: Duration = Duration::from_secs(1);

/// Leaves, or takes the next step towards it: it can be asked again.
///
/// # Errors
/// Why this machine stays.
pub async fn leave(inner: &Arc<Inner>) -> Result<Left, ControlError> {
    let state = inner.ledger.state();
    if !state.members.contains_key(&inner.me) {
        if state.evicted.contains_key(&inner.me) {
            return Err(not_member());
        }
        // It had left before, and heard so only later.
        end(inner, &state).await;
        return Ok(left(inner, &state, LeaveState::Left));
    }
    if state.members.len() == 1 {
        return Err(refused(
            "this machine is the whole mesh; to end it, stop the agent and remove the state folder",
        ));
    }
    if let Err(refusal) = state.may_leave(inner.me) {
        // The seat in the roster is what is handed over below.
        if refusal != Refusal::InRoster {
            return Err(by_refusal(&refusal));
        }
    }
    if state.is_voter(inner.me) {
        decide(inner, &Content::Demote(inner.me)).await?;
    }
    if !is_out_of_roster(inner).await {
        return Ok(left(inner, &state, LeaveState::HandingOver));
    }
    let told = left(inner, &inner.ledger.state(), LeaveState::Left);
    let request = inner.client.request(&Content::Leave, inner.now_ms());
    match inner.client.tell(&request, PATIENCE).await {
        // The others may hang up before their answer arrives.
        Ok(Outcome::Done(_) | Outcome::Waiting(_) | Outcome::Refused(Refusal::NotMember)) => {}
        Ok(Outcome::Refused(refusal)) => return Err(by_refusal(&refusal)),
        Err(_) if membership::is_forgotten(inner).await => {}
        Err(error) => return Err(ControlError::new(ErrorCode::Unavailable, error)),
    }
    end(inner, &state).await;
    Ok(told)
}

/// Has the state folder say so, and the agent end.
async fn end(inner: &Arc<Inner>, state: &State) {
    if let Err(error) = write(&inner.host, state).await {
        tracing::error!(%error, "this machine has left, but its state folder can't say so");
    }
    tracing::info!("this machine has left the mesh");
    let ends = inner.clone();
    inner.host.tasks.spawn(async move {
        ends.host.clock.sleep(GRACE).await;
        ends.left.send_replace(true);
    });
}

async fn is_out_of_roster(inner: &Inner) -> bool {
    let mut states = inner.ledger.subscribe();
    let end = inner.host.clock.now() + HAND_OVER;
    while states.borrow_and_update().roster.contains(&inner.me) {
        let clock = inner.host.clock.clone();
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return false },
            () = clock.sleep(end.saturating_sub(clock.now())) => return false,
        }
    }
    true
}

fn left(inner: &Inner, state: &State, how: LeaveState) -> Left {
    let names = state.names_left_by(inner.me).into_iter();
    Left {
        state: how,
        node: state.name_of(inner.me),
        domain: state.domain.to_string(),
        names: names
            .map(|(name, heir)| NameLeft {
                name: name.to_string(),
                to: heir.map(|heir| state.name_of(heir)),
            })
            .collect(),
    }
}

async fn write(host: &Host, state: &State) -> std::io::Result<()> {
    let when = UnixTime::from_ms(host.clock.wall_ms());
    let folder = host.disk.root().display().to_string();
    let text = format!(
        "this machine left the mesh {} on {when}\n\n\
         Nothing in {folder} is used any more. To have this machine in a mesh again, move\n\
         the folder away and run `agent join` with a new invite, or `agent init`.\n",
        state.domain
    );
    state_folder::mark_left(&*host.disk, &text).await
}
