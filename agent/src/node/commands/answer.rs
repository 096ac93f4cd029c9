//! Which function answers which request.

use std::{future::ready, sync::Arc};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    control::{
        AnyRequest, Control, ControlError, Done, Reply,
        acme::AcmeRequest,
        answer,
        ca::CaRequest,
        certificates::CertificatesRequest,
        devices::DevicesRequest,
        dns::{DnsRequest, ZoneText},
        exits::ExitsRequest,
        log::LogsRequest,
        members::MembersRequest,
        node::NodeRequest,
        policy::PolicyRequest,
        publish::PublishRequests,
        records::RecordsRequest,
        renewals::RenewalsRequest,
        routes::RoutesRequest,
        secondaries::SecondariesRequest,
        services::ServicesRequest,
    },
    dns::Dns,
    host::port_map::Mappings,
    node::{
        commands::{
            acme::ExternalAccounts, admit::Approvals, ca_status, certificates, devices::DeviceDesk,
            dns, dns_delegation, dns_public, evict::Evictions, exits::ExitDesk, folder, invite,
            invites, leave::LeaveDesk, logs, netcheck, peers, policy, publish::PublishDesk,
            records, recovery, roles, routes::RouteDesk, secondaries::SecondaryDesk, seeds,
            services::ServiceDesk, status::StatusDesk, tunnel::TunnelProber, voters,
        },
        follow::{
            program_certs::CertKeeper, resolver::ResolverKeeper, tunnel_keys::TunnelKeyKeeper,
        },
        shared::{handles::Handles, in_lan::InLan, invites::Invites, pair_secrets::PairSecrets},
    },
};

type Answered = Result<Reply, ControlError>;

/// An agent, as far as it can be asked: what does each of the things that people
/// ask for.
pub(crate) struct AgentControl {
    pub node: Handles,
    pub dns: Arc<Dns>,
    pub status: StatusDesk,
    pub services: ServiceDesk,
    pub devices: DeviceDesk,
    pub routes: RouteDesk,
    pub publish: PublishDesk,
    pub secondaries: SecondaryDesk,
    pub exits: ExitDesk,
    pub pairs: Arc<PairSecrets>,
    pub prober: TunnelProber,
    pub invites: Arc<Invites>,
    pub evictions: Evictions,
    pub approvals: Approvals,
    pub leaving: LeaveDesk,
    pub certs: Arc<CertKeeper>,
    pub tunnel_keys: Arc<TunnelKeyKeeper>,
    pub external_accounts: ExternalAccounts,
    pub resolver: Arc<ResolverKeeper>,
    pub in_lan: Arc<InLan>,
    pub port_maps: watch::Sender<Mappings>,
}

#[async_trait]
impl Control for AgentControl {
    async fn may_change(&self) -> Result<(), ControlError> {
        folder::is_there(&self.node.host).await
    }

    async fn answer(&self, request: AnyRequest, uid: u32) -> Answered {
        match request {
            AnyRequest::Node(request) => self.node(request).await,
            AnyRequest::Members(request) => self.members(request).await,
            AnyRequest::Services(request) => self.services(request).await,
            AnyRequest::Certificates(request) => self.certificates(request).await,
            AnyRequest::Renewals(request) => self.renewals(request, uid).await,
            AnyRequest::Records(request) => self.records(request).await,
            AnyRequest::Routes(request) => self.routes(request).await,
            AnyRequest::Publish(request) => self.publish(request).await,
            AnyRequest::Exits(request) => self.exits(request).await,
            AnyRequest::Policy(request) => self.policy(request).await,
            AnyRequest::Ca(request) => self.ca(request).await,
            AnyRequest::Acme(request) => self.acme(request).await,
            AnyRequest::Dns(request) => self.dns(request).await,
            AnyRequest::Secondaries(request) => self.secondaries(request).await,
            AnyRequest::Log(request) => self.log(request).await,
            AnyRequest::Devices(request) => self.devices(request).await,
        }
    }
}

impl AgentControl {
    async fn node(&self, request: NodeRequest) -> Answered {
        let node = &self.node;
        match request {
            NodeRequest::Status(it) => {
                answer(it, |_| certain(self.status.status(&self.prober))).await
            }
            NodeRequest::Peers(it) => {
                answer(it, async |_| {
                    Ok(peers::peers(node, &self.prober, &self.pairs).await)
                })
                .await
            }
            NodeRequest::Netcheck(it) => {
                answer(it, async |_| {
                    Ok(netcheck::netcheck(node, &self.port_maps).await)
                })
                .await
            }
            NodeRequest::Ping(it) => {
                answer(it, |it| peers::ping(node, &self.prober, it.node, it.count)).await
            }
            NodeRequest::Rekey(it) => answer(it, |_| self.tunnel_keys.rekey()).await,
            NodeRequest::SeedAdd(it) => {
                answer(it, async |it| seeds::add(node, &it.address).await).await
            }
            NodeRequest::Leave(it) => answer(it, |_| self.leaving.leave()).await,
        }
    }

