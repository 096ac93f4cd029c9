//! What a person should know, and do something about.

use std::{
    net::Ipv6Addr,
    path::{Path, PathBuf},
    sync::Arc,
};

use innermesh_proto::{ledger::State, view::MeshView};
use tokio::sync::watch;

use crate::{
    ca::expiry,
    control::finding::{Finding, Severity, code},
    host::{
        holder::{Holder, Kind},
        port_map::Mappings,
        state_folder,
    },
    node::{
        commands::{alone, folder, netcheck, policy, port_mapping, roles, spenders},
        follow::{
            dns::Listening, dns_encrypted::EncryptedTrouble, holds, lane_server::LaneTrouble,
            membership::Membership, names::NameClaimer, page::Page, program_certs::CertKeeper,
            reach::Reach, resolver::ResolverKeeper, sinkhole::SinkholeTrouble,
        },
        shared::{
            enforced::Enforced, exit_setting::ExitSetting, exit_use, handles::Handles,
            publishing::Publishing, revocation_lists::Lists, secondaries::Secondaries,
            tunnel_progress::TunnelProgress,
        },
    },
    services::Registry,
};

/// Names of containers that are told one by one.
const NAMELESS_TOLD: usize = 10;

pub(crate) struct Warnings {
    pub node: Handles,
    pub services: Registry,
    pub names: Arc<NameClaimer>,
    pub membership: Arc<Membership>,
    pub tunnel: watch::Sender<TunnelProgress>,
    pub listening: Arc<Listening>,
    pub enforced: Arc<Enforced>,
    pub publishing: Arc<Publishing>,
    pub exit: Arc<ExitSetting>,
    pub lists: Arc<Lists>,
    pub page: Arc<Page>,
    pub sinkhole: Arc<SinkholeTrouble>,
    pub lane: Arc<LaneTrouble>,
    pub secondaries: Arc<Secondaries>,
    pub certs: Arc<CertKeeper>,
    pub acme_trouble: watch::Sender<Option<String>>,
    pub encrypted_dns: Arc<EncryptedTrouble>,
    pub resolver: Arc<ResolverKeeper>,
    pub reach: Arc<Reach>,
    pub port_maps: watch::Sender<Mappings>,
}

impl Warnings {
    /// All that isn't as it should be, with what to do.
    pub async fn all(&self, view: &MeshView) -> Vec<Finding> {
        let mut found = self.known(view);
        found.extend(folder::finding(&self.node.host).await);
        found.extend(self.turned_away(view).await);
        found.extend(lost(&self.node).await);
        found.extend(self.room().await);
        found.extend(spenders::findings(&self.node, view).await);
        found
    }

    /// What is known without asking the disk or others.
    fn known(&self, view: &MeshView) -> Vec<Finding> {
        let now = self.node.host.clock.now();
        let wall_ms = self.node.host.clock.wall_ms();
        let state = &view.ledger;
        let mut found = expiring(wall_ms, view);
        found.extend(self.own_state(view));
        found.extend(holds::findings(state, &view.held, view.me));
        found.extend(roles::findings(state));
        found.extend(policy::findings(state, || view.directory()));
        found.extend(self.tunnel.borrow().finding(now));
        found.extend(self.enforced.findings(now));
        let own_ports = self.node.config.tcp_ports();
        let listens = |port| self.listens(port);
        found.extend(self.publishing.findings(view, &own_ports, listens));
        let plan = self.enforced.lock().plan.clone();
        found.extend(exit_use::findings(view, self.exit.get(), plan.as_ref()));
        found.extend(self.listening.findings(state.domain.as_str()));
        found.extend(self.encrypted_dns.findings(&self.node.config));
        found.extend(self.resolver.finding());
        found.extend(alone::findings(state));
        found.extend(self.reach.findings(view));
        found.extend(port_mapping::finding(&self.port_maps.borrow()));
        found.extend(self.services.findings());
        found.extend(self.nameless_containers());
        let trouble = self.acme_trouble.borrow().clone();
        found.extend(trouble.map(|why| {
            Finding::error(
                code::ACME_NOT_SERVED,
                format!("ACME isn't served: {why}"),
                "It is tried again by itself; until then programs renew nothing by ACME here",
            )
        }));
        found.extend(self.page.findings());
        found.extend(self.sinkhole.findings());
        found.extend(self.lane.findings(&self.node, view));
        found.extend(netcheck::finding(&self.node, view));
        found.extend(self.secondaries.findings(now));
        found.extend(self.lists.findings(state, self.node.client.now_ms()));
        let failure = self.membership.failure.lock();
        let failure = failure.unwrap_or_else(|e| e.into_inner()).clone();
        found.extend(failure.map(|why| {
            Finding::warning(
                code::MEMBERSHIP_NOT_RENEWED,
                format!("the membership certificate could not be renewed: {why}"),
                "It is tried again by itself; `agent ca status` shows which CA nodes are there",
            )
        }));
        found.extend(self.certs.certs.findings(wall_ms));
        if state.members.len() > 2 {
            found.extend(roster_advice(state));
        }
        found
    }

    /// Containers whose service hasn't the name that their labels say.
    fn nameless_containers(&self) -> Vec<Finding> {
        let pending = self.names.pending();
        let containers = self.services.container_names().into_iter();
        let nameless = containers.filter_map(|(name, container)| {
            let why = pending.get(&name)?;
            Some(Finding::warning(
                code::CONTAINER_LABEL,
                format!("the name {name} of the container {container} isn't granted: {why}"),
                "It is asked for again by itself; or give the container another innermesh.name",
            ))
        });
        nameless.take(NAMELESS_TOLD).collect()
    }

