//! This host's resolver.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;

use super::{
    Applied, Choice, Facts, HostResolver, LookUp, Method, ResolverError, ResolverPlan, choose,
    dnsmasq, look_up::Libc, resolv_conf, resolvconf, resolved, signals::Signals, unit,
};

/// How often it is looked whether the unit has written what it was left, and
/// how many times.
const LOOK: Duration = Duration::from_millis(200);
const LOOKS: u32 = 50;
/// After so many it is left to the unit once more.
const AGAIN: u32 = 15;

/// This host's. Files are looked for below its root.
pub struct SystemResolver {
    root: PathBuf,
    signals: Signals,
    libc: Libc,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::below("/")
    }
}

impl SystemResolver {
    fn below(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            signals: Signals::default(),
            libc: Libc::default(),
        }
    }

    /// Applies the plan that the agent left to its resolver unit, if there is one.
    ///
    /// # Errors
    /// [`ResolverError`].
    pub async fn apply_left(&self) -> Result<Option<Applied>, ResolverError> {
        let _alone = unit::alone(&self.root).await;
        let Some(plan) = unit::left(&self.root)? else {
            return Ok(None);
        };
        match self.apply(&plan).await {
            // The next change of the file starts the unit again.
            Err(ResolverError::Empty(_)) => Ok(None),
            other => other.map(Some),
        }
    }

    async fn facts(&self) -> Facts {
        let resolved = resolved::is_active().await;
        look(&self.root, resolved)
    }

    /// Whether it was set just now, and by which method in the end.
    async fn set(
        &self,
        method: Method,
        plan: &ResolverPlan,
    ) -> Result<(bool, Method), ResolverError> {
        let root = &self.root;
        if method != Method::Resolved {
            if let Some(method) = self.standing(method, plan) {
                return Ok((false, method));
            }
            if unit::is_sandboxed(root) {
                return self.by_unit(method, plan).await;
            }
        }
        let is_new = match method {
            Method::Resolved => resolved::apply(plan).await?,
            Method::Resolvconf => resolvconf::apply(root, plan).await?,
            Method::Dnsmasq => dnsmasq::apply(root, plan).await?,
            Method::ResolvConf => resolv_conf::apply(root, plan)?,
        };
        Ok((is_new, method))
    }

    /// Which of the methods that write files has the plan stand, where `method`
    /// is the one to use.
    fn standing(&self, method: Method, plan: &ResolverPlan) -> Option<Method> {
        let root = &self.root;
        let file = || resolv_conf::is_set(root) && resolv_conf::stands(root, plan);
        match method {
            Method::Resolved => None,
            Method::Resolvconf if resolvconf::stands(root, plan) => Some(method),
            // Where resolv.conf isn't resolvconf's.
            Method::Resolvconf | Method::ResolvConf => file().then_some(Method::ResolvConf),
            Method::Dnsmasq => dnsmasq::stands(root, plan).then_some(method),
        }
    }

    async fn by_unit(
        &self,
        method: Method,
        plan: &ResolverPlan,
    ) -> Result<(bool, Method), ResolverError> {
        for look in 0..LOOKS {
            // The path unit misses what changes while its service runs.
            if look % AGAIN == 0 {
                unit::leave(&self.root, plan)?;
            }
            tokio::time::sleep(LOOK).await;
            if let Some(method) = self.standing(method, plan) {
                return Ok((true, method));
            }
        }
        if method == Method::ResolvConf && resolv_conf::is_unfinished(&self.root, plan) {
            return Err(ResolverError::Empty(self.root.join("etc/resolv.conf")));
        }
        Err(ResolverError::UnitIdle(method))
    }

    /// Takes away what an earlier method left, as it would lead round the one in
    /// use.
    async fn tidy(&self, method: Method, plan: &ResolverPlan) -> Result<(), ResolverError> {
        let root = &self.root;
        let file = method != Method::ResolvConf && resolv_conf::is_set(root);
        let drop_in = method != Method::Dnsmasq && dnsmasq::is_set(root);
        if unit::is_sandboxed(root) {
            if file || drop_in {
                return unit::leave(root, plan);
            }
            // The unit keeps what it wrote, and has nothing to do otherwise.
            return match method {
                Method::Resolved => unit::withdraw(root),
                _ => unit::leave_once(root, plan),
            };
        }
        if file {
            resolv_conf::restore(root)?;
        }
        if drop_in {
            dnsmasq::restore(root).await?;
        }
        Ok(())
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

/// Whether this process has a network of its own, which the host's programs
/// don't see; unknown where it may not look.
fn is_elsewhere() -> bool {
    let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    matches!((of("self"), of("1")), (Some(own), Some(host)) if own != host)
}

#[async_trait]
impl HostResolver for SystemResolver {
    fn left_alone(&self) -> Option<String> {
        is_elsewhere().then(|| "the agent runs in a network namespace of its own".to_owned())
    }

    async fn choose(&self) -> Choice {
        choose(&self.facts().await)
    }

    async fn apply(&self, plan: &ResolverPlan) -> Result<Applied, ResolverError> {
        let mut facts = self.facts().await;
        let mut choice = choose(&facts);
        let chosen = choice.method.ok_or(ResolverError::ByHand(choice.why))?;
        choice.why = choose(&facts).why;
        let set = match self.set(chosen, plan).await {
            // It is installed, but resolv.conf isn't its: as if it weren't there.
            Err(ResolverError::Program(..)) if chosen == Method::Resolvconf => {
                resolvconf::restore(&self.root).await?;
                facts.resolvconf = None;
                let next = choose(&facts);
                let method = next.method.ok_or(ResolverError::ByHand(next.why))?;
                self.set(method, plan).await
            }
            other => other,
        };
        let (is_new, method) = set?;
        self.tidy(method, plan).await?;
        let why = if method == chosen {
            choice.why
        } else {
            "resolvconf leaves /etc/resolv.conf as it is".to_owned()
        };
        Ok(Applied {
            method,
            why,
            is_new,
        })
    }

    async fn restore(&self, interface: &str) -> Result<(), ResolverError> {
        let root = &self.root;
        let plan = unit::withdraw(root);
        let link = resolved::restore(interface).await;
        if unit::is_sandboxed(root) {
            // The rest is undone outside, once the agent has ended.
            return plan.and(link);
        }
        let _alone = unit::alone(root).await;
        let file = resolv_conf::restore(root);
        let dnsmasq = dnsmasq::restore(root).await;
        let record = resolvconf::restore(root).await;
        plan.and(file).and(dnsmasq).and(record).and(link)
    }

    async fn changed(&self) {
        self.signals.next().await;
    }

    async fn look_up(&self, name: &str) -> LookUp {
        self.libc.ask(name).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> ResolverPlan {
        ResolverPlan {
            interface: "im0".into(),
            servers: vec!["10.77.0.53".parse().unwrap()],
            domain: "in.example.org".into(),
            reverse: vec![],
        }
    }

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["etc", "run/innermesh", "sbin"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(
            root.path().join("etc/resolv.conf"),
            "nameserver 192.0.2.1\n",
        )
        .unwrap();
        root
    }

    fn text(root: &Path) -> String {
        fs::read_to_string(root.join("etc/resolv.conf")).unwrap()
    }

    #[tokio::test]
    async fn the_unit_writes_what_the_agent_left_and_nothing_once_it_is_withdrawn() {
        let root = root();
        let host = SystemResolver::below(root.path());
        assert_eq!(host.apply_left().await.unwrap(), None);
        unit::leave(root.path(), &plan()).unwrap();
        let applied = host.apply_left().await.unwrap().unwrap();
        assert_eq!((applied.method, applied.is_new), (Method::ResolvConf, true));
        assert!(text(root.path()).contains("nameserver 10.77.0.53\nnameserver 192.0.2.1\n"));
        assert!(!host.apply_left().await.unwrap().unwrap().is_new);
        host.restore("im0").await.unwrap();
        assert_eq!(text(root.path()), "nameserver 192.0.2.1\n");
        assert_eq!(host.apply_left().await.unwrap(), None);
        assert_eq!(text(root.path()), "nameserver 192.0.2.1\n");
    }

    #[tokio::test]
    async fn a_file_that_a_dhcp_client_is_writing_is_left_to_it() {
        let root = root();
        let host = SystemResolver::below(root.path());
        unit::leave(root.path(), &plan()).unwrap();
        fs::write(root.path().join("etc/resolv.conf"), "").unwrap();
        assert_eq!(host.apply_left().await.unwrap(), None);
        assert_eq!(text(root.path()), "");
        fs::write(
            root.path().join("etc/resolv.conf"),
            "nameserver 192.0.2.9\n",
        )
        .unwrap();
        assert!(host.apply_left().await.unwrap().unwrap().is_new);
        assert!(text(root.path()).contains("nameserver 10.77.0.53\nnameserver 192.0.2.9\n"));
    }

    #[tokio::test]
    async fn a_resolvconf_that_writes_elsewhere_is_tried_once_and_not_each_time() {
        use std::os::unix::fs::PermissionsExt;
        let root = root();
        let program = root.path().join("sbin/resolvconf");
        let calls = root.path().join("calls");
        let script = format!("#!/bin/sh\necho $1 >>{}\n", calls.display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let host = SystemResolver::below(root.path());
        let first = host.apply(&plan()).await.unwrap();
        assert_eq!((first.method, first.is_new), (Method::ResolvConf, true));
        assert_eq!(first.why, "resolvconf leaves /etc/resolv.conf as it is");
        let again = host.apply(&plan()).await.unwrap();
        assert_eq!((again.method, again.is_new), (Method::ResolvConf, false));
        assert_eq!(fs::read_to_string(calls).unwrap(), "-a\n-d\n");
    }
}
