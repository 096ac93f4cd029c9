//! Names that aren't the mesh's: forwarded to the host's own name servers, or to
//! those that a rule names for them, each question once however many ask it,
//! kept, and served beyond the TTL while nobody answers (RFC 8767).

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use hickory_server::proto::op::{Message, ResponseCode};
use innermesh_proto::{crypto::Hash, limits, zone::DomainName};
use ipnet::IpNet;
use tokio::sync::watch;

use super::{
    cache::{Cache, Cached, EncodedAnswer, Key, UpstreamAnswer},
    name_server::NameServer,
    places::{Places, Taking},
    private,
    prompt::Template,
    reply::ExtendedError,
    upstream::{Question, Surroundings, Upstream, UpstreamError, UpstreamTrust},
};
use innermesh_control::dns::Origin;
use innermesh_host::{Clock, tasks::Tasks};

/// How long a client waits for upstream while there is a stale answer
/// (RFC 8767 §5).
const CLIENT_PATIENCE: Duration = Duration::from_millis(1800);
/// How long a question waits for a place among those that are asked.
const PLACE_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(super) struct Forwarder(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    routes: ArcSwap<Routes>,
    /// Who vouches for servers that are asked in encrypted form.
    trust: OnceLock<UpstreamTrust>,
    /// Addresses that no answer from outside may have.
    overlay: Vec<IpNet>,
    cache: Mutex<Cache>,
    /// What is being asked right now.
    asking: Mutex<BTreeMap<Key, watch::Receiver<Option<UpstreamAnswer>>>>,
    /// For those, each of the client that began it.
    places: Places,
}

/// Whom to ask.
#[derive(Default)]
struct Routes {
    /// For all other names.
    usual: Arc<Upstream>,
    /// For the names of a zone.
    zones: BTreeMap<DomainName, Arc<Upstream>>,
}

impl Routes {
    /// The zone that is nearest above a name decides.
    fn of(&self, name: &DomainName) -> &Arc<Upstream> {
        self.zone_of(name)
            .and_then(|zone| self.zones.get(zone))
            .unwrap_or(&self.usual)
    }

    fn zone_of(&self, name: &DomainName) -> Option<&DomainName> {
        let above = self.zones.keys().filter(|zone| name.is_within(zone));
        above.max_by_key(|zone| zone.labels().count())
    }
}

impl Forwarder {
    /// Forwards to nobody yet.
    pub fn new(clock: Arc<dyn Clock>, tasks: Tasks, overlay: Vec<IpNet>) -> Self {
        Self(Arc::new(Inner {
            clock,
            tasks,
            routes: ArcSwap::default(),
            trust: OnceLock::new(),
            overlay,
            cache: Mutex::default(),
            asking: Mutex::default(),
            places: Places::new(limits::DNS_FORWARDS, limits::DNS_FORWARDS_PER_ADDRESS),
        }))
    }

    /// Forwards to these from now on, and names of a zone to the servers of that.
    /// Other servers may be another network with other names, so what the old ones
    /// said is forgotten; but with no server at all, what they said last is better
    /// than nothing.
    pub fn set_servers(
        &self,
        servers: Vec<NameServer>,
        zones: BTreeMap<DomainName, Vec<NameServer>>,
    ) {
        let before = self.0.routes.load_full();
        let same = |then: &Arc<Upstream>, mut now: Vec<NameServer>| {
            now.truncate(limits::DNS_UPSTREAMS);
            if then.servers().eq(&now) {
                then.clone()
            } else {
                Arc::new(self.upstream(now))
            }
        };
        let routes = Routes {
            usual: same(&before.usual, servers),
            zones: zones
                .into_iter()
                .map(|(zone, servers)| {
                    let then = before.zones.get(&zone).cloned().unwrap_or_default();
                    (zone, same(&then, servers))
                })
                .collect(),
        };
        let is_same = Arc::ptr_eq(&routes.usual, &before.usual)
            && routes.zones.len() == before.zones.len()
            && routes.zones.iter().all(|(zone, servers)| {
                let then = before.zones.get(zone);
                then.is_some_and(|then| Arc::ptr_eq(then, servers))
            });
        if is_same {
            return;
        }
        let has_none = |upstream: &Upstream| upstream.servers().next().is_none();
        let lost = has_none(&routes.usual) || has_none(&before.usual);
        let rules = routes.zones.keys().eq(before.zones.keys());
        self.0.routes.store(Arc::new(routes));
        let mut cache = lock(&self.0.cache);
        if lost && rules {
            cache.clear_failures()
        } else {
            cache.clear()
        }
    }

