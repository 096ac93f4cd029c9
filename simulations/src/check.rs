//! What must hold, by the numbers of SAFETY.md: after every event what may
//! never be wrong, and at the end what the agents must have come to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use innermesh_agent::mesh::Agent;
use innermesh_proto::{crypto::Hash, id::NodeId, ledger::Position, view::MeshView};

use crate::{
    Machine,
    mesh::{addresses, resolve, routed},
};

/// Something that must hold, and didn't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number in SAFETY.md.
    pub invariant: &'static str,
    /// What was seen.
    pub words: String,
    /// On which machine, by its number.
    pub node: usize,
    /// When, in milliseconds since the world began.
    pub at_ms: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            invariant,
            words,
            node,
            at_ms,
        } = self;
        write!(f, "{invariant} on node{node} at {at_ms} ms: {words}")
    }
}

/// A number and what was seen.
pub type Seen = (&'static str, String);

/// What is remembered over a whole run.
#[derive(Default)]
pub struct Checker {
    /// The hash of each batch that any node had.
    batches: BTreeMap<u64, Hash>,
    /// The newest head of each owner at each observer, in its present life.
    heads: BTreeMap<(usize, NodeId), (u64, u64)>,
    /// The newest position that each owner has announced.
    announced: BTreeMap<NodeId, Position>,
    /// The highest place in the ledger at each machine.
    reached: BTreeMap<usize, u64>,
}

impl Checker {
    /// The machine's agent begins a new life.
    pub fn started(&mut self, node: usize, agent: &Agent) -> Result<(), Seen> {
        self.heads.retain(|(observer, _), _| *observer != node);
        self.reached.remove(&node);
        let view = agent.view().borrow().clone();
        let held = view.ledger.position;
        match self.announced.get(&view.me) {
            Some(announced) if announced.index > held.index => Err((
                "S20",
                format!(
                    "it announced place {} in the ledger and has {} after its start",
                    announced.index, held.index
                ),
            )),
            _ => Ok(()),
        }
    }

    /// What may never be wrong on a machine.
    ///
    /// # Errors
    /// What is.
    pub fn check(&mut self, node: usize, agent: &Agent, machine: &Machine) -> Result<(), Seen> {
        let view = agent.view().borrow().clone();
        self.ledger(node, &view)?;
        for head in agent.heads() {
            let key = (node, head.node);
            let before = self.heads.insert(key, head.order());
            if before.is_some_and(|before| before > head.order()) {
                let words = format!("the head of {} went back from {before:?}", head.node);
                return Err(("S2", words));
            }
            let announced = self.announced.entry(head.node).or_insert(head.position);
            if announced.index < head.position.index {
                *announced = head.position;
            }
        }
        routes(&view, machine)
    }

    /// One ledger: never two batches in one place, and no way back.
    fn ledger(&mut self, node: usize, view: &MeshView) -> Result<(), Seen> {
        let Position { index, hash } = view.ledger.position;
        let known = *self.batches.entry(index).or_insert(hash);
        if known != hash {
            return Err(("S8", format!("place {index} of the ledger has two batches")));
        }
        let reached = self.reached.entry(node).or_insert(index);
        if index < *reached {
            return Err((
                "S3",
                format!("the ledger went back from {reached} to {index}"),
            ));
        }
        *reached = index;
        let addresses: Vec<IpAddr> = view
            .ledger
            .members
            .values()
            .map(|member| IpAddr::V4(member.ipv4))
            .collect();
        if addresses.iter().collect::<BTreeSet<_>>().len() < addresses.len() {
            return Err(("S8", "two members have one address".into()));
        }
        Ok(())
    }
}

/// Routes lead to members alone, by their own addresses.
fn routes(view: &MeshView, machine: &Machine) -> Result<(), Seen> {
    let plan = machine.tunnel_plan();
    if let Some(overlap) = plan.overlap() {
        return Err(("S11", format!("two peers have one address: {overlap:?}")));
    }
    for (key, peer) in &plan.peers {
        let allowed: BTreeSet<IpAddr> = peer.allowed_ips.iter().map(|net| net.addr()).collect();
        let member = view.ledger.members.iter().find(|(_, member)| {
            MeshView::addresses(member)
                .into_iter()
                .collect::<BTreeSet<_>>()
                == allowed
        });
        let Some((id, member)) = member else {
            // The plan follows the view; a member that was just removed may
            // still be in it, one that never was may not.
            return Err(("S12", format!("{key} has {allowed:?}, which no member has")));
        };
        let known = view.nodes.get(id);
        if !known.is_some_and(|known| known.compared) {
            let words = format!(
                "{} has a route, and its ledger wasn't compared",
                member.name
            );
            return Err(("S13", words));
        }
    }
    Ok(())
}

/// A member that runs all the time was taken for dead.
pub fn false_death(agent: &Agent, running: &BTreeSet<NodeId>) -> Result<(), Seen> {
    let view = agent.view().borrow().clone();
    let dead = view
        .nodes
        .iter()
        .find(|(node, seen)| running.contains(node) && !seen.live && !seen.loading);
    match dead {
        Some((node, _)) => Err(("S6", format!("{node} runs and was taken for dead"))),
        None => Ok(()),
    }
}

/// What people did, and so what all must conclude: the reference model.
#[derive(Clone, Default)]
pub struct Model {
    /// Services in force, and the machine that has each.
    pub services: BTreeMap<u32, usize>,
    /// Services that were taken away.
    pub removed: BTreeSet<u32>,
}

/// One running machine, for [`Model::holds`].
pub struct Running<'a> {
    /// Its number.
    pub number: usize,
    /// Its agent.
    pub agent: &'a Agent,
    /// Itself.
    pub machine: &'a Machine,
}

