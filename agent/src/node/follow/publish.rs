//! Links of public nodes that end here: a WireGuard interface for each, with a key of
//! its own that the ledger knows. What comes by them has sources from anywhere, so
//! that the filter is closed before one is opened.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use innermesh_proto::{
    filter::Interface,
    id::NodeId,
    ledger::{Content, publish::PublishKey},
    limits,
    view::{InsideLink, MeshView},
};
use tokio::sync::{Mutex, watch};

use crate::{
    host::{Host, Mono},
    ledger::client::Client,
    node::{
        config::AgentConfig,
        follow::overlay::OverlayKeeper,
        shared::{
            handles::Handles, own_key::OwnKey, pace::Pace, publishing::Publishing,
            refusals::PATIENCE,
        },
    },
    tunnel::{BackendChoice, Tunnel, TunnelError, TunnelSettings, public_key, relayed::Relayed},
};

/// How often links are held against what they should be although nothing changed.
const RECHECK: Duration = Duration::from_secs(10);
/// How soon is tried again what failed.
const RETRY: Duration = Duration::from_secs(2);
/// How soon the ledger is asked again that didn't take a key.
const ASK_AGAIN: Duration = Duration::from_secs(20);

/// Keeps them as the view says.
pub(crate) struct PublishKeeper {
    config: Arc<AgentConfig>,
    host: Host,
    client: Client,
    view: watch::Sender<Arc<MeshView>>,
    own: Arc<OwnKey>,
    overlay: Arc<OverlayKeeper>,
    publishing: Arc<Publishing>,
    open: Mutex<Links>,
}

/// The open ones.
#[derive(Default)]
struct Links {
    open: BTreeMap<NodeId, Open>,
    /// Whether those of an earlier run were looked for.
    is_swept: bool,
}

/// An open link.
struct Open {
    tunnel: Arc<dyn Tunnel>,
    private: [u8; 32],
}

impl PublishKeeper {
    pub fn new(
        node: &Handles,
        own: Arc<OwnKey>,
        overlay: Arc<OverlayKeeper>,
        publishing: Arc<Publishing>,
    ) -> Self {
        Self {
            config: node.config.clone(),
            host: node.host.clone(),
            client: node.client.clone(),
            view: node.view.clone(),
            own,
            overlay,
            publishing,
            open: Mutex::default(),
        }
    }

