//! An overlay without a host: what was applied is kept in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use innermesh_proto::filter::{FilterPlan, HostNetworks, Interface, nft::Dropped};
use tokio::sync::Notify;

use super::{
    Filtered, Overlay, OverlayError,
    others::{Lost, Rewriter},
    setting::Setting,
};

/// Remembers the plans that it was last given. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct RecordedOverlay {
    state: Arc<Mutex<State>>,
    /// Hears of changes of the host's networks.
    news: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    networks: HostNetworks,
    filter: Option<FilterPlan>,
    route: Option<FilterPlan>,
    missing: bool,
    settings: BTreeMap<Setting, String>,
    refused: BTreeSet<Setting>,
}

impl RecordedOverlay {
    /// The plan in force: the one by which packets are both filtered and
    /// routed, if they are by the same.
    pub fn plan(&self) -> Option<FilterPlan> {
        let state = self.lock();
        let filter = state.filter.clone();
        filter.filter(|_| state.filter == state.route)
    }

    /// Has the host start anew, as after a loss of power.
    pub fn forget(&self) {
        let mut state = self.lock();
        (state.filter, state.route) = (None, None);
    }

    /// Has the host's networks be these from now on.
    pub fn set_networks(&self, networks: HostNetworks) {
        self.lock().networks = networks;
        self.news.notify_one();
    }

    /// Has the host be one without nftables from now on, or no more.
    pub fn set_missing(&self, missing: bool) {
        self.lock().missing = missing;
    }

    /// Has a setting of the host be this.
    pub fn has_setting(&self, setting: &Setting, value: &str) {
        let settings = &mut self.lock().settings;
        settings.insert(setting.clone(), value.to_owned());
    }

    /// All settings, as they are now.
    pub fn all_settings(&self) -> BTreeMap<Setting, String> {
        self.lock().settings.clone()
    }

    /// Has the host refuse that a setting is changed.
    pub fn refuses(&self, setting: &Setting) {
        self.lock().refused.insert(setting.clone());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Overlay for RecordedOverlay {
    async fn networks(
        &self,
        _tunnel: &Interface,
        _resolvers: &[IpAddr],
    ) -> Result<HostNetworks, OverlayError> {
        Ok(self.lock().networks.clone())
    }

    async fn filter(&self, plan: &FilterPlan) -> Result<Filtered, OverlayError> {
        let mut state = self.lock();
        if state.missing {
            return Err(OverlayError::NoNft);
        }
        let before = state.filter.replace(plan.clone());
        Ok(if before.as_ref() == Some(plan) {
            Filtered::Stood
        } else {
            Filtered::Written
        })
    }

    async fn route(&self, plan: &FilterPlan) -> Result<(), OverlayError> {
        self.lock().route = Some(plan.clone());
        Ok(())
    }

    async fn dropped(&self) -> Result<BTreeMap<Dropped, u64>, OverlayError> {
        Ok(BTreeMap::new())
    }

    async fn allowed(&self) -> Result<BTreeMap<String, u64>, OverlayError> {
        Ok(BTreeMap::new())
    }

    async fn lost(&self, _tunnel: &Interface) -> Result<Vec<Lost>, OverlayError> {
        Ok(Vec::new())
    }

    async fn rewriters(&self, _plan: &FilterPlan) -> Result<Vec<Rewriter>, OverlayError> {
        Ok(Vec::new())
    }

    async fn forward_droppers(&self, _tunnel: &Interface) -> Result<Vec<Lost>, OverlayError> {
        Ok(Vec::new())
    }

    async fn dropped_by_source(&self) -> Option<u64> {
        None
    }

    async fn setting(&self, setting: &Setting) -> Option<String> {
        self.lock().settings.get(setting).cloned()
    }

    async fn set(&self, setting: &Setting, value: &str) -> io::Result<()> {
        let mut state = self.lock();
        if state.refused.contains(setting) {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        state.settings.insert(setting.clone(), value.to_owned());
        Ok(())
    }

    async fn accepting_ra(&self) -> Vec<Setting> {
        let state = self.lock();
        let all = state.settings.iter();
        all.filter(|(setting, value)| setting.path().ends_with("/accept_ra") && *value == "1")
            .map(|(setting, _)| setting.clone())
            .collect()
    }

    async fn changed(&self) {
        self.news.notified().await
    }

    async fn remove(&self) -> Result<(), OverlayError> {
        self.forget();
        Ok(())
    }
}
