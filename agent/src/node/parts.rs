//! The parts of the node: each is given the handles that it uses, and started.

use std::sync::{Arc, atomic::AtomicU64};

use tokio::sync::{Notify, watch};

use super::{agent::RunningAgent, build_error::BuildError, opened::Opened};
use crate::{
    dns::{Dns, EncryptedDns},
    host::Mono,
    ledger::follow::Nudge,
    node::{
        commands::{
            AgentControl, Approvals, DeviceDesk, Evictions, ExitDesk, ExternalAccounts, LeaveDesk,
            PublishDesk, RouteDesk, SecondaryDesk, ServiceDesk, StatusDesk, TunnelProber, Warnings,
        },
        follow::{
            acme::AcmeKeeper,
            beside::BesideKeeper,
            crl::CrlKeeper,
            device_holds::DeviceHoldKeeper,
            devices::DeviceWatch,
            dialer::Dialer,
            dns::{DnsKeeper, Listening},
            dns_encrypted::{EncryptedKeeper, EncryptedTrouble},
            dns_lan::LanKeeper,
            holds::HoldKeeper,
            host::HostFollower,
            lane_dialer::LaneDialer,
            lane_server::{LaneKeeper, LaneTrouble},
            ledger_backend::LedgerBackend,
            membership::{Membership, MembershipKeeper},
            names::NameClaimer,
            narrow::NarrowWays,
            overlay::OverlayKeeper,
            own_certificate::OwnCertificate,
            page::{Page, PageKeeper},
            pair_keys::PairKeyKeeper,
            paths::PathKeeper,
            port_map::PortMapKeeper,
            program_certs::CertKeeper,
            publish::PublishKeeper,
            publish_proxy::PublishProxy,
            reach::Reach,
            resolver::{About, ResolverKeeper},
            secondaries::SecondaryKeeper,
            sinkhole::{SinkholeKeeper, SinkholeTrouble},
            sinkhole_dns::SinkholeDnsKeeper,
            tunnel::{TunnelKeeper, planned},
            tunnel_keys::TunnelKeyKeeper,
            view::ViewKeeper,
        },
        peer::{
            handler::{PeerHandler, TunnelAnswers},
            pair_keys::PairKeyAnswers,
            punch::Punches,
            requests::Requests,
        },
        shared::{
            addresses::Addresses,
            announce::Announcer,
            cut_off::CutOffWatch,
            device_secrets::DeviceSecrets,
            enforced::Enforced,
            exit_setting::ExitSetting,
            handles::{FolderLock, Handles},
            invites::Invites,
            pair_secrets::{PairSecrets, Wanted},
            publishing::Publishing,
            relaying::Relaying,
            revocation_lists::Lists,
            tunnel_counters::TunnelCounters,
            tunnel_progress::TunnelProgress,
            zone::ZonePublisher,
        },
    },
    services::{DockerWatch, Registry},
    tunnel::{Tunnel, relayed::Relayed},
};

/// What is wired, and what several parts use.
pub(super) struct Parts {
    node: Handles,
    lock: FolderLock,
    nudge: Nudge,
    services: Registry,
    docker: Option<DockerWatch>,
    dns: Arc<Dns>,
    tunnel: Arc<dyn Tunnel>,
    stamp_ms: Arc<AtomicU64>,
    started: Mono,
    addresses: Addresses,
    zone: ZonePublisher,
    announcer: Announcer,
    secrets: Arc<DeviceSecrets>,
    pairs: Arc<PairSecrets>,
    progress: watch::Sender<TunnelProgress>,
    reach: Arc<Reach>,
    counters: TunnelCounters,
    relayed: Relayed,
    relaying: Arc<Relaying>,
    overlay: Arc<OverlayKeeper>,
    publish: Arc<PublishKeeper>,
    publishing: Arc<Publishing>,
    port_maps: Arc<PortMapKeeper>,
    exit: Arc<ExitSetting>,
    standing: Arc<Membership>,
    membership: Arc<MembershipKeeper>,
    lists: Arc<Lists>,
    page: Arc<Page>,
    sinkhole: Arc<SinkholeTrouble>,
    lane: Arc<LaneTrouble>,
    cut_off: CutOffWatch,
    requests: Arc<Requests>,
    names: Arc<NameClaimer>,
    holds: Arc<HoldKeeper>,
    device_holds: Arc<DeviceHoldKeeper>,
    invites: Arc<Invites>,
    tunnel_keys: Arc<TunnelKeyKeeper>,
    certs: Arc<CertKeeper>,
    acme_trouble: watch::Sender<Option<String>>,
    encrypted_dns: Arc<EncryptedTrouble>,
    resolver: Arc<ResolverKeeper>,
    /// What may have changed the host's resolver.
    news: Arc<Notify>,
    /// Whether this machine has left the mesh.
    left: watch::Sender<bool>,
}

