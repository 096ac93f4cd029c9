//! Holds: this node's own, kept on disk and announced until the ledger has
//! decided them, and those of others in force, which say whom no connection
//! is kept with.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use innermesh_proto::{
    hold::{self, Hold, Suspensions},
    id::NodeId,
    ledger::{Content, Eviction, HoldId, State, request::Evict},
    limits,
};
use tokio::sync::Notify;

use crate::{
    control::finding::{Finding, code},
    host::Host,
    ledger::{
        Ledger,
        client::{Client, RequestError},
    },
    node::shared::{announce::Announcer, handles::Handles, hold_set::HoldSet},
};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the ledger is asked again to decide a hold.
const RETRY: Duration = Duration::from_secs(15);

/// Sets this node's holds, and takes back those that are over.
pub(crate) struct HoldKeeper {
    host: Host,
    me: NodeId,
    ledger: Ledger,
    client: Client,
    announcer: Announcer,
    set: Arc<HoldSet>,
    /// Wakes who asks the ledger for what it hasn't done.
    placed: Notify,
}

impl HoldKeeper {
    pub fn new(node: &Handles, announcer: Announcer) -> Self {
        Self {
            host: node.host.clone(),
            me: node.me,
            ledger: node.ledger.clone(),
            client: node.client.clone(),
            set: announcer.holds.clone(),
            placed: Notify::new(),
            announcer,
        }
    }
}

impl HoldKeeper {
    /// Cuts a member off: the hold is on disk before anybody hears of it. `None`
    /// where the member can't be held, or this node has as many holds as it may.
    ///
    /// # Errors
    /// The disk's; nothing was changed.
    pub async fn place(&self, node: NodeId) -> std::io::Result<Option<HoldId>> {
        let state = self.ledger.state();
        if !hold::may_hold(&state, self.me, node) {
            return Ok(None);
        }
        let mut holds = self.set.own();
        if let Some(hold) = holds.iter().find(|hold| hold.node == node) {
            return Ok(Some(hold.id));
        }
        if holds.len() >= limits::HOLDS {
            return Ok(None);
        }
        let mut id = [0; 16];
        self.host.keys.random(&mut id);
        let id = HoldId(id);
        holds.push(Hold { id, node });
        self.replace(holds).await?;
        self.placed.notify_one();
        Ok(Some(id))
    }

    /// Takes one of this node's holds back.
    ///
    /// # Errors
    /// The disk's; it stands.
    pub async fn lift(&self, id: HoldId) -> std::io::Result<()> {
        let mut holds = self.set.own();
        holds.retain(|hold| hold.id != id);
        self.replace(holds).await
    }

    async fn replace(&self, holds: Vec<Hold>) -> std::io::Result<()> {
        self.set.replace(&*self.host.disk, holds).await?;
        self.announcer.announce();
        Ok(())
    }

    /// Takes holds back that the ledger has decided, and asks it to decide those
    /// that it hasn't heard of, for as long as the agent runs.
    pub async fn run(self: Arc<Self>) {
        let mut states = self.ledger.subscribe();
        loop {
            let state = states.borrow_and_update().clone();
            for hold in self.set.own() {
                let over = state.is_decided(self.me, hold.id)
                    || !hold::may_hold(&state, self.me, hold.node);
                if over && let Err(error) = self.lift(hold.id).await {
                    tracing::error!(%error, "a hold that is over can't be taken back");
                }
            }
            let clock = self.host.clock.clone();
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = self.placed.notified() => {}
                () = clock.sleep(RETRY), if !self.set.own().is_empty() => {
                    for hold in self.set.own() {
                        self.ask_again(hold).await;
                    }
                }
            }
        }
    }

    /// What waits for a second admin is asked again only once it wouldn't have to.
    async fn ask_again(&self, hold: Hold) {
        let state = self.ledger.state();
        let evict = Evict {
            node: hold.node,
            hold: Some(hold.id),
            root: None,
        };
        let mine = |(node, by): (NodeId, NodeId)| node == hold.node && by == self.me;
        let asked = state.proposed_evictions().any(mine);
        match state.eviction(self.me, &evict, &*self.host.keys) {
            Ok(Eviction::Waits) if asked => return,
            Ok(_) => {}
            Err(refusal) => {
                tracing::warn!(%refusal, "an eviction is refused: its hold is taken back");
                let _ = self.lift(hold.id).await;
                return;
            }
        }
        let asked = self.client.ask(&Content::Evict(evict), PATIENCE).await;
        if let Err(RequestError::Refused(refusal)) = asked {
            tracing::warn!(%refusal, "an eviction was refused: its hold is taken back");
            let _ = self.lift(hold.id).await;
        }
    }
}

/// What is to be said of the members that are held.
pub fn findings(state: &State, held: &Suspensions, me: NodeId) -> Vec<Finding> {
    let mut found = Vec::new();
    // Who is held by nobody is kept out by what a lost roster decided, which is
    // told with that.
    for (node, holds) in held.iter().filter(|(_, holds)| !holds.is_empty()) {
        let name = state.name_of(*node);
        let by: BTreeSet<String> = holds.iter().map(|(by, _)| state.name_of(*by)).collect();
        let by = by.into_iter().collect::<Vec<_>>().join(" and ");
        found.push(if *node == me {
            Finding::error(
                code::CUT_OFF,
                format!("this machine is cut off by {by}, and is to be evicted"),
                format!(
                    "If that is wrong, `agent evict {name} --withdraw` on an admin's machine lets it \
                     back in"
                ),
            )
        } else {
            Finding::warning(
                code::NODE_HELD,
                format!(
                    "{name} is cut off by {by} until the ledger has decided whether it is evicted"
                ),
                format!(
                    "If that is wrong, `agent evict {name} --withdraw` on an admin's machine lets it \
                     back in"
                ),
            )
        });
    }
    for (node, by) in state.proposed_evictions() {
        let name = state.name_of(node);
        if by == me {
            found.push(Finding::warning(
                code::EVICTION_WAITS,
                format!(
                    "the eviction of {name} that this node asked for waits for a second admin, for \
                     an hour"
                ),
                format!("`agent evict {name} --withdraw` takes it back"),
            ));
            continue;
        }
        let by = state.name_of(by);
        found.push(Finding::warning(
            code::EVICTION_WAITS,
            format!("{by} asks to evict {name}"),
            format!(
                "If that is right, run `agent evict {name}` on another admin's machine within an \
                 hour of the asking"
            ),
        ));
    }
    found
}
