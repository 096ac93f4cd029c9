//! What must hold, by the numbers of SAFETY.md: after every event what may
//! never be wrong, and at the end what the agents must have come to.

#![allow(missing_docs, reason = "the names say it")]

mod access;
mod admins;
mod authors;
pub mod devices;
mod places;
mod published;
mod strangers;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use innermesh_agent::node::Agent;
use innermesh_proto::{
    certificate::Serial,
    crypto::Hash,
    head::Head,
    id::NodeId,
    ledger::{self, Batch, Position, Role},
    tunnel::TunnelKey,
    view::MeshView,
};
use ipnet::IpNet;

use self::{access::Access, admins::Admins, authors::Authors, devices::Behind};
use crate::{
    Machine, leads,
    mesh::{is_denied, resolve},
    tunnel::left_open,
    violation::Seen,
};

/// Up to so many machines all is looked at; of more a part, another each time.
pub const CLOSELY: usize = 100;
/// Of more machines, one in so many of those that are looked at is asked for
/// names: its zone is made for that alone.
pub const ASKED: usize = 10;

/// What is remembered over a whole run.
#[derive(Default)]
pub struct Checker {
    /// The hash of each batch that any node had, by the number of the root's
    /// recovery that it follows.
    batches: BTreeMap<(u32, u64), Hash>,
    /// The newest head of each owner at each observer, in its present life.
    heads: BTreeMap<(usize, NodeId), (u64, u64)>,
    /// The newest position that each owner has announced.
    announced: BTreeMap<NodeId, Position>,
    /// The newest head that each honest member has signed itself.
    signed: BTreeMap<NodeId, (u64, u64)>,
    /// The last generation of each member before its disk was put back or
    /// damaged: what it announced until then binds it no more.
    restored: BTreeMap<NodeId, u64>,
    /// Who decides, by the number of recovery and epoch.
    rosters: BTreeMap<(u32, u32), BTreeSet<NodeId>>,
    /// The highest place in the ledger at each machine, after the last recovery
    /// by the root that it knows.
    reached: BTreeMap<usize, (u32, u64)>,
    /// What each author has added to the ledger.
    authors: Authors,
    /// Whom each machine's filter lets pass.
    access: Access,
    /// Who is an admin, and by whose word.
    admins: Admins,
    /// What devices and LANs behind gateways have, or had.
    behind: Behind,
    /// The last place whose members were compared with each other.
    compared: Option<Position>,
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

    /// What a machine held was put back to an earlier state, or is damaged: it
    /// may be behind what it announced.
    pub fn restored(&mut self, owner: NodeId) {
        self.announced.remove(&owner);
        if let Some((generation, _)) = self.signed.get(&owner) {
            self.restored.insert(owner, *generation);
        }
    }

    /// Notes what an honest machine has said itself.
    pub fn signs(&mut self, agent: &Agent) {
        if let Some(head) = agent.own_head() {
            self.signed.insert(head.node, head.order());
        }
    }

    /// The machine that led fails.
    pub fn lost_leader(&mut self) {
        self.authors.new_leader();
    }

    /// Newer rules are in force only where each of the roster knows them.
    ///
    /// # Errors
    /// S22.
    pub fn rules(&self, view: &MeshView, known: &BTreeMap<NodeId, u32>) -> Result<(), Seen> {
        let rules = view.ledger.rules;
        let knows = |node: &&NodeId| known.get(*node).is_none_or(|known| *known >= rules);
        match view.ledger.roster.iter().find(|node| !knows(node)) {
            Some(node) => {
                let words =
                    format!("rules {rules} are in force, and {node} decides by earlier ones");
                Err(("S22", words))
            }
            None => Ok(()),
        }
    }

    /// A member signs what it likes from now on.
    pub fn lies(&mut self, node: NodeId) {
        self.signed.remove(&node);
        self.announced.remove(&node);
    }

