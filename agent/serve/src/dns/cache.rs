//! Answers from upstream, kept for as long as they may be, and longer for
//! when no upstream answers (RFC 8767). Pure: time is passed in.

#![allow(missing_docs, reason = "the names say it")]

use std::{sync::Arc, time::Duration};

use hickory_server::proto::{
    op::ResponseCode,
    rr::{RData, Record},
    serialize::binary::BinEncodable,
};
use innermesh_proto::{
    crypto::Hash,
    limits,
    zone::{DomainName, RecordType},
};

use super::{
    lru::Lru,
    prompt::{Template, upstream_flags},
    reply::ExtendedError,
};
use innermesh_host::Mono;

/// Longest time for which an answer is taken as fresh.
const FRESH_AT_MOST: Duration = Duration::from_secs(24 * 3600);
/// Longest time for which a negative answer is taken as fresh (RFC 2308 §5).
const NEGATIVE_AT_MOST: Duration = Duration::from_secs(3600);
/// How long beyond its TTL an answer may still be served (RFC 8767 §5: one to
/// three days).
const STALE_AT_MOST: Duration = Duration::from_secs(24 * 3600);
/// TTL in a stale answer (RFC 8767 §4).
const STALE_TTL_S: u32 = 30;
/// Pause before upstream is asked again for what just failed, while there is
/// a stale answer (RFC 8767 §5).
const RECHECK: Duration = Duration::from_secs(30);
/// How long a failure without a stale answer is kept (RFC 9520 §3.2: at least
/// one second).
const FAILURE: Duration = Duration::from_secs(2);

/// What was asked. The DNSSEC bits make different answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The name, in lower case.
    pub name: DomainName,
    pub rtype: RecordType,
    /// The client wants signatures (RFC 3225).
    pub dnssec_ok: bool,
    /// The client validates for itself (RFC 4035 §3.2.2).
    pub checking_disabled: bool,
}

impl Key {
    /// As bytes: the name's, the type's, and one for the two bits.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::from(self.name.clone());
        bytes.extend(self.rtype.0.to_be_bytes());
        bytes.push(upstream_flags(self.dnssec_ok, self.checking_disabled));
        bytes
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct UpstreamAnswer {
    /// NOERROR, NXDOMAIN, or what was wrong.
    pub rcode: ResponseCode,
    /// Upstream has validated it.
    pub authentic: bool,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    /// Why the answer isn't what was hoped for.
    pub error: Option<ExtendedError>,
}

/// What the cache has for a question.
#[derive(Debug, PartialEq)]
pub(super) enum Cached {
    /// An answer within its TTL.
    Fresh(UpstreamAnswer),
    /// An answer beyond its TTL, good for when upstream fails.
    Stale {
        heard: UpstreamAnswer,
        /// Whether upstream should be asked again, or has just failed.
        recheck: bool,
    },
    Nothing,
}

/// An answer as it is sent, whole for as long as the mesh's names are below
/// the same origins.
#[derive(Debug)]
pub(super) struct EncodedAnswer {
    pub template: Template,
    /// Hash of the origins.
    pub origins: Hash,
}

/// The cache; the entry unused for longest makes room.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: Lru<Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    heard: Arc<UpstreamAnswer>,
    encoded: Option<EncodedAnswer>,
    stored: Mono,
    fresh_for: Duration,
    stale_for: Duration,
    recheck_at: Mono,
    bytes: usize,
}

impl Entry {
    /// Seconds since it was stored, while it is fresh.
    fn fresh_age_s(&self, now: Mono) -> Option<u32> {
        let age = now.saturating_sub(self.stored);
        (age < self.fresh_for).then(|| u32::try_from(age.as_secs()).unwrap_or(u32::MAX))
    }
}

impl Cache {
    /// Looks a question up.
    pub fn get(&mut self, key: &Key, now: Mono) -> Cached {
        let key = key.bytes();
        let Some(entry) = self.entries.get(&key) else {
            return Cached::Nothing;
        };
        if now.saturating_sub(entry.stored) >= entry.fresh_for + entry.stale_for {
            self.remove(&key);
            return Cached::Nothing;
        }
        let mut heard = (*entry.heard).clone();
        if let Some(age_s) = entry.fresh_age_s(now) {
            heard.set_ttls(|ttl_s| ttl_s.saturating_sub(age_s));
            return Cached::Fresh(heard);
        }
        heard.set_ttls(|_| STALE_TTL_S);
        heard.authentic = false;
        heard.error = Some(ExtendedError::stale(heard.rcode));
        Cached::Stale {
            heard,
            recheck: now >= entry.recheck_at,
        }
    }

    /// A fresh answer as it came, and its age in seconds.
    pub fn fresh(&mut self, key: &[u8], now: Mono) -> Option<(Arc<UpstreamAnswer>, u32)> {
        let entry = self.entries.get(key)?;
        let age_s = entry.fresh_age_s(now)?;
        Some((entry.heard.clone(), age_s))
    }

