//! The names of this node's services: claimed in the ledger, shared as asked,
//! and, while they aren't granted, why not.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use innermesh_proto::{
    id::NodeId,
    ledger::{Content, Refusal, request::Share, state::NameKind},
    name::Label,
};

use crate::{
    host::Host,
    ledger::{
        Ledger,
        client::{Client, RequestError},
    },
    node::shared::handles::Handles,
    services::{Origin, Registry, ServiceStatus, Spec},
};

/// How long one claim may take: longer than a roster does to find another
/// leader.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often names that aren't granted are asked for again.
const RETRY: Duration = Duration::from_secs(15);

/// Why a name isn't this node's, or isn't served as its service says. It is
/// asked for again by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The ledger would say no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The ledger didn't take it.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// There is no node that it could be shared with.
    #[error("{0}, which it is to be shared with, is not a member")]
    NoSuchNode(Label),
    /// A node has the name, as long as it is a member.
    #[error(
        "{name} is the name of a node of this mesh, which no service can have; choose another, or \
         use {name}'s own names: any NAME.{name} is its"
    )]
    NodeName { name: Label },
    /// Who isn't its owner can't share it.
    #[error("{name} belongs to {owner}, which alone can share it: run this there")]
    NotOwner { name: Label, owner: Label },
    /// Its service is at an overlay address of another node.
    #[error(
        "{address} is not an address of this node: run the service on the node that has it, and \
         share the name with that node (`agent service add {name} --share NODE`)"
    )]
    OthersAddress {
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
struct PendingNames {
    pending: Mutex<BTreeMap<Label, String>>,
}

impl PendingNames {
    /// Names of this node's services that aren't granted, and why.
    fn pending(&self) -> BTreeMap<Label, String> {
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

    /// Forgets services that are no more.
    fn keep(&self, names: &BTreeSet<Label>) {
        let mut pending = self.pending.lock().unwrap_or_else(|e| e.into_inner());
        pending.retain(|name, _| names.contains(name));
    }

    /// Forgets a service that was taken away, or has its name.
    fn forget(&self, name: &Label) {
        self.pending
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .remove(name);
    }
}

/// Claims and shares the names of this node's services.
pub(crate) struct NameClaimer {
    host: Host,
    me: NodeId,
    ledger: Ledger,
    client: Client,
    services: Registry,
    names: PendingNames,
}

impl NameClaimer {
    pub fn new(node: &Handles, services: Registry) -> Self {
        Self {
            host: node.host.clone(),
            me: node.me,
            ledger: node.ledger.clone(),
            client: node.client.clone(),
            services,
            names: PendingNames::default(),
        }
    }

    /// Names of this node's services that aren't granted, and why.
    pub fn pending(&self) -> BTreeMap<Label, String> {
        self.names.pending()
    }

    /// Forgets a service that was taken away.
    pub fn forget(&self, name: &Label) {
        self.names.forget(name);
    }

    /// Whether `name` is granted to this node or shared with it.
    pub fn is_granted(&self, name: &Label) -> bool {
        self.ledger.state().may_serve(self.me, name)
    }

    /// Whether the service's address is one that its name may lead to; why not.
    ///
    /// # Errors
    /// What to do about it.
    pub fn leads(&self, spec: &Spec) -> Result<(), NameError> {
        let state = self.ledger.state();
        let Some(address) = spec.address else {
            return Ok(());
        };
        if state.instance_counts(self.me, &spec.name, address) {
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

    /// Whether what a service wishes can come to pass, now or later.
    ///
    /// # Errors
    /// Why it never can.
    pub fn check(&self, spec: &Spec) -> Result<(), NameError> {
        let name = spec.name.clone();
        let reserved = name.clone().grantable();
        reserved.map_err(|_| Refusal::NameReserved(name.clone()))?;
        let state = self.ledger.state();
        match state.names.get(&name) {
            Some(held) if held.kind == NameKind::Node => {
                return Err(NameError::NodeName { name });
            }
            Some(held) if held.owner != self.me && !spec.share.is_empty() => {
                let owner = state.members.get(&held.owner);
                let owner = owner.map_or_else(|| name.clone(), |owner| owner.name.clone());
                return Err(NameError::NotOwner { name, owner });
            }
            _ => {}
        }
        match self.leads(spec) {
            Err(never @ NameError::OthersAddress { .. }) => Err(never),
            // An admin may grant the address yet.
            _ => Ok(()),
        }
    }

    /// Claims the name of a service and shares it as its description says.
    ///
    /// # Errors
    /// Why it is pending; it is asked for again by itself.
    pub async fn secure(&self, spec: &Spec) -> Result<(), NameError> {
        let result = self.claim_and_share(spec).await;
        self.names.note(&spec.name, &result);
        result
    }

    async fn claim_and_share(&self, spec: &Spec) -> Result<(), NameError> {
        if !self.is_granted(&spec.name) {
            let state = self.ledger.state();
            state.may_claim(self.me, &spec.name)?;
            self.ask(Content::Claim(spec.name.clone())).await?;
        }
        let state = self.ledger.state();
        for node in &spec.share {
            let Some((with, _)) = state.member_by_name(node) else {
                return Err(NameError::NoSuchNode(node.clone()));
            };
            let held = state.names.get(&spec.name);
            if with != self.me
                && held.is_some_and(|held| held.owner == self.me && !held.shared.contains(&with))
            {
                let share = Share {
                    name: spec.name.clone(),
                    with,
                };
                self.ask(Content::Share(share)).await?;
            }
        }
        self.leads(spec)
    }

    /// Gives a name back.
    ///
    /// # Errors
    /// Why it couldn't be.
    pub async fn release(&self, name: &Label) -> Result<(), NameError> {
        self.ask(Content::Release(name.clone())).await
    }

    async fn ask(&self, content: Content) -> Result<(), NameError> {
        self.client.ask(&content, PATIENCE).await?;
        Ok(())
    }

    /// Asks again for names that aren't granted, for as long as the agent runs.
    pub async fn run(self: Arc<Self>) {
        let mut states = self.ledger.subscribe();
        let mut announced = self.services.subscribe();
        let mut only_containers = false;
        loop {
            states.mark_unchanged();
            let names: BTreeSet<Label> = announced.borrow_and_update().keys().cloned().collect();
            self.names.keep(&names);
            let services = self.services.list().into_iter();
            // Whoever adds another one asks for its name.
            let asked = |it: &ServiceStatus| !only_containers || it.origin == Origin::Container;
            for status in services.filter(asked) {
                let shared = status
                    .spec
                    .share
                    .iter()
                    .all(|node| self.is_shared(&status.spec.name, node));
                let leads = self.leads(&status.spec).is_ok();
                if !self.is_granted(&status.spec.name) || !shared || !leads {
                    let _ = self.secure(&status.spec).await;
                } else {
                    // Its owner may have shared it without being asked.
                    self.names.forget(&status.spec.name);
                }
            }
            let clock = self.host.clock.clone();
            only_containers = false;
            tokio::select! {
                // A name may have become free.
                changed = states.changed() => if changed.is_err() { return },
                // A container started; one whose health changes is no news.
                there = announced.wait_for(|now| !now.keys().eq(names.iter())) => {
                    if there.is_err() {
                        return;
                    }
                    only_containers = true;
                }
                () = clock.sleep(RETRY) => {}
            }
        }
    }

    fn is_shared(&self, name: &Label, node: &Label) -> bool {
        let state = self.ledger.state();
        let Some((with, _)) = state.member_by_name(node) else {
            return false;
        };
        state.names.get(name).is_some_and(|held| {
            held.owner != self.me || with == self.me || held.shared.contains(&with)
        })
    }
}
