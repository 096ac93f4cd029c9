//! What is kept while the log is on: the newest questions of each source, and counts.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use innermesh_control::dns::{LogTransport, LoggedQuery, Origin, QueryLog, QueryTop};
use innermesh_proto::{
    limits,
    zone::{DomainName, RecordType},
};

use super::{LogEntry, shares::Shares, tally::Tally};
use crate::dns::{report::mnemonic, source::group};

#[derive(Debug)]
pub(super) struct Kept {
    since_ms: u64,
    /// By number, each with the time at which it came.
    entries: BTreeMap<u64, (u64, LogEntry)>,
    /// Numbers of each source, the oldest first.
    sources: BTreeMap<IpAddr, VecDeque<u64>>,
    /// Bytes of each source.
    bytes: Shares,
    total: u64,
    rcodes: BTreeMap<u16, u64>,
    origins: BTreeMap<&'static str, u64>,
    names: Tally<(DomainName, RecordType)>,
    clients: Tally<IpAddr>,
}

impl Kept {
    pub fn new(since_ms: u64) -> Self {
        Self {
            since_ms,
            entries: BTreeMap::new(),
            sources: BTreeMap::new(),
            bytes: Shares::default(),
            total: 0,
            rcodes: BTreeMap::new(),
            origins: BTreeMap::new(),
            names: Tally::new(limits::QUERY_LOG_NAMES),
            clients: Tally::new(limits::QUERY_LOG_CLIENTS),
        }
    }

    pub fn take(&mut self, number: u64, at_ms: u64, entry: LogEntry) {
        let source = group(entry.client);
        self.total += 1;
        // A code has twelve bits (RFC 6891 §6.1.3), of which this server uses few.
        *self.rcodes.entry(entry.rcode).or_default() += 1;
        *self.origins.entry(origin_word(entry.origin)).or_default() += 1;
        self.names.count(source, (entry.name.clone(), entry.rtype));
        self.clients.count(source, entry.client);
        self.bytes.add(source, entry.size());
        self.sources.entry(source).or_default().push_back(number);
        self.entries.insert(number, (at_ms, entry));
        while self.entries.len() > limits::QUERY_LOG_ENTRIES
            || self.bytes.total() > limits::QUERY_LOG_BYTES
        {
            if !self.drop_one() {
                return;
            }
        }
    }

    /// The oldest of the source that has most: one that asks much loses its own.
    fn drop_one(&mut self) -> bool {
        let Some((source, _)) = self.bytes.largest() else {
            return false;
        };
        let Some(numbers) = self.sources.get_mut(&source) else {
            return false;
        };
        let oldest = numbers.pop_front();
        if numbers.is_empty() {
            self.sources.remove(&source);
        }
        let Some((_, gone)) = oldest.and_then(|number| self.entries.remove(&number)) else {
            return false;
        };
        self.bytes.take(source, gone.size());
        true
    }

    /// Entries from `from` on; `next` is the number that the next one will have.
    pub fn page(&self, from: u64, next: u64) -> QueryLog {
        let entries = self.entries.range(from..).take(limits::QUERY_LOG_PAGE);
        let entries: Vec<LoggedQuery> = entries
            .map(|(number, (at_ms, entry))| entry.told(*number, *at_ms))
            .collect();
        let is_all = entries.len() < limits::QUERY_LOG_PAGE;
        QueryLog {
            is_on: true,
            since_ms: Some(self.since_ms),
            next: match entries.last() {
                Some(last) if !is_all => last.number + 1,
                _ => next,
            },
            total: self.total,
            entries,
            ..QueryLog::default()
        }
    }

    /// The newest entries, and who asks most for what.
    pub fn newest(&self, next: u64) -> QueryLog {
        let first = self.entries.keys().rev().nth(limits::QUERY_LOG_PAGE - 1);
        let from = first.copied().unwrap_or_default();
        let name = |(name, rtype): &(DomainName, RecordType)| format!("{name} {rtype}");
        QueryLog {
            names: self.names.top(name),
            clients: self.clients.top(ToString::to_string),
            too_low_by: self.names.missed().max(self.clients.missed()),
            rcodes: tops(
                self.rcodes
                    .iter()
                    .map(|(rcode, n)| (mnemonic((*rcode).into()), *n)),
            ),
            origins: tops(
                self.origins
                    .iter()
                    .map(|(origin, n)| ((*origin).to_owned(), *n)),
            ),
            ..self.page(from, next)
        }
    }

    #[cfg(test)]
    pub fn assert_bounded(&self) {
        assert!(self.entries.len() <= limits::QUERY_LOG_ENTRIES);
        assert!(self.bytes.total() <= limits::QUERY_LOG_BYTES);
        assert!(self.names.places() <= limits::QUERY_LOG_NAMES);
        assert!(self.clients.places() <= limits::QUERY_LOG_CLIENTS);
        let sum: usize = self.entries.values().map(|(_, entry)| entry.size()).sum();
        assert_eq!(self.bytes.total(), sum);
        let numbers: usize = self.sources.values().map(VecDeque::len).sum();
        assert_eq!(self.entries.len(), numbers);
    }

    #[cfg(test)]
    pub fn entries_of(&self, source: IpAddr) -> usize {
        self.sources.get(&source).map_or(0, VecDeque::len)
    }
}

fn tops(counts: impl Iterator<Item = (String, u64)>) -> Vec<QueryTop> {
    let counts = counts.map(|(what, count)| QueryTop { what, count });
    counts.collect()
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
