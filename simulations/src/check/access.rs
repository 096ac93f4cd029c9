//! What the policy that a node holds forbids is in no filter plan there (S35): asked
//! word by word of the policy, without what compiles it. Of a node that is what is sent
//! to it, and of a gateway what its devices and the networks behind it send and are sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use innermesh_proto::{
    filter::{
        FilterPlan,
        access::{Flow, Ports},
    },
    ledger::State,
    name::Label,
    policy::{Policy, Subject, Target},
    view::MeshView,
    zone::Protocol,
};
use ipnet::IpNet;

/// How long a filter plan may be one of an earlier view: it is made by a task of its
/// own, which a machine that stands still delays.
const BEHIND: Duration = Duration::from_secs(10);
/// Ports of which each pair is asked, beside those of services.
const PORTS: [u16; 3] = [22, 53, 7480];

/// What each machine's plan let pass that its policy forbids, and since when.
#[derive(Default)]
pub struct Access(BTreeMap<usize, (String, Duration)>);

impl Access {
    /// What has been let pass for longer than the plan may be behind.
    pub fn check(
        &mut self,
        node: usize,
        view: &MeshView,
        plan: Option<&FilterPlan>,
        now: Duration,
    ) -> Option<String> {
        let Some(words) = plan.and_then(|plan| forbidden(view, plan)) else {
            self.0.remove(&node);
            return None;
        };
        match self.0.get(&node) {
            Some((before, since)) if *before == words => {
                (now.saturating_sub(*since) > BEHIND).then_some(words)
            }
            _ => {
                self.0.insert(node, (words, now));
                None
            }
        }
    }
}

fn forbidden(view: &MeshView, plan: &FilterPlan) -> Option<String> {
    let own = view.own_member()?;
    let access = &plan.access;
    if access.looks_at_nothing() && view.ledger.devices().next().is_none() {
        return None;
    }
    let asked = Asked {
        view,
        state: &view.ledger,
        policy: &view.ledger.rules_of_access(),
    };
    let announced = view.nodes.values().map(|node| &node.announcement.services);
    let services = announced.flat_map(|services| services.values());
    let services = services.map(|instance| instance.port);
    let ports: BTreeSet<u16> = services.chain(PORTS).collect();
    let flows: Vec<Flow> = ports
        .into_iter()
        .flat_map(|port| [Flow::Tcp(port), Flow::Udp(port)])
        .chain([Flow::Other])
        .collect();
    for (from, to) in pairs(view, own.ipv4.into(), plan.gateway.is_some()) {
        for flow in &flows {
            let passes = access.passes(&plan.networks, from, to, *flow).is_some();
            if passes && !asked.allows(from, to, *flow) {
                return Some(format!(
                    "{from} reaches {flow} of {to}, which no rule allows"
                ));
            }
        }
    }
    None
}

/// Who sends to whom by this node.
fn pairs(view: &MeshView, own: IpAddr, is_gateway: bool) -> BTreeSet<(IpAddr, IpAddr)> {
    let mut near: BTreeSet<IpAddr> = BTreeSet::new();
    let mut all: BTreeSet<IpAddr> = view
        .ledger
        .members
        .values()
        .map(|m| m.ipv4.into())
        .collect();
    for (_, device) in view.ledger.devices() {
        all.insert(device.ipv4.into());
        if is_gateway && device.gateways().contains(&view.me) {
            near.insert(device.ipv4.into());
        }
    }
    for (net, gateways) in view.ledger.routes() {
        all.insert(net.addr());
        if is_gateway && gateways.contains(&view.me) {
            near.insert(net.addr());
        }
    }
    let others = all.iter().filter(|ip| **ip != own);
    let mut pairs: BTreeSet<_> = others.map(|from| (*from, own)).collect();
    for near in near {
        for other in all.iter().filter(|ip| **ip != near) {
            pairs.extend([(near, *other), (*other, near)]);
        }
    }
    // What a node sends itself, it may.
    pairs.retain(|(from, _)| *from != own);
    pairs
}

struct Asked<'v> {
    view: &'v MeshView,
    state: &'v State,
    policy: &'v Policy,
}