    pub async fn run(self: Arc<Self>) {
        let Some(interface) = self.interface() else {
            return;
        };
        let clock = self.host.clock.clone();
        let mut views = self.view.subscribe();
        let mut asked = BTreeMap::new();
        let mut last: Option<BTreeMap<NodeId, InsideLink>> = None;
        let mut due = true;
        let mut pace = Pace::new(RECHECK, clock.now());
        loop {
            let view = views.borrow_and_update().clone();
            let links = view.inside_links();
            if due || last.as_ref() != Some(&links) {
                due = false;
                let waits = self.ask_for_keys(&links, &mut asked).await;
                let done = self.apply(&interface, &links).await;
                if let Err(error) = &done
                    && self.publishing.set_link_trouble(Some(error.to_string()))
                {
                    tracing::error!(%error, "a link of a public node isn't as it should be; trying again");
                }
                if done.is_ok() {
                    self.publishing.set_link_trouble(None);
                }
                let settled = done.is_ok() && !waits;
                if !settled {
                    pace.no_later(clock.now() + RETRY);
                }
                last = settled.then_some(links);
            }
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return },
                () = clock.sleep(pace.left(clock.now())) => {
                    pace.begin(clock.now());
                    due = true;
                }
            }
        }
    }

    /// The tunnel's interface; `None` where there is no tunnel.
    fn interface(&self) -> Option<Interface> {
        let name = self.config.interface.clone().try_into().ok();
        name.filter(|_| self.config.backend != BackendChoice::None)
    }

    fn private_key(&self, on: &NodeId) -> [u8; 32] {
        self.own.derived(&[b"publish".as_slice(), &on.0].concat())
    }

    /// Tells the ledger by which keys links end here; whether one is still unknown
    /// there.
    async fn ask_for_keys(
        &self,
        links: &BTreeMap<NodeId, InsideLink>,
        asked: &mut BTreeMap<NodeId, Mono>,
    ) -> bool {
        let mut waits = false;
        for (on, inside) in links {
            let key = public_key(&self.private_key(on));
            if inside.link.is_some_and(|link| link.key == key) {
                continue;
            }
            waits = true;
            let now = self.host.clock.now();
            if asked.get(on).is_some_and(|at| now < *at + ASK_AGAIN) {
                continue;
            }
            asked.insert(*on, now);
            let content = Content::PublishKey(PublishKey { on: *on, key });
            if let Err(error) = self.client.ask(&content, PATIENCE).await {
                tracing::warn!(%error, "the key of a link isn't in the ledger; trying again");
            }
        }
        asked.retain(|on, _| links.contains_key(on));
        waits
    }

    /// Opens, changes and closes links. Those that the ledger knows by another key
    /// wait for that one.
    async fn apply(
        &self,
        interface: &Interface,
        links: &BTreeMap<NodeId, InsideLink>,
    ) -> Result<(), TunnelError> {
        let wanted: BTreeMap<NodeId, (&InsideLink, [u8; 32])> = links
            .iter()
            .filter_map(|(on, inside)| {
                let private = self.private_key(on);
                let is_known = inside.link?.key == public_key(&private);
                is_known.then_some((*on, (inside, private)))
            })
            .take(limits::PUBLISH_LINKS_PER_NODE)
            .collect();
        let mut links = self.open.lock().await;
        let Links { open, is_swept } = &mut *links;
        let gone: Vec<NodeId> = open
            .keys()
            .filter(|on| !wanted.contains_key(on))
            .copied()
            .collect();
        let has_gone = !gone.is_empty();
        // One that can't be had doesn't keep the others from being as they should.
        let mut done = Ok(());
        for on in gone {
            if let Some(link) = open.get(&on) {
                let closed = link.tunnel.down().await;
                if closed.is_ok() {
                    open.remove(&on);
                }
                done = done.and(closed);
            }
        }
        let keep: BTreeSet<Interface> = wanted.keys().map(|on| interface.link_to(on)).collect();
        if !*is_swept {
            self.host.tunnels.remove_links(interface, &keep).await?;
            *is_swept = true;
        }
        if has_gone {
            self.note_ports(open).await;
        }
        if wanted.is_empty() {
            return done;
        }
        // Before anything can come by one.
        self.overlay.enforce(false).await;
        for (on, (inside, private)) in wanted {
            let kept = self.keep(interface.link_to(&on), open, on, inside, private);
            done = done.and(kept.await);
        }
        done
    }

    /// Has the filter know from which ports links send.
    async fn note_ports(&self, open: &BTreeMap<NodeId, Open>) {
        let mut ports = BTreeSet::new();
        for link in open.values() {
            let port = link.tunnel.observe().await.map(|state| state.listen_port);
            ports.extend(port.ok().filter(|port| *port != 0));
        }
        self.overlay.set_link_ports(ports);
    }

    /// Has one link be as it should.
    async fn keep(
        &self,
        interface: Interface,
        open: &mut BTreeMap<NodeId, Open>,
        on: NodeId,
        inside: &InsideLink,
        private: [u8; 32],
    ) -> Result<(), TunnelError> {
        if let Entry::Vacant(free) = open.entry(on) {
            let tunnel = self.open_link(interface, private).await?;
            free.insert(Open { tunnel, private });
            self.note_ports(open).await;
            self.overlay.enforce(false).await;
        }
        let Some(link) = open.get_mut(&on) else {
            return Ok(());
        };
        if link.private != private {
            link.tunnel.set_private_key(private).await?;
            link.private = private;
        }
        let applied = link.tunnel.apply(&inside.plan()).await?;
        if applied.changed() {
            // One that was made anew has another port.
            self.note_ports(open).await;
            // Answers leave by an interface that is there.
            self.overlay.enforce(true).await;
        }
        Ok(())
    }

    async fn open_link(
        &self,
        interface: Interface,
        private_key: [u8; 32],
    ) -> Result<Arc<dyn Tunnel>, TunnelError> {
        let settings = TunnelSettings {
            interface: interface.into(),
            private_key,
            earlier_key: None,
            // The public node answers to wherever this end calls from.
            listen_port: 0,
            mtu: self.config.mtu,
            backend: self.config.backend,
            offloads: self.config.offloads,
            relayed: Relayed::default(),
        };
        self.host.tunnels.open(settings).await
    }

    /// Takes links down as the agent stops: those of the kernel stay as the tunnel
    /// does, unless this machine `has_left`.
    pub async fn end(&self, has_left: bool) {
        let links = std::mem::take(&mut *self.open.lock().await);
        for link in links.open.into_values() {
            let state = link.tunnel.observe().await;
            let stays = state.is_ok_and(|state| state.backend == "kernel") && !has_left;
            if !stays && let Err(error) = link.tunnel.down().await {
                tracing::warn!(%error, "a link of a public node could not be taken down");
            }
        }
    }
}
