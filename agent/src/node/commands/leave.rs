//! `agent leave`: seat and names are handed over, the ledger is told, and the
//! state folder says that this machine belongs to no mesh any more.

use std::{sync::Arc, time::Duration};

use innermesh_proto::ledger::{Content, Outcome, Refusal, State};
use tokio::sync::watch;

use crate::{
    control::{
        ControlError,
        node::{LeaveState, Left, NameLeft},
    },
    host::{Host, UnixTime, state_folder},
    node::{
        follow::membership::MembershipKeeper,
        shared::{
            handles::Handles,
            refusals::{by_refusal, decide, not_member, refused, unavailable},
        },
    },
};

/// How long the roster may take to go on without this node, per asking.
const HAND_OVER: Duration = Duration::from_secs(6);
/// How long the ledger may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long whoever asked has to hear the answer before the agent ends.
const GRACE: Duration = Duration::from_secs(1);

/// Takes this machine out of the mesh.
pub(crate) struct LeaveDesk {
    pub node: Handles,
    pub membership: Arc<MembershipKeeper>,
    /// Whether it has left.
    pub left: watch::Sender<bool>,
}

impl LeaveDesk {
    /// Leaves, or takes the next step towards it: it can be asked again.
    ///
    /// # Errors
    /// Why this machine stays.
    pub async fn leave(&self) -> Result<Left, ControlError> {
        let state = self.node.ledger.state();
        if !state.members.contains_key(&self.node.me) {
            if state.evicted.contains_key(&self.node.me) {
                return Err(not_member());
            }
            // It had left before, and heard so only later.
            self.end(&state).await;
            return Ok(self.describe(&state, LeaveState::Left));
        }
        if state.members.len() == 1 {
            return Err(refused(
                "this machine is the whole mesh; to end it, stop the agent: with the state folder goes \
                 the key of its root, for good, unless a copy was made (`agent ca root-key export`)",
            ));
        }
        if let Err(refusal) = state.may_leave(self.node.me) {
            // The seat in the roster is what is handed over below.
            if refusal != Refusal::InRoster {
                return Err(by_refusal(&refusal));
            }
        }
        if state.is_voter(self.node.me) {
            decide(&self.node.client, &Content::Demote(self.node.me)).await?;
        }
        if !self.is_out_of_roster().await {
            return Ok(self.describe(&state, LeaveState::HandingOver));
        }
        let told = self.describe(&self.node.ledger.state(), LeaveState::Left);
        let request = self.node.client.request(&Content::Leave);
        match self.node.client.tell(&request, PATIENCE).await {
            // The others may hang up before their answer arrives.
            Ok(Outcome::Done(_) | Outcome::Waiting(_) | Outcome::Refused(Refusal::NotMember)) => {}
            Ok(Outcome::Refused(refusal)) => return Err(by_refusal(&refusal)),
            Err(_) if self.membership.is_forgotten().await => {}
            Err(error) => return Err(unavailable(error)),
        }
        self.end(&state).await;
        Ok(told)
    }

    /// Has the state folder say so, and the agent end.
    async fn end(&self, state: &State) {
        if let Err(error) = write(&self.node.host, state).await {
            tracing::error!(%error, "this machine has left, but its state folder can't say so");
        }
        tracing::info!("this machine has left the mesh");
        let (clock, ended) = (self.node.host.clock.clone(), self.left.clone());
        self.node.host.tasks.spawn(async move {
            clock.sleep(GRACE).await;
            ended.send_replace(true);
        });
    }

    async fn is_out_of_roster(&self) -> bool {
        let mut states = self.node.ledger.subscribe();
        let end = self.node.host.clock.now() + HAND_OVER;
        while states.borrow_and_update().roster.contains(&self.node.me) {
            let clock = self.node.host.clock.clone();
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return false },
                () = clock.sleep(end.saturating_sub(clock.now())) => return false,
            }
        }
        true
    }

    fn describe(&self, state: &State, how: LeaveState) -> Left {
        let names = state.names_left_by(self.node.me).into_iter();
        Left {
            state: how,
            node: state.name_of(self.node.me),
            domain: state.domain.to_string(),
            names: names
                .map(|(name, heir)| NameLeft {
                    name: name.to_string(),
                    to: heir.map(|heir| state.name_of(heir)),
                })
                .collect(),
        }
    }
}

async fn write(host: &Host, state: &State) -> std::io::Result<()> {
    let when = UnixTime::from_ms(host.clock.wall_ms());
    let room = state_folder::make_room(&*host.disk).await;
    let text = format!(
        "this machine left the mesh {} on {when}\n\n\
         The agent doesn't run on this folder any more. To have this machine in a mesh again, make\n\
         room for `agent join` with a new invite, or for `agent init`:\n{room}.\n",
        state.domain
    );
    state_folder::mark_left(&*host.disk, &text).await
}