impl Model {
    /// Whether all running machines have come to the same and right
    /// conclusions: members, ledger, names, services, routes.
    ///
    /// # Errors
    /// What is not as it must become, and on which machine.
    pub async fn holds(
        &self,
        running: &[Running<'_>],
        members: &BTreeMap<usize, BTreeSet<IpAddr>>,
    ) -> Result<(), (usize, Seen)> {
        let Some(first) = running.first() else {
            return Ok(());
        };
        let newest = first.agent.view().borrow().ledger.position;
        let ids: BTreeSet<NodeId> = running
            .iter()
            .map(|one| one.agent.view().borrow().me)
            .collect();
        for one in running {
            let wrong = |words: String| Err((one.number, ("L1", words)));
            let view = one.agent.view().borrow().clone();
            if view.ledger.position != newest {
                return wrong(format!(
                    "it is at place {} of the ledger, node{} at {}",
                    view.ledger.position.index, first.number, newest.index
                ));
            }
            let live: BTreeSet<NodeId> = view
                .nodes
                .iter()
                .filter(|(_, seen)| seen.live)
                .map(|(node, _)| *node)
                .collect();
            if live != ids {
                return wrong(format!("it sees {} live of {}", live.len(), ids.len()));
            }
            let others: BTreeSet<IpAddr> = members
                .iter()
                .filter(|(number, _)| **number != one.number)
                .flat_map(|(_, addresses)| addresses.clone())
                .collect();
            if routed(one.machine) != others {
                return wrong("it lacks routes to members".into());
            }
            for (number, expected) in members {
                let got = resolve(one.agent, &format!("node{number}")).await;
                if got != *expected {
                    return wrong(format!("node{number} resolves to {got:?}"));
                }
            }
            for (service, owner) in &self.services {
                let got = resolve(one.agent, &format!("s{service}")).await;
                if Some(&got) != members.get(owner) {
                    return wrong(format!("s{service} of node{owner} resolves to {got:?}"));
                }
            }
            for service in &self.removed {
                let got = resolve(one.agent, &format!("s{service}")).await;
                if !got.is_empty() {
                    let words = format!("s{service} was removed and resolves to {got:?}");
                    return Err((one.number, ("S3", words)));
                }
            }
        }
        Ok(())
    }
}

/// The overlay addresses of a running agent's node.
pub fn own_addresses(agent: &Agent) -> BTreeSet<IpAddr> {
    addresses(agent)
}
