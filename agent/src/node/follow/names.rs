//! The names of this node's services: claimed in the ledger, shared as asked,
//! and, while they aren't granted, why not.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use innermesh_proto::{
    ledger::{Content, Outcome, Refusal, request::Share, state::NameKind},
    name::Label,
};

use crate::node::Inner;
use crate::{ledger::client::SubmitError, services::Spec};

/// How long one claim may take: longer than a roster does to find another
/// leader.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often names that aren't granted are asked for again.
const RETRY: Duration = Duration::from_secs(15);

/// Why a name isn't this node's, or isn't served as its service says. It is
/// asked for again by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The ledger said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The ledger wasn't reached.
    #[error(transparent)]
    Unavailable(#[from] SubmitError),
    /// There is no node that it could be shared with.
    #[error("{0}, which it is to be shared with, is not a member")]
    NoSuchNode(Label),
    /// Its service is at an overlay address of another node.
    #[error(
        "{address} is not an address of this node: run the service on the node that has it, and \
         share the name with that node (`agent service add {name} --share NODE`)"
    )]
    OthersAddress {
        /// The service.
        name: Label,
        /// Where it says that it is.
        address: IpAddr,
    },
    /// Its service is beside the mesh, where this node's names may not lead.
    #[error(
        "{address} is outside the mesh, and this node wasn't granted it; it is served once an admin \
         runs `agent record add {name} {rtype} {address}`",
        rtype = rtype(.address)
    )]
    ForeignAddress {
        /// The service.
        name: Label,
        /// Where it says that it is.
        address: IpAddr,
    },
}

/// The type of record that leads to an address.
fn rtype(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "A" } else { "AAAA" }
}

/// Why names are pending.
#[derive(Default)]
pub struct Names {
    pending: Mutex<BTreeMap<Label, String>>,
}

impl Names {
    /// Names of this node's services that aren't granted, and why.
    pub fn pending(&self) -> BTreeMap<Label, String> {
        self.pending
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .clone()
    }

    fn note(&self, name: &Label, result: &Result<(), NameError>) {
        let mut pending = self.pending.lock().unwrap_or_else(|e| e.into_inner());
        match result {
            Ok(()) => pending.remove(name),
            Err(why) => pending.insert(name.clone(), why.to_string()),
        };
    }

    /// Forgets a service that was taken away, or has its name.
    pub fn forget(&self, name: &Label) {
        self.pending
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .remove(name);
    }
}

/// Whether `name` is granted to this node or shared with it.
pub fn is_granted(inner: &Inner, name: &Label) -> bool {
    let me = inner.me;
    let state = inner.ledger.state();
    state.names.get(name).is_some_and(|held| {
        held.kind == NameKind::Service && (held.owner == me || held.shared.contains(&me))
    })
}

/// Whether the service's address is one that its name may lead to; why not.
///
/// # Errors
/// What to do about it.
pub fn leads(inner: &Inner, spec: &Spec) -> Result<(), NameError> {
    let state = inner.ledger.state();
    let Some(address) = spec.address else {
        return Ok(());
    };
    if state.instance_counts(inner.me, &spec.name, address) {
        return Ok(());
    }
    let inside = match address {
        IpAddr::V4(v4) => state.ipv4.contains(&v4),
        IpAddr::V6(v6) => state.mesh.ula().contains(&v6),
    };
    let name = spec.name.clone();
    Err(if inside {
        NameError::OthersAddress { name, address }
    } else {
        NameError::ForeignAddress { name, address }
    })
}

/// Claims the name of a service and shares it as its description says.
///
/// # Errors
/// Why it is pending; it is asked for again by itself.
pub async fn secure(inner: &Inner, spec: &Spec) -> Result<(), NameError> {
    let result = claim_and_share(inner, spec).await;
    inner.names.note(&spec.name, &result);
    result
}

async fn claim_and_share(inner: &Inner, spec: &Spec) -> Result<(), NameError> {
    if !is_granted(inner, &spec.name) {
        let state = inner.ledger.state();
        state.may_claim(inner.me, &spec.name)?;
        ask(inner, Content::Claim(spec.name.clone())).await?;
    }
    let state = inner.ledger.state();
    for node in &spec.share {
        let Some((with, _)) = state.member_by_name(node) else {
            return Err(NameError::NoSuchNode(node.clone()));
        };
        let held = state.names.get(&spec.name);
        if with != inner.me
            && held.is_some_and(|held| held.owner == inner.me && !held.shared.contains(&with))
        {
            let share = Share {
                name: spec.name.clone(),
                with,
            };
            ask(inner, Content::Share(share)).await?;
        }
    }
    leads(inner, spec)
}

/// Gives a name back.
///
/// # Errors
/// Why it couldn't be.
pub async fn release(inner: &Inner, name: &Label) -> Result<(), NameError> {
    ask(inner, Content::Release(name.clone())).await
}

async fn ask(inner: &Inner, content: Content) -> Result<(), NameError> {
    let request = inner.client.request(&content, inner.now_ms());
    match inner.client.submit(&request, PATIENCE).await? {
        Outcome::Done(_) | Outcome::Waiting(_) => Ok(()),
        Outcome::Refused(refusal) => Err(refusal.into()),
    }
}

/// Asks again for names that aren't granted, for as long as the agent runs.
pub async fn run(inner: Arc<Inner>) {
    let mut states = inner.ledger.subscribe();
    loop {
        states.mark_unchanged();
        for status in inner.services.list() {
            let shared = status
                .spec
                .share
                .iter()
                .all(|node| is_shared(&inner, &status.spec.name, node));
            let leads = leads(&inner, &status.spec).is_ok();
            if !is_granted(&inner, &status.spec.name) || !shared || !leads {
                let _ = secure(&inner, &status.spec).await;
            } else {
                // Its owner may have shared it without being asked.
                inner.names.forget(&status.spec.name);
            }
        }
        let clock = inner.host.clock.clone();
        tokio::select! {
            // A name may have become free.
            changed = states.changed() => if changed.is_err() { return },
            () = clock.sleep(RETRY) => {}
        }
    }
}

fn is_shared(inner: &Inner, name: &Label, node: &Label) -> bool {
    let state = inner.ledger.state();
    let Some((with, _)) = state.member_by_name(node) else {
        return false;
    };
    state.names.get(name).is_some_and(|held| {
        held.owner != inner.me || with == inner.me || held.shared.contains(&with)
    })
}
