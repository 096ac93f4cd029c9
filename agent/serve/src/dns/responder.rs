//! From a request to its reply: who asks, whose name it is, and what is said.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::Deref,
    sync::{
        Arc, LazyLock, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};
use hickory_server::{
    proto::{
        op::{OpCode, Query, ResponseCode},
        rr::{DNSClass, Record},
    },
    server::Request,
};
use innermesh_proto::{
    crypto::Hash,
    id::resolver_v4,
    zone::{self, DomainName, RecordType, Zone},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    alias::leads_inside,
    cache::{Key, UpstreamAnswer},
    convert, cookies,
    fall_through::FallThrough,
    forward::Forwarder,
    name_server::NameServer,
    prompt::{Answers, turning},
    public::Cookies,
    query_log::QueryLogger,
    reply::Reply,
    scope::AnswerScope,
    source::{Source, SourcePolicy},
    special::{Special, special},
    transfer::Transfers,
    upstream::{Question, UpstreamTrust},
    zone_answer::{ZoneAnswer, zone_answer},
};
use innermesh_control::dns::Origin;
use innermesh_host::{Clock, tasks::Tasks};

/// Types that are transactions or metadata and no data (RFC 6895 §3.1).
const META_TYPES: std::ops::RangeInclusive<u16> = 128..=254;
const OPT: u16 = 41;

/// The DNS service: what it says follows from the newest published view.
pub struct Dns {
    view: ArcSwap<LazyView>,
    forwarder: Forwarder,
    route: Mutex<Route>,
    resolver: [IpAddr; 2],
    clock: Arc<dyn Clock>,
    pub(super) turn: AtomicUsize,
    behind: OnceLock<Behind>,
    scope: OnceLock<AnswerScope>,
    transfers: Arc<Transfers>,
    fall_through: OnceLock<FallThrough>,
    pub(super) cookies: OnceLock<Cookies>,
    log: QueryLogger,
}

/// Whether names may be in force that aren't known here.
type Behind = Box<dyn Fn() -> bool + Send + Sync>;

/// What is answered, and to whom. Made when the first question needs it: views
/// change more often than anybody asks, and a large mesh's zone takes
/// milliseconds.
type LazyView = LazyLock<View, Box<dyn FnOnce() -> View + Send>>;

/// What one view says, and how that is encoded.
pub(super) struct View {
    sources: Arc<dyn SourcePolicy>,
    internal: ZoneView,
    lan: Option<ZoneView>,
}

/// A zone as some clients see it.
pub(super) struct ZoneView {
    pub zone: Arc<Zone>,
    pub answers: Answers,
    /// Hash of the origins: what is below none of them is upstream's to answer.
    pub origins: Hash,
}

impl View {
    /// The zone as `source` may see it.
    pub fn of(&self, source: IpAddr) -> Option<&ZoneView> {
        match self.sources.class(source.to_canonical()) {
            Source::Internal => Some(&self.internal),
            Source::Lan => self.lan.as_ref(),
            Source::Stranger => None,
        }
    }
}

impl From<Served> for View {
    fn from(served: Served) -> Self {
        Self {
            sources: served.sources,
            internal: served.zone.into(),
            lan: served.lan.map(ZoneView::from),
        }
    }
}

impl From<Arc<Zone>> for ZoneView {
    fn from(zone: Arc<Zone>) -> Self {
        let mut origins = Vec::new();
        for origin in zone.origins() {
            origins.extend(Vec::from(origin.clone()));
            origins.push(0);
        }
        Self {
            zone,
            answers: Answers::default(),
            origins: Hash::of(&origins),
        }
    }
}

/// What one view says.
pub struct Served {
    pub zone: Arc<Zone>,
    /// The same as a LAN sees it; none where no LAN may ask.
    pub lan: Option<Arc<Zone>>,
    pub sources: Arc<dyn SourcePolicy>,
}

/// What decides who is asked for other names.
#[derive(Default)]
struct Route {
    /// The servers as given.
    servers: Vec<NameServer>,
    /// Those for the names of a zone, as given.
    zones: BTreeMap<DomainName, Vec<NameServer>>,
    own: Vec<IpAddr>,
    /// Where this service listens.
    listening: Vec<SocketAddr>,
    /// Where it does so in encrypted form.
    encrypted: Vec<SocketAddr>,
}

impl Route {
    fn leads_here(&self, server: &SocketAddr) -> bool {
        let ip = server.ip().to_canonical();
        let this_host = ip.is_loopback() || self.own.contains(&ip);
        let mut all = self.listening.iter().chain(&self.encrypted);
        all.any(|our| {
            let reached = our.ip() == ip || (our.ip().is_unspecified() && this_host);
            reached && our.port() == server.port()
        })
    }
}

