//! `agent publish`: ports of public nodes that lead to services inside.

use std::{collections::BTreeSet, sync::Arc};

use innermesh_proto::{
    id::NodeId,
    ledger::{
        Content, State,
        publish::{PublicPort, Publish},
    },
    name::Label,
    near::nearest,
    view::MeshView,
    zone::Protocol,
};

use crate::{
    control::{
        ControlError,
        publish::{
            EndedPort, PublishRequest, PublishRow, Published, UnpublishRequest, Unpublished,
        },
    },
    node::shared::{
        handles::Handles,
        publishing::Publishing,
        refusals::{decide, no_node, refused},
    },
};

/// Answers what is asked about them.
pub(crate) struct PublishDesk {
    pub node: Handles,
    pub publishing: Arc<Publishing>,
}

impl PublishDesk {
    /// Has the ledger publish something.
    ///
    /// # Errors
    /// Why it isn't published.
    pub async fn publish(&self, request: PublishRequest) -> Result<Published, ControlError> {
        let state = self.node.ledger.state();
        let view = self.node.view.borrow().clone();
        let member = state.member_by_name(&request.on);
        let (on, _) = member.ok_or_else(|| no_node(&request.on))?;
        let inside = state.publishable_on(&request.name);
        if inside.is_empty() {
            return Err(refused(unknown(&state, &request.name)));
        }
        if on == self.node.me && self.node.config.tcp_ports().contains(&request.port) {
            return Err(refused(format!(
                "port {} is the agent's own on this node; choose another",
                request.port
            )));
        }
        let instances = instances(&view, &inside, &request.name);
        if instances
            .iter()
            .any(|(_, protocol)| *protocol == Protocol::Udp)
        {
            return Err(refused(format!(
                "{} is a service over UDP; TCP ports can be published",
                request.name
            )));
        }
        let own_port = instances.first().map(|(port, _)| *port);
        let to_port = request.to_port.or(own_port).unwrap_or(request.port);
        let publish = Publish {
            at: PublicPort {
                on,
                port: request.port,
            },
            name: request.name.clone(),
            to_port,
            proxy_protocol: request.proxy_protocol,
        };
        let content = Content::Publish(Box::new(publish));
        if content.since_rules() > state.rules {
            return Err(refused(
                "not all nodes know how to publish yet; update the agents, CA nodes first",
            ));
        }
        decide(&self.node.client, &content).await?;
        let others = inside.into_iter().filter(|node| *node != on);
        let inside: Vec<String> = others.map(|node| state.name_of(node)).collect();
        Ok(Published {
            name: request.name.to_string(),
            port: request.port,
            on: request.on.to_string(),
            to_port,
            proxy_protocol: request.proxy_protocol,
            needs: needs(&view, &request, on, &inside),
            inside,
        })
    }

    /// Has the ledger end it.
    ///
    /// # Errors
    /// Why it goes on.
    pub async fn unpublish(&self, request: UnpublishRequest) -> Result<Unpublished, ControlError> {
        let state = self.node.ledger.state();
        let on = match &request.on {
            Some(name) => {
                let member = state.member_by_name(name);
                Some(member.ok_or_else(|| no_node(name))?.0)
            }
            None => None,
        };
        let meant = state.publications().filter(|(at, publication)| {
            publication.name == request.name
                && request.port.is_none_or(|port| port == at.port)
                && on.is_none_or(|on| on == at.on)
        });
        let meant: Vec<PublicPort> = meant.map(|(at, _)| *at).collect();
        if meant.is_empty() {
            return Err(refused(format!(
                "{} isn't published{}; `agent publish list` shows what is",
                request.name,
                if request.port.is_some() || on.is_some() {
                    " there"
                } else {
                    ""
                }
            )));
        }
        let mut ended = Vec::new();
        for at in meant {
            decide(&self.node.client, &Content::Unpublish(at)).await?;
            ended.push(EndedPort {
                port: at.port,
                on: state.name_of(at.on),
            });
        }
        Ok(Unpublished {
            name: request.name.to_string(),
            ended,
        })
    }

    /// All that is published.
    pub fn list(&self) -> Vec<PublishRow> {
        let view = self.node.view.borrow().clone();
        let state = &view.ledger;
        let me = self.node.me;
        let rows = state.publications().map(|(at, publication)| {
            let target = view.publish_target(at.on, publication);
            let here = at.on == me;
            let trouble = if here {
                self.publishing.port_trouble(at.port)
            } else if target == Some(me) && !publication.proxy_protocol {
                self.publishing.link_trouble()
            } else {
                None
            };
            PublishRow {
                name: publication.name.to_string(),
                port: at.port,
                on: state.name_of(at.on),
                live: here || view.nodes.get(&at.on).is_some_and(|node| node.live),
                to_port: publication.to_port,
                proxy_protocol: publication.proxy_protocol,
                to: target.map(|node| state.name_of(node)),
                trouble,
                by: state.name_of(publication.by),
                at_ms: publication.at_ms,
            }
        });
        rows.collect()
    }
}

/// Ports and transports of a service's instances, by the nodes' order.
fn instances(view: &MeshView, inside: &BTreeSet<NodeId>, name: &Label) -> Vec<(u16, Protocol)> {
    let views = inside.iter().filter_map(|node| view.nodes.get(node));
    let found = views.filter_map(|node| node.announcement.services.get(name));
    found
        .map(|instance| (instance.port, instance.protocol))
        .collect()
}

fn unknown(state: &State, name: &Label) -> String {
    let known: Vec<&str> = state
        .names
        .iter()
        .filter(|(label, _)| !state.publishable_on(label).is_empty())
        .map(|(label, _)| label.as_str())
        .collect();
    let near = nearest(name.as_str(), known.into_iter());
    let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
    format!("there is neither a service nor a node {name}{near}")
}

/// What each side must have, which the agent can't see from here.
fn needs(view: &MeshView, request: &PublishRequest, on: NodeId, inside: &[String]) -> Vec<String> {
    let PublishRequest {
        name, on: public, ..
    } = request;
    let inside = inside.join(" and ");
    if !request.proxy_protocol {
        return vec![
            format!(
                "{public} forwards: its agent runs as root or with CAP_NET_ADMIN, and nftables is \
                 there"
            ),
            format!(
                "{inside} gets an interface for it: the agent there runs as root or with \
                 CAP_NET_ADMIN, and {name} listens on all addresses, outside of containers"
            ),
        ];
    }
    let member = view.ledger.members.get(&on);
    let addresses = member.map(MeshView::addresses).unwrap_or_default();
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    vec![
        format!(
            "{public} accepts at port {}: below 1024 its agent runs as root or with \
             CAP_NET_BIND_SERVICE",
            request.port
        ),
        format!(
            "{name} expects the PROXY protocol from {} and from nobody else",
            addresses.join(" and ")
        ),
    ]
}
