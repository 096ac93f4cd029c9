//! Questions and their answers, kept in memory for as long as somebody follows them:
//! the newest ones, and who asks most for what. Nothing is kept while nobody does.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use innermesh_control::dns::{DnsView, LogTransport, LoggedQuery, Origin, QueryLog, QueryTop};
use innermesh_host::{Clock, Mono, tasks::Tasks};
use innermesh_proto::{
    limits,
    zone::{DomainName, RecordType},
};
use tokio::sync::Notify;

use super::report::mnemonic;

/// How long it stays on behind a follower, who asks again at once while it follows.
const GRACE: Duration = Duration::from_secs(10);
/// How long a follower waits for the first question.
const PATIENCE: Duration = Duration::from_secs(10);
/// For how long it gathers more of them then.
const GATHER: Duration = Duration::from_millis(100);
/// Lines of each list of who asks most.
const TOP: usize = 20;

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

/// What is kept while it is on.
struct Kept {
    since_ms: u64,
    /// Number of the first.
    first: u64,
    entries: VecDeque<(u64, LogEntry)>,
    bytes: usize,
    total: u64,
    rcodes: BTreeMap<u16, u64>,
    origins: BTreeMap<&'static str, u64>,
    names: Tally<(DomainName, RecordType)>,
    clients: Tally<IpAddr>,
}

/// The most frequent of what comes, within bounds (Misra and Gries, 1982): counts are
/// too low by `missed` at most.
struct Tally<K> {
    most: usize,
    counts: BTreeMap<K, u64>,
    missed: u64,
}

impl<K: Ord + Clone> Tally<K> {
    fn new(most: usize) -> Self {
        Self {
            most,
            counts: BTreeMap::new(),
            missed: 0,
        }
    }

    fn count(&mut self, key: K) {
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
        } else if self.counts.len() < self.most {
            self.counts.insert(key, 1);
        } else {
            self.missed += 1;
            self.counts.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
    }

    fn top(&self, words: impl Fn(&K) -> String) -> Vec<QueryTop> {
        let mut all: Vec<(&K, u64)> = self
            .counts
            .iter()
            .map(|(key, count)| (key, *count))
            .collect();
        all.sort_by(|(a, of_a), (b, of_b)| of_b.cmp(of_a).then_with(|| a.cmp(b)));
        let top = all.into_iter().take(TOP);
        top.map(|(key, count)| QueryTop {
            what: words(key),
            count,
        })
        .collect()
    }
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
        let newest = limits::QUERY_LOG_PAGE as u64;
        state.page(state.next.saturating_sub(newest), true)
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
        self.0.state().page(from, false)
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
            state.kept = Some(Kept::new(since_ms, state.next));
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
    fn page(&self, from: u64, has_totals: bool) -> QueryLog {
        let Some(kept) = &self.kept else {
            return QueryLog {
                next: self.next,
                ..QueryLog::default()
            };
        };
        let from = from.max(kept.first);
        let skip = usize::try_from(from - kept.first).unwrap_or(usize::MAX);
        let entries = kept.entries.iter().zip(kept.first..).skip(skip);
        let entries = entries.take(limits::QUERY_LOG_PAGE);
        let entries: Vec<LoggedQuery> = entries
            .map(|((at_ms, entry), number)| entry.told(number, *at_ms))
            .collect();
        let page = QueryLog {
            is_on: true,
            since_ms: Some(kept.since_ms),
            next: entries.last().map_or(from, |last| last.number + 1),
            total: kept.total,
            entries,
            ..QueryLog::default()
        };
        if !has_totals {
            return page;
        }
        let name = |(name, rtype): &(DomainName, RecordType)| format!("{name} {rtype}");
        QueryLog {
            names: kept.names.top(name),
            clients: kept.clients.top(ToString::to_string),
            too_low_by: kept.names.missed.max(kept.clients.missed),
            rcodes: tops(
                kept.rcodes
                    .iter()
                    .map(|(rcode, n)| (mnemonic((*rcode).into()), *n)),
            ),
            origins: tops(
                kept.origins
                    .iter()
                    .map(|(origin, n)| ((*origin).to_owned(), *n)),
            ),
            ..page
        }
    }
}

fn tops(counts: impl Iterator<Item = (String, u64)>) -> Vec<QueryTop> {
    let counts = counts.map(|(what, count)| QueryTop { what, count });
    counts.collect()
}

impl Kept {
    fn new(since_ms: u64, first: u64) -> Self {
        Self {
            since_ms,
            first,
            entries: VecDeque::new(),
            bytes: 0,
            total: 0,
            rcodes: BTreeMap::new(),
            origins: BTreeMap::new(),
            names: Tally::new(limits::QUERY_LOG_NAMES),
            clients: Tally::new(limits::QUERY_LOG_CLIENTS),
        }
    }

    fn take(&mut self, number: u64, at_ms: u64, entry: LogEntry) {
        self.total += 1;
        // A code has twelve bits (RFC 6891 §6.1.3), of which this server uses few.
        *self.rcodes.entry(entry.rcode).or_default() += 1;
        *self.origins.entry(origin_word(entry.origin)).or_default() += 1;
        self.names.count((entry.name.clone(), entry.rtype));
        self.clients.count(entry.client);
        self.bytes += entry.size();
        if self.entries.is_empty() {
            self.first = number;
        }
        self.entries.push_back((at_ms, entry));
        while self.entries.len() > limits::QUERY_LOG_ENTRIES || self.bytes > limits::QUERY_LOG_BYTES
        {
            let Some((_, gone)) = self.entries.pop_front() else {
                return;
            };
            self.bytes -= gone.size();
            self.first += 1;
        }
    }
}

impl LogEntry {
    fn size(&self) -> usize {
        size_of::<(u64, Self)>() + self.name.wire().len()
    }

    fn told(&self, number: u64, at_ms: u64) -> LoggedQuery {
        LoggedQuery {
            number,
            at_ms,
            client: self.client,
            transport: if self.is_udp {
                LogTransport::Udp
            } else {
                LogTransport::Connection
            },
            name: self.name.to_string(),
            rtype: self.rtype.to_string(),
            rcode: mnemonic(self.rcode.into()),
            view: self.view,
            origin: self.origin,
            elapsed_us: u64::try_from(self.elapsed.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

fn origin_word(origin: Option<Origin>) -> &'static str {
    match origin {
        Some(Origin::Zone) => "zone",
        Some(Origin::Rule) => "rule",
        Some(Origin::Cache) => "cache",
        Some(Origin::Stale) => "stale",
        Some(Origin::Upstream) => "upstream",
        None => "refused",
    }
}

#[cfg(test)]
mod tests;