impl Parts {
    /// Gives each part what it uses.
    pub fn wire(opened: Opened) -> Self {
        let Opened {
            node,
            lock,
            nudge,
            services,
            docker,
            dns,
            tunnel,
            tunnel_key,
            pairs,
            relayed,
            holds,
            device_holds,
            invites,
            certs,
            serial,
            secondaries,
            stamp_ms,
        } = opened;
        let addresses = Addresses::new(&node, dns.clone());
        let zone = ZonePublisher {
            view: node.view.clone(),
            dns: dns.clone(),
            addresses: addresses.clone(),
            enforced: Arc::new(Enforced::default()),
            serial,
            local_sources: node.config.local_sources.clone(),
            lan: node.config.dns_lan.clone(),
            in_lan: Arc::default(),
            secondaries,
            news: Arc::new(Notify::new()),
        };
        let secrets = DeviceSecrets::new(node.host.keys.clone(), tunnel_key.clone());
        let announcer = Announcer {
            config: node.config.clone(),
            gossip: node.gossip.clone(),
            services: services.clone(),
            holds,
            tunnel_key,
            devices: Arc::default(),
            device_holds,
            exit_ways: watch::Sender::default(),
            zone_serial: watch::Sender::default(),
            name_server: watch::Sender::default(),
            places: watch::Sender::new(node.gossip.own().places.clone()),
            port_maps: watch::Sender::default(),
        };
        let port_maps = PortMapKeeper::new(&node, announcer.port_maps.clone());
        let exit = Arc::new(ExitSetting::default());
        let progress = watch::Sender::default();
        let counters = TunnelCounters::new(tunnel.clone(), progress.clone());
        let standing = Arc::new(Membership::default());
        let membership = MembershipKeeper::new(&node, stamp_ms.clone(), standing.clone());
        let tunnel_keys = TunnelKeyKeeper::new(&node, tunnel.clone(), announcer.clone());
        let news = Arc::new(Notify::new());
        let overlay = OverlayKeeper::new(&node, zone.clone(), exit.clone(), announcer.clone());
        let overlay = Arc::new(overlay);
        let publishing = Arc::<Publishing>::default();
        let own = announcer.tunnel_key.clone();
        let publish = PublishKeeper::new(&node, own, overlay.clone(), publishing.clone());
        Self {
            started: node.host.clock.now(),
            overlay,
            publish: Arc::new(publish),
            publishing,
            port_maps: Arc::new(port_maps),
            exit,
            membership: Arc::new(membership),
            standing,
            lists: Arc::default(),
            page: Arc::default(),
            sinkhole: Arc::default(),
            lane: Arc::default(),
            cut_off: CutOffWatch::new(&node, tunnel.clone(), progress.clone()),
            reach: Reach::new(&node, tunnel.clone(), progress.clone(), counters.clone()),
            counters,
            relaying: Arc::new(Relaying::new(&node, relayed.clone())),
            relayed,
            requests: Arc::new(Requests::new(&node)),
            names: Arc::new(NameClaimer::new(&node, services.clone())),
            holds: Arc::new(HoldKeeper::new(&node, announcer.clone())),
            device_holds: Arc::new(DeviceHoldKeeper::new(&node, announcer.clone())),
            invites,
            tunnel_keys: Arc::new(tunnel_keys),
            certs: Arc::new(CertKeeper::new(&node, certs)),
            acme_trouble: watch::Sender::default(),
            encrypted_dns: Arc::default(),
            resolver: Arc::new(resolver_keeper(&node, &dns, news.clone())),
            news,
            left: watch::Sender::new(false),
            node,
            lock,
            nudge,
            services,
            docker,
            dns,
            tunnel,
            stamp_ms,
            addresses,
            zone,
            announcer,
            secrets: Arc::new(secrets),
            pairs,
            progress,
        }
    }

