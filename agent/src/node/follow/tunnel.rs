//! Makes the tunnel match each view.

use std::{sync::Arc, time::Duration};

use innermesh_proto::{tunnel::TunnelPlan, view::MeshView};
use tokio::sync::{Notify, watch};

use crate::{
    host::Host,
    node::{
        follow::overlay::OverlayKeeper,
        shared::{
            device_secrets::DeviceSecrets, handles::Handles, pace::Pace, pair_secrets::PairSecrets,
            tunnel_progress::TunnelProgress,
        },
    },
    tunnel::{Applied, Tunnel},
};

/// How often the tunnel is held against its plan although nothing changed: an
/// interface that somebody deleted comes back.
const RECHECK: Duration = Duration::from_secs(10);
/// How soon a plan is tried again that couldn't be applied: until then somebody
/// who was evicted may have a route.
const RETRY: Duration = Duration::from_secs(1);
/// How long after news of the host's network more is gathered: what starts a
/// container comes in many pieces.
const NEWS: Duration = Duration::from_millis(100);

/// The plan of a view, with what only this node can read.
pub(crate) fn planned(view: &MeshView, secrets: &DeviceSecrets, pairs: &PairSecrets) -> TunnelPlan {
    let mut plan = view.tunnel_plan();
    secrets.complete(&mut plan);
    pairs.complete(&mut plan, &view.ledger);
    plan
}

/// Keeps the tunnel as the view says.
pub(crate) struct TunnelKeeper {
    host: Host,
    view: watch::Sender<Arc<MeshView>>,
    tunnel: Arc<dyn Tunnel>,
    overlay: Arc<OverlayKeeper>,
    secrets: Arc<DeviceSecrets>,
    pairs: Arc<PairSecrets>,
    progress: watch::Sender<TunnelProgress>,
    /// Hears of changes of the host's network, and of an interface that was made
    /// anew.
    news: Arc<Notify>,
}

impl TunnelKeeper {
    pub fn new(
        node: &Handles,
        tunnel: Arc<dyn Tunnel>,
        overlay: Arc<OverlayKeeper>,
        (secrets, pairs): (Arc<DeviceSecrets>, Arc<PairSecrets>),
        progress: watch::Sender<TunnelProgress>,
        news: Arc<Notify>,
    ) -> Self {
        Self {
            host: node.host.clone(),
            view: node.view.clone(),
            tunnel,
            overlay,
            secrets,
            pairs,
            progress,
            news,
        }
    }

    /// Makes the tunnel match each plan, and before it what keeps all others out
    /// of the overlay.
    pub async fn run(self) {
        let clock = self.host.clock.clone();
        let mut views = self.view.subscribe();
        let mut view = views.borrow_and_update().clone();
        let mut plan = Arc::new(self.planned(&view));
        let (mut due, mut check) = (true, true);
        let mut pace = Pace::new(RECHECK, clock.now());
        loop {
            self.overlay.enforce(check).await;
            self.overlay.announce_exit();
            check = false;
            if due {
                let applied = self.apply(&view, &plan).await;
                if applied.is_none() {
                    pace.no_later(clock.now() + RETRY);
                }
                if applied.is_some_and(|applied| applied.changed()) {
                    // Routes lead through an interface that is there.
                    self.overlay.enforce(true).await;
                    self.news.notify_one();
                }
            }
            tokio::select! {
                changed = views.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    view = views.borrow_and_update().clone();
                    let next = self.planned(&view);
                    due = next != *plan || self.progress.borrow().waiting.is_some();
                    if due {
                        plan = Arc::new(next);
                    } else {
                        self.progress.send_modify(|progress| progress.view = view.version);
                    }
                    continue;
                }
                () = self.pairs.changed() => {
                    plan = Arc::new(self.planned(&view));
                    due = true;
                    continue;
                }
                () = self.host.overlay.changed() => {
                    clock.sleep(NEWS).await;
                    self.news.notify_one();
                    // It may have been of the tunnel's own addresses or routes.
                    due = true;
                }
                () = clock.sleep(pace.left(clock.now())) => {
                    pace.begin(clock.now());
                    due = true;
                }
            }
            self.overlay.look().await;
            // The host may have come into a LAN, or left one.
            plan = Arc::new(self.planned(&view));
            check = true;
        }
    }

    fn planned(&self, view: &MeshView) -> TunnelPlan {
        self.overlay
            .beside(view, planned(view, &self.secrets, &self.pairs))
    }

    /// What it changed; `None` where it couldn't be applied.
    async fn apply(&self, view: &MeshView, plan: &Arc<TunnelPlan>) -> Option<Applied> {
        let now = self.host.clock.now();
        self.progress.send_if_modified(|progress| {
            let new = progress.waiting.is_none() && progress.plan != *plan;
            if new {
                progress.waiting = Some(now);
            }
            new
        });
        let (applied, error) = match self.tunnel.apply(plan).await {
            Ok(applied) => (Some(applied), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let before = self.progress.borrow().error.clone();
        if let Some(error) = &error
            && before.as_ref() != Some(error)
        {
            tracing::error!(%error, "the tunnel isn't as it should be; trying again");
        } else if error.is_none() && before.is_some() {
            tracing::info!("the tunnel is as it should be again");
        }
        self.progress.send_modify(|progress| {
            if applied.is_some() {
                progress.plan = plan.clone();
                progress.view = view.version;
                progress.waiting = None;
            } else {
                progress.waiting.get_or_insert(now);
            }
            progress.error = error;
        });
        applied
    }
}
