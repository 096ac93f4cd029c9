//! The DNS service: what it answers from, and how that is set.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::Deref,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use hickory_server::server::Request;
use innermesh_host::{Clock, keys::Keys, tasks::Tasks};
use innermesh_proto::{
    id::resolver_v4,
    zone::{DomainName, RecordType, Zone},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    cookies::{self, WholeCookie},
    fall_through::FallThrough,
    forward::Forwarder,
    name_server::NameServer,
    public::{CookieSeen, Cookies},
    query_log::QueryLogger,
    scope::AnswerScope,
    source::Source,
    transfer::Transfers,
    upstream::UpstreamTrust,
    view::{LazyView, Served, View, Viewed, lazy},
};

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
    cookies: OnceLock<Cookies>,
    log: QueryLogger,
}

/// Whether names may be in force that aren't known here.
type Behind = Box<dyn Fn() -> bool + Send + Sync>;

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

    /// Answers cookies from now on; only the first call counts.
    pub fn answers_cookies(&self, keys: &dyn Keys) {
        let _ = self.cookies.set(Cookies::new(keys));
    }

    /// What goes back for the option that came; none where cookies aren't answered.
    pub(super) fn cookie_for(&self, cookie: &[u8], source: IpAddr) -> Option<WholeCookie> {
        let cookies = self.cookies.get()?;
        match cookies.look(cookie, source.to_canonical(), self.clock().wall_ms()) {
            CookieSeen::None => None,
            CookieSeen::Client(whole) | CookieSeen::Valid(whole) => Some(whole),
        }
    }

    /// As [`Dns::cookie_for`], of a whole request.
    pub(super) fn cookie_of(&self, request: &Request) -> Option<WholeCookie> {
        self.cookie_for(cookies::of(request)?, request.src().ip())
    }

    /// Whether a rule lists a name for the public DNS: what is said depends on more than
    /// the zone.
    pub(super) fn lists(&self, name: &DomainName, rtype: RecordType) -> bool {
        self.fall_through
            .get()
            .is_some_and(|rules| rules.lists(name, rtype))
    }

    pub(super) fn fall_through(&self) -> Option<&FallThrough> {
        self.fall_through.get()
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

    pub(super) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}