    /// Brings up what follows the view, then answers peers.
    pub async fn start(mut self) -> Result<RunningAgent, BuildError> {
        let keeper = DnsKeeper::new(&self.node, self.dns.clone(), &self.addresses);
        let listening = keeper.listening();
        self.exit.load(&*self.node.host.disk).await;
        self.overlay.look().await;
        self.overlay.enforce(true).await;
        keeper.listen_early();
        // The resolver's addresses exist once the interface has them.
        let view = self.node.view.borrow().clone();
        let plan = self
            .overlay
            .beside(&view, planned(&view, &self.secrets, &self.pairs));
        self.tunnel.apply(&plan).await?;
        self.overlay.enforce(true).await;
        self.addresses.look().await;
        self.zone.publish();
        let on_lans = keeper.on_lans(self.addresses.sources());
        let beside = keeper.for_secondaries(self.addresses.sources());
        let (zone, announcer) = (self.zone.clone(), self.announcer.clone());
        let secondaries = SecondaryKeeper::new(&self.node, zone, announcer, beside);
        let lans = LanKeeper::new(&self.node, on_lans, self.zone.clone());
        let own = OwnCertificate::new(&self.node);
        let shown = own.shown();
        let encrypted = EncryptedKeeper::new(
            &self.node.host,
            &self.node.config,
            EncryptedDns::new(self.dns.clone(), shown.clone()),
            keeper.around(),
            listening.clone(),
            (shown.clone(), self.encrypted_dns.clone()),
        );
        keeper.start();
        let tasks = &self.node.host.tasks;
        tasks.spawn(lans.run());
        tasks.spawn(own.keep());
        tasks.spawn(encrypted.run());
        tasks.spawn(secondaries.run());
        self.listen().await;
        self.follow();
        let backend = Arc::new(LedgerBackend::new(
            &self.node,
            self.dns.clone(),
            self.addresses.clone(),
        ));
        let trouble = self.acme_trouble.clone();
        let acme = AcmeKeeper::new(&self.node, self.addresses.clone(), shown, trouble)
            .start(backend.clone())
            .await
            .map_err(|error| {
                BuildError::Io(self.node.host.disk.root().display().to_string(), error)
            })?;
        let tasks = &self.node.host.tasks;
        tasks.spawn(self.certs.clone().run());
        let services = self.services.clone();
        tasks.spawn(async move { services.run().await });
        if let Some(docker) = self.docker.take() {
            tasks.spawn(docker.run());
        }
        let accounts = ExternalAccounts { acme, backend };
        let control = self.control(&listening, accounts);
        Ok(RunningAgent {
            node: self.node,
            dns: self.dns,
            tunnel: self.tunnel,
            overlay: self.overlay,
            publish: self.publish,
            port_maps: self.port_maps,
            resolver: self.resolver,
            control: Arc::new(control),
            left: self.left,
            listening,
            _lock: self.lock,
        })
    }

