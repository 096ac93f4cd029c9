//! `agent run`: the agent in this process.

use std::{sync::Arc, time::Duration};

use innermesh_proto::ledger::RULES;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, timeout},
};

use super::{
    context::Context,
    failure::Failure,
    files::{self, FilesError},
    notify::{self, Notifier},
    output,
    paths::Paths,
    services_folder::ServicesFolder,
};
use crate::{
    config::{Config, ManageResolver},
    control::{node::StatusRequest, server, socket::Socket},
    host::{
        Host,
        resolver::{HostResolver, SystemResolver, Unmanaged},
        system,
    },
    ledger::file::LEDGER,
    node::{self, Agent, Loading},
};

/// Run the agent in the foreground, as systemd does.
///
/// SIGTERM and SIGINT end it, files of services.d count as soon as they change.
#[derive(Debug, Default, clap::Args)]
pub struct Arguments {
    /// Print the configuration with all defaults and exit.
    #[arg(long)]
    print_config: bool,
}

/// How long a stopping agent may say goodbye; systemd waits a little longer.
const FAREWELL: Duration = Duration::from_secs(10);

pub async fn run(arguments: &Arguments, context: &mut Context) -> Result<(), Failure> {
    if arguments.print_config {
        return show(&context.paths);
    }
    let mut config = files::without_services(&context.paths).map_err(Failure::failed)?;
    context.log(&config.log)?;
    let folder = ServicesFolder::open(&context.paths.services).map_err(Failure::failed)?;
    config.services = folder.services();
    if let Err(error) = system::protect_memory() {
        tracing::warn!(%error, "a crash of this process could write its keys to a core file");
    }
    match files::may_use(&context.paths.state) {
        // Where there is no folder there is no mesh.
        Ok(()) | Err(FilesError::Make(..)) => {}
        Err(error) => return Err(Failure::failed(error)),
    }
    if !context.paths.state.join(LEDGER).exists() {
        let option = context.paths.option();
        return Err(Failure::failed(format!(
            "this machine is in no mesh; `agent{option} init` makes one, `agent{option} join` joins one"
        )));
    }
    files::state_folder(&context.paths.state).map_err(Failure::failed)?;
    let notifier = Notifier::from_environment();
    let mut signals = Signals::new().map_err(Failure::failed)?;
    let mut host = system::host(context.paths.state.clone());
    host.resolver = resolver(&context.paths);
    let Some(agent) = build(&config, &context.paths, &host, &notifier, &mut signals).await? else {
        return Ok(());
    };
    folder.report(&agent);
    let socket = match Socket::bind(&context.paths.socket).await {
        Ok(socket) => socket,
        Err(error) => {
            stop(&agent, &mut signals).await;
            return Err(Failure::failed(error));
        }
    };
    let (end, ended) = oneshot::channel::<()>();
    let serving = tokio::spawn(server::serve(socket, agent.control(), host.clock, async {
        let _ = ended.await;
    }));
    notifier.tell(notify::READY);
    tracing::info!(socket = %context.paths.socket.display(), "the agent runs");

    tokio::select! {
        () = until_told(&mut signals, &notifier, (&context.paths, &config), &agent, folder) => {}
        () = agent.left() => {}
    }

    notifier.tell(notify::STOPPING);
    tracing::info!("the agent stops");
    drop(end);
    stop(&agent, &mut signals).await;
    let _ = serving.await;
    Ok(())
}

/// Prints the configuration with all defaults.
pub fn show(paths: &Paths) -> Result<(), Failure> {
    let config = files::configuration(paths).map_err(Failure::failed)?;
    output::raw(&printed(&config, paths))
}

/// The host's own resolver, for the host's own agent: one that has its files in a
/// folder of its own may be a second one, or a test's.
fn resolver(paths: &Paths) -> Arc<dyn HostResolver> {
    match &paths.dir {
        None => Arc::new(SystemResolver::default()),
        Some(dir) => Arc::new(Unmanaged::because(format!(
            "the agent runs with --dir {}",
            dir.display()
        ))),
    }
}

/// Starts the agent; `None` when it is stopped first. Until a ledger that has to
/// be fetched again is there, the control socket answers with that reason.
async fn build(
    config: &Config,
    paths: &Paths,
    host: &Host,
    notifier: &Notifier,
    signals: &mut Signals,
) -> Result<Option<Agent>, Failure> {
    let (tell, mut told) = watch::channel(None);
    let mut early: Option<(oneshot::Sender<()>, JoinHandle<()>)> = None;
    let mut watchdog = watchdog();
    let agent = {
        let building = Agent::build_telling(agent_config(config), host.clone(), &tell);
        tokio::pin!(building);
        loop {
            tokio::select! {
                agent = &mut building => break agent.map_err(Failure::failed)?,
                () = signals.end() => return Ok(None),
                _ = watchdog.tick() => notifier.tell(notify::WATCHDOG),
                Ok(()) = told.changed() => {
                    let loading: Option<Loading> = told.borrow_and_update().clone();
                    let Some(loading) = loading else { continue };
                    let socket = Socket::bind(&paths.socket).await.map_err(Failure::failed)?;
                    let reason = move || loading.progress.borrow().to_string();
                    let (end, ended) = oneshot::channel::<()>();
                    let clock = host.clock.clone();
                    let serving = server::serve_reason(socket, reason, clock, async {
                        let _ = ended.await;
                    });
                    early = Some((end, tokio::spawn(serving)));
                    notifier.tell(notify::READY);
                }
            }
        }
    };
    if let Some((end, serving)) = early {
        drop(end);
        let _ = serving.await;
    }
    Ok(Some(agent))
}