    /// What may never be wrong on a machine.
    ///
    /// # Errors
    /// What is.
    pub fn check(&mut self, node: usize, agent: &Agent, machine: &Machine) -> Result<(), Seen> {
        let view = agent.view().borrow().clone();
        self.ledger(node, &view)?;
        agent.read_heads(|table| {
            let mut heads = table.iter().map(|(_, known)| &known.head);
            heads.try_for_each(|head| self.head(node, head))
        })?;
        leads::names(&view)?;
        let (plan, now) = (machine.filter_plan(), machine.host.clock.now());
        if let Some(words) = self.access.check(node, &view, plan.as_ref(), now) {
            return Err(("S35", words));
        }
        if let Some(words) = published::open_to_the_mesh(&view, plan.as_ref()) {
            return Err(("S25", words));
        }
        if let Some(words) = strangers::learn(&view) {
            return Err(("S34", words));
        }
        self.behind.learn(&view);
        routes(&view, machine, &self.behind)
    }

    /// A head was signed by its owner, and no older one was there before.
    fn head(&mut self, node: usize, head: &Head) -> Result<(), Seen> {
        let signed = self.signed.get(&head.node);
        if signed.is_some_and(|signed| *signed < head.order()) {
            let words = format!("a head of {} that it never signed", head.node);
            return Err(("S1", words));
        }
        let key = (node, head.node);
        let before = self.heads.insert(key, head.order());
        if before.is_some_and(|before| before > head.order()) {
            let words = format!("the head of {} went back from {before:?}", head.node);
            return Err(("S2", words));
        }
        let restored = self.restored.get(&head.node);
        if restored.is_some_and(|generation| head.generation <= *generation) {
            return Ok(());
        }
        let announced = self.announced.entry(head.node).or_insert(head.position);
        if announced.index < head.position.index {
            *announced = head.position;
        }
        Ok(())
    }

    /// A batch that a machine has in its ledger was signed by more than half of
    /// those who decide.
    ///
    /// # Errors
    /// S8.
    pub fn proved(&mut self, view: &MeshView, batch: &Batch) -> Result<(), Seen> {
        self.authors.take(view.ledger.recovery, batch)?;
        self.admins.take(&view.ledger, batch)?;
        let Ok(header) = batch.read_header() else {
            return Err(("S8", "a batch without a header".into()));
        };
        let epoch = (view.ledger.recovery, header.epoch);
        let Some(roster) = self.rosters.get(&epoch) else {
            return Ok(());
        };
        let signed = batch.proof.keys().filter(|node| roster.contains(node));
        let (signed, all) = (signed.count(), roster.len());
        if header.recovery.is_some() || signed > all / 2 {
            Ok(())
        } else {
            let words = format!("batch {} is signed by {signed} of {all}", header.index);
            Err(("S8", words))
        }
    }

