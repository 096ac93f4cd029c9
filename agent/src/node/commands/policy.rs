//! `agent policy`: who may reach what, shown, checked, set and explained.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use innermesh_proto::{
    id::NodeId,
    ledger::{Content, PolicyText, State},
    policy::{
        self, By, Directory, Explained, Policy, failed_tests, notes, parse_subject, parse_target,
        unknown_names,
    },
};

use crate::{
    control::{
        ControlError,
        finding::{Finding, code},
        policy::{
            PolicyAddresses, PolicyCheckRequest, PolicyChecked, PolicyExplainRequest,
            PolicyExplained, PolicyPair, PolicySet, PolicySetRequest, PolicyShown,
        },
    },
    host::UnixTime,
    node::shared::{
        enforced::Enforced,
        handles::Handles,
        refusals::{decide, invalid, refused},
    },
};

/// Pairs that are told at once.
const TOLD_PAIRS: usize = 64;
/// Troubles that one finding names.
const TOLD_TROUBLES: usize = 3;

/// The policy in force.
pub fn show(node: &Handles, enforced: &Enforced) -> PolicyShown {
    let enforced = enforced.policy();
    let view = node.view.borrow().clone();
    let state = &view.ledger;
    let Some(fact) = state.policy() else {
        return PolicyShown {
            text: None,
            number: 0,
            by: None,
            at: None,
            enforced,
            troubles: Vec::new(),
        };
    };
    PolicyShown {
        text: Some(fact.text.clone()),
        number: fact.number,
        by: Some(state.name_of(fact.by)),
        at: Some(UnixTime::from_ms(fact.at_ms)),
        enforced,
        troubles: troubles(&state.rules_of_access(), &view.directory()),
    }
}

/// Checks a policy as if it were set.
pub fn check(node: &Handles, request: &PolicyCheckRequest) -> PolicyChecked {
    let directory = node.view.borrow().directory();
    let checked = |policy: Option<&Policy>, errors, notes| PolicyChecked {
        rules: policy.map_or(0, |policy| policy.rules.len()),
        groups: policy.map_or(0, |policy| policy.groups.len()),
        tests: policy.map_or(0, |policy| policy.tests.len()),
        errors,
        notes,
    };
    let policy = match Policy::parse(&request.text) {
        Ok(policy) => policy,
        Err(error) => return checked(None, vec![error.to_string()], Vec::new()),
    };
    let mut errors = Vec::new();
    if !request.allow_unknown {
        let unknown = unknown_names(&policy, &directory);
        errors.extend(unknown.iter().map(ToString::to_string));
    }
    match policy::check(&policy, &directory) {
        Ok(()) => {}
        // All tests that fail, and not the first of them alone.
        Err(first) => match failed_tests(&policy, &directory) {
            Ok(failed) if !failed.is_empty() => {
                errors.extend(failed.iter().map(ToString::to_string));
            }
            _ => errors.push(first.to_string()),
        },
    }
    let notes = notes(&policy, &directory);
    let notes = notes.iter().map(ToString::to_string).collect();
    checked(Some(&policy), errors, notes)
}

/// Sets the policy; answers once the ledger has it.
///
/// # Errors
/// What is wrong with it, or why the mesh refuses it. The one before stands.
pub async fn set(node: &Handles, request: PolicySetRequest) -> Result<PolicySet, ControlError> {
    let state = node.ledger.state();
    let own = state.members.get(&node.me);
    if !own.is_some_and(|own| own.roles.contains(&innermesh_proto::ledger::Role::Admin)) {
        return Err(refused(
            "this machine is not an admin; run this on one that is (`agent status` shows roles)",
        ));
    }
    let number = state.policy().map_or(0, |policy| policy.number);
    if let Some(before) = request.instead_of
        && before != number
    {
        return Err(refused(format!(
            "the policy was changed meanwhile: it is number {number} now, and this was made from \
             number {before}; begin again from `agent policy show`"
        )));
    }
    let PolicySetRequest {
        text,
        allow_unknown,
        ..
    } = request;
    let request = PolicyCheckRequest {
        text,
        allow_unknown,
    };
    let checked = check(node, &request);
    if !checked.errors.is_empty() {
        let errors = checked.errors.join("\n  ");
        return Err(refused(format!("nothing was changed:\n  {errors}")));
    }
    let content = Content::Policy(PolicyText(request.text));
    if content.since_rules() > state.rules {
        return Err(refused(
            "not all CA nodes know policies; update the agents on all CA nodes first",
        ));
    }
    decide(&node.client, &content).await?;
    let state = node.ledger.state();
    Ok(PolicySet {
        number: state.policy().map_or(0, |policy| policy.number),
        notes: checked.notes,
    })
}