    /// Serves people, and exchanges revocation lists.
    async fn listen(&self) {
        let node = &self.node;
        let crl = CrlKeeper::new(node, self.lists.clone());
        crl.load().await;
        let (addresses, lists) = (self.addresses.clone(), self.lists.clone());
        PageKeeper::new(node, addresses, lists, self.page.clone()).start();
        LaneKeeper::new(node, self.addresses.sources(), self.lane.clone()).start();
        let (enforced, trouble) = (self.zone.enforced.clone(), self.sinkhole.clone());
        let sinkhole = SinkholeKeeper::new(node, &self.addresses, enforced, trouble.clone());
        node.host.tasks.spawn(sinkhole.run());
        let announcer = self.announcer.clone();
        if let Some(dns) = SinkholeDnsKeeper::new(node, &self.addresses, announcer, trouble) {
            node.host.tasks.spawn(dns.run());
        }
        node.host.tasks.spawn(crl.run());
    }

    /// Answers peers, and starts what follows the view.
    fn follow(&self) {
        let node = &self.node;
        let (lists, cut_off) = (self.lists.clone(), self.cut_off.clone());
        let punches = Punches::new(node, self.tunnel.clone(), self.progress.clone());
        let wanted = Arc::<Wanted>::default();
        let (own, pairs) = (self.announcer.tunnel_key.clone(), self.pairs.clone());
        let pair_keys = PairKeyAnswers::new(node, own.clone(), pairs.clone(), wanted.clone());
        let handler = PeerHandler::new(
            node,
            self.nudge.clone(),
            lists,
            cut_off,
            self.requests.clone(),
            self.invites.clone(),
            TunnelAnswers {
                counters: self.counters.clone(),
                punches,
                pair_keys,
                relaying: self.relaying.clone(),
            },
        );
        node.transport.serve(Arc::new(handler));
        let tasks = &node.host.tasks;
        let (announcer, zone) = (self.announcer.clone(), self.zone.clone());
        let times = (self.started, self.stamp_ms.clone());
        let view = ViewKeeper::new(node, announcer, zone, times, self.lock.clone());
        tasks.spawn(view.run());
        let (overlay, progress) = (self.overlay.clone(), self.progress.clone());
        let (secrets, news) = ((self.secrets.clone(), pairs.clone()), self.news.clone());
        let tunnel = TunnelKeeper::new(node, self.tunnel.clone(), overlay, secrets, progress, news);
        tasks.spawn(tunnel.run());
        let devices = DeviceWatch::new(node, self.tunnel.clone(), self.announcer.clone());
        tasks.spawn(devices.run());
        tasks.spawn(BesideKeeper::new(node, self.zone.enforced.clone()).run());
        tasks.spawn(self.publish.clone().run());
        let (enforced, publishing) = (self.zone.enforced.clone(), self.publishing.clone());
        tasks.spawn(PublishProxy::new(node, enforced, publishing).run());
        tasks.spawn(self.resolver.clone().run());
        tasks.spawn(self.tunnel_keys.clone().run());
        tasks.spawn(self.reach.clone().run());
        let (tunnel, progress) = (self.tunnel.clone(), self.progress.clone());
        tasks.spawn(NarrowWays::new(node, tunnel, progress).run());
        tasks.spawn(self.path_keeper().run());
        let (tunnel, progress) = (self.tunnel.clone(), self.progress.clone());
        let keeper = PairKeyKeeper::new(node, tunnel, progress, (pairs, wanted), own);
        tasks.spawn(keeper.run());
        tasks.spawn(self.port_maps.clone().run());
        let (announcer, zone) = (self.announcer.clone(), self.zone.clone());
        tasks.spawn(HostFollower::new(node, announcer, zone).run());
        let (handles, standing) = (node.clone(), self.standing.clone());
        tasks.spawn(async move { Dialer::new(&handles, standing).await.run().await });
        let handles = node.clone();
        tasks.spawn(async move {
            if let Some(dialer) = LaneDialer::new(&handles).await {
                dialer.run().await;
            }
        });
        tasks.spawn(self.names.clone().run());
        tasks.spawn(self.holds.clone().run());
        tasks.spawn(self.device_holds.clone().run());
        tasks.spawn(self.membership.clone().run());
    }

