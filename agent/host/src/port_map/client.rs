//! Asks a router: which packets, how often, for how long. When, the caller decides.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use innermesh_proto::endpoint::is_plausible;

use super::{
    Gateway, Granted, LIFETIME, MapError, Protocol, Refusal, Wanted, http, nat_pmp, pcp,
    upnp::{self, Action, Service},
};
use crate::{Host, within};

/// Where PCP and NAT-PMP are answered (RFC 6887 §19, RFC 6886 §3.1).
const PORT: u16 = 5351;
/// How long each of the packets that ask the same is waited for, as in RFC 6887 §8.1.1, but
/// not as often: it is a router on this host's own link. A busy one is not to be asked more:
/// miniupnpd tries all ports that there are before it refuses, each time.
const WAITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// How long each search is waited for; routers take their time up to the second that they
/// are given.
const SEARCH: Duration = Duration::from_millis(1500);
/// How long a page of the router may take, with its connection.
const PAGE: Duration = Duration::from_secs(4);
/// Outer ports that are tried where another host has one, UPnP lets this host choose.
const PORTS: usize = 4;
/// Outer ports that it chooses from then.
const CHOSEN: std::ops::Range<u16> = 20_000..60_000;

/// A protocol by which a router answered, with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// PCP.
    Pcp,
    /// NAT-PMP.
    NatPmp,
    /// UPnP, by this service.
    Upnp(Service),
}

impl Speaks {
    /// The protocol.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Pcp => Protocol::Pcp,
            Self::NatPmp => Protocol::NatPmp,
            Self::Upnp(_) => Protocol::Upnp,
        }
    }
}

/// What a router says where nothing is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its outer address, where the protocol says that.
    pub external: Option<Ipv4Addr>,
    /// Its own time, where it says that.
    pub epoch: Option<u32>,
}

/// Asks routers.
#[derive(Clone)]
pub struct Client {
    host: Host,
}

impl Client {
    /// Asks from this host.
    pub fn new(host: &Host) -> Self {
        Self { host: host.clone() }
    }

    /// Finds out whether the router speaks a protocol; it keeps nothing of that.
    ///
    /// # Errors
    /// [`MapError`].
    pub async fn find(
        &self,
        gateway: &Gateway,
        protocol: Protocol,
    ) -> Result<(Speaks, Seen), MapError> {
        match protocol {
            Protocol::Pcp => Ok((Speaks::Pcp, self.look(gateway, &Speaks::Pcp).await?)),
            Protocol::NatPmp => Ok((Speaks::NatPmp, self.look(gateway, &Speaks::NatPmp).await?)),
            Protocol::Upnp => {
                // As of a device that describes no service that maps.
                let mut why = MapError::Refused(Protocol::Upnp, Refusal::Unsupported);
                for service in self.services(gateway).await? {
                    let speaks = Speaks::Upnp(service);
                    match self.look(gateway, &speaks).await {
                        Ok(seen) => return Ok((speaks, seen)),
                        Err(error) => why = error,
                    }
                }
                Err(why)
            }
        }
    }

    /// Asks what costs the router nothing.
    ///
    /// # Errors
    /// [`MapError`].
    pub async fn look(&self, gateway: &Gateway, speaks: &Speaks) -> Result<Seen, MapError> {
        match speaks {
            Speaks::Pcp => {
                let packet = pcp::announce(gateway);
                let answer = self.ask(gateway, Protocol::Pcp, &packet).await?;
                Ok(Seen {
                    external: None,
                    epoch: Some(pcp::announced(&answer)?),
                })
            }
            Speaks::NatPmp => {
                let packet = nat_pmp::ASK_ADDRESS;
                let answer = self.ask(gateway, Protocol::NatPmp, &packet).await?;
                let (external, epoch) = nat_pmp::address(&answer)?;
                Ok(Seen {
                    external: Some(external),
                    epoch: Some(epoch),
                })
            }
            Speaks::Upnp(service) => {
                let body = self.act(service, &Action::Address).await?;
                let external = upnp::address(&body);
                let external = external.ok_or(MapError::Malformed(Protocol::Upnp))?;
                Ok(Seen {
                    external: Some(external),
                    epoch: None,
                })
            }
        }
    }