impl Asked<'_> {
    fn allows(&self, from: IpAddr, to: IpAddr, flow: Flow) -> bool {
        let device_at = |ip: IpAddr| {
            let mut devices = self.state.devices();
            devices.find(|(_, one)| IpAddr::from(one.ipv4) == ip)
        };
        let member_at = |ip: IpAddr| {
            let mut members = self.state.members.iter();
            members.find(|(_, one)| IpAddr::from(one.ipv4) == ip)
        };
        let default = match device_at(from) {
            None => {
                let open = self.policy.default.members_open;
                open && member_at(from).is_some() && device_at(to).is_none()
            }
            Some((_, device)) => {
                let served = matches!(flow, Flow::Tcp(53 | 7443 | 7480) | Flow::Udp(53));
                let gateways = &device.profile.gateways;
                let is_its = member_at(to).is_some_and(|(id, _)| gateways.contains_key(id));
                let mut services = self.state.names.iter();
                let is_given = |net: &IpNet| net.contains(&to);
                is_its && served
                    || device.profile.routes.iter().any(is_given)
                    || self.policy.default.devices_reach_services
                        && services.any(|(name, _)| self.is_service(name, to, &None, flow))
            }
        };
        default
            || self.policy.rules.iter().any(|rule| {
                rule.from.iter().any(|subject| self.is(subject, from))
                    && rule
                        .to
                        .iter()
                        .any(|target| self.is_reached(target, to, flow))
            })
    }

    fn is(&self, subject: &Subject, ip: IpAddr) -> bool {
        let state = self.state;
        let device_is = |is: &dyn Fn(&innermesh_proto::ledger::device::Device) -> bool| {
            let mut devices = state.devices();
            devices.any(|(_, device)| IpAddr::from(device.ipv4) == ip && is(device))
        };
        let member_is = |is: &dyn Fn(&Label) -> bool| {
            let mut members = state.members.values();
            members.any(|member| IpAddr::from(member.ipv4) == ip && is(&member.name))
        };
        match subject {
            Subject::Members => member_is(&|_| true),
            Subject::Devices => device_is(&|_| true),
            Subject::Name(name) => {
                member_is(&|own| own == name) || device_is(&|one| one.name == *name)
            }
            Subject::Net(net) => net.contains(&ip),
            Subject::Group(name) => {
                let group = self.policy.groups.get(name);
                let mut members = group.into_iter().flat_map(|group| &group.members);
                members.any(|member| self.is(member, ip))
                    || device_is(&|one| one.groups.contains(name))
            }
        }
    }

    fn is_reached(&self, target: &Target, ip: IpAddr, flow: Flow) -> bool {
        if let Subject::Group(name) = &target.subject
            && let Some(group) = self.policy.groups.get(name)
        {
            let within = group.members.iter().any(|member| {
                let target = Target {
                    subject: member.clone(),
                    ports: target.ports.clone(),
                };
                self.is_reached(&target, ip, flow)
            });
            if within {
                return true;
            }
        }
        if let Subject::Name(name) = &target.subject
            && self.is_service(name, ip, &target.ports, flow)
        {
            return true;
        }
        let ports = target.ports.as_ref();
        self.is(&target.subject, ip)
            && ports.is_none_or(|ports| ports.iter().any(|ports| ports.contains(flow)))
    }

    /// Whether the service is at that address, and a port of it is meant.
    fn is_service(
        &self,
        name: &Label,
        ip: IpAddr,
        ports: &Option<BTreeSet<Ports>>,
        flow: Flow,
    ) -> bool {
        let mut members = self.state.members.iter();
        let Some((node, _)) = members.find(|(_, own)| IpAddr::from(own.ipv4) == ip) else {
            return false;
        };
        let announced = self.view.nodes.get(node);
        let instance = announced.and_then(|node| node.announcement.services.get(name));
        let held = self.state.names.get(name);
        let is_held = held.is_some_and(|held| held.owner == *node || held.shared.contains(node));
        let (true, Some(instance)) = (is_held, instance) else {
            return false;
        };
        match ports {
            Some(ports) => ports.iter().any(|ports| ports.contains(flow)),
            None => match (instance.protocol, flow) {
                (_, Flow::Echo) => true,
                (Protocol::Tcp, Flow::Tcp(port)) | (Protocol::Udp, Flow::Udp(port)) => {
                    port == instance.port
                }
                _ => false,
            },
        }
    }
}