    pub fn servers(&self) -> Vec<NameServer> {
        self.0.routes.load().usual.servers().cloned().collect()
    }

    /// Servers that know the same.
    pub fn upstream(&self, servers: Vec<NameServer>) -> Upstream {
        let around = Surroundings {
            clock: self.0.clock.clone(),
            tasks: self.0.tasks.clone(),
            trust: self.0.trust.get().cloned().unwrap_or_else(nobody),
        };
        Upstream::new(servers, &around)
    }

    /// Believes these about servers that are set from now on; only the first call
    /// counts.
    pub fn trust(&self, trust: UpstreamTrust) {
        let _ = self.0.trust.set(trust);
    }

    /// Who is asked for a name, and the zone of the rule that says so.
    pub fn route(&self, name: &DomainName) -> (Option<DomainName>, Vec<NameServer>) {
        let routes = self.0.routes.load();
        let servers = routes.of(name).servers().cloned().collect();
        (routes.zone_of(name).cloned(), servers)
    }

    /// Whether a rule says who is asked for a name.
    pub fn has_rule(&self, name: &DomainName) -> bool {
        self.0.routes.load().zone_of(name).is_some()
    }

    /// The answer to a question of the client at `source`, and where it came from.
    pub async fn forward(
        &self,
        source: IpAddr,
        key: Key,
        question: Question,
    ) -> (UpstreamAnswer, Origin) {
        let inner = &self.0;
        let cached = lock(&inner.cache).get(&key, inner.clock.now());
        match cached {
            Cached::Fresh(heard) => (heard, Origin::Cache),
            Cached::Stale {
                heard,
                recheck: false,
            } => (heard, Origin::Stale),
            Cached::Stale {
                heard: stale,
                recheck: true,
            } => tokio::select! {
                fresh = self.ask(source, key, question) => match fresh.rcode {
                    ResponseCode::ServFail => (stale, Origin::Stale),
                    _ => (fresh, Origin::Upstream),
                },
                () = inner.clock.sleep(CLIENT_PATIENCE) => (stale, Origin::Stale),
            },
            Cached::Nothing => (self.ask(source, key, question).await, Origin::Upstream),
        }
    }

    /// What `read` makes of an answer that is fresh and encoded for these origins,
    /// and of its age in seconds.
    pub fn encoded<T>(
        &self,
        key: &[u8],
        origins: &Hash,
        read: impl FnOnce(&Template, u32) -> T,
    ) -> Option<T> {
        let now = self.0.clock.now();
        let mut cache = lock(&self.0.cache);
        let (encoded, age_s) = cache.encoded(key, now)?;
        (encoded.origins == *origins).then(|| read(&encoded.template, age_s))
    }

    /// A fresh answer as it came, and its age in seconds.
    pub fn fresh(&self, key: &[u8]) -> Option<(Arc<UpstreamAnswer>, u32)> {
        lock(&self.0.cache).fresh(key, self.0.clock.now())
    }

    /// Keeps how an answer is encoded.
    pub fn keep_encoded(&self, key: &[u8], heard: &Arc<UpstreamAnswer>, encoded: EncodedAnswer) {
        lock(&self.0.cache).keep_encoded(key, heard, encoded);
    }

    /// Joins the asking of this question, or starts it.
    async fn ask(&self, source: IpAddr, key: Key, question: Question) -> UpstreamAnswer {
        let lost = || {
            UpstreamAnswer::failure(ExtendedError::upstream_failed(
                "forwarding failed; ask again",
            ))
        };
        let joined = lock(&self.0.asking).get(&key).cloned();
        let mut answer = match joined {
            Some(answer) => answer,
            None => tokio::select! {
                place = self.0.places.wait(source) => self.begin(key, question, place),
                () = self.0.clock.sleep(PLACE_PATIENCE) => {
                    return UpstreamAnswer::failure(ExtendedError::busy());
                }
            },
        };
        match answer.wait_for(Option::is_some).await {
            Ok(heard) => heard.clone().unwrap_or_else(lost),
            Err(_) => lost(),
        }
    }

