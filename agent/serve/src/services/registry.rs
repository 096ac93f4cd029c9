//! The services of this node: kept on disk, and checked by a task.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use innermesh_control::{
    finding::{Finding, code},
    spec::{Spec, SpecError},
};
use innermesh_host::{Host, Mono};
use innermesh_proto::{head::Instance, limits, name::Label, zone::ServiceType};
use tokio::sync::{Notify, watch};

use super::{
    check::{self, CheckFailure},
    docker::Containers,
    files::FileProblem,
    in_force::{InForce, Origin, Probe, Service, ServiceStatus},
};

/// Between the end of one check and the start of the next; each is moved by up
/// to a tenth either way, so that checks don't align.
const INTERVAL: Duration = Duration::from_secs(5);
/// Longest time that one check may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Where the services that were added are kept, below the state folder.
const FOLDER: &str = "services";

/// The services of this node. Clones share one registry.
///
/// What is added is on disk before [`Registry::add`] returns, and announced
/// only then. [`Registry::run`] does the checking and must be running.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Shared>,
}

struct Shared {
    host: Host,
    state: Mutex<InForce>,
    /// Held while a file is written: the files and the services in force
    /// change in one order.
    writing: tokio::sync::Mutex<()>,
    /// Something is due earlier than it was.
    wake: Notify,
    told: Mutex<Told>,
    instances: watch::Sender<BTreeMap<Label, Instance>>,
    /// What of their types is announced beside that.
    types: Mutex<BTreeMap<Label, ServiceType>>,
}

/// What others found that describe services.
#[derive(Default)]
struct Told {
    /// Of containers.
    containers: Vec<Finding>,
    /// Of the files of the configuration.
    files: Vec<FileProblem>,
}

/// Why the services were not changed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The description isn't one of a service. Nothing was changed.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Two descriptions in the configuration have one name. Nothing was changed.
    #[error("the configuration describes the service {0} twice; remove one of them")]
    Twice(Label),
    /// It stands in the configuration. Nothing was changed.
    #[error("the service {0} stands in the configuration; change it there")]
    Configured(Label),
    /// Labels of a container describe it. Nothing was changed.
    #[error("the service {0} is described by the labels of a container; change them, or stop it")]
    Container(Label),
    /// No such service. Nothing was changed.
    #[error("this node has no service {0}; `agent service list` shows those it has")]
    Unknown(Label),
    /// No more are allowed. Nothing was changed.
    #[error("this node has {max} services, and no node may have more; remove one first", max = limits::NAMES_PER_NODE)]
    TooMany,
    /// The file could not be read, written or removed; the services in force
    /// are as they were, and the file may be in either state.
    #[error("{}: {error}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the host says.
        error: io::Error,
    },
}