    /// One ledger: never two batches in one place, and no way back.
    fn ledger(&mut self, node: usize, view: &MeshView) -> Result<(), Seen> {
        let Position { index, hash } = view.ledger.position;
        let place = (view.ledger.recovery, index);
        let epoch = (view.ledger.recovery, view.ledger.epoch);
        let roster = self.rosters.entry(epoch);
        roster.or_insert_with(|| view.ledger.roster.clone());
        if !self.batches.contains_key(&place) {
            authors::shares(&view.ledger)?;
        }
        let known = *self.batches.entry(place).or_insert(hash);
        if known != hash {
            return Err(("S8", format!("place {index} of the ledger has two batches")));
        }
        let reached = self.reached.entry(node).or_insert(place);
        if place < *reached {
            return Err((
                "S3",
                format!("the ledger went back from {reached:?} to {place:?}"),
            ));
        }
        *reached = place;
        // All that hold this place in the ledger hold the same members.
        let compared = self.compared.replace(view.ledger.position);
        if view.ledger.members.len() > CLOSELY && compared == Some(view.ledger.position) {
            return Ok(());
        }
        let serials: Vec<_> = view
            .ledger
            .members
            .values()
            .filter_map(|member| member.certificate)
            .collect();
        if serials.iter().collect::<BTreeSet<_>>().len() < serials.len() {
            return Err(("S15", "two members' certificates have one serial".into()));
        }
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
fn routes(view: &MeshView, machine: &Machine, behind: &Behind) -> Result<(), Seen> {
    let plan = machine.tunnel_plan();
    if let Some(words) = machine.tunnel_overlap() {
        return Err(("S11", words));
    }
    // Not only now: at no moment since the machine was there.
    let open = machine.tunnel_open();
    if let Some(words) = open.or_else(|| left_open(&plan, machine.filter_plan().as_ref())) {
        return Err(("S25", words));
    }
    let members: BTreeMap<IpAddr, _> = view
        .ledger
        .members
        .iter()
        .map(|(id, member)| (IpAddr::V4(member.ipv4), (id, member)))
        .collect();
    for (key, peer) in &plan.peers {
        if published::is_link(view, key, &peer.allowed_ips) {
            continue;
        }
        let allowed = || peer.allowed_ips.iter().map(|net| net.addr());
        let was = |net: &IpNet| behind.has_had(net);
        if behind.was_device(key) && peer.allowed_ips.iter().all(was) {
            continue;
        }
        let member = allowed().find_map(|address| members.get(&address).copied());
        let member = member.filter(|(_, member)| leads_to(member, &peer.allowed_ips, was));
        let Some((id, member)) = member else {
            let allowed: Vec<IpAddr> = allowed().collect();
            // The plan follows the view; a member that was just removed may
            // still be in it, one that never was may not.
            return Err(("S12", format!("{key} has {allowed:?}, which no member has")));
        };
        let known = view.nodes.get(id);
        if !known.is_some_and(|known| known.ledger_caught_up) {
            let words = format!(
                "{} has a route, and its ledger wasn't compared",
                member.name
            );
            return Err(("S13", words));
        }
        let holder = view.ledger.tunnel_key_holder(key);
        if let Some(holder) = holder.filter(|holder| holder != id) {
            let words = format!("the key of {holder} leads to {}", member.name);
            return Err(("S26", words));
        }
    }
    Ok(())
}

/// Whether a peer has a member's own addresses, and of others only what is `also` its.
fn leads_to(
    member: &ledger::Member,
    allowed: &BTreeSet<IpNet>,
    also: impl Fn(&IpNet) -> bool,
) -> bool {
    let own = own_addresses(member).map(IpNet::from);
    let is_own = |net: &IpNet| own.contains(net) || also(net);
    allowed.iter().all(is_own) && own.iter().all(|net| allowed.contains(net))
}

/// Both of them.
fn own_addresses(member: &ledger::Member) -> [IpAddr; 2] {
    [member.ipv4.into(), member.ipv6.into()]
}

/// What a view says, in few words: equal where two nodes agree.
pub fn conclusion(view: &MeshView) -> String {
    let live = view.nodes.values().filter(|seen| seen.live).count();
    let services: usize = view
        .nodes
        .values()
        .map(|seen| seen.announcement.services.len())
        .sum();
    let place = view.ledger.position.index;
    format!("place {place}, {live} live, {services} services")
}

/// A peer made an agent ask for much memory at once.
///
/// # Errors
/// S4.
pub fn memory(largest: usize, nodes: usize) -> Result<(), Seen> {
    /// No message, file or table of an agent comes near. What the world itself
    /// asks for, such as the queue of messages under way, grows with the mesh.
    const MOST: usize = 48 << 20;
    if largest > MOST * nodes.div_ceil(100) {
        Err(("S4", format!("{largest} bytes were asked for at once")))
    } else {
        Ok(())
    }
}

/// A member that runs all the time was taken for dead.
///
/// # Errors
/// S6.
pub fn false_death(agent: &Agent, timely: &BTreeSet<NodeId>) -> Result<(), Seen> {
    let view = agent.view().borrow().clone();
    let dead = view
        .nodes
        .iter()
        .find(|(node, seen)| timely.contains(node) && !seen.live && !seen.loading);
    match dead {
        Some((node, _)) => {
            let lease_ms =
                agent.read_heads(|table| table.get(node).map_or(0, |known| known.head.lease_ms));
            let words =
                format!("{node} runs and was taken for dead, with a lease of {lease_ms} ms");
            Err(("S6", words))
        }
        None => Ok(()),
    }
}

/// Ledger time went further than two minutes ahead of the right time.
///
/// # Errors
/// S19.
pub fn stamp(stamp_ms: u64, true_ms: u64) -> Result<(), Seen> {
    const MOST_MS: u64 = 2 * 60 * 1000;
    if stamp_ms > true_ms + MOST_MS {
        Err((
            "S19",
            format!("ledger time is {} ms ahead", stamp_ms - true_ms),
        ))
    } else {
        Ok(())
    }
}

/// What people did, and so what all must conclude: the reference model.
#[derive(Clone, Default)]
pub struct Model {
    /// Services in force, and the machine that has each.
    pub services: BTreeMap<u32, usize>,
    /// Services that were taken away, and who had them.
    pub removed: BTreeMap<u32, usize>,
    /// Names that the ledger gave, and whom.
    pub claims: BTreeMap<String, NodeId>,
    /// Names that were given back, it was said.
    pub given_back: BTreeSet<String>,
    /// How often a machine asked for a name.
    pub asked: BTreeMap<(String, NodeId), u32>,
    /// Names that a machine asked for once and was refused, it was told.
    pub refused: BTreeSet<(String, NodeId)>,
    /// Keys for which a certificate was asked once, and whether it was said
    /// that there is one.
    pub issued: BTreeMap<Hash, bool>,
    /// Certificates that were revoked, it was said, and their keys.
    pub revoked: BTreeMap<Serial, Hash>,
    pub evicted: BTreeSet<NodeId>,
    /// Nodes of which it was asked that they be admins, or none.
    pub admins: BTreeMap<NodeId, AdminTold>,
    /// Days that have passed since all above was new.
    days: u64,
    /// Services that may be in force or not: their owner was asked and hasn't
    /// answered, or doesn't remember.
    pub unknown: BTreeMap<u32, usize>,
}

/// How long certificates are good that machines ask for, in days.
pub const CERTIFICATE_DAYS: u32 = 90;

impl Model {
    /// So many days pass at once. What ends meanwhile, or may, is nobody's to
    /// remember.
    pub fn pass(&mut self, days: u64) {
        self.days += days;
        if self.days >= u64::from(CERTIFICATE_DAYS) / 2 {
            self.days = 0;
            self.issued.values_mut().for_each(|told| *told = false);
            self.revoked.clear();
        }
    }
}

/// What was asked of a node's being an admin, and told.
#[derive(Clone, Default)]
pub struct AdminTold {
    asked: u32,
    answered: u32,
    /// Whether two such requests were under way at once: nobody knows which was
    /// the last.
    is_unsure: bool,
    told: Option<bool>,
}

impl AdminTold {
    /// One more request is made.
    pub fn ask(&mut self) {
        self.is_unsure |= self.asked != self.answered;
        self.asked += 1;
    }

    /// One was answered for sure; with what the node is then, if that changed.
    pub fn answer(&mut self, is_admin: Option<bool>) {
        self.answered += 1;
        self.told = is_admin.or(self.told);
    }

    fn known(&self) -> Option<bool> {
        let is_known = !self.is_unsure && self.asked == self.answered;
        self.told.filter(|_| is_known)
    }
}

/// A machine that joined.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    /// Its overlay addresses.
    pub addresses: BTreeSet<IpAddr>,
}

/// One running machine, for [`Model::holds`].
pub struct Running<'a> {
    pub number: usize,
    pub agent: &'a Agent,
    /// Itself.
    pub machine: &'a Machine,
}

