//! Exits: who is one, and what is sent to the one that this node uses.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::MeshView;
use crate::{
    filter::{ExitFilter, HostNetworks, internet},
    head::ExitWays,
    id::NodeId,
    ledger::Role,
    policy,
    tunnel::TunnelPlan,
};

impl MeshView {
    /// Whether a node is an exit now.
    pub fn is_exit(&self, node: &NodeId) -> bool {
        let member = self.ledger.members.get(node);
        member.is_some_and(|member| member.roles.contains(&Role::Exit))
            && !self.held.contains_key(node)
    }

    /// All of them.
    pub fn exits(&self) -> impl Iterator<Item = &NodeId> {
        let members = self.ledger.members.keys();
        members.filter(|node| self.is_exit(node))
    }

    /// What an exit says of its ways to the internet; none where it hasn't yet.
    pub fn exit_ways(&self, node: &NodeId) -> Option<ExitWays> {
        self.nodes.get(node)?.announcement.exit
    }

    /// What an exit leads to: neither the mesh nor networks behind gateways, whatever
    /// addresses those have.
    fn behind_exits(&self) -> BTreeSet<IpNet> {
        let overlay = [IpNet::V4(self.ledger.ipv4.trunc()), IpNet::V6(self.ula())];
        let routes = self.ledger.routes().map(|(net, _)| *net);
        internet(overlay.into_iter().chain(routes))
    }

    /// A plan with the internet behind an exit. Where that is none any more, or not
    /// there, nobody has it: what is sent there is lost, and leaves by no other way.
    pub fn through_exit(&self, mut plan: TunnelPlan, exit: &NodeId) -> TunnelPlan {
        let member = self.ledger.members.get(exit);
        let Some(member) = member.filter(|_| self.is_exit(exit) && *exit != self.me) else {
            return plan;
        };
        let own = IpNet::from(std::net::IpAddr::V4(member.ipv4));
        let mut peers = plan.peers.values_mut();
        if let Some(peer) = peers.find(|peer| peer.allowed_ips.contains(&own)) {
            let nets = self.behind_exits();
            peer.allowed_ips.extend(nets.iter().copied());
            // They are routed by the exit's own table, behind all others.
            plan.unrouted.extend(nets);
        }
        plan
    }

    /// Whether the policy lets this node reach anything of the internet by exits.
    pub fn may_use_exits(&self) -> bool {
        let Some(own) = self.own_member() else {
            return false;
        };
        let directory = self.directory();
        let plan = policy::everywhere(&self.ledger.rules_of_access(), &directory);
        let own = Self::addresses(own);
        let outside = self.behind_exits();
        plan.members_open
            || plan.rules.iter().any(|rule| {
                let sets = |of: &BTreeSet<usize>| -> Vec<&BTreeSet<IpNet>> {
                    of.iter().filter_map(|set| plan.sets.get(*set)).collect()
                };
                let from = sets(&rule.from).into_iter().flatten();
                let to = sets(&rule.to).into_iter().flatten();
                let meets = |net: &IpNet| {
                    let mut outside = outside.iter();
                    outside.any(|other| other.contains(net) || net.contains(other))
                };
                from.clone()
                    .any(|net| own.iter().any(|ip| net.contains(ip)))
                    && to.clone().any(meets)
            })
    }

    /// What this node forwards to the internet; `None` where it is no exit.
    pub(super) fn exit_filter(&self, host: &HostNetworks) -> Option<ExitFilter> {
        self.is_exit(&self.me).then(|| ExitFilter::new(host))
    }
}
