//! `agent exit`: by which node this one reaches the internet.

use std::{net::IpAddr, sync::Arc, time::Duration};

use innermesh_proto::{filter::LanAccess, id::NodeId, name::Label, near::nearest, view::MeshView};
use tokio::sync::watch;

use crate::{
    control::{
        ControlError, ErrorCode,
        exits::{ExitEnded, ExitInUse, ExitRow, ExitShown, ExitUseRequest, ExitUsed},
    },
    node::shared::{
        echo::{SMALL, echo},
        enforced::Enforced,
        exit_setting::{ChosenExit, ExitSetting},
        exit_use::{name, trouble},
        handles::Handles,
        refusals::{internal, not_member, refused, unavailable},
        tunnel_progress::TunnelProgress,
    },
    tunnel::BackendChoice,
};

/// How long the host's filter, routes and tunnel may take to follow.
const APPLIED: Duration = Duration::from_secs(8);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Chooses the exit.
pub(crate) struct ExitDesk {
    pub node: Handles,
    pub setting: Arc<ExitSetting>,
    pub enforced: Arc<Enforced>,
    pub tunnel: watch::Sender<TunnelProgress>,
}

impl ExitDesk {
    /// All exits, and the one in use.
    pub fn show(&self) -> ExitShown {
        let view = self.node.view.borrow().clone();
        let chosen = self.setting.get();
        let used = chosen.map(|chosen| ExitInUse {
            node: name(&view, &chosen),
            lan: chosen.lan,
            trouble: trouble(&view, &chosen),
        });
        let own = self.own_ways();
        let exits = view.exits().map(|node| {
            let ways = if *node == self.node.me {
                own
            } else {
                view.exit_ways(node).map(|ways| (ways.ipv4, ways.ipv6))
            };
            ExitRow {
                node: view.ledger.name_of(*node),
                live: view.nodes.get(node).is_some_and(|seen| seen.live),
                used: chosen.is_some_and(|chosen| chosen.node == Some(*node)),
                ipv4: ways.map(|(ipv4, _)| ipv4),
                ipv6: ways.map(|(_, ipv6)| ipv6),
            }
        });
        ExitShown {
            used,
            exits: exits.collect(),
        }
    }

    fn own_ways(&self) -> Option<(bool, bool)> {
        let state = self.enforced.lock();
        let exit = state.plan.as_ref()?.exit.as_ref()?;
        Some((exit.outer(true).is_some(), exit.outer(false).is_some()))
    }

    /// Has this node send to the internet by an exit, and by no other way.
    ///
    /// # Errors
    /// Why it goes on as before.
    pub async fn begin(&self, request: ExitUseRequest) -> Result<ExitUsed, ControlError> {
        let view = self.newest_view();
        let node = self.chosen(&view, &request.node)?;
        let chosen = ChosenExit {
            node: Some(node),
            lan: request.lan,
        };
        self.set(Some(chosen)).await?;
        let member = view.ledger.members.get(&node);
        let address = member.map(|member| IpAddr::V4(member.ipv4));
        let answers = match address {
            Some(address) => echo(&self.node.host, address, SMALL).await,
            None => Ok(None),
        };
        let answers = answers.is_ok_and(|took| took.is_some());
        Ok(ExitUsed {
            node: request.node.to_string(),
            lan: request.lan,
            answers,
            warnings: warnings(&view, &request.node, &node, request.lan, answers),
        })
    }

    /// Has this node send to the internet by itself again.
    ///
    /// # Errors
    /// Why it doesn't.
    pub async fn end(&self) -> Result<ExitEnded, ControlError> {
        let view = self.node.view.borrow().clone();
        let before = self.setting.get();
        if before.is_some() {
            self.set(None).await?;
        }
        Ok(ExitEnded {
            node: before.map(|chosen| name(&view, &chosen)),
        })
    }