impl Model {
    /// A machine doesn't remember what it last offered.
    pub fn forget(&mut self, machine: usize) {
        for known in [&mut self.services, &mut self.removed] {
            let its = known.extract_if(.., |_, owner| *owner == machine);
            self.unknown.extend(its);
        }
    }

    /// Whether the names that must be there always are: `any` picks one of the
    /// services that all knew once, and one of the members.
    ///
    /// # Errors
    /// S14.
    pub async fn names(
        &self,
        agent: &Agent,
        members: &BTreeMap<usize, Member>,
        any: u64,
    ) -> Result<(), Seen> {
        let ledger = agent.view().borrow().ledger.clone();
        let pick = |length: usize| (any as usize).checked_rem(length).unwrap_or(0);
        let member = members.values().nth(pick(members.len()));
        let member = member.map(|member| member.name.clone());
        let service = self.services.keys().nth(pick(self.services.len()));
        let service = service.map(|number| format!("s{number}"));
        for name in member.into_iter().chain(service) {
            let label = name.parse().expect("a label");
            let in_force = ledger.names.contains_key(&label)
                || ledger.members.values().any(|member| member.name == label);
            if in_force && is_denied(agent, &name).await {
                return Err(("S14", format!("{name} is in force and doesn't exist")));
            }
            let offered = agent
                .view()
                .borrow()
                .nodes
                .values()
                .any(|node| node.announcement.services.contains_key(&label));
            let granted = ledger.names.contains_key(&label);
            if granted && offered && resolve(agent, &name).await.is_empty() {
                let words = format!("{name} has an instance, dead or not, and no answer");
                return Err(("S14", words));
            }
        }
        Ok(())
    }

