//! What keeps published ports from working here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use innermesh_proto::{name::Label, view::MeshView};

use crate::{
    control::finding::{Finding, code},
    host::holder::Holder,
};

/// The newest of it.
#[derive(Default)]
pub(crate) struct Publishing(Mutex<Trouble>);

#[derive(Default)]
struct Trouble {
    /// Why a link isn't as it should be.
    link: Option<String>,
    /// Why nothing listens at a port that has the PROXY protocol.
    ports: BTreeMap<u16, String>,
}

impl Publishing {
    /// Whether that is news.
    pub fn set_link_trouble(&self, trouble: Option<String>) -> bool {
        let mut state = self.lock();
        let is_news = state.link != trouble;
        state.link = trouble;
        is_news
    }

    pub fn set_port_trouble(&self, trouble: BTreeMap<u16, String>) {
        let mut state = self.lock();
        for (port, why) in &trouble {
            if state.ports.get(port) != Some(why) {
                tracing::error!(port, %why, "a published port isn't served; trying again");
            }
        }
        state.ports = trouble;
    }

    /// Why nothing listens at a port.
    pub fn port_trouble(&self, port: u16) -> Option<String> {
        self.lock().ports.get(&port).cloned()
    }

    /// Why links to this node aren't as they should be.
    pub fn link_trouble(&self) -> Option<String> {
        self.lock().link.clone()
    }

    /// What somebody should do something about; `own_ports` are the agent's, and
    /// `listens` says which program strangers would otherwise reach at a port.
    pub fn findings(
        &self,
        view: &MeshView,
        own_ports: &BTreeSet<u16>,
        listens: impl Fn(u16) -> Option<Holder>,
    ) -> Vec<Finding> {
        let state = self.lock();
        let link = state.link.as_ref().map(|why| {
            Finding::error(
                code::PUBLISH_LINK,
                format!("what is published on another node doesn't come here: {why}"),
                "It is tried again by itself; `agent publish list` shows what is published",
            )
        });
        let ports = state.ports.iter().map(|(port, why)| {
            Finding::error(
                code::PUBLISH_PORT,
                format!("the published port {port} isn't served: {why}"),
                "It is tried again by itself",
            )
        });
        let mut found: Vec<Finding> = link.into_iter().chain(ports).collect();
        for (at, publication, target) in view.published_here() {
            let (port, name) = (at.port, &publication.name);
            if own_ports.contains(&port) {
                found.push(Finding::error(
                    code::PUBLISH_PORT,
                    format!("port {port} is the agent's own here, and isn't published"),
                    format!("Publish {name} at another port"),
                ));
            } else if target.is_none() && !view.loading {
                found.push(Finding::warning(
                    code::PUBLISH_NOWHERE,
                    format!(
                        "the published port {port} leads nowhere: no live node that runs {name} is \
                         ready for it"
                    ),
                    format!(
                        "`agent service list` shows where {name} runs; what is published leads to \
                         nodes that announce it on their own addresses"
                    ),
                ));
            } else if !publication.proxy_protocol
                && target.is_some()
                && let Some(holder) = listens(port)
            {
                found.push(shadowed(port, name, &holder));
            }
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, Trouble> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shadowed(port: u16, name: &Label, holder: &Holder) -> Finding {
    Finding::warning(
        code::PUBLISH_SHADOWS,
        format!(
            "{holder} listens at port {port}, and isn't reached from outside: that port is published \
             and leads to {name}"
        ),
        format!(
            "`agent unpublish {name} --port {port}` gives the port back; or publish {name} at another \
             port, or end that program"
        ),
    )
}
