//! What a person should know, and do something about.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use innermesh_proto::{ledger::State, view::MeshView};
use tokio::sync::watch;

use crate::{
    ca::expiry,
    control::finding::Finding,
    host::state_folder,
    node::{
        commands::{alone, roles},
        follow::{
            dns::Listening, holds, membership::Membership, page::Page, program_certs::CertKeeper,
            reach::Reach, resolver::ResolverKeeper,
        },
        shared::{
            enforced::Enforced, handles::Handles, revocation_lists::Lists,
            tunnel_progress::TunnelProgress,
        },
    },
    services::Registry,
};

pub(crate) struct Warnings {
    pub node: Handles,
    pub services: Registry,
    pub membership: Arc<Membership>,
    pub tunnel: watch::Sender<TunnelProgress>,
    pub listening: Arc<Listening>,
    pub enforced: Arc<Enforced>,
    pub lists: Arc<Lists>,
    pub page: Arc<Page>,
    pub certs: Arc<CertKeeper>,
    pub acme_trouble: watch::Sender<Option<String>>,
    pub resolver: Arc<ResolverKeeper>,
    pub reach: Arc<Reach>,
}

impl Warnings {
    /// All that is known without asking the disk or others.
    pub fn all(&self, view: &MeshView) -> Vec<String> {
        let mut warnings = expiring(self.node.host.clock.wall_ms(), view);
        for node in self.node.gossip.conflicts() {
            let name = view
                .ledger
                .members
                .get(&node)
                .map(|member| member.name.to_string());
            warnings.push(format!(
                "two machines use the key of {}: a cloned disk. Stop one, and join it anew with a fresh state folder",
                name.unwrap_or_else(|| node.to_string())
            ));
        }
        let unknown = self.node.ledger.raft_status().borrow().unknown_rules;
        warnings.extend(unknown.map(|rules| {
            format!(
                "the ledger follows rules {rules}, which this version doesn't know: this node no \
                 longer sees changes of members, names and certificates. Update the agent"
            )
        }));
        if self.node.ledger.was_damaged() {
            warnings.push(was_damaged(self.node.ledger.behind()));
        }
        // While a clone runs, warn of the clone only.
        let twin = self.node.gossip.conflicts().contains(&view.me);
        if self.node.gossip.was_rolled_back() && !twin {
            warnings.push(rolled_back(view));
        }
        warnings.extend(holds::warnings(&view.ledger, &view.held, view.me));
        warnings.extend(roles::warnings(&view.ledger));
        warnings.extend(self.findings(view).iter().map(Finding::sentence));
        warnings.extend(self.services.warnings());
        let trouble = self.acme_trouble.borrow().clone();
        warnings.extend(trouble.map(|why| format!("ACME isn't served: {why}")));
        warnings.extend(self.enforced.warnings(self.node.host.clock.now()));
        warnings.extend(self.page.warnings());
        warnings.extend(self.lists.warnings(&view.ledger, self.node.client.now_ms()));
        if let Some(why) = &*self
            .membership
            .failure
            .lock()
            .unwrap_or_else(|e| e.into_inner())
        {
            warnings.push(format!(
                "the membership certificate could not be renewed: {why}"
            ));
        }
        warnings.extend(self.certs.certs.warnings(self.node.host.clock.wall_ms()));
        if view.ledger.members.len() > 2 {
            warnings.extend(roster_advice(&view.ledger));
        }
        warnings
    }

    /// A disk that is nearly full.
    pub async fn room(&self) -> Option<String> {
        let disk = &self.node.host.disk;
        let free = disk
            .free()
            .await
            .ok()
            .filter(|free| *free < crate::ledger::ROOM)?;
        Some(format!(
            "{} KiB are left on the disk of {}: free some space; with none this machine doesn't \
             follow the ledger",
            free >> 10,
            disk.root().display()
        ))
    }

