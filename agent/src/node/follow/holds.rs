//! Holds: this node's own, kept on disk and announced until the ledger has
//! decided them, and those of others in force, which say whom no connection
//! is kept with.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use innermesh_proto::{
    codec,
    hold::{self, Hold},
    id::NodeId,
    ledger::{Content, Eviction, HoldId, Outcome, State, request::Evict},
    limits,
};

use crate::host::Disk;
use crate::node::Inner;
use crate::node::follow::view;

/// Where this node's own are kept.
const FILE: &str = "holds";
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the ledger is asked again to decide a hold.
const RETRY: Duration = Duration::from_secs(15);

/// This node's holds, and the members that are held by anybody.
pub struct Holds {
    own: Mutex<Vec<Hold>>,
    held: Arc<Mutex<BTreeSet<NodeId>>>,
}

impl Holds {
    /// Those that were there at the last stop.
    pub async fn load(disk: &dyn Disk) -> Self {
        let own = match disk.read(Path::new(FILE)).await {
            Ok(bytes) => parse(&bytes.unwrap_or_default()),
            Err(error) => {
                tracing::error!(%error, "the holds can't be read; `agent evict` sets them anew");
                Vec::new()
            }
        };
        Self {
            own: Mutex::new(own),
            held: Arc::default(),
        }
    }

    /// This node's own.
    pub fn own(&self) -> Vec<Hold> {
        lock(&self.own).clone()
    }

    /// Who is held by anybody, now and each time after.
    pub fn held(&self) -> Arc<Mutex<BTreeSet<NodeId>>> {
        self.held.clone()
    }

    /// Takes note of who is held; whether that is news.
    pub fn note(&self, held: &hold::Held) -> bool {
        let nodes: BTreeSet<NodeId> = held.keys().copied().collect();
        let mut noted = lock(&self.held);
        let news = *noted != nodes;
        *noted = nodes;
        news
    }
}

/// The holds of a file; none where it can't be read.
pub fn parse(bytes: &[u8]) -> Vec<Hold> {
    let mut holds: Vec<Hold> = codec::decode(bytes, 1024).unwrap_or_default();
    holds.truncate(limits::HOLDS);
    holds
}

/// Cuts a member off: the hold is on disk before anybody hears of it. `None`
/// where the member can't be held, or this node has as many holds as it may.
///
/// # Errors
/// The disk's; nothing was changed.
pub async fn place(inner: &Inner, node: NodeId) -> std::io::Result<Option<HoldId>> {
    let state = inner.ledger.state();
    if !hold::may_hold(&state, inner.me, node) {
        return Ok(None);
    }
    let mut holds = inner.holds.own();
    if let Some(hold) = holds.iter().find(|hold| hold.node == node) {
        return Ok(Some(hold.id));
    }
    if holds.len() >= limits::HOLDS {
        return Ok(None);
    }
    let mut id = [0; 16];
    inner.host.keys.random(&mut id);
    let id = HoldId(id);
    holds.push(Hold { id, node });
    replace(inner, holds).await?;
    Ok(Some(id))
}

/// Takes one of this node's holds back.
///
/// # Errors
/// The disk's; it stands.
pub async fn lift(inner: &Inner, id: HoldId) -> std::io::Result<()> {
    let mut holds = inner.holds.own();
    holds.retain(|hold| hold.id != id);
    replace(inner, holds).await
}

async fn replace(inner: &Inner, holds: Vec<Hold>) -> std::io::Result<()> {
    let bytes = codec::encode(&holds);
    inner.host.disk.replace(Path::new(FILE), &bytes).await?;
    *lock(&inner.holds.own) = holds;
    view::announce(inner, None);
    Ok(())
}

/// Takes holds back that the ledger has decided, and asks it to decide those
/// that it hasn't heard of, for as long as the agent runs.
pub async fn run(inner: Arc<Inner>) {
    let mut states = inner.ledger.subscribe();
    loop {
        let state = states.borrow_and_update().clone();
        for hold in inner.holds.own() {
            let over =
                state.is_decided(inner.me, hold.id) || !hold::may_hold(&state, inner.me, hold.node);
            if over && let Err(error) = lift(&inner, hold.id).await {
                tracing::error!(%error, "a hold that is over can't be taken back");
            }
        }
        let clock = inner.host.clock.clone();
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            () = clock.sleep(RETRY), if !inner.holds.own().is_empty() => {
                for hold in inner.holds.own() {
                    ask_again(&inner, hold).await;
                }
            }
        }
    }
}

/// What waits for a second admin is asked again only once it wouldn't have to.
async fn ask_again(inner: &Inner, hold: Hold) {
    let state = inner.ledger.state();
    let evict = Evict {
        node: hold.node,
        hold: Some(hold.id),
        root: None,
    };
    let mine = |(node, by): (NodeId, NodeId)| node == hold.node && by == inner.me;
    let asked = state.proposed_evictions().any(mine);
    match state.eviction(inner.me, &evict, &*inner.host.keys) {
        Ok(Eviction::Waits) if asked => return,
        Ok(_) => {}
        Err(refusal) => {
            tracing::warn!(%refusal, "an eviction is refused: its hold is taken back");
            let _ = lift(inner, hold.id).await;
            return;
        }
    }
    let request = inner.client.request(&Content::Evict(evict), inner.now_ms());
    if let Ok(Outcome::Refused(refusal)) = inner.client.submit(&request, PATIENCE).await {
        tracing::warn!(%refusal, "an eviction was refused: its hold is taken back");
        let _ = lift(inner, hold.id).await;
    }
}

/// What is to be said of the members that are held.
pub fn warnings(state: &State, held: &hold::Held, me: NodeId) -> Vec<String> {
    let mut warnings = Vec::new();
    // Who is held by nobody is kept out by what a lost roster decided, which is
    // told with that.
    for (node, holds) in held.iter().filter(|(_, holds)| !holds.is_empty()) {
        let name = state.name_of(*node);
        let by: BTreeSet<String> = holds.iter().map(|(by, _)| state.name_of(*by)).collect();
        let by = by.into_iter().collect::<Vec<_>>().join(" and ");
        warnings.push(if *node == me {
format!("this machine is cut off by {by}, and is to be evicted")
} else {
format!(
                "{name} is cut off by {by} until the ledger has decided whether it is evicted; \
                 if that is wrong, `agent evict {name} --undo` on an admin's machine lets it back in"
            )
});
    }
    for (node, by) in state.proposed_evictions() {
        let (name, by) = (state.name_of(node), state.name_of(by));
        warnings.push(format!(
            "{by} asks to evict {name}: if that is right, run `agent evict {name}` on another \
             admin's machine within an hour of the asking"
        ));
    }
    warnings
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
