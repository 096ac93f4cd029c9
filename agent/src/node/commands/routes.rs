//! `agent route`: networks that gateways bring.

use std::sync::Arc;

use innermesh_proto::{
    filter::HostNetworks,
    id::NodeId,
    ledger::{Content, Role, request::RouteChange},
    view::MeshView,
};
use ipnet::IpNet;

use crate::{
    control::{
        ControlError,
        routes::{RouteChangeRequest, RouteChanged, RouteRow, RouteWay},
    },
    node::shared::{
        enforced::Enforced,
        handles::Handles,
        refusals::{decide, no_node, not_member, refused},
    },
};

/// Answers what is asked about them.
pub(crate) struct RouteDesk {
    pub node: Handles,
    pub enforced: Arc<Enforced>,
}

impl RouteDesk {
    /// Has the ledger give a gateway a network, or take it.
    ///
    /// # Errors
    /// Why it stays as it is.
    pub async fn change(&self, request: RouteChangeRequest) -> Result<RouteChanged, ControlError> {
        let state = self.node.ledger.state();
        let RouteChangeRequest { net, gateway, give } = request;
        let (gateway, member) = match &gateway {
            Some(name) => state.member_by_name(name).ok_or_else(|| no_node(name))?,
            None => {
                let me = self.node.me;
                (me, state.members.get(&me).ok_or_else(not_member)?)
            }
        };
        let name = member.name.clone();
        if give && !member.roles.contains(&Role::Gateway) {
            return Err(refused(format!(
                "{name} is no gateway; an admin makes it one by `agent role add {name} gateway`"
            )));
        }
        let change = RouteChange { net, gateway };
        let content = if give {
            Content::AddRoute(change)
        } else {
            Content::RemoveRoute(change)
        };
        if content.since_rules() > state.rules {
            return Err(refused(
                "not all nodes know networks behind gateways yet; update the agents, CA nodes first",
            ));
        }
        decide(&self.node.client, &content).await?;
        let networks = self.enforced.lock().networks.clone();
        let is_here = gateway == self.node.me && give;
        Ok(RouteChanged {
            net,
            gateway: name.to_string(),
            give,
            returns: if is_here {
                returns(&self.node.view.borrow(), &net, &networks)
            } else {
                Vec::new()
            },
            led: is_here.then(|| {
                let leading = networks.leading_to(&net);
                leading.iter().any(|lan| !is_only_default(&networks, lan))
            }),
        })
    }

    /// All of them, each with how it is reached from here.
    pub fn list(&self) -> Vec<RouteRow> {
        let view = self.node.view.borrow().clone();
        let state = self.enforced.lock();
        let used = view.route_gateways();
        let mut rows = Vec::new();
        for (net, gateways) in view.ledger.routes() {
            for gateway in gateways {
                let here = *gateway == self.node.me;
                let back = state.beside.returns.get(net).filter(|_| here);
                let plan = state.plan.as_ref();
                rows.push(RouteRow {
                    net: *net,
                    gateway: view.ledger.name_of(*gateway),
                    live: here || view.nodes.get(gateway).is_some_and(|node| node.live),
                    used: used.get(net) == Some(gateway),
                    way: self.way(&view, net, gateways.contains(&self.node.me), &state),
                    back: back.map(|back| back.word().to_owned()),
                    returns: back.and_then(|back| back.command(plan?)),
                });
            }
        }
        rows
    }

    fn way(
        &self,
        view: &MeshView,
        net: &IpNet,
        own: bool,
        state: &crate::node::shared::enforced::OverlayState,
    ) -> RouteWay {
        if own {
            return RouteWay::Own;
        }
        if state.networks.meets(net).is_some() {
            let met = state.beside.meets.get(net);
            return match met.and_then(|met| met.direct.as_ref()) {
                Some(_) => RouteWay::Direct,
                None => RouteWay::Overlap,
            };
        }
        let gateway: Option<NodeId> = view.route_gateways().remove(net);
        gateway.map_or(RouteWay::None, |_| RouteWay::Tunnel)
    }
}

/// Whether only the default route leads there: then it may be anywhere.
fn is_only_default(networks: &HostNetworks, lan: &innermesh_proto::filter::Lan) -> bool {
    let mut links = networks.links.iter();
    !links.any(|link| {
        link.interface == lan.interface
            && link.net.prefix_len() > 0
            && (link.net.contains(&lan.net) || lan.net.contains(&link.net))
    })
}

/// What the routers of a network need: the overlay lies behind this host.
fn returns(view: &MeshView, net: &IpNet, networks: &HostNetworks) -> Vec<String> {
    let leading = networks.leading_to(net);
    let own = networks.own.iter().filter(|own| {
        net.contains(&own.address) && leading.iter().any(|lan| lan.interface == own.interface)
    });
    own.map(|own| {
        let overlay = match own.address {
            std::net::IpAddr::V4(_) => IpNet::V4(view.ledger.ipv4.trunc()),
            std::net::IpAddr::V6(_) => IpNet::V6(view.ula()),
        };
        format!("ip route add {overlay} via {}", own.address)
    })
    .collect()
}