    /// Starts the asking of this question, if nobody did meanwhile.
    fn begin(
        &self,
        key: Key,
        question: Question,
        place: Taking,
    ) -> watch::Receiver<Option<UpstreamAnswer>> {
        let mut asking = lock(&self.0.asking);
        if let Some(answer) = asking.get(&key) {
            return answer.clone();
        }
        let (tell, answer) = watch::channel(None);
        asking.insert(key.clone(), answer.clone());
        // A task of its own, so that a client that goes away doesn't take the
        // answer from the others.
        let done = Asking {
            inner: self.0.clone(),
            key,
        };
        self.0.tasks.spawn(async move {
            let heard = done.inner.ask_upstream(&done.key, &question).await;
            drop(done);
            tell.send_replace(Some(heard));
            drop(place);
        });
        answer
    }
}

impl Inner {
    async fn ask_upstream(&self, key: &Key, question: &Question) -> UpstreamAnswer {
        let upstream = self.routes.load().of(&key.name).clone();
        let is_current = || Arc::ptr_eq(&upstream, self.routes.load().of(&key.name));
        match upstream.ask(&*self.clock, question).await {
            Ok(message) => {
                let heard = self.hear(message);
                // An answer from servers that were replaced meanwhile isn't kept.
                if is_current() {
                    lock(&self.cache).put(key, heard.clone(), self.clock.now());
                }
                heard
            }
            Err(error) => {
                let failure = UpstreamAnswer::failure(match &error {
                    UpstreamError::NoServer => ExtendedError::no_upstream(),
                    other => ExtendedError::upstream_failed(&other.to_string()),
                });
                if is_current() {
                    lock(&self.cache).put_failure(key, failure.clone(), self.clock.now());
                }
                failure
            }
        }
    }

    /// An upstream message without what it may not say.
    fn hear(&self, message: Message) -> UpstreamAnswer {
        let received = message.answers.len();
        let mut heard = UpstreamAnswer {
            rcode: message.metadata.response_code,
            authentic: message.metadata.authentic_data,
            answers: message.answers,
            authorities: message.authorities,
            error: None,
        };
        let overlay = |address: IpAddr| self.overlay.iter().any(|net| net.contains(&address));
        heard
            .answers
            .retain(|record| !private::leads(record, &overlay));
        heard
            .authorities
            .retain(|record| !private::leads(record, &overlay));
        if heard.answers.len() < received {
            heard.authentic = false;
            heard.error = Some(ExtendedError::rebinding());
        }
        heard
    }
}

/// Nobody vouches for anything.
fn nobody() -> UpstreamTrust {
    UpstreamTrust {
        roots: Arc::new(Vec::new),
        wall_ms: Arc::new(|| 0),
    }
}

/// Takes a question off the list of those being asked, come what may.
struct Asking {
    inner: Arc<Inner>,
    key: Key,
}

impl Drop for Asking {
    fn drop(&mut self) {
        lock(&self.inner.asking).remove(&self.key);
    }
}

/// No lock here is held across anything that can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use innermesh_host::Mono;

    use super::*;

    struct NoClock;

    #[async_trait::async_trait]
    impl Clock for NoClock {
        fn now(&self) -> Mono {
            Duration::ZERO
        }
        fn wall_ms(&self) -> u64 {
            0
        }
        async fn sleep(&self, _: Duration) {}
    }

    #[test]
    fn the_nearest_zone_above_a_name_says_whom_to_ask() {
        let around = Surroundings {
            clock: Arc::new(NoClock),
            tasks: Tasks::default(),
            trust: nobody(),
        };
        let server = |last: u8| NameServer::from(SocketAddr::from(([192, 0, 2, last], 53)));
        let servers = |last: u8| Arc::new(Upstream::new(vec![server(last)], &around));
        let zone = |zone: &str, last| (zone.parse().unwrap(), servers(last));
        let routes = Routes {
            usual: servers(1),
            zones: [
                zone("corp.example", 2),
                zone("lab.corp.example", 3),
                zone("10.in-addr.arpa", 4),
                zone("8.b.d.0.1.0.0.2.ip6.arpa", 5),
            ]
            .into(),
        };
        for (name, last) in [
            ("corp.example", 2),
            ("a.b.corp.example", 2),
            ("CORP.Example", 2),
            ("lab.corp.example", 3),
            ("x.lab.corp.example", 3),
            ("notcorp.example", 1),
            ("example", 1),
            (".", 1),
            ("9.1.1.10.in-addr.arpa", 4),
            ("9.1.1.11.in-addr.arpa", 1),
            ("1.8.b.d.0.1.0.0.2.ip6.arpa", 5),
        ] {
            let found = routes.of(&name.parse().unwrap());
            assert!(found.servers().eq([&server(last)]), "{name}");
        }
    }
}
