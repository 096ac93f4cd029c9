//! systemd-resolved by D-Bus (org.freedesktop.resolve1(5)): the agent's
//! addresses are the servers of the tunnel's link, for the mesh's names alone.

use std::{net::IpAddr, time::Duration};

use zbus::{Connection, OwnedObjectPath, connection, fdo, proxy::CacheProperties};

use super::{ResolverError, ResolverPlan};

pub(super) const NAME: &str = "org.freedesktop.resolve1";
/// How long one call may take.
const LIMIT: Duration = Duration::from_secs(1);
/// Address families, as the kernel numbers them (address_families(7)).
const INET: i32 = nix::libc::AF_INET;
const INET6: i32 = nix::libc::AF_INET6;

type Server = (i32, Vec<u8>);
/// A domain, and whether it only routes queries.
type Domain = (String, bool);

#[zbus::proxy(
    interface = "org.freedesktop.resolve1.Manager",
    default_service = "org.freedesktop.resolve1",
    default_path = "/org/freedesktop/resolve1"
)]
trait Manager {
    fn get_link(&self, ifindex: i32) -> zbus::Result<OwnedObjectPath>;
    #[zbus(name = "SetLinkDNS")]
    fn set_link_dns(&self, ifindex: i32, servers: &[Server]) -> zbus::Result<()>;
    fn set_link_domains(&self, ifindex: i32, domains: &[Domain]) -> zbus::Result<()>;
    fn set_link_default_route(&self, ifindex: i32, enable: bool) -> zbus::Result<()>;
    #[zbus(name = "SetLinkLLMNR")]
    fn set_link_llmnr(&self, ifindex: i32, mode: &str) -> zbus::Result<()>;
    #[zbus(name = "SetLinkMulticastDNS")]
    fn set_link_multicast_dns(&self, ifindex: i32, mode: &str) -> zbus::Result<()>;
    #[zbus(name = "SetLinkDNSOverTLS")]
    fn set_link_dns_over_tls(&self, ifindex: i32, mode: &str) -> zbus::Result<()>;
    #[zbus(name = "SetLinkDNSSEC")]
    fn set_link_dnssec(&self, ifindex: i32, mode: &str) -> zbus::Result<()>;
    fn revert_link(&self, ifindex: i32) -> zbus::Result<()>;
    fn flush_caches(&self) -> zbus::Result<()>;
    #[zbus(property)]
    fn domains(&self) -> zbus::Result<Vec<(i32, String, bool)>>;
}

#[zbus::proxy(
    interface = "org.freedesktop.resolve1.Link",
    default_service = "org.freedesktop.resolve1"
)]
trait Link {
    #[zbus(property, name = "DNS")]
    fn dns(&self) -> zbus::Result<Vec<Server>>;
    #[zbus(property)]
    fn domains(&self) -> zbus::Result<Vec<Domain>>;
}

/// The system's bus.
pub(super) async fn bus() -> zbus::Result<Connection> {
    let connected = connection::Builder::system().method_timeout(LIMIT).build();
    match tokio::time::timeout(LIMIT, connected).await {
        Ok(bus) => bus,
        Err(_) => Err(zbus::Error::Failure(
            "D-Bus takes too long to answer".to_string(),
        )),
    }
}

/// Whether it runs; it isn't started by the question.
pub(super) async fn is_active() -> bool {
    let asked = async {
        let name = NAME
            .try_into()
            .map_err(|_| fdo::Error::NoServer(NAME.to_string()))?;
        fdo::DBusProxy::new(&bus().await?)
            .await?
            .name_has_owner(name)
            .await
    };
    asked.await.unwrap_or(false)
}