impl Registry {
    /// The services that were added earlier, and those of the configuration,
    /// which come first where a name is in both. A file that can't be read as
    /// a service is left as it is and told by [`Registry::findings`].
    ///
    /// # Errors
    /// [`ServiceError`], when the configuration is wrong or the disk fails.
    pub async fn load(host: Host, configured: Vec<Spec>) -> Result<Self, ServiceError> {
        let mut state = InForce::default();
        let clock = host.clock.clone();
        for spec in configured {
            spec.validate()?;
            if state.services.contains_key(&spec.name) {
                return Err(ServiceError::Twice(spec.name));
            }
            state.put(spec, Origin::Configured, clock.now(), clock.wall_ms());
        }
        let folder = Path::new(FOLDER);
        let files = host.disk.list(folder).await;
        for file in files.map_err(|error| disk_error(folder, error))? {
            let Some(name) = name_of(&file) else { continue };
            let bytes = host.disk.read(&file).await;
            let Some(bytes) = bytes.map_err(|error| disk_error(&file, error))? else {
                continue;
            };
            match stored(&name, &bytes) {
                Ok(spec) if !state.services.contains_key(&name) => {
                    state.put(spec, Origin::Added, clock.now(), clock.wall_ms());
                }
                Ok(_) => {
                    tracing::info!(service = %name, "the configuration stands before what was added")
                }
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "the service is left out");
                    state.damaged.insert(file, error);
                }
            }
        }
        if state.services.len() > limits::NAMES_PER_NODE {
            return Err(ServiceError::TooMany);
        }
        let (instances, _) = watch::channel(state.instances());
        let types = Mutex::new(state.types());
        Ok(Self {
            inner: Arc::new(Shared {
                host,
                state: Mutex::new(state),
                writing: tokio::sync::Mutex::new(()),
                wake: Notify::new(),
                told: Mutex::default(),
                instances,
                types,
            }),
        })
    }

    /// Adds a service, or changes the one of that name. It is on disk when
    /// this returns, and its first check runs at once.
    ///
    /// # Errors
    /// [`ServiceError`]; the services in force are as they were.
    pub async fn add(&self, spec: Spec) -> Result<(), ServiceError> {
        spec.validate()?;
        let _writing = self.inner.writing.lock().await;
        {
            let state = self.state();
            let there = state.services.get(&spec.name);
            match there.map(|service| service.origin) {
                Some(Origin::Configured) => return Err(ServiceError::Configured(spec.name)),
                Some(Origin::Added) if there.is_some_and(|it| it.spec == spec) => return Ok(()),
                Some(Origin::Added) => {}
                // It gives way to the person's.
                Some(Origin::Container) | None => {
                    if state.described() >= limits::NAMES_PER_NODE {
                        return Err(ServiceError::TooMany);
                    }
                }
            }
        }
        let file = file_of(&spec.name);
        let written = self
            .inner
            .host
            .disk
            .replace(&file, spec.to_toml().as_bytes())
            .await;
        written.map_err(|error| disk_error(&file, error))?;
        let mut state = self.state();
        state.damaged.remove(&file);
        let clock = &self.inner.host.clock;
        state.put(spec, Origin::Added, clock.now(), clock.wall_ms());
        self.fill_in(&mut state);
        drop(state);
        self.inner.wake.notify_one();
        Ok(())
    }

    /// Has exactly these services stand in the configuration, in place of
    /// those that stood there before.
    ///
    /// # Errors
    /// [`ServiceError`]; the services in force are as they were.
    pub async fn configure(&self, configured: Vec<Spec>) -> Result<(), ServiceError> {
        let _writing = self.inner.writing.lock().await;
        let mut names = BTreeSet::new();
        for spec in &configured {
            spec.validate()?;
            if !names.insert(spec.name.clone()) {
                return Err(ServiceError::Twice(spec.name.clone()));
            }
        }
        let mut state = self.state();
        let kept = state
            .services
            .values()
            .filter(|service| service.origin == Origin::Added);
        if kept
            .filter(|service| !names.contains(&service.spec.name))
            .count()
            + names.len()
            > limits::NAMES_PER_NODE
        {
            return Err(ServiceError::TooMany);
        }
        state
            .services
            .retain(|name, service| service.origin != Origin::Configured || names.contains(name));
        for spec in configured {
            let is_same =
                |service: &Service| service.origin == Origin::Configured && service.spec == spec;
            let unchanged = state.services.get(&spec.name).is_some_and(is_same);
            if !unchanged {
                let clock = &self.inner.host.clock;
                state.put(spec, Origin::Configured, clock.now(), clock.wall_ms());
            }
        }
        self.fill_in(&mut state);
        drop(state);
        self.inner.wake.notify_one();
        Ok(())
    }

    /// Has exactly these services be those of containers, in place of those that
    /// were before; whether they differ. They give way to what a person described.
    pub fn set_containers(&self, containers: Containers) -> bool {
        let Containers { services, findings } = containers;
        self.told().containers = findings;
        let mut state = self.state();
        if state.containers == services {
            return false;
        }
        state.containers = services;
        self.fill_in(&mut state);
        drop(state);
        self.inner.wake.notify_one();
        true
    }

    /// Has these be the files of the configuration that aren't in force as they are.
    pub fn set_file_problems(&self, problems: Vec<FileProblem>) {
        self.told().files = problems;
    }

    /// Names of services that labels of containers describe, and of which container.
    pub fn container_names(&self) -> BTreeMap<Label, String> {
        let state = self.state();
        let of = state.services.values();
        of.filter(|service| service.origin == Origin::Container)
            .filter_map(|service| state.containers.get(&service.spec.name))
            .map(|wanted| (wanted.spec.name.clone(), wanted.container.clone()))
            .collect()
    }

    /// Removes a service for good; returns what it was.
    ///
    /// # Errors
    /// [`ServiceError`]; the services in force are as they were.
    pub async fn rm(&self, name: &Label) -> Result<Spec, ServiceError> {
        let _writing = self.inner.writing.lock().await;
        let origin = self.state().services.get(name).map(|it| it.origin);
        match origin {
            None => return Err(ServiceError::Unknown(name.clone())),
            Some(Origin::Configured) => return Err(ServiceError::Configured(name.clone())),
            Some(Origin::Container) => return Err(ServiceError::Container(name.clone())),
            Some(Origin::Added) => {}
        }
        let file = file_of(name);
        let removed = self.inner.host.disk.remove(&file).await;
        removed.map_err(|error| disk_error(&file, error))?;
        let mut state = self.state();
        let service = state.services.remove(name);
        self.fill_in(&mut state);
        service
            .map(|service| service.spec)
            .ok_or_else(|| ServiceError::Unknown(name.clone()))
    }

    /// All services, in the order of their names.
    pub fn list(&self) -> Vec<ServiceStatus> {
        self.state()
            .services
            .values()
            .map(Service::status)
            .collect()
    }

    /// What the node announces of its services now.
    pub fn instances(&self) -> BTreeMap<Label, Instance> {
        self.inner.instances.borrow().clone()
    }

    /// What they speak, where their ports don't say it.
    pub fn types(&self) -> BTreeMap<Label, ServiceType> {
        self.announced_types().clone()
    }

    /// Services that nothing checks.
    pub fn unchecked(&self) -> BTreeSet<Label> {
        self.state().unchecked()
    }

    /// What the node announces of its services, from now on.
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<Label, Instance>> {
        self.inner.instances.subscribe()
    }

    /// What a person should mend: files that are no descriptions of services, and
    /// labels that make none.
    pub fn findings(&self) -> Vec<Finding> {
        let root = self.inner.host.disk.root();
        let mut found = self.told().findings();
        let state = self.state();
        found.extend(state.left_out().map(|(wanted, why)| wanted.finding(&why)));
        let told = state.damaged.iter().map(|(file, error)| {
            let file = root.join(file);
            Finding::warning(
                code::SERVICE_FILE,
                format!("the service in {} is left out: {error}", file.display()),
                "Mend or remove the file",
            )
        });
        found.extend(told);
        found
    }

    /// Says where services without an address of their own are checked: at
    /// the node's overlay addresses, where clients reach them. Before that,
    /// and with none, it is 127.0.0.1.
    pub fn set_local_addresses(&self, addresses: Vec<IpAddr>) {
        self.state().local = addresses;
    }

    /// As they were last set.
    pub fn local_addresses(&self) -> Vec<IpAddr> {
        self.state().local.clone()
    }

    /// Checks the services for as long as it is polled.
    pub async fn run(&self) {
        self.state().resume(self.inner.host.clock.now());
        let mut running = FuturesUnordered::new();
        loop {
            let room = limits::SERVICE_PROBES.saturating_sub(running.len());
            let (probes, next) = self.state().take_due(self.inner.host.clock.now(), room);
            running.extend(probes.into_iter().map(|probe| self.check(probe)));
            tokio::select! {
                Some((name, number, result)) = running.next() => self.take(&name, number, result),
                () = self.inner.wake.notified() => {}
                () = self.until(next) => {}
            }
        }
    }

    async fn check(&self, probe: Probe) -> (Label, u64, Result<(), CheckFailure>) {
        let host = &self.inner.host;
        let result = tokio::select! {
            result = check::probe(&probe.check, &*host.net, &probe.ips, probe.port) => result,
            () = host.clock.sleep(TIMEOUT) => Err(CheckFailure::Late(TIMEOUT)),
        };
        (probe.name, probe.number, result)
    }

    fn take(&self, name: &Label, number: u64, result: Result<(), CheckFailure>) {
        let clock = &self.inner.host.clock;
        let due = clock.now() + self.jittered();
        let mut state = self.state();
        // Removed or described anew while the check ran: its result says nothing of what is there now.
        let Some(service) = state.services.get_mut(name).filter(|s| s.number == number) else {
            return;
        };
        let before = service.health.is_healthy();
        service.health.take(result, clock.wall_ms());
        service.due = Some(due);
        let after = service.health.is_healthy();
        if before != after {
            let why = service.health.last_error().unwrap_or_default();
            tracing::info!(service = %name, healthy = after, why, "a service's health changed");
            self.announce(&state);
        }
    }

    fn jittered(&self) -> Duration {
        let mut byte = [0];
        self.inner.host.keys.random(&mut byte);
        // From 0.9 to 1.1 of the interval.
        INTERVAL * 9 / 10 + INTERVAL / 5 * u32::from(byte[0]) / 255
    }

    async fn until(&self, at: Option<Mono>) {
        let clock = &self.inner.host.clock;
        match at {
            Some(at) => clock.sleep(at.saturating_sub(clock.now())).await,
            None => std::future::pending().await,
        }
    }

    /// Announces what was changed, with the services of containers where there is
    /// room for them.
    fn fill_in(&self, state: &mut InForce) {
        let clock = &self.inner.host.clock;
        state.fill_in(clock.now(), clock.wall_ms());
        self.announce(state);
    }

    fn announce(&self, state: &InForce) {
        let (instances, types) = (state.instances(), state.types());
        let is_retyped = std::mem::replace(&mut *self.announced_types(), types.clone()) != types;
        self.inner.instances.send_if_modified(|announced| {
            let changed = is_retyped || *announced != instances;
            *announced = instances;
            changed
        });
    }

    /// Never held across an await.
    fn announced_types(&self) -> MutexGuard<'_, BTreeMap<Label, ServiceType>> {
        let types = self.inner.types.lock();
        types.unwrap_or_else(PoisonError::into_inner)
    }

    /// Never held across an await.
    fn told(&self) -> MutexGuard<'_, Told> {
        let told = self.inner.told.lock();
        told.unwrap_or_else(PoisonError::into_inner)
    }

    /// Never held across an await.
    fn state(&self) -> MutexGuard<'_, InForce> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn findings(&self) -> Vec<Finding> {
        let files = self.files.iter().map(FileProblem::finding);
        files.chain(self.containers.iter().cloned()).collect()
    }
}

fn file_of(name: &Label) -> PathBuf {
    Path::new(FOLDER).join(format!("{name}.toml"))
}

/// The service that a file is of; `None` for what isn't a service's file, such
/// as one that was half written.
fn name_of(file: &Path) -> Option<Label> {
    let name = file.file_name()?.to_str()?.strip_suffix(".toml")?;
    Label::try_from(name.to_owned()).ok()
}

fn stored(name: &Label, bytes: &[u8]) -> Result<Spec, SpecError> {
    let spec = Spec::from_toml(bytes)?;
    if spec.name == *name {
        Ok(spec)
    } else {
        Err(SpecError::Toml(format!(
            "it describes {} and is named {name}",
            spec.name
        )))
    }
}

fn disk_error(path: &Path, error: io::Error) -> ServiceError {
    ServiceError::Disk {
        path: path.to_owned(),
        error,
    }
}