/// Ticks whenever systemd is to hear that the agent is alive.
fn watchdog() -> tokio::time::Interval {
    // Where nobody waits for it, an hour is as good as never.
    let every = notify::watchdog_interval().unwrap_or(Duration::from_secs(3600));
    let mut watchdog = tokio::time::interval(every);
    watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
    watchdog
}

/// Feeds the watchdog and takes signals, until one of them ends the agent.
async fn until_told(
    signals: &mut Signals,
    notifier: &Notifier,
    (paths, config): (&Paths, &Config),
    agent: &Agent,
    mut folder: ServicesFolder,
) {
    let interval = notify::watchdog_interval();
    let mut watchdog = watchdog();
    let control = agent.control();
    loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::End => return,
                Told::Reload => {
                    folder.take_over(agent).await;
                    tell_what_stays(paths, config);
                }
            },
            () = folder.changed() => folder.take_over(agent).await,
            _ = watchdog.tick(), if interval.is_some() => {
                // An agent that can't say how it is isn't well.
                let patience = interval.unwrap_or_default();
                if timeout(patience, control.ask(StatusRequest {})).await.is_ok() {
                    notifier.tell(notify::WATCHDOG);
                } else {
                    tracing::error!("the agent doesn't answer itself; systemd will restart it");
                }
            }
        }
    }
}

/// Says what of the configuration isn't read while the agent runs.
fn tell_what_stays(paths: &Paths, running: &Config) {
    match files::without_services(paths) {
        Ok(mut config) => {
            config.services.clone_from(&running.services);
            if config != *running {
                tracing::warn!("only services.d is read again; restart the agent for the rest");
            }
        }
        Err(error) => tracing::error!(%error, "the configuration is wrong; nothing was changed"),
    }
}

/// Says goodbye, unless it takes too long or somebody insists.
async fn stop(agent: &Agent, signals: &mut Signals) {
    tokio::select! {
        done = timeout(FAREWELL, agent.stop()) => if done.is_err() {
            tracing::warn!("peers did not hear the goodbye in time");
        },
        () = signals.end() => {}
    }
}

enum Told {
    End,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    /// Waits until somebody wants the agent to end.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

pub fn agent_config(config: &Config) -> node::AgentConfig {
    node::AgentConfig {
        listen: config.listen(),
        advertise: config.advertised(),
        port_mapping: config.port_mapping,
        interface: config.tunnel.interface.as_str().to_string(),
        tunnel_port: config.tunnel.listen_port.number(),
        tunnel_port_is_fixed: config.tunnel.listen_port.is_fixed(),
        tunnel_endpoint: config.tunnel.endpoint.clone(),
        mtu: config.tunnel.mtu,
        backend: config.tunnel.backend,
        offloads: config.tunnel.offloads,
        dns_listen: config.dns.listens(),
        dns_upstream: config.dns.upstreams(),
        dns_tls: config.dns.tls,
        dns_https: config.dns.https,
        manage_resolver: config.dns.manage == ManageResolver::Auto,
        dns_answer: config.dns.answer,
        dns_lan: config.dns.lan.clone(),
        sinkhole_listen: config.sinkhole.listens(),
        sinkhole_page: config.sinkhole.page(),
        sinkhole_dns: config.sinkhole.dns_listens(),
        dns_fall_through: config.dns.fall_through.clone(),
        dns_forward: config.dns.forwards(),
        page_listen: config.page.listens(),
        page_port: config.page.port,
        page_lan: config.page.lan,
        lane: node::LaneSettings {
            listen: config.lane.listens(),
            listen_tls: config.lane.listens_tls(),
            address: config.lane.address.clone(),
        },
        ca_term: config.ca.term.duration(),
        known_rules: config.ca.rules.unwrap_or(RULES).min(RULES),
        acme_port: config.acme.port,
        acme_listen: config.acme.listens(),
        containers_reach_mesh: config.containers.mesh,
        local_sources: config.local_sources.clone(),
        docker_socket: config.docker.socket.clone(),
        services: config.services.clone(),
    }
}

fn printed(config: &Config, paths: &Paths) -> String {
    let mut out = format!(
        "# config    {}\n# services  {}\n# state     {}\n# socket    {}\n\n{}",
        paths.config.display(),
        paths.services.display(),
        paths.state.display(),
        paths.socket.display(),
        config.to_toml(),
    );
    for service in &config.services {
        out.push_str(&format!(
            "\n# service {} on port {}\n",
            service.name, service.port
        ));
    }
    out
}
