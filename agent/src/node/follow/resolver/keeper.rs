//! Sets the host's resolver, keeps it set, and undoes it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    about::About,
    kept::{Kept, Seen, Trouble},
};
use crate::{
    control::{ControlError, Done, dns::ResolverStatus, finding::Finding},
    host::{
        Host,
        resolver::{Applied, Choice, Method, ResolverPlan},
    },
};

/// How often it is looked whether all is as it was set: settings are also lost
/// without a word.
const LOOK: Duration = Duration::from_secs(30);
/// How long after news more is gathered.
const GATHER: Duration = Duration::from_millis(300);
/// How long systemd-resolved may be away before another method is taken: it is
/// restarted by systemd, and an update takes a while.
const AWAY: Duration = Duration::from_secs(60);
/// How long libc may need until it goes by new settings.
const SETTLE: Duration = Duration::from_secs(1);
/// How long undoing may hold up the agent's end.
const END: Duration = Duration::from_secs(3);

/// Keeps the host's resolver.
pub(crate) struct ResolverKeeper {
    host: Host,
    /// Whether the configuration wants it kept.
    wanted: bool,
    interface: String,
    about: Box<dyn Fn() -> About + Send + Sync>,
    /// What may have taken settings away: the tunnel's interface is another, or
    /// the host's network changed.
    news: Arc<Notify>,
    /// Held by who looks or undoes.
    one: tokio::sync::Mutex<()>,
    kept: Mutex<Kept>,
}

impl ResolverKeeper {
    pub fn new(
        host: &Host,
        wanted: bool,
        interface: &str,
        news: Arc<Notify>,
        about: impl Fn() -> About + Send + Sync + 'static,
    ) -> Self {
        Self {
            host: host.clone(),
            wanted,
            interface: interface.to_owned(),
            about: Box::new(about),
            news,
            one: tokio::sync::Mutex::default(),
            kept: Mutex::default(),
        }
    }

    /// Looks again and again, for as long as the agent runs.
    pub async fn run(self: Arc<Self>) {
        if self.host.resolver.left_alone().is_some() {
            return;
        }
        loop {
            self.look(false).await;
            let clock = &self.host.clock;
            tokio::select! {
                () = self.host.resolver.changed() => clock.sleep(GATHER).await,
                () = self.news.notified() => clock.sleep(GATHER).await,
                () = clock.sleep(LOOK) => {}
            }
        }
    }

    /// What the host's resolver has to know; none while nothing answers where it
    /// could ask.
    pub fn plan(&self) -> Option<ResolverPlan> {
        (self.about)().plan
    }

    pub fn status(&self) -> ResolverStatus {
        let left_alone = self.left_alone();
        self.kept().status(left_alone)
    }

    pub fn finding(&self) -> Option<Finding> {
        let left_alone = self.left_alone().is_some();
        self.kept().finding(&(self.about)(), left_alone)
    }

    /// Sets it now, as a person asks for it. Where it isn't the agent's to set,
    /// nothing is done.
    pub async fn setup(&self) -> Result<ResolverStatus, ControlError> {
        self.kept().paused = false;
        self.look(true).await;
        Ok(self.status())
    }

    /// Takes all of it back, and sets nothing until a person asks for it.
    pub async fn release(&self) -> Result<Done, ControlError> {
        self.kept().paused = true;
        let _one = self.one.lock().await;
        if self.is_ours() {
            self.undo().await;
        }
        Ok(Done {})
    }

    /// Takes all of it back, as the agent ends.
    pub async fn end(&self) {
        self.kept().ended = true;
        if !self.is_ours() {
            return;
        }
        let undone = async {
            let _one = self.one.lock().await;
            self.undo().await;
        };
        tokio::select! {
            () = undone => {}
            () = self.host.clock.sleep(END) => {
                tracing::warn!("this host's resolver could not be set back in time");
            }
        }
    }

    async fn undo(&self) {
        if let Err(error) = self.host.resolver.restore(&self.interface).await {
            tracing::warn!(%error, "this host's resolver could not be set back");
        }
        let mut kept = self.kept();
        (kept.applied, kept.error, kept.away) = (None, None, None);
        (kept.asked, kept.seen) = (None, Seen::Unknown);
    }

