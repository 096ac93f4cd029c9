//! The real host: nftables by its program, routes and rules by rtnetlink.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use innermesh_proto::filter::{
    FilterPlan, HostNetworks, Interface,
    nft::{self as ruleset, Dropped},
};
use tokio::sync::{Mutex, OnceCell};

use super::{
    Filtered, Overlay, OverlayError, networks, nft,
    others::{self, Lost, Rewriter},
    routing,
    setting::Setting,
    settings,
    watch::Watch,
};
use crate::tunnel::interface::Netlink;

/// This host's.
#[derive(Default)]
pub struct SystemOverlay {
    open: OnceCell<Open>,
    /// What was last written, and how it was listed then.
    applied: Mutex<Option<Applied>>,
    /// Whether something may have changed our tables since they were listed.
    suspect: AtomicBool,
}

struct Open {
    netlink: Netlink,
    routing: Option<Watch>,
    nftables: Option<Watch>,
}

struct Applied {
    text: String,
    listed: String,
}

impl SystemOverlay {
    async fn open(&self) -> Result<&Open, OverlayError> {
        let open = || async {
            let netlink = Netlink::open().map_err(OverlayError::routing("ask for routes"))?;
            let warn = |error: &std::io::Error| {
                tracing::warn!(%error, "changes of the host's network are only looked for now and then");
            };
            Ok(Open {
                netlink,
                routing: Watch::of_routing().inspect_err(warn).ok(),
                nftables: Watch::of_nftables().inspect_err(warn).ok(),
            })
        };
        self.open.get_or_try_init(open).await
    }

    /// Whether both tables are as they were listed when they were last written.
    async fn stand(&self, open: &Open, applied: &Applied) -> bool {
        let news = open.nftables.as_ref().is_none_or(Watch::drain);
        if !news && !self.suspect.load(Ordering::Relaxed) {
            return true;
        }
        // Before the look: what changes after it is suspect again.
        self.suspect.store(false, Ordering::Relaxed);
        nft::list()
            .await
            .is_ok_and(|listed| listed == applied.listed)
    }
}

/// Writes all of it, and takes away what it was before.
async fn write_whole(plan: &FilterPlan, text: &str, listed: &str) -> Result<(), OverlayError> {
    let former = ruleset::remove_former(listed, text);
    match nft::apply(&format!("{text}{former}")).await {
        // Tables of another build may have parts of the same names that can't be
        // changed into these.
        Err(OverlayError::Nft(_)) => nft::apply(&ruleset::render(plan, true)).await,
        done => done,
    }
}

#[async_trait]
impl Overlay for SystemOverlay {
    async fn networks(
        &self,
        tunnel: &Interface,
        resolvers: &[IpAddr],
    ) -> Result<HostNetworks, OverlayError> {
        let open = self.open().await?;
        networks::read(&open.netlink, tunnel, resolvers)
            .await
            .map_err(OverlayError::routing("read the host's networks"))
    }

    async fn filter(&self, plan: &FilterPlan) -> Result<Filtered, OverlayError> {
        let open = self.open().await?;
        let mut applied = self.applied.lock().await;
        let text = ruleset::render(plan, false);
        let stand = match applied.as_ref() {
            Some(applied) => self.stand(open, applied).await,
            None => false,
        };
        if stand && applied.as_ref().is_some_and(|applied| applied.text == text) {
            return Ok(Filtered::Stood);
        }
        let before = applied.take();
        let changes = before
            .as_ref()
            .filter(|_| stand)
            .and_then(|before| ruleset::changes(&before.text, &text));
        let changed = match changes {
            // Somebody may have come between: all of it tells.
            Some(changes) => nft::apply(&changes).await.is_ok(),
            None => false,
        };
        if !changed {
            let listed = match &before {
                Some(before) if stand => before.listed.clone(),
                _ => nft::list().await.unwrap_or_default(),
            };
            write_whole(plan, &text, &listed).await?;
        }
        self.suspect.store(false, Ordering::Relaxed);
        let listed = nft::list().await?;
        let restored = before.is_some_and(|before| before.text == text);
        *applied = Some(Applied { text, listed });
        Ok(if restored {
            Filtered::Restored
        } else {
            Filtered::Written
        })
    }

    async fn route(&self, plan: &FilterPlan) -> Result<(), OverlayError> {
        let open = self.open().await?;
        routing::apply(&open.netlink, plan)
            .await
            .map_err(OverlayError::routing("set the overlay's routes"))
    }

    async fn dropped(&self) -> Result<BTreeMap<Dropped, u64>, OverlayError> {
        let counted = nft::counters().await?;
        let packets = |why: Dropped| Some((why, *counted.get(why.counter())?));
        Ok(Dropped::ALL.into_iter().filter_map(packets).collect())
    }

    async fn allowed(&self) -> Result<BTreeMap<String, u64>, OverlayError> {
        let counted = nft::counters().await?.into_iter();
        let of_rules = counted.filter_map(|(name, packets)| {
            let label = name.strip_prefix(ruleset::COUNTERS)?;
            Some((label.to_owned(), packets))
        });
        Ok(of_rules.collect())
    }

    async fn lost(&self, tunnel: &Interface) -> Result<Vec<Lost>, OverlayError> {
        let before = nft::counters().await?;
        let is_some = |behind: &BTreeMap<String, u64>| !others::missing(&before, behind).is_empty();
        if !is_some(&before) {
            return Ok(Vec::new());
        }
        // Read once more, by which all that passed has arrived.
        let missing = others::missing(&before, &nft::counters().await?);
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let ruleset = nft::ruleset().await.unwrap_or_default();
        let legacy = nft::has_legacy_filter();
        Ok(others::conclude(&missing, &ruleset, legacy, tunnel))
    }

    async fn rewriters(&self, plan: &FilterPlan) -> Result<Vec<Rewriter>, OverlayError> {
        let ruleset = nft::ruleset().await?;
        let legacy = nft::legacy_nat().await;
        Ok(others::rewriters(plan, &ruleset, &legacy))
    }

    async fn forward_droppers(&self, tunnel: &Interface) -> Result<Vec<Lost>, OverlayError> {
        let ruleset = nft::ruleset().await?;
        Ok(others::forward_droppers(&ruleset, tunnel))
    }

    async fn dropped_by_source(&self) -> Option<u64> {
        settings::dropped_by_source()
    }

    async fn setting(&self, setting: &Setting) -> Option<String> {
        settings::read(setting)
    }

    async fn set(&self, setting: &Setting, value: &str) -> io::Result<()> {
        settings::write(setting, value)
    }

    async fn accepting_ra(&self) -> Vec<Setting> {
        settings::accepting_ra()
    }

    async fn changed(&self) {
        let Ok(open) = self.open().await else {
            return std::future::pending().await;
        };
        let routing = async {
            match &open.routing {
                Some(watch) if watch.news().await.is_ok() => {}
                _ => std::future::pending().await,
            }
        };
        let nftables = async {
            match &open.nftables {
                Some(watch) if watch.news().await.is_ok() => {
                    self.suspect.store(true, Ordering::Relaxed);
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = routing => {}
            () = nftables => {}
        }
    }

    async fn remove(&self) -> Result<(), OverlayError> {
        let open = self.open().await?;
        *self.applied.lock().await = None;
        let routes = routing::remove(&open.netlink).await;
        match nft::apply(ruleset::REMOVE).await {
            Ok(()) | Err(OverlayError::NoNft) => {}
            Err(error) => return Err(error),
        }
        routes.map_err(OverlayError::routing("take the overlay's routes away"))
    }
}
