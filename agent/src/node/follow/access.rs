//! The policy, compiled for this node: anew where it, or what it is about, changed.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use innermesh_proto::{
    filter::access::{AccessPlan, Ports},
    policy::{Directory, Place},
    view::MeshView,
};

use crate::{
    dns::{TLS_PORT, TlsChoice},
    node::config::AgentConfig,
};

/// Where names are asked for.
const DNS_PORT: u16 = 53;

/// Compiles the policy in force.
pub(crate) struct AccessCompiler {
    /// What this node serves to devices whose gateway it is.
    served: BTreeSet<Ports>,
    last: Mutex<Option<Compiled>>,
}

struct Compiled {
    /// Of the policy; none for the defaults.
    number: Option<u64>,
    directory: Directory,
    place: Place,
    plan: AccessPlan,
}

impl AccessCompiler {
    pub fn new(config: &AgentConfig) -> Self {
        let listed = |listen: &[SocketAddr], usual: u16| -> BTreeSet<u16> {
            let listed = listen.iter().map(SocketAddr::port);
            listed.chain([usual]).collect()
        };
        let page = listed(&config.page_listen, config.page_port);
        let acme = listed(&config.acme_listen, config.acme_port);
        let tls = (config.dns_tls != TlsChoice::Off).then_some(TLS_PORT);
        let dns = [DNS_PORT].into_iter().chain(tls).chain(config.dns_https);
        let ports = page.union(&acme).copied().chain(dns);
        let tcp = ports.map(|port| Ports::Tcp(port, port));
        Self {
            served: tcp.chain([Ports::Udp(DNS_PORT, DNS_PORT)]).collect(),
            last: Mutex::default(),
        }
    }

    /// What this node enforces by the newest policy that is held here. None where
    /// it is no member any more.
    pub fn plan(&self, view: &MeshView) -> Option<AccessPlan> {
        let number = view.ledger.policy().map(|policy| policy.number);
        let place = view.place(&self.served)?;
        let directory = view.directory();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.as_ref()
            && last.number == number
            && last.place == place
            && last.directory == directory
        {
            return Some(last.plan.clone());
        }
        let plan = view.access_plan(&directory, &place);
        *last = Some(Compiled {
            number,
            directory,
            place,
            plan: plan.clone(),
        });
        Some(plan)
    }
}