impl Dns {
    /// A service that knows nothing yet: until [`Dns::publish`] every question
    /// is refused. Questions are forwarded in `tasks`.
    pub fn new(
        clock: Arc<dyn Clock>,
        tasks: Tasks,
        zone: impl FnOnce() -> Zone + Send + 'static,
        ipv4: Ipv4Net,
        ula: Ipv6Net,
    ) -> Self {
        let nobody = |_: IpAddr| Source::Stranger;
        let served = move || Served {
            zone: Arc::new(zone()),
            lan: None,
            sources: Arc::new(nobody),
        };
        let resolver_v6 = u128::from(ula.network()) | 0x53;
        Self {
            view: ArcSwap::from_pointee(lazy(served)),
            log: QueryLogger::new(clock.clone(), tasks.clone()),
            forwarder: Forwarder::new(clock.clone(), tasks, vec![IpNet::V4(ipv4), IpNet::V6(ula)]),
            route: Mutex::default(),
            resolver: [resolver_v4(ipv4).into(), IpAddr::V6(resolver_v6.into())],
            transfers: Transfers::new(clock.clone()),
            clock,
            turn: AtomicUsize::new(0),
            behind: OnceLock::new(),
            scope: OnceLock::new(),
            fall_through: OnceLock::new(),
            cookies: OnceLock::new(),
        }
    }

    /// Answers these names and refuses the others; only the first call counts.
    pub fn answers(&self, scope: AnswerScope) {
        let _ = self.scope.set(scope);
    }

    /// Asks the public DNS for names that the zone lacks and these rules list; only the
    /// first call counts.
    pub fn falls_through(&self, rules: FallThrough) {
        let _ = self.fall_through.set(rules);
    }

    /// Has names that the zone lacks answered with SERVFAIL while `behind` says
    /// so. It is asked at each such question; only the first call counts.
    pub fn unsure_while(&self, behind: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.behind.set(Box::new(behind));
    }

    /// Answers from this view from now on; it is made when it is needed.
    pub fn publish(&self, view: impl FnOnce() -> Served + Send + 'static) {
        self.view.store(Arc::new(lazy(view)));
    }

    /// The zone that is being served.
    pub fn zone(&self) -> Arc<Zone> {
        self.view.load().internal.zone.clone()
    }

    /// What is asked, for who follows it.
    pub fn log(&self) -> &QueryLogger {
        &self.log
    }

    /// Who may copy the zone, and the copies.
    pub fn transfers(&self) -> &Arc<Transfers> {
        &self.transfers
    }

    /// What is being served now.
    pub(super) fn view(&self) -> impl Deref<Target = View> {
        Viewed(self.view.load())
    }

    /// Whether a source is this host, a member or counts as such.
    pub fn is_internal(&self, source: IpAddr) -> bool {
        self.class(source) == Source::Internal
    }