/// Whether one reaches another, by which rule, and where that is enforced.
///
/// # Errors
/// Where one of the two names nothing.
pub async fn explain(
    node: &Handles,
    request: PolicyExplainRequest,
) -> Result<PolicyExplained, ControlError> {
    let view = node.view.borrow().clone();
    let policy = view.ledger.rules_of_access();
    let directory = view.directory();
    let named = |text: &str, why: &dyn fmt::Display| invalid(format!("\"{text}\": {why}"));
    let from = parse_subject(&request.from).map_err(|why| named(&request.from, &why))?;
    let to = parse_target(&request.to).map_err(|why| named(&request.to, &why))?;
    for (subject, text) in [(&from, &request.from), (&to.subject, &request.to)] {
        policy::known(subject, &policy, &directory).map_err(|why| named(text, &why))?;
    }
    let mut explained = policy::explain(&policy, &directory, &from, &to, TOLD_PAIRS + 1);
    let more = explained.len() > TOLD_PAIRS;
    explained.truncate(TOLD_PAIRS);
    if explained.is_empty() {
        return Err(refused(format!(
            "{} and {} have no addresses of one kind, or no node announces a port of what is to be \
             reached",
            request.from, request.to
        )));
    }
    let counted = node.host.overlay.allowed().await.unwrap_or_default();
    let teller = Teller {
        policy: &policy,
        directory: &directory,
        me: node.me,
        counted,
    };
    Ok(PolicyExplained {
        pairs: teller.pairs(explained),
        more,
    })
}

struct Teller<'p> {
    policy: &'p Policy,
    directory: &'p Directory,
    me: NodeId,
    counted: BTreeMap<String, u64>,
}

impl Teller<'_> {
    fn pairs(&self, explained: Vec<Explained>) -> Vec<PolicyPair> {
        let mut pairs: Vec<PolicyPair> = Vec::new();
        for one in explained {
            let (from, to) = (one.ends.from, one.ends.to);
            let enforcers = self.enforcers(from.addr(), to.addr());
            let counts = enforcers.iter().any(|(_, id)| *id == self.me);
            let label = one.by.as_ref().and_then(By::label);
            let packets = label.filter(|_| counts);
            let packets = packets.map(|label| self.counted.get(label).copied().unwrap_or_default());
            let pair = PolicyPair {
                from: self.name(&from),
                to: self.name(&to),
                addresses: vec![PolicyAddresses {
                    from: from.addr(),
                    to: to.addr(),
                }],
                ports: one.ends.ports.to_string(),
                allowed: one.by.is_some(),
                by: one.by.map(|by| by.describe(self.policy)),
                enforced_on: enforcers.into_iter().map(|(name, _)| name).collect(),
                packets,
            };
            let same = pairs.iter_mut().find(|known| {
                let known = PolicyPair {
                    addresses: pair.addresses.clone(),
                    ..(**known).clone()
                };
                known == pair
            });
            match same {
                Some(same) => same.addresses.extend(pair.addresses),
                None => pairs.push(pair),
            }
        }
        pairs
    }

    /// What has an address; the network itself where nothing does.
    fn name(&self, net: &ipnet::IpNet) -> String {
        let ip = net.addr();
        let is_host = net.prefix_len() == net.max_prefix_len();
        let nodes = self.directory.nodes.iter();
        let nodes = nodes.map(|(name, node)| (name, &node.addresses));
        let devices = self.directory.devices.iter();
        let devices = devices.map(|(name, device)| (name, &device.addresses));
        let mut all = nodes.chain(devices);
        match all.find(|(_, addresses)| is_host && addresses.contains(&ip)) {
            Some((name, _)) => name.to_string(),
            None if is_host => ip.to_string(),
            None => net.to_string(),
        }
    }

    /// The nodes that a flow passes and that judge it: its destination, and the
    /// gateways of devices and networks at its ends.
    fn enforcers(&self, from: IpAddr, to: IpAddr) -> Vec<(String, NodeId)> {
        let directory = self.directory;
        let nodes = directory.nodes.iter();
        let nodes = nodes.filter(|(_, node)| {
            let routes = directory.routes.iter();
            let mut routes = routes.filter(|(_, gateways)| gateways.contains(&node.id));
            let mut devices = directory.devices.values();
            let is_gateway_of = |ip: IpAddr| {
                devices.any(|device| {
                    device.addresses.contains(&ip) && device.gateways.contains(&node.id)
                }) || routes.any(|(net, _)| net.contains(&ip))
            };
            node.addresses.contains(&to) || [from, to].into_iter().any(is_gateway_of)
        });
        nodes
            .map(|(name, node)| (name.to_string(), node.id))
            .collect()
    }
}

/// Tests that fail by what the mesh has now, and names that nothing has.
fn troubles(policy: &Policy, directory: &Directory) -> Vec<String> {
    let failed = failed_tests(policy, directory).unwrap_or_default();
    let unknown = unknown_names(policy, directory);
    let failed = failed.iter().map(ToString::to_string);
    failed
        .chain(unknown.iter().map(ToString::to_string))
        .collect()
}

/// What is to be said of the policy in force, on an admin's node.
pub fn findings(state: &State, directory: impl FnOnce() -> Directory) -> Vec<Finding> {
    if state.policy().is_none() {
        return Vec::new();
    }
    let troubles = troubles(&state.rules_of_access(), &directory());
    if troubles.is_empty() {
        return Vec::new();
    }
    let told = troubles[..troubles.len().min(TOLD_TROUBLES)].join("; ");
    let more = match troubles.len().saturating_sub(TOLD_TROUBLES) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    vec![Finding::warning(
        code::POLICY_STALE,
        format!("the policy doesn't fit the mesh any more: {told}{more}"),
        "Set it right by `agent policy edit`",
    )]
}