    /// Whether what is set is the agent's own doing.
    fn is_ours(&self) -> bool {
        self.wanted && self.host.resolver.left_alone().is_none()
    }

    fn left_alone(&self) -> Option<String> {
        let other = self.host.resolver.left_alone();
        other.or_else(|| {
            if !self.wanted {
                return Some("`manage` is \"off\" below `[dns]` in the configuration".to_owned());
            }
            let paused = self.kept().paused;
            paused
                .then(|| "`agent dns restore` was run; `agent dns setup` sets it again".to_owned())
        })
    }

    async fn look(&self, ordered: bool) {
        let _one = self.one.lock().await;
        if self.kept().ended {
            return;
        }
        let about = (self.about)();
        let is_new = if self.left_alone().is_none() {
            self.keep(&about, ordered).await
        } else {
            false
        };
        self.ask_libc(&about, is_new, ordered).await;
    }

    /// Whether it was set just now.
    async fn keep(&self, about: &About, ordered: bool) -> bool {
        let Some(plan) = &about.plan else {
            // Whoever has the port now isn't to be asked in our name.
            if self.kept().applied.is_some() {
                self.undo().await;
            }
            return false;
        };
        let choice = self.host.resolver.choose().await;
        if self.waits_for_resolved(&choice) && !ordered {
            let away = Trouble {
                text: "systemd-resolved doesn't run".to_owned(),
                remedy: "It is set again as soon as that does",
            };
            self.note(&about.domain, Err(away));
            return false;
        }
        let applied = self.host.resolver.apply(plan).await;
        let is_new = applied.as_ref().is_ok_and(|applied| applied.is_new);
        self.note(
            &about.domain,
            applied.map_err(|error| Trouble::from(&error)),
        );
        is_new
    }

    /// Whether what libc asks is away for a moment: another method would be one
    /// to take back again right after.
    fn waits_for_resolved(&self, choice: &Choice) -> bool {
        let now = self.host.clock.now();
        let mut kept = self.kept();
        let was = kept.applied.as_ref().map(|applied| applied.method);
        let left = was == Some(Method::Resolved) && choice.method != was;
        if !left && !choice.resolved_is_away {
            kept.away = None;
            return false;
        }
        now.saturating_sub(*kept.away.get_or_insert(now)) < AWAY
    }

    /// Tells of what is new, and not each time.
    fn note(&self, domain: &str, result: Result<Applied, Trouble>) {
        let mut kept = self.kept();
        match result {
            Ok(applied) => {
                if applied.is_new {
                    let Applied { method, why, .. } = &applied;
                    tracing::info!("{method} asks the agent for names of {domain}: {why}");
                }
                kept.error = None;
                kept.applied = Some(applied);
            }
            Err(trouble) => {
                if kept.error.as_ref() != Some(&trouble) {
                    let error = &trouble.text;
                    tracing::warn!(%error, "this host's resolver isn't set for names of {domain}");
                }
                kept.error = Some(trouble);
            }
        }
    }

    /// Asks libc for this node's name, each [`LOOK`] at most unless something was
    /// set just now or a person waits.
    async fn ask_libc(&self, about: &About, is_new: bool, ordered: bool) {
        let now = self.host.clock.now();
        {
            let mut kept = self.kept();
            let lately = kept.asked.is_some_and(|at| now.saturating_sub(at) < LOOK);
            if lately && !is_new && !ordered {
                return;
            }
            kept.asked = Some(now);
        }
        let mut seen = self.seen(about).await;
        if is_new && matches!(seen, Seen::Nothing | Seen::Others(_)) {
            self.host.clock.sleep(SETTLE).await;
            seen = self.seen(about).await;
        }
        self.kept().seen = seen;
    }

    async fn seen(&self, about: &About) -> Seen {
        let resolver = &self.host.resolver;
        let own = &about.own;
        match Seen::of(resolver.look_up(&own.name).await, &own.addresses) {
            // A host that bears its mesh name finds itself in /etc/hosts, or by
            // nss-myhostname, and asks no server for it.
            Seen::Others(ips) => {
                let acme = resolver.look_up(&about.acme.name).await;
                match Seen::of(acme, &about.acme.addresses) {
                    Seen::AsTheMeshSays => Seen::AsTheMeshSays,
                    _ => Seen::Others(ips),
                }
            }
            seen => seen,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