    /// Has a port mapped, or a mapping renewed.
    ///
    /// # Errors
    /// [`MapError`].
    pub async fn map(
        &self,
        gateway: &Gateway,
        speaks: &Speaks,
        wanted: &Wanted,
    ) -> Result<Granted, MapError> {
        let granted = match speaks {
            Speaks::Pcp => {
                let packet = pcp::map(gateway, wanted, LIFETIME);
                pcp::mapped(&self.ask(gateway, Protocol::Pcp, &packet).await?, wanted)
            }
            Speaks::NatPmp => {
                let ip = self.look(gateway, speaks).await?.external;
                let ip = ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
                let packet = nat_pmp::map(wanted, LIFETIME);
                let answer = self.ask(gateway, Protocol::NatPmp, &packet).await?;
                nat_pmp::mapped(&answer, wanted, ip)
            }
            Speaks::Upnp(service) => self.map_by_upnp(gateway, service, wanted).await,
        }?;
        let is_place = is_plausible(&SocketAddr::V4(granted.external), &[], false);
        if is_place {
            Ok(granted)
        } else {
            // As a router says whose own line is down.
            Err(MapError::Refused(speaks.protocol(), Refusal::NoNetwork))
        }
    }

    /// Ends a mapping.
    ///
    /// # Errors
    /// [`MapError`].
    pub async fn unmap(
        &self,
        gateway: &Gateway,
        speaks: &Speaks,
        wanted: &Wanted,
    ) -> Result<(), MapError> {
        match speaks {
            Speaks::Pcp => {
                let packet = pcp::map(gateway, wanted, Duration::ZERO);
                pcp::mapped(&self.ask(gateway, Protocol::Pcp, &packet).await?, wanted)?;
            }
            Speaks::NatPmp => {
                let packet = nat_pmp::map(wanted, Duration::ZERO);
                let answer = self.ask(gateway, Protocol::NatPmp, &packet).await?;
                nat_pmp::mapped(&answer, wanted, Ipv4Addr::UNSPECIFIED)?;
            }
            Speaks::Upnp(service) => {
                // Where the answer to the question was lost, it was for this one.
                let outer = wanted.before.map_or(wanted.port, |before| before.port());
                let body = self.act_or_fault(service, &Action::Look(outer)).await?;
                let own = SocketAddrV4::new(gateway.own, wanted.port);
                // Another host may have it by now.
                if body.is_ok_and(|body| upnp::leads_to(&body) == Some(own)) {
                    self.act(service, &Action::Delete(outer)).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether a mapping is still there, where the router can say so of one.
    ///
    /// # Errors
    /// [`MapError`].
    pub async fn is_there(
        &self,
        gateway: &Gateway,
        speaks: &Speaks,
        wanted: &Wanted,
    ) -> Result<bool, MapError> {
        let (Speaks::Upnp(service), Some(before)) = (speaks, wanted.before) else {
            return Ok(true);
        };
        match self
            .act_or_fault(service, &Action::Look(before.port()))
            .await?
        {
            Ok(body) => {
                let own = SocketAddrV4::new(gateway.own, wanted.port);
                Ok(upnp::leads_to(&body) == Some(own))
            }
            // No such entry; what else it says is about the question.
            Err((code, _)) => Ok(code != 714),
        }
    }

    async fn map_by_upnp(
        &self,
        gateway: &Gateway,
        service: &Service,
        wanted: &Wanted,
    ) -> Result<Granted, MapError> {
        let speaks = Speaks::Upnp(service.clone());
        let ip = self.look(gateway, &speaks).await?.external;
        let ip = ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let to = SocketAddrV4::new(gateway.own, wanted.port);
        let mut outer = wanted.before.map_or(wanted.port, |before| before.port());
        let mut seconds = LIFETIME.as_secs() as u32;
        let mut why = MapError::Silent(Protocol::Upnp);
        for _ in 0..PORTS {
            let map = Action::Map { outer, to, seconds };
            match self.act_or_fault(service, &map).await? {
                Ok(_) => {
                    let lifetime = (seconds > 0).then_some(LIFETIME);
                    return Ok(Granted {
                        external: SocketAddrV4::new(ip, outer),
                        lifetime,
                        epoch: None,
                    });
                }
                // OnlyPermanentLeasesSupported.
                Err((725, _)) if seconds > 0 => seconds = 0,
                // ConflictInMappingEntry.
                Err((718, error)) => (outer, why) = (self.any_port(), error),
                // SamePortValuesRequired.
                Err((724, error)) if outer == wanted.port => return Err(error),
                Err((724, error)) => (outer, why) = (wanted.port, error),
                Err((_, error)) => return Err(error),
            }
        }
        Err(why)
    }

    fn any_port(&self) -> u16 {
        let mut random = [0; 2];
        self.host.keys.random(&mut random);
        CHOSEN.start + u16::from_be_bytes(random) % (CHOSEN.end - CHOSEN.start)
    }

    /// One answer of the router to a packet, which is sent again where there is none.
    async fn ask(
        &self,
        gateway: &Gateway,
        protocol: Protocol,
        packet: &[u8],
    ) -> Result<Vec<u8>, MapError> {
        let to = [(SocketAddrV4::new(gateway.router, PORT), packet.to_vec())];
        let answer = self.answer(gateway, &to, &WAITS).await;
        answer.ok_or(MapError::Silent(protocol))
    }

    async fn answer(
        &self,
        gateway: &Gateway,
        packets: &[(SocketAddrV4, Vec<u8>)],
        waits: &[Duration],
    ) -> Option<Vec<u8>> {
        for wait in waits {
            let asking = self.host.net.ask_router(gateway, packets);
            match within(&*self.host.clock, *wait, asking).await {
                Some(Ok(answer)) => return Some(answer),
                // Nobody listens there.
                Some(Err(_)) => return None,
                None => {}
            }
        }
        None
    }

    async fn services(&self, gateway: &Gateway) -> Result<Vec<Service>, MapError> {
        // Some routers hear what is sent to themselves alone, some to the group alone.
        let own = SocketAddrV4::new(gateway.router, upnp::SSDP.port());
        let mut answer = None;
        for search in upnp::searches() {
            let packets = [own, upnp::SSDP].map(|to| (to, search.clone().into_bytes()));
            answer = self.answer(gateway, &packets, &[SEARCH]).await;
            if answer.is_some() {
                break;
            }
        }
        let answer = answer.ok_or(MapError::Silent(Protocol::Upnp))?;
        let page = upnp::description(&answer, gateway.router);
        let page = page.ok_or(MapError::Malformed(Protocol::Upnp))?;
        let text = self.exchange(page.at, &http::get(&page)).await?;
        Ok(upnp::services(&text, &page))
    }

    async fn act(&self, service: &Service, action: &Action) -> Result<String, MapError> {
        let done = self.act_or_fault(service, action).await?;
        done.map_err(|(_, error)| error)
    }

    async fn act_or_fault(
        &self,
        service: &Service,
        action: &Action,
    ) -> Result<Result<String, (u16, MapError)>, MapError> {
        let request = http::post(service, action);
        let body = self.exchange(service.control.at, &request).await?;
        Ok(match upnp::fault(&body) {
            Some(fault) => Err(fault),
            None => Ok(body),
        })
    }

    async fn exchange(&self, at: SocketAddrV4, request: &str) -> Result<String, MapError> {
        let net = &self.host.net;
        let exchange = async {
            let stream = net.connect(at.into()).await;
            let stream = stream.map_err(|_| MapError::Silent(Protocol::Upnp))?;
            let answer = http::exchange(stream, request).await;
            answer.map_err(|_| MapError::Malformed(Protocol::Upnp))
        };
        let done = within(&*self.host.clock, PAGE, exchange).await;
        done.unwrap_or(Err(MapError::Silent(Protocol::Upnp)))
    }
}
