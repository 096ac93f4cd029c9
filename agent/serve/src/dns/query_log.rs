//! Questions and their answers, kept in memory for as long as somebody follows them:
//! the newest ones, and who asks most for what. Nothing is kept while nobody does.

mod kept;
mod shares;
mod tally;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use innermesh_control::dns::{DnsView, Origin, QueryLog};
use innermesh_host::{Clock, Mono, tasks::Tasks};
use innermesh_proto::zone::{DomainName, RecordType};
use tokio::sync::Notify;

use self::kept::Kept;

/// How long it stays on behind a follower, who asks again at once while it follows.
const GRACE: Duration = Duration::from_secs(10);
/// How long a follower waits for the first question.
const PATIENCE: Duration = Duration::from_secs(10);
/// For how long it gathers more of them then.
const GATHER: Duration = Duration::from_millis(100);

/// What is kept of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogEntry {
    pub client: IpAddr,
    pub is_udp: bool,
    pub name: DomainName,
    pub rtype: RecordType,
    pub rcode: u16,
    pub view: DnsView,
    /// None for what was refused.
    pub origin: Option<Origin>,
    pub elapsed: Duration,
}

/// Keeps them. Clones are the same.
#[derive(Clone)]
pub struct QueryLogger(Arc<Inner>);

struct Inner {
    is_on: AtomicBool,
    state: Mutex<State>,
    news: Notify,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
}

#[derive(Default)]
struct State {
    followers: usize,
    /// Until when it stays on without any.
    until: Mono,
    kept: Option<Kept>,
    /// Of the next entry: it goes on rising while the log is off.
    next: u64,
}

impl QueryLogger {
    pub(super) fn new(clock: Arc<dyn Clock>, tasks: Tasks) -> Self {
        Self(Arc::new(Inner {
            is_on: AtomicBool::new(false),
            state: Mutex::default(),
            news: Notify::new(),
            clock,
            tasks,
        }))
    }

    /// Whether questions are to be noted.
    pub(super) fn is_on(&self) -> bool {
        self.0.is_on.load(Ordering::Relaxed)
    }

    pub(super) fn note(&self, entry: LogEntry) {
        let mut state = self.0.state();
        let at_ms = self.0.clock.wall_ms();
        let number = state.next;
        let Some(kept) = &mut state.kept else { return };
        kept.take(number, at_ms, entry);
        state.next += 1;
        drop(state);
        self.0.news.notify_waiters();
    }

    /// What is there now.
    pub fn read(&self) -> QueryLog {
        let state = self.0.state();
        state.page(|kept| kept.newest(state.next))
    }

    /// Entries from `from` on, once there are any: switches the log on, and has it stay
    /// on for ten seconds behind this. Those from now on where none is given.
    pub async fn follow(&self, from: Option<u64>) -> QueryLog {
        let _following = Following::begin(&self.0);
        let next = self.0.state().next;
        // Another run's number says nothing here.
        let from = from.filter(|from| *from <= next).unwrap_or(next);
        let clock = self.0.clock.clone();
        let heard = async {
            loop {
                let news = self.0.news.notified();
                if self.0.state().next > from {
                    return;
                }
                news.await;
            }
        };
        tokio::select! {
            () = heard => clock.sleep(GATHER).await,
            () = clock.sleep(PATIENCE) => {}
        }
        let state = self.0.state();
        state.page(|kept| kept.page(from, state.next))
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches it off once nobody follows any more.
    async fn watch(inner: Weak<Self>, clock: Arc<dyn Clock>) {
        let mut pause = GRACE;
        loop {
            clock.sleep(pause).await;
            let Some(inner) = inner.upgrade() else { return };
            let mut state = inner.state();
            let left = state.until.saturating_sub(clock.now());
            pause = if left.is_zero() { GRACE } else { left };
            if state.followers == 0 && left.is_zero() {
                state.kept = None;
                inner.is_on.store(false, Ordering::Relaxed);
                return;
            }
        }
    }
}

/// Somebody who follows, for as long as this lives.
struct Following<'i>(&'i Inner);

impl<'i> Following<'i> {
    fn begin(inner: &'i Arc<Inner>) -> Self {
        let mut state = inner.state();
        state.followers += 1;
        if state.kept.is_none() {
            let since_ms = inner.clock.wall_ms();
            state.kept = Some(Kept::new(since_ms));
            inner.is_on.store(true, Ordering::Relaxed);
            let watch = Inner::watch(Arc::downgrade(inner), inner.clock.clone());
            drop(inner.tasks.spawn(watch));
        }
        drop(state);
        Self(inner)
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.followers -= 1;
        state.until = self.0.clock.now() + GRACE;
    }
}

impl State {
    fn page(&self, of: impl Fn(&Kept) -> QueryLog) -> QueryLog {
        self.kept.as_ref().map_or_else(
            || QueryLog {
                next: self.next,
                ..QueryLog::default()
            },
            of,
        )
    }
}

#[cfg(test)]
mod tests;
