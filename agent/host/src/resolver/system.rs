//! This host's resolver.

use std::{
    fs,
    path::{Path, PathBuf},
};

use async_trait::async_trait;

use super::{
    Applied, Choice, Facts, HostResolver, Method, ResolverError, ResolverPlan, choose, dnsmasq,
    resolv_conf, resolvconf, resolved,
};

/// This host's. Files are looked for below its root.
pub struct SystemResolver {
    root: PathBuf,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
        }
    }
}

impl SystemResolver {
    async fn facts(&self) -> Facts {
        let resolved = resolved::is_active().await;
        look(&self.root, resolved)
    }
}

fn look(root: &Path, resolved: bool) -> Facts {
    Facts {
        resolv_conf: resolv_conf::base(root),
        nsswitch: fs::read_to_string(root.join("etc/nsswitch.conf")).ok(),
        resolved,
        resolvconf: resolvconf::find(root).map(|(kind, _)| kind),
        dnsmasq: dnsmasq::is_asked_for(root),
    }
}

#[async_trait]
impl HostResolver for SystemResolver {
    async fn choose(&self) -> Choice {
        choose(&self.facts().await)
    }

    async fn apply(&self, plan: &ResolverPlan) -> Result<Applied, ResolverError> {
        let mut facts = self.facts().await;
        let choice = choose(&facts);
        match choice.method.ok_or(ResolverError::ByHand(choice.why))? {
            Method::Resolved => resolved::apply(plan).await,
            Method::Resolvconf => match resolvconf::apply(&self.root, plan).await {
                // It is installed, but resolv.conf isn't its: as if it weren't there.
                Err(ResolverError::Program(..)) => {
                    resolvconf::restore(&self.root).await?;
                    facts.resolvconf = None;
                    match choose(&facts).method {
                        Some(Method::Dnsmasq) => dnsmasq::apply(&self.root, plan).await,
                        Some(_) => resolv_conf::apply(&self.root, plan),
                        None => Err(ResolverError::ByHand(choose(&facts).why)),
                    }
                }
                other => other,
            },
            Method::Dnsmasq => dnsmasq::apply(&self.root, plan).await,
            Method::ResolvConf => resolv_conf::apply(&self.root, plan),
        }
    }

    async fn restore(&self, interface: &str) -> Result<(), ResolverError> {
        let file = resolv_conf::restore(&self.root);
        let dnsmasq = dnsmasq::restore(&self.root).await;
        let record = resolvconf::restore(&self.root).await;
        let link = resolved::restore(interface).await;
        file.and(dnsmasq).and(record).and(link)
    }
}
