//! What happened in a world: a hash of all of it, the last of it for people,
//! and how often each kind.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::clock;

/// Events that are kept for a failure's message.
const KEPT: usize = 40;
/// Events within one simulated second, beyond which a world goes round in
/// circles.
const MOST: u64 = 2_000_000;

/// The trace of one world. Clones are the same trace.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<State>>);

struct State {
    start: Instant,
    hash: Sha256,
    events: u64,
    /// The second that is under way, and the events before it.
    second: (u64, u64),
    counts: BTreeMap<String, u64>,
    amounts: BTreeMap<&'static str, u64>,
    recent: VecDeque<String>,
    /// Every line, when they are to be written to a file.
    whole: Option<String>,
}

impl Trace {
    /// An empty one, whose time begins now. Every line is kept if `whole`.
    pub fn new(whole: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            start: clock::now(),
            hash: Sha256::new(),
            events: 0,
            second: (0, 0),
            counts: BTreeMap::new(),
            amounts: BTreeMap::new(),
            recent: VecDeque::new(),
            whole: whole.then(String::new),
        })))
    }

    /// Something happened that people want to read about.
    pub fn event(&self, kind: &str, words: &str) {
        let mut state = self.lock();
        let line = state.line(kind, words);
        if state.recent.len() == KEPT {
            state.recent.pop_front();
        }
        state.recent.push_back(line);
    }

    /// Something small happened, such as a datagram.
    pub fn detail(&self, kind: &str, words: &str) {
        self.lock().line(kind, words);
    }

    /// Counts something that has a line elsewhere, or none.
    pub fn count(&self, kind: &str) {
        *self.lock().counts.entry(kind.into()).or_default() += 1;
    }

    /// Adds to an amount that isn't a kind of event.
    pub fn add(&self, amount: &'static str, by: u64) {
        *self.lock().amounts.entry(amount).or_default() += by;
    }

    /// An amount, which is zero again then.
    pub fn take(&self, amount: &'static str) -> u64 {
        self.lock().amounts.remove(amount).unwrap_or(0)
    }

    /// Milliseconds since the world began.
    pub fn now_ms(&self) -> u64 {
        let since = clock::now() - self.lock().start;
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.lock().events
    }

    /// How often each kind happened.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.lock().counts.clone()
    }

    /// The last events, oldest first.
    pub fn recent(&self) -> Vec<String> {
        self.lock().recent.iter().cloned().collect()
    }

    /// Every line, if they were kept.
    pub fn whole(&self) -> Option<String> {
        self.lock().whole.clone()
    }

    /// The hash of all lines, in hex.
    pub fn hash(&self) -> String {
        let hash = self.lock().hash.clone().finalize();
        hash.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn line(&mut self, kind: &str, words: &str) -> String {
        let time = (clock::now() - self.start).as_micros();
        let line = format!("{:>10}.{:03} ms  {kind}: {words}", time / 1000, time % 1000);
        self.events += 1;
        let second = (time / 1_000_000) as u64;
        if self.second.0 < second {
            self.second = (second, self.events);
        } else if self.events - self.second.1 > MOST {
            // Nothing that runs in this world can end it: its tasks are the
            // ones that don't come to rest.
            for line in &self.recent {
                eprintln!("{line}");
            }
            eprintln!("{line}\nmore than {MOST} events in one second");
            std::process::abort();
        }
        self.hash.update(line.as_bytes());
        self.hash.update(b"\n");
        if let Some(whole) = &mut self.whole {
            whole.push_str(&line);
            whole.push('\n');
        }
        line
    }
}