    /// Whether all running machines have come to the same and right
    /// conclusions: members, ledger, names, services, routes; and whether
    /// their memberships are valid at `now_ms`, if that is given.
    ///
    /// # Errors
    /// What is not as it must become, and on which machine.
    pub async fn holds(
        &self,
        running: &[Running<'_>],
        members: &BTreeMap<usize, Member>,
        now_ms: Option<u64>,
    ) -> Result<(), (usize, Seen)> {
        let Some(first) = running.first() else {
            return Ok(());
        };
        let newest = first.agent.view().borrow().ledger.position;
        let keys: BTreeMap<NodeId, Option<TunnelKey>> = running
            .iter()
            .map(|one| {
                let view = one.agent.view().borrow().clone();
                let own = view.nodes.get(&view.me);
                let device = own.and_then(|own| own.announcement.wireguard.clone());
                (view.me, device.map(|device| device.key))
            })
            .collect();
        for one in running {
            let wrong = |number, words: String| Err((one.number, (number, words)));
            let view = one.agent.view().borrow().clone();
            if view.ledger.position != newest {
                let words = format!(
                    "it is at place {} of the ledger, node{} at {}",
                    view.ledger.position.index, first.number, newest.index
                );
                return wrong("L1", words);
            }
            if let Some(seen) = self.forgotten(&view, members) {
                return Err((one.number, seen));
            }
            if let Some(words) = places::lacking(&view) {
                return wrong("L1", words);
            }
            let live: BTreeSet<NodeId> = view
                .nodes
                .iter()
                .filter(|(_, seen)| seen.live)
                .map(|(node, _)| *node)
                .collect();
            if !live.iter().eq(keys.keys()) {
                let words = format!("it sees {} live of {}", live.len(), keys.len());
                return wrong("L1", words);
            }
            if let Some(words) = unroutable(one.machine, &view, &keys) {
                return wrong("L2", words);
            }
            if let Some(words) = now_ms.and_then(|now_ms| expired(&view, now_ms)) {
                return wrong("S19", words);
            }
            for member in named(members, running.len(), one.number) {
                let got = resolve(one.agent, &member.name).await;
                if got != member.addresses {
                    return wrong("L1", format!("{} resolves to {got:?}", member.name));
                }
            }
            for (service, owner) in &self.services {
                let got = resolve(one.agent, &format!("s{service}")).await;
                if Some(&got) != members.get(owner).map(|owner| &owner.addresses) {
                    let words = format!("s{service} of node{owner} resolves to {got:?}");
                    return wrong("L1", words);
                }
            }
            for service in self.removed.keys() {
                let got = resolve(one.agent, &format!("s{service}")).await;
                if !got.is_empty() {
                    let words = format!("s{service} was removed and resolves to {got:?}");
                    return wrong("S3", words);
                }
            }
        }
        Ok(())
    }
}

impl Model {
    /// What the ledger held or took away, and a view has otherwise.
    fn forgotten(&self, view: &MeshView, members: &BTreeMap<usize, Member>) -> Option<Seen> {
        let names: BTreeSet<String> = view
            .ledger
            .members
            .values()
            .map(|member| member.name.to_string())
            .collect();
        let missing = members
            .values()
            .find(|member| !names.contains(&member.name));
        if let Some(member) = missing {
            let words = format!("nobody evicted {}, and it is no member", member.name);
            return Some(("S3", words));
        }
        for (node, asked) in &self.admins {
            let member = view.ledger.members.get(node);
            let is = member.is_some_and(|member| member.roles.contains(&Role::Admin));
            if let Some(told) = asked.known().filter(|told| *told != is) {
                let words = format!("that {node} is an admin was told to be {told}, and is {is}");
                return Some(("S20", words));
            }
        }
        for (name, owner) in &self.claims {
            let label = name.parse().expect("a label");
            let held = view.ledger.names.get(&label);
            if held.is_none_or(|held| held.owner != *owner) {
                let words = format!("{name} was given to {owner}, and that is forgotten");
                return Some(("S20", words));
            }
        }
        for (name, asker) in &self.refused {
            let label = name.parse().expect("a label");
            let held = view.ledger.names.get(&label);
            if held.is_some_and(|held| held.owner == *asker)
                && self.asked.get(&(name.clone(), *asker)) == Some(&1)
            {
                let words = format!("{asker} was refused {name}, and has it");
                return Some(("S8", words));
            }
        }
        let mut issued: BTreeMap<Hash, usize> = BTreeMap::new();
        for one in view.ledger.certificates.values() {
            *issued.entry(one.key_hash).or_default() += 1;
        }
        for (key, told) in &self.issued {
            let count = issued.get(key).copied().unwrap_or(0);
            if count > 1 || (*told && count == 0) {
                let words = format!("{count} certificates for a key that was asked for once");
                return Some(("S15", words));
            }
        }
        let forgotten = self.revoked.iter().find(|(serial, key)| {
            !view.ledger.revoked.contains_key(*serial)
                || !view.ledger.revoked_keys.contains_key(*key)
        });
        if let Some((serial, _)) = forgotten {
            return Some((
                "S17",
                format!("{serial} was revoked, and that is forgotten"),
            ));
        }
        let gone = self
            .evicted
            .iter()
            .find(|node| view.ledger.members.contains_key(node) || view.nodes.contains_key(node));
        gone.map(|node| ("S13", format!("{node} was evicted and is a member")))
    }
}

/// The members whose names are asked for on one machine: all, or of many a
/// part that is another on the next machine, so that all are asked for often.
fn named(
    members: &BTreeMap<usize, Member>,
    running: usize,
    number: usize,
) -> impl Iterator<Item = &Member> {
    let count = if members.len() > CLOSELY {
        (CLOSELY * CLOSELY / running.max(1)).max(1)
    } else {
        members.len()
    };
    let first = if members.len() > CLOSELY {
        number * count % members.len()
    } else {
        0
    };
    members.values().cycle().skip(first).take(count)
}

/// Why a machine can't exchange packets with each of those that run, if so:
/// each must have the other's key and addresses.
fn unroutable(
    machine: &Machine,
    view: &MeshView,
    keys: &BTreeMap<NodeId, Option<TunnelKey>>,
) -> Option<String> {
    let plan = machine.tunnel_plan();
    let others = keys.iter().filter(|(node, _)| **node != view.me);
    for (node, key) in others {
        let member = view.ledger.members.get(node)?;
        let peer = key.as_ref().and_then(|key| plan.peers.get(key));
        let also = |net: &IpNet| devices::is_behind(view, node, net);
        let right = peer.is_some_and(|peer| leads_to(member, &peer.allowed_ips, also));
        if !right {
            return Some(format!("{} has no route, or a wrong one", member.name));
        }
    }
    None
}

/// What is wrong with this node's own membership certificate at `now_ms`.
fn expired(view: &MeshView, now_ms: u64) -> Option<String> {
    let serial = view.own_member()?.certificate?;
    let issued = view.ledger.certificates.get(&serial)?;
    (issued.not_after_ms <= now_ms).then(|| {
        let days = (now_ms - issued.not_after_ms) / (24 * 3600 * 1000);
        format!("its membership certificate expired {days} days ago and wasn't renewed")
    })
}