/// Whether it was set just now.
pub(super) async fn apply(plan: &ResolverPlan) -> Result<bool, ResolverError> {
    let index = index(&plan.interface)?;
    let bus = bus().await?;
    let manager = ManagerProxy::builder(&bus)
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    let servers: Vec<Server> = plan.servers.iter().map(server).collect();
    let mut domains = vec![(plan.domain.clone(), true)];
    if !has_search_domain(&manager, index).await {
        domains[0].1 = false;
    }
    domains.extend(plan.reverse.iter().map(|zone| (zone.clone(), true)));
    let path = manager.get_link(index).await?;
    let link = LinkProxy::builder(&bus)
        .path(path)
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    if link.dns().await? == servers && stand(&link.domains().await?, &domains) {
        return Ok(false);
    }
    manager.set_link_dns(index, &servers).await?;
    if manager.set_link_domains(index, &domains).await.is_err() {
        // Builds before 247 take fewer ("Argument list too long"): the reverse
        // zones are the ones that can be done without.
        manager.set_link_domains(index, &domains[..1]).await?;
    }
    manager.set_link_default_route(index, false).await?;
    manager.set_link_llmnr(index, "no").await?;
    manager.set_link_multicast_dns(index, "no").await?;
    manager.set_link_dns_over_tls(index, "no").await?;
    manager.set_link_dnssec(index, "no").await?;
    manager.flush_caches().await?;
    Ok(true)
}

/// Takes the link's settings away; a link that is gone took them along.
pub(super) async fn restore(interface: &str) -> Result<(), ResolverError> {
    let Ok(index) = index(interface) else {
        return Ok(());
    };
    if !is_active().await {
        return Ok(());
    }
    let bus = bus().await?;
    let manager = ManagerProxy::new(&bus).await?;
    manager.revert_link(index).await?;
    Ok(manager.flush_caches().await?)
}

/// Whether a link other than ours, or the host, has a domain to search.
async fn has_search_domain(manager: &ManagerProxy<'_>, own: i32) -> bool {
    let domains = manager.domains().await.unwrap_or_default();
    domains
        .iter()
        .any(|(index, _, routes)| *index != own && !routes)
}

/// Reverse zones may have been left out.
fn stand(set: &[Domain], wanted: &[Domain]) -> bool {
    let same = |domain: &Domain| {
        let name = |text: &str| text.trim_end_matches('.').to_ascii_lowercase();
        wanted
            .iter()
            .any(|wanted| name(&wanted.0) == name(&domain.0) && wanted.1 == domain.1)
    };
    let own = wanted
        .first()
        .is_some_and(|own| set.iter().any(|set| set.0.trim_end_matches('.') == own.0));
    own && set.iter().all(same)
}

fn server(ip: &IpAddr) -> Server {
    match ip {
        IpAddr::V4(ip) => (INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (INET6, ip.octets().to_vec()),
    }
}

fn index(interface: &str) -> Result<i32, ResolverError> {
    let found = nix::net::if_::if_nametoindex(interface).ok();
    found
        .and_then(|index| i32::try_from(index).ok())
        .ok_or_else(|| ResolverError::NoInterface(interface.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(name: &str, routes: bool) -> Domain {
        (name.to_string(), routes)
    }

    #[test]
    fn settings_stand_without_the_reverse_zones_but_not_without_the_domain() {
        let wanted = [
            domain("in.example.org", true),
            domain("77.100.in-addr.arpa", true),
        ];
        assert!(stand(&wanted, &wanted));
        assert!(stand(&wanted[..1], &wanted));
        assert!(!stand(&wanted[1..], &wanted));
        assert!(!stand(&[], &wanted));
        assert!(!stand(&[domain("in.example.org", false)], &wanted));
        let more = [wanted[0].clone(), domain("other.example", true)];
        assert!(!stand(&more, &wanted));
    }

    #[test]
    fn a_server_is_its_family_and_its_bytes() {
        assert_eq!(
            server(&"100.77.0.53".parse().unwrap()),
            (2, vec![100, 77, 0, 53])
        );
        assert_eq!(server(&"fd00::53".parse().unwrap()).1.len(), 16);
    }
}