    /// A fresh answer that is encoded, and its age in seconds.
    pub fn encoded(&mut self, key: &[u8], now: Mono) -> Option<(&EncodedAnswer, u32)> {
        let entry = self.entries.get(key)?;
        let age_s = entry.fresh_age_s(now)?;
        Some((entry.encoded.as_ref()?, age_s))
    }

    /// Keeps how an answer is encoded, if it is still the answer.
    pub fn keep_encoded(
        &mut self,
        key: &[u8],
        heard: &Arc<UpstreamAnswer>,
        encoded: EncodedAnswer,
    ) {
        let entry = self.entries.peek(key);
        let Some(entry) = entry.filter(|entry| Arc::ptr_eq(&entry.heard, heard)) else {
            return;
        };
        let size = |encoded: &EncodedAnswer| encoded.template.size();
        let before = entry.encoded.as_ref().map_or(0, size);
        let now = size(&encoded);
        entry.encoded = Some(encoded);
        entry.bytes = entry.bytes - before + now;
        self.bytes = self.bytes - before + now;
        self.make_room();
    }

    /// Keeps an answer, unless it says that it may not be kept.
    pub fn put(&mut self, key: &Key, heard: UpstreamAnswer, now: Mono) {
        let fresh_for = heard.fresh_for();
        if fresh_for.is_zero() {
            self.remove(&key.bytes());
        } else {
            self.insert(key, heard, now, fresh_for, STALE_AT_MOST);
        }
    }

    /// Remembers that upstream failed, so that it isn't asked at once again.
    pub fn put_failure(&mut self, key: &Key, failure: UpstreamAnswer, now: Mono) {
        match self.entries.peek(&key.bytes()) {
            Some(entry) if !entry.stale_for.is_zero() => entry.recheck_at = now + RECHECK,
            _ => self.insert(key, failure, now, FAILURE, Duration::ZERO),
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets failures, so that everything is asked again.
    pub fn clear_failures(&mut self) {
        let failed: Vec<Box<[u8]>> = self
            .entries
            .values()
            .filter_map(|(key, entry)| {
                entry.recheck_at = Mono::ZERO;
                entry.stale_for.is_zero().then(|| key.into())
            })
            .collect();
        for key in failed {
            self.remove(&key);
        }
    }

    fn insert(
        &mut self,
        key: &Key,
        heard: UpstreamAnswer,
        now: Mono,
        fresh_for: Duration,
        stale_for: Duration,
    ) {
        let bytes = heard.size();
        let entry = Entry {
            heard: Arc::new(heard),
            encoded: None,
            stored: now,
            fresh_for,
            stale_for,
            recheck_at: Mono::ZERO,
            bytes,
        };
        if let Some(before) = self.entries.insert(&key.bytes(), entry) {
            self.bytes -= before.bytes;
        }
        self.bytes += bytes;
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.entries.len() > limits::DNS_CACHE_ENTRIES || self.bytes > limits::DNS_CACHE_BYTES
        {
            match self.entries.remove_oldest() {
                Some(entry) => self.bytes -= entry.bytes,
                None => return,
            }
        }
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
        }
    }
}

impl UpstreamAnswer {
    /// An answer that says only what went wrong.
    pub fn failure(error: ExtendedError) -> Self {
        Self {
            rcode: ResponseCode::ServFail,
            authentic: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            error: Some(error),
        }
    }

    /// How long this may be kept: the least TTL, and for what doesn't exist
    /// what the SOA says (RFC 2308 §5). Without either it may not be.
    fn fresh_for(&self) -> Duration {
        let seconds = |ttl_s: u32| Duration::from_secs(ttl_s.into());
        let answers = self
            .answers
            .iter()
            .map(|record| seconds(record.ttl).min(FRESH_AT_MOST));
        let negative = self
            .authorities
            .iter()
            .filter_map(|record| match &record.data {
                RData::SOA(soa) => Some(seconds(record.ttl.min(soa.minimum)).min(NEGATIVE_AT_MOST)),
                _ => None,
            });
        answers.chain(negative).min().unwrap_or_default()
    }

    fn set_ttls(&mut self, ttl_s: impl Fn(u32) -> u32) {
        for record in self.answers.iter_mut().chain(&mut self.authorities) {
            record.ttl = ttl_s(record.ttl);
        }
    }

    fn size(&self) -> usize {
        // What the maps and the vectors take per entry, roughly.
        const OVERHEAD: usize = 512;
        let records = self.answers.iter().chain(&self.authorities);
        let encoded = records.map(|record| record.to_bytes().map_or(0, |bytes| bytes.len()));
        OVERHEAD + encoded.sum::<usize>() * 2
    }
}

#[cfg(test)]
mod tests {
    use hickory_server::proto::rr::{
        Name,
        rdata::{A, SOA},
    };

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn key(n: usize) -> Key {
        Key {
            name: format!("n{n}.example.org").parse().unwrap(),
            rtype: RecordType::A,
            dnssec_ok: false,
            checking_disabled: false,
        }
    }