    async fn members(&self, request: MembersRequest) -> Answered {
        let node = &self.node;
        match request {
            MembersRequest::Invite(it) => {
                answer(it, |it| invite::invite(node, &self.invites, it)).await
            }
            MembersRequest::InviteList(it) => {
                answer(it, |_| invites::list(node, &self.invites)).await
            }
            MembersRequest::InviteRevoke(it) => {
                answer(it, async |it| {
                    invites::revoke(node, &self.invites, &it.id).await
                })
                .await
            }
            MembersRequest::Role(it) => answer(it, |it| roles::change(node, it)).await,
            MembersRequest::RoleWord(it) => {
                answer(it, |it| ready(roles::word(node, &it.node))).await
            }
            MembersRequest::Evict(it) => answer(it, |it| self.evictions.evict(it)).await,
            MembersRequest::EvictUndo(it) => {
                answer(it, async |it| done(self.evictions.withdraw(&it.node)).await).await
            }
            MembersRequest::Admissions(it) => answer(it, |_| self.approvals.list()).await,
            MembersRequest::Approve(it) => answer(it, |it| self.approvals.approve(it)).await,
            MembersRequest::Deny(it) => {
                answer(it, async |it| self.approvals.deny(&it.which).await).await
            }
        }
    }

    async fn services(&self, request: ServicesRequest) -> Answered {
        match request {
            ServicesRequest::List(it) => answer(it, |_| ready(Ok(self.services.list()))).await,
            ServicesRequest::Add(it) => answer(it, |it| self.services.add(it.0)).await,
            ServicesRequest::Rm(it) => {
                answer(it, |it| done(self.services.rm(it.name, it.release))).await
            }
        }
    }

    async fn devices(&self, request: DevicesRequest) -> Answered {
        let devices = &self.devices;
        match request {
            DevicesRequest::List(it) => answer(it, |_| ready(Ok(devices.list()))).await,
            DevicesRequest::Show(it) => answer(it, |it| ready(devices.show(&it.name))).await,
            DevicesRequest::Add(it) => answer(it, |it| devices.add(it)).await,
            DevicesRequest::Renew(it) => answer(it, |it| devices.renew(it)).await,
            DevicesRequest::Rename(it) => answer(it, |it| done(devices.rename(it))).await,
            DevicesRequest::Rm(it) => answer(it, |it| devices.rm(it.name)).await,
        }
    }

    async fn certificates(&self, request: CertificatesRequest) -> Answered {
        let node = &self.node;
        match request {
            CertificatesRequest::List(it) => {
                let mut rows = certificates::list(&node.ledger.state());
                self.certs.join(&mut rows);
                answer(it, |_| ready(Ok(rows))).await
            }
            CertificatesRequest::Issue(it) => answer(it, |it| certificates::issue(node, it)).await,
            CertificatesRequest::Revoke(it) => {
                answer(it, |it| certificates::revoke(node, it.serial)).await
            }
        }
    }

    async fn renewals(&self, request: RenewalsRequest, uid: u32) -> Answered {
        match request {
            RenewalsRequest::Add(it) => answer(it, |it| self.certs.add(it.0, uid)).await,
            RenewalsRequest::Check(it) => answer(it, |it| self.certs.check(it)).await,
            RenewalsRequest::Now(it) => answer(it, |it| self.certs.now(it)).await,
            RenewalsRequest::Rm(it) => answer(it, |it| self.certs.remove(it.0)).await,
        }
    }

    async fn records(&self, request: RecordsRequest) -> Answered {
        let node = &self.node;
        match request {
            RecordsRequest::List(it) => {
                answer(it, |_| ready(Ok(records::list(node, &self.dns)))).await
            }
            RecordsRequest::Add(it) => answer(it, |it| records::add(node, &self.dns, it)).await,
            RecordsRequest::Rm(it) => {
                answer(it, async |it| done(records::rm(node, it)).await).await
            }
        }
    }

    async fn routes(&self, request: RoutesRequest) -> Answered {
        match request {
            RoutesRequest::List(it) => answer(it, |_| ready(Ok(self.routes.list()))).await,
            RoutesRequest::Change(it) => answer(it, |it| self.routes.change(it)).await,
        }
    }

    async fn publish(&self, request: PublishRequests) -> Answered {
        let desk = &self.publish;
        match request {
            PublishRequests::List(it) => answer(it, |_| ready(Ok(desk.list()))).await,
            PublishRequests::Add(it) => answer(it, |it| desk.publish(it)).await,
            PublishRequests::Rm(it) => answer(it, |it| desk.unpublish(it)).await,
        }
    }