    /// The node that is named, if it can be used.
    fn chosen(&self, view: &MeshView, name: &Label) -> Result<NodeId, ControlError> {
        let state = &view.ledger;
        state.members.get(&self.node.me).ok_or_else(not_member)?;
        if self.node.config.backend == BackendChoice::None {
            return Err(refused(
                "this agent has no tunnel, and sends nothing by one",
            ));
        }
        let Some((node, _)) = state.member_by_name(name) else {
            let members = state.members.values();
            let names = members.map(|member| member.name.as_str());
            let meant = nearest(name.as_str(), names).map(|near| format!("; did you mean {near}?"));
            return Err(ControlError::new(
                ErrorCode::NotFound,
                format!("{name} is not a member{}", meant.unwrap_or_default()),
            ));
        };
        if node == self.node.me {
            return Err(refused(format!(
                "{name} is this node; it reaches the internet by itself"
            )));
        }
        if !view.is_exit(&node) {
            let exits: Vec<String> = view.exits().map(|it| state.name_of(*it)).collect();
            let others = match &exits[..] {
                [] => String::new(),
                _ => format!("; exits are {}", exits.join(", ")),
            };
            return Err(refused(format!(
                "{name} is no exit; an admin makes it one by `agent role add {name} exit`{others}"
            )));
        }
        if view.is_exit(&self.node.me) {
            return Err(refused(
                "this node is an exit itself, and forwards to the internet by its own way",
            ));
        }
        if !view.may_use_exits() {
            return Err(refused(
                "the mesh's policy lets this node reach nothing of the internet by an exit; an admin \
                 allows it by a rule to \"internet\" (`agent policy edit`)",
            ));
        }
        Ok(node)
    }

    /// Keeps the choice, and waits until the host follows it.
    async fn set(&self, chosen: Option<ChosenExit>) -> Result<(), ControlError> {
        let disk = &*self.node.host.disk;
        self.setting.set(disk, chosen).await.map_err(internal)?;
        // Nothing in it is new; what follows the view looks at the choice too.
        self.node.view.send_modify(|_| {});
        let clock = &self.node.host.clock;
        let end = clock.now() + APPLIED;
        while !self.is_applied(chosen) {
            if clock.now() >= end {
                return Err(unavailable(
                    "it is kept, and this host's filter, routes or tunnel don't follow yet; `agent \
                     status` shows why",
                ));
            }
            clock.sleep(LOOK).await;
        }
        Ok(())
    }

    fn is_applied(&self, chosen: Option<ChosenExit>) -> bool {
        let lan = {
            let state = self.enforced.lock();
            let through = state.plan.as_ref().and_then(|plan| plan.through.as_ref());
            if state.filter.is_some() || state.routes.is_some() {
                return false;
            }
            through.map(|through| through.lan)
        };
        if lan != chosen.map(|chosen| chosen.lan) {
            return false;
        }
        // An exit that isn't there has no peer, and nothing goes to it.
        let Some(node) = chosen.and_then(|chosen| chosen.node) else {
            return true;
        };
        let plan = self.tunnel.borrow().plan.clone();
        let view = self.node.view.borrow().clone();
        view.through_exit((*plan).clone(), &node) == *plan
    }

    /// The newest view, with the ledger as it is now.
    fn newest_view(&self) -> MeshView {
        MeshView {
            ledger: self.node.ledger.state(),
            ..MeshView::clone(&self.node.view.borrow())
        }
    }
}

/// What isn't reached by an exit all the same.
fn warnings(
    view: &MeshView,
    name: &Label,
    node: &NodeId,
    lan: LanAccess,
    answers: bool,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if !answers {
        warnings.push(format!(
            "{name} doesn't answer: nothing on the internet is reached until it does, or `agent exit \
             off` ends this"
        ));
    }
    if let Some(ways) = view.exit_ways(node) {
        let missing = match (ways.ipv4, ways.ipv6) {
            (true, true) => None,
            (true, false) => Some("by IPv6"),
            (false, true) => Some("by IPv4"),
            (false, false) => Some("at all"),
        };
        warnings.extend(missing.map(|how| {
            format!("{name} has no way to the internet {how}: what is sent there so is refused")
        }));
    }
    if lan == LanAccess::Cut {
        warnings.push(
            "hosts in this machine's own LANs aren't reached, name servers and printers among them"
                .into(),
        );
    }
    warnings
}