    fn path_keeper(&self) -> PathKeeper {
        let (tunnel, progress) = (self.tunnel.clone(), self.progress.clone());
        let relays = (self.relayed.clone(), self.relaying.clone());
        PathKeeper::new(&self.node, tunnel, progress, self.announcer.clone(), relays)
    }

    /// What does each of the things that people ask for.
    fn control(&self, listening: &Arc<Listening>, accounts: ExternalAccounts) -> AgentControl {
        let node = &self.node;
        let warnings = Warnings {
            node: node.clone(),
            services: self.services.clone(),
            names: self.names.clone(),
            membership: self.standing.clone(),
            tunnel: self.progress.clone(),
            listening: listening.clone(),
            enforced: self.zone.enforced.clone(),
            publishing: self.publishing.clone(),
            exit: self.exit.clone(),
            lists: self.lists.clone(),
            page: self.page.clone(),
            sinkhole: self.sinkhole.clone(),
            lane: self.lane.clone(),
            secondaries: self.zone.secondaries.clone(),
            certs: self.certs.clone(),
            acme_trouble: self.acme_trouble.clone(),
            encrypted_dns: self.encrypted_dns.clone(),
            resolver: self.resolver.clone(),
            reach: self.reach.clone(),
            port_maps: self.announcer.port_maps.clone(),
        };
        AgentControl {
            node: node.clone(),
            port_maps: self.announcer.port_maps.clone(),
            dns: self.dns.clone(),
            in_lan: self.zone.in_lan.clone(),
            status: StatusDesk {
                node: node.clone(),
                started: self.started,
                listening: listening.clone(),
                names: self.names.clone(),
                overlay: self.overlay.clone(),
                relaying: self.relaying.clone(),
                warnings,
            },
            services: ServiceDesk {
                node: node.clone(),
                services: self.services.clone(),
                announcer: self.announcer.clone(),
                names: self.names.clone(),
            },
            devices: DeviceDesk {
                node: node.clone(),
                secrets: self.secrets.clone(),
                seen: self.announcer.devices.clone(),
                holds: self.device_holds.clone(),
            },
            routes: RouteDesk {
                node: node.clone(),
                enforced: self.zone.enforced.clone(),
            },
            publish: PublishDesk {
                node: node.clone(),
                publishing: self.publishing.clone(),
            },
            secondaries: SecondaryDesk {
                node: node.clone(),
                dns: self.dns.clone(),
                listening: listening.clone(),
                secondaries: self.zone.secondaries.clone(),
            },
            exits: ExitDesk {
                node: node.clone(),
                setting: self.exit.clone(),
                enforced: self.zone.enforced.clone(),
                tunnel: self.progress.clone(),
            },
            pairs: self.pairs.clone(),
            prober: TunnelProber {
                host: node.host.clone(),
                tunnel: self.tunnel.clone(),
                progress: self.progress.clone(),
                port: node.config.page_port,
                mtu: node.config.mtu,
            },
            invites: self.invites.clone(),
            evictions: Evictions {
                node: node.clone(),
                holds: self.holds.clone(),
                cut_off: self.cut_off.clone(),
            },
            approvals: Approvals::new(node, self.requests.clone()),
            leaving: LeaveDesk {
                node: node.clone(),
                membership: self.membership.clone(),
                left: self.left.clone(),
            },
            certs: self.certs.clone(),
            tunnel_keys: self.tunnel_keys.clone(),
            external_accounts: accounts,
            resolver: self.resolver.clone(),
        }
    }
}

fn resolver_keeper(node: &Handles, dns: &Arc<Dns>, news: Arc<Notify>) -> ResolverKeeper {
    let (node, dns) = (node.clone(), dns.clone());
    let (host, config) = (node.host.clone(), node.config.clone());
    ResolverKeeper::new(
        &host,
        config.manage_resolver,
        &config.interface,
        news,
        move || About::of(&node, &dns),
    )
}