    /// Forwards other names to these servers from now on, but never to this
    /// service itself. `own` are the host's addresses: a service that listens
    /// on all of them is reached by each.
    pub fn set_upstreams<'s, S>(&self, servers: &'s [S], own: &[IpAddr])
    where
        NameServer: From<&'s S>,
    {
        self.change_route(|route| {
            route.servers = servers.iter().map(NameServer::from).collect();
            route.own = own.to_vec();
        });
    }

    /// Forwards the names of these zones to servers of their own from now on, of
    /// nested ones by the nearest above a name. With none left that isn't this
    /// service itself, they fail: others don't know them.
    pub fn set_forwards(&self, zones: BTreeMap<DomainName, Vec<NameServer>>) {
        self.change_route(|route| route.zones = zones);
    }

    /// Who vouches for servers that are asked in encrypted form. To be called before
    /// there are any; only the first call counts.
    pub fn trusts(&self, trust: UpstreamTrust) {
        self.forwarder.trust(trust);
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Who is asked for other names.
    pub fn upstreams(&self) -> Vec<NameServer> {
        self.forwarder.servers()
    }

    /// Where this service listens now.
    pub fn listening(&self) -> Vec<SocketAddr> {
        let route = self.route.lock().unwrap_or_else(PoisonError::into_inner);
        route.listening.clone()
    }

    /// Tells at which addresses this service listens.
    pub(super) fn listens(&self, addresses: &[SocketAddr]) {
        self.change_route(|route| route.listening.extend_from_slice(addresses));
    }

    /// Tells that it no longer listens there.
    pub(super) fn listens_no_more(&self, addresses: &[SocketAddr]) {
        self.change_route(|route| route.listening.retain(|our| !addresses.contains(our)));
    }

    /// Tells that it listens there in encrypted form.
    pub(super) fn listens_encrypted(&self, address: SocketAddr) {
        self.change_route(|route| route.encrypted.push(address));
    }

    /// Tells that it no longer does.
    pub(super) fn listens_encrypted_no_more(&self, address: SocketAddr) {
        self.change_route(|route| route.encrypted.retain(|our| *our != address));
    }

    /// What an address is to this service.
    pub(super) fn class(&self, source: IpAddr) -> Source {
        self.view.load().sources.class(source)
    }

    fn change_route(&self, change: impl FnOnce(&mut Route)) {
        let mut route = self.route.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut route);
        let others = |servers: &[NameServer]| {
            let others = servers.iter().filter(|server| {
                let address = server.address;
                !self.resolver.contains(&address.ip().to_canonical()) && !route.leads_here(&address)
            });
            others.cloned().collect()
        };
        let zones = route.zones.iter();
        let zones = zones.map(|(zone, servers)| (zone.clone(), others(servers)));
        self.forwarder
            .set_servers(others(&route.servers), zones.collect());
    }

    /// The reply to a request.
    pub(super) async fn respond(&self, request: &Request) -> Reply {
        let began = self.log.is_on().then(|| self.clock.now());
        let mut reply = self.reply(request).await;
        if self.view().of(request.src().ip()).is_some() {
            reply.cookie = self.cookie_of(request);
        }
        if let Some(began) = began {
            let elapsed = self.clock.now().saturating_sub(began);
            self.log_reply(request, &reply, elapsed);
        }
        reply
    }

    async fn reply(&self, request: &Request) -> Reply {
        let view = self.view.load_full();
        let source = request.src().ip().to_canonical();
        let Some(ZoneView { zone, .. }) = view.of(source) else {
            return refusal();
        };
        if request.metadata.op_code != OpCode::Query {
            return Reply::empty(ResponseCode::NotImp);
        }
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Reply::empty(ResponseCode::BADVERS);
        }
        if cookies::is_malformed(request) {
            return Reply::empty(ResponseCode::FormErr);
        }
        let [question] = request.queries.queries() else {
            return Reply::empty(ResponseCode::FormErr);
        };
        let query = question.original();
        let rtype = RecordType(query.query_type().into());
        let Some(name) = convert::domain_name(query.name()) else {
            return Reply::empty(ResponseCode::FormErr);
        };
        if query.query_class() != DNSClass::IN || is_refused_type(rtype) {
            return Reply::empty(ResponseCode::Refused);
        }
        tracing::debug!(client = %source, %name, %rtype, "a question");
        match self.zone_reply(zone, &name, query, rtype) {
            None if self.scope() == AnswerScope::Mesh => refusal(),
            None => {
                let reply = self.other_reply(request, name.clone(), query, rtype).await;
                self.continue_inside(request, zone, reply, name, rtype)
                    .await
            }
            Some(ZoneAnswer { reply, .. }) if self.leaves(request, (&name, rtype), &reply) => {
                let reply = self.forwarded(request, name.clone(), query, rtype).await;
                self.continue_inside(request, zone, reply, name, rtype)
                    .await
            }
            Some(ZoneAnswer {
                reply,
                outside: Some(target),
            }) if request.metadata.recursion_desired => {
                self.follow(request, zone, reply, target, rtype).await
            }
            Some(ZoneAnswer { reply, .. }) => reply,
        }
    }

    /// Whether a name of the mesh's domain is left to the public DNS.
    fn leaves(
        &self,
        request: &Request,
        (name, rtype): (&DomainName, RecordType),
        reply: &Reply,
    ) -> bool {
        request.metadata.recursion_desired
            && self.lists(name, rtype)
            && self
                .fall_through
                .get()
                .is_some_and(|rules| rules.leaves(name, reply))
    }

    /// Whether a rule lists a name for the public DNS: what is said depends on more than
    /// the zone.
    pub(super) fn lists(&self, name: &DomainName, rtype: RecordType) -> bool {
        self.fall_through
            .get()
            .is_some_and(|rules| rules.lists(name, rtype))
    }

    /// What the zone says; `None` for a name that isn't the mesh's.
    pub(super) fn zone_reply(
        &self,
        zone: &Zone,
        name: &DomainName,
        query: &Query,
        rtype: RecordType,
    ) -> Option<ZoneAnswer> {
        let mut answer = zone_answer(zone, name, query, rtype, || self.is_behind())?;
        self.rotate(&mut answer.reply.answers, rtype);
        Some(answer)
    }

    /// What is said to a name that isn't the mesh's.
    pub(super) async fn other_reply(
        &self,
        request: &Request,
        name: DomainName,
        query: &Query,
        rtype: RecordType,
    ) -> Reply {
        let special = special(&name, rtype).filter(|rule| {
            // The names of a Windows domain may end in .local.
            !matches!(rule, Special::NxDomain(_)) || !self.forwarder.has_rule(&name)
        });
        match special {
            Some(Special::Record(data)) => {
                let mut reply = Reply::empty(ResponseCode::NoError);
                let record = Record::from_rdata(query.name().clone(), 3600, convert::rdata(&data));
                reply.answers = vec![record];
                return reply;
            }
            Some(Special::NoData(soa)) => return negative(ResponseCode::NoError, &soa),
            Some(Special::NxDomain(soa)) => return negative(ResponseCode::NXDomain, &soa),
            None => {}
        }
        // Nobody here is an authority for it, and recursion isn't wanted.
        if !request.metadata.recursion_desired {
            return Reply::empty(ResponseCode::Refused);
        }
        if rtype == RecordType::ANY {
            let mut reply = Reply::empty(ResponseCode::NoError);
            let minimal = convert::rdata(&innermesh_proto::zone::Rdata::Hinfo);
            reply.answers = vec![Record::from_rdata(query.name().clone(), 3600, minimal)];
            return reply;
        }
        self.forwarded(request, name, query, rtype).await
    }

    /// What upstream says of a name.
    async fn forwarded(
        &self,
        request: &Request,
        name: DomainName,
        query: &Query,
        rtype: RecordType,
    ) -> Reply {
        let dnssec_ok = request
            .edns
            .as_ref()
            .is_some_and(|edns| edns.flags().dnssec_ok);
        let checking_disabled = request.metadata.checking_disabled;
        let key = Key {
            name,
            rtype,
            dnssec_ok,
            checking_disabled,
        };
        let question = Question {
            query: query.clone(),
            dnssec_ok,
            checking_disabled,
        };
        let source = request.src().ip().to_canonical();
        let (heard, origin) = self.forwarder.forward(source, key, question).await;
        let is_authentic_asked = dnssec_ok || request.metadata.authentic_data;
        let mut reply = from_upstream(heard, origin);
        // Who didn't ask for it isn't told (RFC 6840 §5.8).
        reply.authentic &= is_authentic_asked;
        reply
    }

    /// What is said to a name that isn't the mesh's where all of it came from
    /// upstream; `None` where that failed, or leads to a name of the mesh.
    pub(super) fn whole_from_upstream(
        zone: &Zone,
        name: &DomainName,
        rtype: RecordType,
        heard: UpstreamAnswer,
    ) -> Option<Reply> {
        let reply = from_upstream(heard, Origin::Cache);
        let is_whole = reply.error.is_none()
            && (rtype == RecordType::CNAME || !leads_inside(&reply.answers, name, zone));
        is_whole.then_some(reply)
    }

    pub(super) fn is_behind(&self) -> bool {
        self.behind.get().is_some_and(|behind| behind())
    }

    pub(super) fn scope(&self) -> AnswerScope {
        self.scope.get().copied().unwrap_or_default()
    }

    pub(super) fn forwarder(&self) -> &Forwarder {
        &self.forwarder
    }

    /// Puts another record first each time: clients that take the first one
    /// then share the instances of a service. Aliases stay in front.
    fn rotate(&self, answers: &mut [Record], rtype: RecordType) {
        let records = turning(answers, rtype.0);
        if let turns @ 2.. = records.len() {
            records.rotate_left(self.next_turn() % turns);
        }
    }

    pub(super) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

/// A view that is made when it is needed.
fn lazy(view: impl FnOnce() -> Served + Send + 'static) -> LazyView {
    LazyView::new(Box::new(|| view().into()))
}

struct Viewed(Guard<Arc<LazyView>>);

impl Deref for Viewed {
    type Target = View;

    fn deref(&self) -> &View {
        &self.0
    }
}

/// Whether a type is one that nobody has data of.
pub(super) fn is_refused_type(rtype: RecordType) -> bool {
    META_TYPES.contains(&rtype.0) || rtype.0 == OPT
}

fn from_upstream(heard: UpstreamAnswer, origin: Origin) -> Reply {
    let mut reply = Reply::empty(heard.rcode);
    reply.authentic = heard.authentic;
    reply.answers = heard.answers;
    reply.authorities = heard.authorities;
    reply.error = heard.error;
    reply.origin = origin;
    reply
}

/// What is said to whom nothing is answered.
pub(super) fn refusal() -> Reply {
    let mut refused = Reply::empty(ResponseCode::Refused);
    refused.recursion_available = false;
    refused
}

fn negative(rcode: ResponseCode, soa: &zone::Record) -> Reply {
    let mut reply = Reply::empty(rcode);
    reply.authorities = vec![convert::record(soa)];
    reply
}