    async fn exits(&self, request: ExitsRequest) -> Answered {
        match request {
            ExitsRequest::Show(it) => answer(it, |_| ready(Ok(self.exits.show()))).await,
            ExitsRequest::Use(it) => answer(it, |it| self.exits.begin(it)).await,
            ExitsRequest::Off(it) => answer(it, |_| self.exits.end()).await,
        }
    }

    async fn policy(&self, request: PolicyRequest) -> Answered {
        let node = &self.node;
        match request {
            PolicyRequest::Show(it) => {
                let enforced = &self.status.overlay.enforced;
                answer(it, |_| ready(Ok(policy::show(node, enforced)))).await
            }
            PolicyRequest::Set(it) => answer(it, |it| policy::set(node, it)).await,
            PolicyRequest::Check(it) => answer(it, |it| ready(Ok(policy::check(node, &it)))).await,
            PolicyRequest::Explain(it) => answer(it, |it| policy::explain(node, it)).await,
        }
    }

    async fn ca(&self, request: CaRequest) -> Answered {
        let node = &self.node;
        match request {
            CaRequest::Status(it) => answer(it, |_| certain(ca_status::status(node))).await,
            CaRequest::Root(it) => answer(it, |_| ready(Ok(ca_status::root(node)))).await,
            CaRequest::Keys(it) => answer(it, |it| voters::keys(node, it.node)).await,
            CaRequest::Promote(it) => answer(it, |it| done(voters::promote(node, it))).await,
            CaRequest::Demote(it) => answer(it, |it| roles::demote(node, it)).await,
            CaRequest::Recovery(it) => answer(it, |_| recovery::asked(node)).await,
            CaRequest::Recover(it) => {
                answer(it, |it| done(recovery::recover(node, it.signed))).await
            }
        }
    }

    async fn acme(&self, request: AcmeRequest) -> Answered {
        match request {
            AcmeRequest::Add(it) => answer(it, |it| self.external_accounts.add(it.name)).await,
            AcmeRequest::Rm(it) => answer(it, |it| done(self.external_accounts.rm(it.name))).await,
        }
    }

    async fn secondaries(&self, request: SecondariesRequest) -> Answered {
        let desk = &self.secondaries;
        match request {
            SecondariesRequest::List(it) => answer(it, |_| ready(Ok(desk.list()))).await,
            SecondariesRequest::Add(it) => answer(it, |it| desk.add(it)).await,
            SecondariesRequest::Rm(it) => {
                answer(it, |it| done(async move { desk.rm(&it.name).await })).await
            }
        }
    }

    async fn log(&self, request: LogsRequest) -> Answered {
        match request {
            LogsRequest::Levels(it) => answer(it, |_| ready(logs::levels())).await,
            LogsRequest::Set(it) => answer(it, |it| ready(logs::set(it))).await,
        }
    }

    async fn dns(&self, request: DnsRequest) -> Answered {
        match request {
            DnsRequest::Query(it) => {
                answer(it, |it| dns::query(&self.node, &self.dns, &self.in_lan, it)).await
            }
            DnsRequest::Log(it) => answer(it, |_| ready(Ok(self.dns.log().read()))).await,
            DnsRequest::FollowLog(it) => {
                answer(it, async |it| Ok(self.dns.log().follow(it.from).await)).await
            }
            DnsRequest::Resolver(it) => answer(it, |_| ready(dns::resolver(&self.resolver))).await,
            DnsRequest::Setup(it) => answer(it, |_| self.resolver.setup()).await,
            DnsRequest::Release(it) => answer(it, |_| self.resolver.release()).await,
            DnsRequest::Public(it) => {
                let view = self.node.view.borrow().clone();
                answer(it, |it| ready(dns_public::zone(&view, &it.addresses))).await
            }
            DnsRequest::Verify(it) => {
                let view = self.node.view.borrow().clone();
                let (host, dns) = (&self.node.host, &self.dns);
                answer(it, |it| dns_public::verify(host, dns, &view, it)).await
            }
            DnsRequest::Delegation(it) => {
                let view = self.node.view.borrow().clone();
                answer(it, |_| ready(dns_delegation::delegation(&view))).await
            }
            DnsRequest::VerifyDelegation(it) => {
                let view = self.node.view.borrow().clone();
                let (host, dns) = (&self.node.host, &self.dns);
                answer(it, |it| dns_delegation::verify(host, dns, &view, it)).await
            }
            DnsRequest::Zone(it) => {
                let zone = dns::zone(&self.dns);
                answer(it, |_| ready(Ok(ZoneText { zone }))).await
            }
        }
    }
}

/// What is never refused.
async fn certain<T>(answer: impl Future<Output = T>) -> Result<T, ControlError> {
    Ok(answer.await)
}

/// What has nothing to say.
async fn done(
    answer: impl Future<Output = Result<(), ControlError>>,
) -> Result<Done, ControlError> {
    answer.await.map(|()| Done {})
}
