//! What the host's resolver has to know of this node, and what its programs have
//! to find.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use innermesh_proto::{
    id::{NodeId, resolver_v4},
    ledger::State,
    view::MeshView,
    zone::reverse_zones,
};

use crate::{dns::Dns, host::resolver::ResolverPlan, node::shared::handles::Handles};

/// The port that resolvers ask.
const PORT: u16 = 53;

/// What is to be set, and what is to be found then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    /// None while nothing answers where resolvers can ask.
    pub plan: Option<ResolverPlan>,
    pub domain: String,
    /// This node's own name, and its addresses.
    pub own: Name,
    /// A name that stands in no hosts file, and that each agent answers by itself.
    pub acme: Name,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub name: String,
    pub addresses: Vec<IpAddr>,
}

impl About {
    pub fn of(node: &Handles, dns: &Dns) -> Self {
        let state = node.ledger.state();
        let resolvers = [
            IpAddr::V4(resolver_v4(state.ipv4)),
            IpAddr::V6(state.mesh.resolver_v6()),
        ];
        Self {
            plan: plan(&state, &node.config.interface, &dns.listening()),
            own: own(&state, node.me),
            acme: Name {
                name: format!("acme.{}", state.domain),
                addresses: resolvers.to_vec(),
            },
            domain: state.domain.to_string(),
        }
    }
}

fn own(state: &State, me: NodeId) -> Name {
    Name {
        name: format!("{}.{}", state.name_of(me), state.domain),
        addresses: state
            .members
            .get(&me)
            .map(MeshView::addresses)
            .unwrap_or_default(),
    }
}

/// None where nothing listens on the port that resolvers ask.
fn plan(state: &State, interface: &str, listening: &[SocketAddr]) -> Option<ResolverPlan> {
    let servers = servers(listening);
    let zones = reverse_zones(state.ipv4, state.mesh.ula());
    (!servers.is_empty()).then(|| ResolverPlan {
        interface: interface.to_owned(),
        servers,
        domain: state.domain.to_string(),
        reverse: zones
            .iter()
            .map(|zone| zone.to_string().trim_end_matches('.').to_string())
            .collect(),
    })
}

/// IPv4 first, and this host's own address where all of them are listened on.
fn servers(listening: &[SocketAddr]) -> Vec<IpAddr> {
    let asked = listening.iter().filter(|address| address.port() == PORT);
    let mut servers: Vec<IpAddr> = asked
        .map(|address| match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        })
        .collect();
    servers.sort_unstable();
    servers.dedup();
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_given_only_what_listens_on_their_port() {
        let servers = |listening: &[&str]| -> Vec<String> {
            let listening: Vec<SocketAddr> =
                listening.iter().map(|at| at.parse().unwrap()).collect();
            servers(&listening).iter().map(IpAddr::to_string).collect()
        };
        assert_eq!(
            servers(&["[fd00::53]:53", "10.77.0.53:53", "10.77.0.53:53"]),
            ["10.77.0.53", "fd00::53"]
        );
        assert_eq!(servers(&["127.0.0.1:5353"]), [""; 0]);
        assert_eq!(servers(&["0.0.0.0:53", "[::]:53"]), ["127.0.0.1", "::1"]);
    }
}