    /// The program that listens at a TCP port of the addresses that strangers come to.
    fn listens(&self, port: u16) -> Option<Holder> {
        let net = &self.node.host.net;
        // Mostly there is none anywhere.
        let _ = net.holder(Kind::Tcp, (Ipv6Addr::UNSPECIFIED, port).into())?;
        let (own, outer) = {
            let state = self.enforced.lock();
            let outer = state.plan.as_ref()?.publish.outer.clone();
            (state.networks.own.clone(), outer)
        };
        let mut own = own.iter().filter(|own| outer.contains(&own.interface));
        own.find_map(|own| net.holder(Kind::Tcp, (own.address, port).into()))
    }

    /// What is wrong with this node's key, ledger or state.
    fn own_state(&self, view: &MeshView) -> Vec<Finding> {
        let mut found = Vec::new();
        let conflicts = self.node.gossip.conflicts();
        for node in &conflicts {
            let member = view.ledger.members.get(node);
            let name = member.map_or_else(|| node.to_string(), |member| member.name.to_string());
            found.push(Finding::error(
                code::CLONED,
                format!("two machines use the key of {name}: a cloned disk"),
                "Stop one, and join it anew with a fresh state folder",
            ));
        }
        let unknown = self.node.ledger.raft_status().borrow().unknown_rules;
        found.extend(unknown.map(|rules| {
            Finding::error(
                code::RULES_UNKNOWN,
                format!(
                    "the ledger follows rules {rules}, which this version doesn't know: this node no \
                     longer sees changes of members, names and certificates"
                ),
                "Update the agent",
            )
        }));
        if self.node.ledger.was_damaged() {
            found.push(was_damaged(self.node.ledger.behind()));
        }
        // While a clone runs, warn of the clone only.
        let twin = conflicts.contains(&view.me);
        if self.node.gossip.was_rolled_back() && !twin {
            found.push(rolled_back(view));
        }
        found
    }

    /// A disk that is nearly full.
    async fn room(&self) -> Option<Finding> {
        let disk = &self.node.host.disk;
        let free = disk
            .free()
            .await
            .ok()
            .filter(|free| *free < crate::ledger::ROOM)?;
        Some(Finding::error(
            code::DISK_FULL,
            format!(
                "{} KiB are left on the disk of {}: with none this machine doesn't follow the ledger",
                free >> 10,
                disk.root().display()
            ),
            "Free some space",
        ))
    }

    /// Others say that this machine is no member any more: an evicted one gets
    /// nothing more of the ledger that says so.
    async fn turned_away(&self, view: &MeshView) -> Option<Finding> {
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
        Some(Finding::error(
            code::TURNED_AWAY,
            format!(
                "{}{more} turned this machine away: it was evicted, or has left",
                names.join(", ")
            ),
            format!(
                "To come back, make room for `agent join` with a new invite: {}",
                state_folder::make_room(&*self.node.host.disk).await
            ),
        ))
    }
}

/// What a recovery left behind, as long as the copy of it is there.
pub async fn lost(node: &Handles) -> Vec<Finding> {
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
                ". This machine keeps out whom they evicted ({}); have an admin `agent evict` \
                 them again",
                nodes.join(", ")
            )
        };
        Finding::warning(
            code::LEDGER_RECOVERED,
            format!(
                "the ledger was recovered from an earlier place: batches {} to {} that this \
                 machine held, with {} entries, are no part of it any more{kept}",
                lost.from, lost.to, lost.entries,
            ),
            format!(
                "See `agent ca log --file {file}`, ask again for what is missing, then remove that \
                 file",
                file = file.display()
            ),
        )
    })
    .collect()
}

/// Ends that are near: nothing here may expire as a surprise.
pub fn expiring(now_ms: u64, view: &MeshView) -> Vec<Finding> {
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
    let ends = expiry::warnings(now_ms, state.root.not_after_ms, &issuers);
    ends.into_iter()
        .map(|end| {
            let code = if end.is_root {
                code::ROOT_EXPIRES
            } else {
                code::ISSUER_EXPIRES
            };
            let severity = if end.is_over {
                Severity::Error
            } else {
                Severity::Warning
            };
            Finding::new(code, severity, end.text, end.remedy)
        })
        .collect()
}

/// What would make the roster survive more.
pub fn roster_advice(state: &State) -> Option<Finding> {
    let text = match state.roster.len() {
        2 => "two CA nodes decide together, and neither may be away",
        4 => "four CA nodes survive the loss of one, as three do",
        _ => return None,
    };
    let remedy = "Add one with `agent ca promote NODE`";
    Some(Finding::warning(code::ROSTER_EVEN, text, remedy))
}

fn was_damaged(behind: Option<u64>) -> Finding {
    let text = "the ledger's files on this machine were damaged when the agent started";
    let remedy = "Look at the disk; a copy of what was there is in ledger.damaged or \
                  ledger.snapshot.damaged";
    match behind {
        Some(index) => Finding::error(
            code::LEDGER_DAMAGED,
            format!("{text}: it had come to batch {index}, and doesn't have all up to that yet"),
            remedy,
        ),
        None => Finding::warning(
            code::LEDGER_DAMAGED,
            format!("{text}: what was lost was fetched again"),
            remedy,
        ),
    }
}

fn rolled_back(view: &MeshView) -> Finding {
    let next = if view.ledger.voters.contains_key(&view.me) {
        "It is a CA node, and may have forgotten what it promised the others: have an admin \
             `agent ca demote` it and then `agent ca promote` it"
    } else {
        "If the machine that the snapshot is of runs too, stop one of the two"
    };
    Finding::warning(
        code::STATE_ROLLED_BACK,
        "this machine's state was older than what it had announced before, as after a restored \
         snapshot; it goes on above that",
        next,
    )
}
