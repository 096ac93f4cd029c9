//! The registry on a host of its own making: a disk in memory, a clock that
//! moves only when everything waits, and a network whose answers are set.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_proto::{limits, name::Label, zone::Protocol};
use ipnet::IpNet;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{Origin, Registry, ServiceError, Spec};
use innermesh_control::finding::Finding;
use innermesh_host::{
    AppendFile, Clock, Disk, Host, Mono, Network, ReadFile, Stream, Tunnels,
    keys::SystemKeys,
    tunnel::{Tunnel, TunnelError, TunnelSettings},
};

#[tokio::test(start_paused = true)]
async fn a_service_without_a_check_is_announced_healthy_at_once() {
    let world = World::new();
    let registry = world.registry().await;
    registry.add(spec("dns", 53).udp()).await.unwrap();
    let instance = &registry.instances()[&label("dns")];
    assert!(instance.healthy);
    assert_eq!((instance.port, instance.protocol), (53, Protocol::Udp));
    assert_eq!(world.probes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_with_a_check_is_announced_unhealthy_until_its_first_check_which_runs_at_once() {
    let world = World::new();
    let running = world.running().await;
    world.answer("127.0.0.1:80", Answer::Open);
    running
        .registry
        .add(spec("web", 80).check("tcp"))
        .await
        .unwrap();
    assert!(!running.healthy("web"));
    let began = Instant::now();
    running.until("web", true).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn it_takes_two_failures_to_become_unhealthy_and_one_success_to_return() {
    let world = World::new();
    let running = world.running().await;
    world.answer("127.0.0.1:80", Answer::Open);
    running
        .registry
        .add(spec("web", 80).check("tcp"))
        .await
        .unwrap();
    running.until("web", true).await;

    let (began, before) = (Instant::now(), world.probes());
    world.answer("127.0.0.1:80", Answer::Closed);
    running.until("web", false).await;
    assert_eq!(world.probes() - before, 2);
    assert!(
        began.elapsed() > Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    assert!(
        began.elapsed() < Duration::from_secs(12),
        "{:?}",
        began.elapsed()
    );
    let status = running.registry.list().remove(0);
    assert_eq!(
        status.last_error.unwrap(),
        "127.0.0.1:80: connection refused"
    );

    world.answer("127.0.0.1:80", Answer::Open);
    running.until("web", true).await;
    assert_eq!(world.probes() - before, 3);
    assert_eq!(running.registry.list().remove(0).last_error, None);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_fails_after_three_seconds() {
    let world = World::new();
    let running = world.running().await;
    world.answer("127.0.0.1:80", Answer::Hangs);
    running
        .registry
        .add(spec("web", 80).check("tcp"))
        .await
        .unwrap();
    let began = Instant::now();
    let error = running.error("web").await;
    assert_eq!(began.elapsed().as_secs(), 3);
    assert_eq!(error, "no answer within 3 s");
}

#[tokio::test(start_paused = true)]
async fn an_http_check_is_passed_by_2xx_and_3xx_only() {
    let world = World::new();
    let running = world.running().await;
    for (name, port, status) in [
        ("a", 1, 204),
        ("b", 2, 302),
        ("c", 3, 404),
        ("d", 4, 500),
        ("e", 5, 101),
    ] {
        world.answer(&format!("127.0.0.1:{port}"), Answer::Http(status));
        let check = format!("http://localhost:{port}/health");
        running
            .registry
            .add(spec(name, 443).check(&check))
            .await
            .unwrap();
    }
    running.until("a", true).await;
    running.until("b", true).await;
    for name in ["c", "d", "e"] {
        let error = running.error(name).await;
        assert!(error.contains("HTTP status"), "{error}");
        assert!(!running.healthy(name));
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_of_localhost_tries_both_families() {
    let world = World::new();
    let running = world.running().await;
    world.answer("127.0.0.1:8080", Answer::Closed);
    world.answer("[::1]:8080", Answer::Http(200));
    let asked = spec("web", 443).check("http://localhost:8080/");
    running.registry.add(asked).await.unwrap();
    running.until("web", true).await;
}

#[tokio::test(start_paused = true)]
async fn an_http_check_by_name_asks_the_service_itself_for_that_name() {
    let world = World::new();
    let running = world.running().await;
    world.answer("192.0.2.7:8080", Answer::Http(200));
    let mut asked = spec("web", 443).check("http://photos.home.arpa:8080/up?x=1");
    asked.address = Some("192.0.2.7".parse().unwrap());
    running.registry.add(asked).await.unwrap();
    running.until("web", true).await;
    let seen = world.network.lock().unwrap().seen.clone();
    assert_eq!(seen, ["192.0.2.7:8080 photos.home.arpa:8080 /up?x=1"]);
}

#[tokio::test(start_paused = true)]
async fn a_service_without_an_address_is_checked_where_clients_reach_it() {
    let world = World::new();
    let running = world.running().await;
    world.answer("127.0.0.1:80", Answer::Open);
    world.answer("[fd00::1]:80", Answer::Open);
    let overlay: [IpAddr; 2] = ["10.1.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    running.registry.set_local_addresses(overlay.to_vec());
    running
        .registry
        .add(spec("web", 80).check("tcp"))
        .await
        .unwrap();
    running.until("web", true).await;
    let seen = world.network.lock().unwrap().seen.clone();
    assert_eq!(seen, ["10.1.0.1:80", "[fd00::1]:80"]);
}

#[tokio::test(start_paused = true)]
async fn many_checks_run_a_few_at_a_time_and_all_get_their_turn() {
    const SERVICES: usize = 100;
    let world = World::new();
    let running = world.running().await;
    for n in 1..=SERVICES {
        let port = u16::try_from(n).unwrap();
        world.answer(&format!("127.0.0.1:{port}"), Answer::Slow);
        running
            .registry
            .add(spec(&format!("s{n}"), port).check("tcp"))
            .await
            .unwrap();
    }
    for n in 1..=SERVICES {
        running.until(&format!("s{n}"), true).await;
    }
    let network = world.network.lock().unwrap();
    assert_eq!(network.most, limits::SERVICE_PROBES);
}

#[tokio::test(start_paused = true)]
async fn checks_that_start_together_drift_apart() {
    let world = World::new();
    for port in 1..=20 {
        world.answer(&format!("127.0.0.1:{port}"), Answer::Open);
        let stored = spec(&format!("s{port}"), port).check("tcp");
        world.store(&stored);
    }
    let running = world.running().await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let times: BTreeSet<Instant> = world
        .network
        .lock()
        .unwrap()
        .times
        .iter()
        .copied()
        .collect();
    // All at the start, and then at 20 of the 256 moments that one byte makes.
    assert!(times.len() > 8, "{times:?}");
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn what_was_added_is_there_after_a_restart_and_what_was_removed_is_not() {
    let world = World::new();
    let registry = world.registry().await;
    registry.add(spec("web", 80)).await.unwrap();
    registry.add(spec("old", 81)).await.unwrap();
    registry.add(spec("web", 8080)).await.unwrap();
    assert_eq!(registry.rm(&label("old")).await.unwrap().port, 81);
    drop(registry);
    let again = world.registry().await;
    assert_eq!(ports(&again), [("web".to_owned(), 8080)].into());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_announced_that_is_not_on_disk() {
    let world = World::new();
    let registry = world.registry().await;
    registry.add(spec("web", 80)).await.unwrap();
    let mut announced = registry.subscribe();
    announced.mark_unchanged();

    world.disk.lock().unwrap().full = true;
    let error = registry.add(spec("new", 81)).await.unwrap_err();
    assert!(error.to_string().contains("services/new.toml"), "{error}");
    assert!(registry.add(spec("web", 8080)).await.is_err());
    assert!(registry.rm(&label("web")).await.is_err());
    assert!(!announced.has_changed().unwrap());
    assert_eq!(ports(&registry), [("web".to_owned(), 80)].into());
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_is_told_of_each_change_and_of_nothing_else() {
    let world = World::new();
    let registry = world.registry().await;
    let mut announced = registry.subscribe();
    registry.add(spec("web", 80)).await.unwrap();
    assert!(announced.has_changed().unwrap());
    assert_eq!(announced.borrow_and_update().len(), 1);
    registry.add(spec("web", 80)).await.unwrap();
    assert!(!announced.has_changed().unwrap());
    registry.rm(&label("web")).await.unwrap();
    assert!(announced.borrow_and_update().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_service_of_the_configuration_can_not_be_changed_from_outside_it() {
    let world = World::new();
    world.store(&spec("web", 81));
    let host = world.host();
    let registry = Registry::load(host, vec![spec("web", 80)]).await.unwrap();
    assert_eq!(ports(&registry), [("web".to_owned(), 80)].into());
    assert_eq!(registry.list()[0].origin, Origin::Configured);
    let error = registry.add(spec("web", 82)).await.unwrap_err();
    assert!(matches!(error, ServiceError::Configured(_)));
    let error = registry.rm(&label("web")).await.unwrap_err();
    assert!(matches!(error, ServiceError::Configured(_)));
    let twice = Registry::load(world.host(), vec![spec("a", 80), spec("a", 81)]).await;
    assert!(matches!(twice.err().unwrap(), ServiceError::Twice(_)));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_hides_no_other_service_and_is_told() {
    let world = World::new();
    world.store(&spec("good", 80));
    world.file("services/bad.toml", b"name = 'bad'\nport = \xff");
    world.file(
        "services/moved.toml",
        spec("other", 80).to_toml().as_bytes(),
    );
    world.file("services/half.toml.new", b"name =");
    let registry = world.registry().await;
    assert_eq!(ports(&registry), [("good".to_owned(), 80)].into());
    let found = registry.findings();
    let warnings: Vec<String> = found.iter().map(Finding::sentence).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("services/bad.toml"), "{warnings:?}");
    assert!(warnings[1].contains("it describes other"), "{warnings:?}");
    registry.add(spec("bad", 81)).await.unwrap();
    assert_eq!(registry.findings().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_runs_only_so_many_services() {
    let world = World::new();
    let registry = world.registry().await;
    for n in 0..limits::NAMES_PER_NODE {
        registry.add(spec(&format!("s{n}"), 80)).await.unwrap();
    }
    let error = registry.add(spec("more", 80)).await.unwrap_err();
    assert!(matches!(error, ServiceError::TooMany));
    registry.add(spec("s0", 81)).await.unwrap();
    registry.rm(&label("s0")).await.unwrap();
    registry.add(spec("more", 80)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_check_of_what_the_service_was_before_says_nothing_of_what_it_is_now() {
    let world = World::new();
    let running = world.running().await;
    world.answer("127.0.0.1:80", Answer::Slow);
    running
        .registry
        .add(spec("web", 80).check("tcp"))
        .await
        .unwrap();
    world.probing(1).await;
    running
        .registry
        .add(spec("web", 81).check("tcp"))
        .await
        .unwrap();
    let error = running.error("web").await;
    assert_eq!(error, "127.0.0.1:81: connection refused");
    tokio::time::sleep(SLOW * 2).await;
    assert!(!running.healthy("web"));
}

#[tokio::test(start_paused = true)]
async fn checks_go_on_when_they_are_taken_up_again() {
    let world = World::new();
    let running = world.running().await;
    world.answer("127.0.0.1:80", Answer::Hangs);
    running
        .registry
        .add(spec("web", 80).check("tcp"))
        .await
        .unwrap();
    world.probing(1).await;
    let registry = running.stop().await;
    world.answer("127.0.0.1:80", Answer::Open);
    Running::start(registry).until("web", true).await;
}

fn label(name: &str) -> Label {
    name.parse().unwrap()
}

fn spec(name: &str, port: u16) -> Spec {
    Spec::new(label(name), port)
}

trait Describe {
    fn udp(self) -> Self;
    fn check(self, check: &str) -> Self;
}

impl Describe for Spec {
    fn udp(mut self) -> Self {
        self.protocol = Protocol::Udp;
        self
    }

    fn check(mut self, check: &str) -> Self {
        self.check = Some(check.parse().unwrap());
        self
    }
}

fn ports(registry: &Registry) -> BTreeMap<String, u16> {
    let statuses = registry.list().into_iter();
    statuses
        .map(|status| (status.spec.name.to_string(), status.spec.port))
        .collect()
}

/// A registry whose checks run until it is dropped.
struct Running {
    registry: Registry,
    task: JoinHandle<()>,
}

impl Running {
    fn start(registry: Registry) -> Self {
        let checked = registry.clone();
        Self {
            registry,
            task: tokio::spawn(async move { checked.run().await }),
        }
    }

    async fn stop(self) -> Registry {
        self.task.abort();
        while !self.task.is_finished() {
            tokio::task::yield_now().await;
        }
        self.registry.clone()
    }

    fn healthy(&self, name: &str) -> bool {
        self.registry.instances()[&label(name)].healthy
    }

    async fn until(&self, name: &str, healthy: bool) {
        let mut announced = self.registry.subscribe();
        let wanted = announced.wait_for(|all| all[&label(name)].healthy == healthy);
        timeout(Duration::from_secs(60), wanted)
            .await
            .unwrap_or_else(|_| panic!("{name} never became healthy={healthy}"))
            .unwrap();
    }

    /// The first error that a check of it tells.
    async fn error(&self, name: &str) -> String {
        let told = async {
            loop {
                let statuses = self.registry.list();
                let status = statuses.into_iter().find(|s| s.spec.name == label(name));
                if let Some(error) = status.unwrap().last_error {
                    return error;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(60), told)
            .await
            .expect("a check fails")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone, Copy)]
enum Answer {
    Open,
    /// Open, after [`SLOW`].
    Slow,
    Closed,
    Hangs,
    Http(u16),
}

const SLOW: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct World {
    disk: Arc<Mutex<Files>>,
    network: Arc<Mutex<Net>>,
    began: Instant,
    /// What answers on every Unix socket.
    pub unix: Arc<Mutex<Option<Unix>>>,
}

/// Takes a connection.
pub(super) type Unix = Box<dyn Fn(tokio::io::DuplexStream) + Send>;

#[derive(Default)]
struct Files {
    files: BTreeMap<PathBuf, Vec<u8>>,
    full: bool,
}

#[derive(Default)]
struct Net {
    answers: BTreeMap<SocketAddr, Answer>,
    seen: Vec<String>,
    times: Vec<Instant>,
    now: usize,
    most: usize,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            disk: Arc::default(),
            network: Arc::default(),
            began: Instant::now(),
            unix: Arc::default(),
        }
    }

    pub(super) fn host(&self) -> Host {
        let this = Arc::new(self.clone());
        Host {
            clock: this.clone(),
            keys: Arc::new(SystemKeys),
            net: this.clone(),
            disk: this.clone(),
            outside: Arc::new(innermesh_host::outside::SystemOutside),
            tunnels: this,
            overlay: Arc::new(innermesh_host::overlay::RecordedOverlay::default()),
            resolver: Arc::new(innermesh_host::resolver::Unmanaged::because("a test")),
            tasks: innermesh_host::tasks::Tasks::default(),
        }
    }

    pub(super) async fn registry(&self) -> Registry {
        Registry::load(self.host(), Vec::new()).await.unwrap()
    }

    async fn running(&self) -> Running {
        Running::start(self.registry().await)
    }

    fn answer(&self, address: &str, answer: Answer) {
        let address = address.parse().unwrap();
        self.network.lock().unwrap().answers.insert(address, answer);
    }

    fn file(&self, path: &str, bytes: &[u8]) {
        let mut disk = self.disk.lock().unwrap();
        disk.files.insert(path.into(), bytes.to_vec());
    }

    fn store(&self, spec: &Spec) {
        self.file(
            &format!("services/{}.toml", spec.name),
            spec.to_toml().as_bytes(),
        );
    }

    fn probes(&self) -> usize {
        self.network.lock().unwrap().seen.len()
    }

    /// Waits until so many checks are under way.
    async fn probing(&self, wanted: usize) {
        let reached = async {
            while self.network.lock().unwrap().now != wanted {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), reached).await.unwrap();
    }

    async fn ask(&self, address: SocketAddr, seen: String) -> io::Result<u16> {
        let answer = {
            let mut network = self.network.lock().unwrap();
            network.seen.push(seen);
            network.times.push(Instant::now());
            network.now += 1;
            network.most = network.most.max(network.now);
            network
                .answers
                .get(&address)
                .copied()
                .unwrap_or(Answer::Closed)
        };
        let _leaving = Leaving(self.network.clone());
        match answer {
            Answer::Open => Ok(200),
            Answer::Http(status) => Ok(status),
            Answer::Slow => {
                tokio::time::sleep(SLOW).await;
                Ok(200)
            }
            Answer::Closed => Err(io::ErrorKind::ConnectionRefused.into()),
            Answer::Hangs => std::future::pending().await,
        }
    }
}

struct Leaving(Arc<Mutex<Net>>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.lock().unwrap().now -= 1;
    }
}

#[async_trait]
impl Clock for World {
    fn now(&self) -> Mono {
        self.began.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[async_trait]
impl Network for World {
    fn quic_socket(&self, _: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime> {
        Arc::new(quinn::TokioRuntime)
    }

    async fn local_addresses(&self) -> Vec<(String, IpAddr)> {
        Vec::new()
    }

    async fn clash(&self, _: IpNet, _: &str) -> Option<String> {
        None
    }

    async fn upstream_resolvers(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect(&self, _: SocketAddr) -> io::Result<Box<dyn Stream>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect_unix(&self, _: &Path) -> io::Result<Box<dyn Stream>> {
        let (near, far) = tokio::io::duplex(4096);
        match &*self.unix.lock().unwrap() {
            Some(unix) => unix(far),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        Ok(Box::new(near))
    }

    async fn probe_tcp(&self, address: SocketAddr) -> io::Result<()> {
        self.ask(address, address.to_string()).await.map(drop)
    }

    async fn probe_http(&self, address: SocketAddr, host: &str, path: &str) -> io::Result<u16> {
        self.ask(address, format!("{address} {host} {path}")).await
    }
}

#[async_trait]
impl Disk for World {
    fn root(&self) -> PathBuf {
        "/state".into()
    }

    async fn free(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    async fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        Ok(self.disk.lock().unwrap().files.get(path).cloned())
    }

    async fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let disk = self.disk.lock().unwrap();
        let within = disk
            .files
            .keys()
            .filter(|path| path.parent() == Some(folder));
        Ok(within.cloned().collect())
    }

    async fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        if disk.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.files.insert(path.to_owned(), bytes.to_vec());
        Ok(())
    }

    async fn append(&self, _: &Path) -> io::Result<Box<dyn AppendFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn reader(&self, _: &Path) -> Box<dyn ReadFile> {
        unreachable!("services are read whole")
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        if disk.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.files.remove(path);
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[async_trait]
impl Tunnels for World {
    async fn open(&self, _: TunnelSettings) -> Result<Arc<dyn Tunnel>, TunnelError> {
        unreachable!("services need no tunnel")
    }
}