    fn heard(ttl_s: u32) -> UpstreamAnswer {
        let record = Record::from_rdata(Name::root(), ttl_s, RData::A(A::new(192, 0, 2, 1)));
        UpstreamAnswer {
            rcode: ResponseCode::NoError,
            answers: vec![record],
            error: None,
            ..UpstreamAnswer::failure(ExtendedError::stale(ResponseCode::NoError))
        }
    }

    #[test]
    fn an_answer_ages_and_then_is_stale_and_then_gone() {
        let mut cache = Cache::default();
        cache.put(&key(1), heard(100), S);
        let Cached::Fresh(fresh) = cache.get(&key(1), 41 * S) else {
            panic!("not fresh")
        };
        assert_eq!(fresh.answers[0].ttl, 60);
        let Cached::Stale {
            heard,
            recheck: true,
        } = cache.get(&key(1), 101 * S)
        else {
            panic!("not stale")
        };
        assert_eq!(heard.answers[0].ttl, STALE_TTL_S);
        assert!(heard.error.is_some());
        assert_eq!(cache.get(&key(1), 101 * S + STALE_AT_MOST), Cached::Nothing);
    }

    #[test]
    fn after_a_failure_a_stale_answer_is_not_asked_for_again_for_a_while() {
        let mut cache = Cache::default();
        cache.put(&key(1), heard(1), Mono::ZERO);
        cache.put_failure(
            &key(1),
            UpstreamAnswer::failure(ExtendedError::stale(ResponseCode::NoError)),
            10 * S,
        );
        assert!(matches!(
            cache.get(&key(1), 11 * S),
            Cached::Stale { recheck: false, .. }
        ));
        assert!(matches!(
            cache.get(&key(1), 40 * S),
            Cached::Stale { recheck: true, .. }
        ));
    }

    #[test]
    fn a_failure_is_kept_briefly_and_never_served_stale() {
        let mut cache = Cache::default();
        let failure = UpstreamAnswer::failure(ExtendedError::stale(ResponseCode::NoError));
        cache.put_failure(&key(1), failure.clone(), Mono::ZERO);
        assert_eq!(cache.get(&key(1), S), Cached::Fresh(failure.clone()));
        assert_eq!(cache.get(&key(1), 2 * S), Cached::Nothing);
        cache.put_failure(&key(1), failure, Mono::ZERO);
        cache.put(&key(2), heard(9), Mono::ZERO);
        cache.clear_failures();
        assert_eq!(cache.get(&key(1), S), Cached::Nothing);
        assert!(matches!(cache.get(&key(2), S), Cached::Fresh(_)));
    }

    #[test]
    fn a_negative_answer_is_kept_as_its_soa_says_and_not_at_all_without_one() {
        let mut cache = Cache::default();
        let none = UpstreamAnswer {
            rcode: ResponseCode::NXDomain,
            answers: Vec::new(),
            ..heard(0)
        };
        cache.put(&key(1), none.clone(), Mono::ZERO);
        assert_eq!(cache.get(&key(1), Mono::ZERO), Cached::Nothing);
        let soa = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, 20);
        let authorities = vec![Record::from_rdata(Name::root(), 90, RData::SOA(soa))];
        cache.put(
            &key(1),
            UpstreamAnswer {
                authorities,
                ..none
            },
            Mono::ZERO,
        );
        assert!(matches!(cache.get(&key(1), 19 * S), Cached::Fresh(_)));
        assert!(matches!(cache.get(&key(1), 20 * S), Cached::Stale { .. }));
    }

    #[test]
    fn an_answer_with_ttl_zero_is_not_kept() {
        let mut cache = Cache::default();
        cache.put(&key(1), heard(0), Mono::ZERO);
        assert_eq!(cache.get(&key(1), Mono::ZERO), Cached::Nothing);
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::default();
        for n in 0..=limits::DNS_CACHE_ENTRIES {
            assert!(n == 0 || matches!(cache.get(&key(0), S), Cached::Fresh(_)));
            cache.put(&key(n), heard(100), S);
        }
        assert!(cache.entries.len() <= limits::DNS_CACHE_ENTRIES);
        assert!(cache.bytes <= limits::DNS_CACHE_BYTES);
        assert!(matches!(cache.get(&key(0), S), Cached::Fresh(_)));
        assert_eq!(cache.get(&key(1), S), Cached::Nothing);
        let big = UpstreamAnswer {
            answers: vec![heard(9).answers[0].clone(); 3000],
            ..heard(9)
        };
        for n in 0..100 {
            cache.put(&key(n), big.clone(), S);
        }
        assert!(cache.bytes <= limits::DNS_CACHE_BYTES);
        cache.clear();
        assert_eq!((cache.entries.len(), cache.bytes), (0, 0));
    }
}
