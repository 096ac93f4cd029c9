//! Where services may be.

use std::net::IpAddr;

/// Whether a service may say that it answers there: loopback and link-local
/// addresses mean another machine to each reader (DNS rebinding).
pub fn is_service_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            !(ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_broadcast())
        }
        IpAddr::V6(ip) => {
            !(ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.to_ipv4_mapped().is_some())
        }
    }
}