    /// Others say that this machine is no member any more: an evicted one gets
    /// nothing more of the ledger that says so.
    pub async fn turned_away(&self, view: &MeshView) -> Option<String> {
        const NAMED: usize = 3;
        let all = {
            let all = self.membership.turned_away.lock();
            all.unwrap_or_else(|e| e.into_inner()).clone()
        };
        if all.is_empty() {
            return None;
        }
        let names: Vec<String> = all
            .iter()
            .take(NAMED)
            .map(|node| view.ledger.name_of(*node))
            .collect();
        let more = match all.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!(
            "{}{more} turned this machine away: it was evicted, or has left. To come back, make room \
             for `agent join` with a new invite: {}",
            names.join(", "),
            state_folder::make_room(&*self.node.host.disk).await
        ))
    }

    /// What isn't as it should be, with what to do.
    pub fn findings(&self, view: &MeshView) -> Vec<Finding> {
        let tunnel = self
            .tunnel
            .borrow()
            .finding(self.node.host.clock.now())
            .into_iter();
        let domain = self.node.ledger.state().domain.to_string();
        tunnel
            .chain(self.enforced.findings())
            .chain(self.listening.findings(&domain))
            .chain(self.resolver.finding())
            .chain(alone::findings(&self.node.ledger.state()))
            .chain(self.reach.findings(view))
            .collect()
    }
}

/// What a recovery left behind, as long as the copy of it is there.
pub async fn lost(node: &Handles) -> Vec<String> {
    let lost = node.ledger.lost();
    if lost.is_empty() {
        return Vec::new();
    }
    let disk = &node.host.disk;
    let files = disk.list(Path::new("")).await.unwrap_or_default();
    let state = node.ledger.state();
    let told = lost
        .iter()
        .filter(|lost| files.contains(&PathBuf::from(lost.copy())));
    told.map(|lost| {
        let file = disk.root().join(lost.copy());
        let nodes: Vec<String> = lost.nodes.iter().map(|node| state.name_of(*node)).collect();
        let kept = if nodes.is_empty() {
            String::new()
        } else {
            format!(
                " This machine keeps out whom they evicted ({}); have an admin `agent evict` \
                 them again.",
                nodes.join(", ")
            )
        };
        format!(
            "the ledger was recovered from an earlier place: batches {} to {} that this \
             machine held, with {} entries, are no part of it any more.{kept} See `agent ca log \
             --file {file}`, ask again for what is missing, then remove that file",
            lost.from,
            lost.to,
            lost.entries,
            file = file.display()
        )
    })
    .collect()
}

/// Ends that are near: nothing here may expire as a surprise.
pub fn expiring(now_ms: u64, view: &MeshView) -> Vec<String> {
    let state = &view.ledger;
    let voters = state.voters.keys().filter(|node| state.is_voter(**node));
    let issuers: Vec<(String, Vec<expiry::Life>)> = voters
        .map(|node| {
            let usable = state
                .issuers_of(*node)
                .filter(|issuer| issuer.revoked.is_none());
            let lives = usable.map(|issuer| {
                let certificate = &issuer.certificate;
                (certificate.not_before_ms, certificate.not_after_ms)
            });
            (state.name_of(*node), lives.collect())
        })
        .collect();
    expiry::warnings(now_ms, state.root.not_after_ms, &issuers)
}

/// What would make the roster survive more.
pub fn roster_advice(state: &State) -> Option<String> {
    let advice = match state.roster.len() {
        2 => {
            "two CA nodes decide together, and neither may be away: add one with \
             `agent ca promote NODE`"
        }
        4 => {
            "four CA nodes survive the loss of one, as three do: add one with \
             `agent ca promote NODE`"
        }
        _ => return None,
    };
    Some(advice.into())
}

fn was_damaged(behind: Option<u64>) -> String {
    let now = match behind {
        Some(index) => format!("it had come to batch {index}, and doesn't have all up to that yet"),
        None => "what was lost was fetched again".into(),
    };
    format!(
        "the ledger's files on this machine were damaged when the agent started: {now}. A copy is \
         in ledger.damaged or ledger.snapshot.damaged; look at the disk"
    )
}

fn rolled_back(view: &MeshView) -> String {
    let next = if view.ledger.voters.contains_key(&view.me) {
        "It is a CA node, and may have forgotten what it promised the others: have an admin \
             `agent ca demote` it and then `agent ca promote` it"
    } else {
        "If the machine that the snapshot is of runs too, stop one of the two"
    };
    format!(
        "this machine's state was older than what it had announced before, as after a restored \
         snapshot; it goes on above that. {next}"
    )
}
