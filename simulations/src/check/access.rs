//! What the policy that a node holds forbids is in no filter plan there (S35): asked
//! word by word of the policy, without what compiles it.

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
    let services = &view.nodes.get(&view.me)?.announcement.services;
    let services = services.values().map(|instance| instance.port);
    let ports: BTreeSet<u16> = services.chain(PORTS).collect();
    let flows = ports
        .into_iter()
        .flat_map(|port| [Flow::Tcp(port), Flow::Udp(port)])
        .chain([Flow::Other]);
    let devices = view.ledger.devices();
    let members = view.ledger.members.iter();
    let sources: Vec<IpAddr> = devices
        .map(|(_, device)| device.ipv4.into())
        .chain(
            members
                .filter(|(id, _)| **id != view.me)
                .map(|(_, member)| member.ipv4.into()),
        )
        .collect();
    let to = IpAddr::from(own.ipv4);
    for flow in flows {
        for from in &sources {
            let passes = access.passes(&plan.networks, *from, to, flow).is_some();
            if passes && !asked.allows(*from, to, flow) {
                return Some(format!(
                    "{from} reaches {flow} of {to}, which no rule allows"
                ));
            }
        }
    }
    None
}

struct Asked<'v> {
    view: &'v MeshView,
    state: &'v State,
    policy: &'v Policy,
}

impl Asked<'_> {
    fn allows(&self, from: IpAddr, to: IpAddr, flow: Flow) -> bool {
        let device = self
            .state
            .devices()
            .find(|(_, one)| IpAddr::from(one.ipv4) == from);
        let default = match device {
            None => self.policy.default.members_open,
            Some((_, device)) => {
                let served = matches!(flow, Flow::Tcp(53 | 7443 | 7480) | Flow::Udp(53));
                let is_mine = device.profile.gateways.contains_key(&self.view.me);
                let mut services = self.state.names.iter();
                is_mine && served
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

    /// Whether this node has the service, and a port of it is meant.
    fn is_service(
        &self,
        name: &Label,
        ip: IpAddr,
        ports: &Option<BTreeSet<Ports>>,
        flow: Flow,
    ) -> bool {
        let me = &self.view.me;
        let held = self.state.names.get(name);
        let is_held = held.is_some_and(|held| held.owner == *me || held.shared.contains(me));
        let own = self.state.members.get(me);
        let services = self
            .view
            .nodes
            .get(me)
            .map(|node| &node.announcement.services);
        let instance = services.and_then(|services| services.get(name));
        let (true, Some(own), Some(instance)) = (is_held, own, instance) else {
            return false;
        };
        let fits = match ports {
            Some(ports) => ports.iter().any(|ports| ports.contains(flow)),
            None => match (instance.protocol, flow) {
                (_, Flow::Echo) => true,
                (Protocol::Tcp, Flow::Tcp(port)) | (Protocol::Udp, Flow::Udp(port)) => {
                    port == instance.port
                }
                _ => false,
            },
        };
        IpAddr::from(own.ipv4) == ip && fits
    }
}
