//! `lan` of `[dns]`: networks beside the mesh whose hosts may ask.

use innermesh_proto::limits;
use ipnet::IpNet;

use crate::page::is_of_a_lan;

/// No LAN of a home or an office has more addresses of its own: what is wider is a
/// provider's.
const WIDEST_V6: u8 = 48;

/// A network whose hosts can't be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LanError {
    #[error("`lan` of [dns] has {0} networks; at most {most} are used", most = limits::DNS_LANS)]
    TooMany(usize),
    #[error("`lan` of [dns] has {0}, which is a host in a network; give the network, {1}")]
    Host(IpNet, IpNet),
    #[error(
        "`lan` of [dns] has {0}, which isn't a private network: whoever is there could use this \
         host as an open resolver; give the LAN's own, such as 192.168.1.0/24"
    )]
    Public(IpNet),
}

/// Whether only hosts of a LAN are in these.
///
/// # Errors
/// [`LanError`].
pub(super) fn check(nets: &[IpNet]) -> Result<(), LanError> {
    if nets.len() > limits::DNS_LANS {
        return Err(LanError::TooMany(nets.len()));
    }
    for net in nets {
        if *net != net.trunc() {
            return Err(LanError::Host(*net, net.trunc()));
        }
        let is_private = match net {
            IpNet::V4(_) => is_of_a_lan(net.network()) && is_of_a_lan(net.broadcast()),
            // Hosts in a LAN have public addresses of IPv6.
            IpNet::V6(v6) => {
                v6.prefix_len() >= WIDEST_V6
                    && !v6.network().is_multicast()
                    && !v6.network().is_loopback()
            }
        };
        if !is_private {
            return Err(LanError::Public(*net));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(nets: &[&str]) -> Result<(), LanError> {
        let nets: Vec<IpNet> = nets.iter().map(|net| net.parse().unwrap()).collect();
        check(&nets)
    }

    #[test]
    fn lans_are_private_networks_and_nobody_makes_an_open_resolver_by_mistake() {
        let lans = [
            "192.168.1.0/24",
            "10.0.0.0/8",
            "fd12::/64",
            "2001:db8:1:2::/64",
        ];
        assert_eq!(checked(&lans), Ok(()));
        for public in [
            "0.0.0.0/0",
            "8.8.8.0/24",
            "192.0.0.0/8",
            "::/0",
            "2001:db8::/32",
            "ff02::/64",
        ] {
            let refused = checked(&[public]);
            assert!(matches!(refused, Err(LanError::Public(_))), "{public}");
        }
        let host = checked(&["192.168.1.5/24"]).unwrap_err().to_string();
        assert!(host.contains("give the network, 192.168.1.0/24"), "{host}");
        let many = vec!["192.168.1.0/24"; limits::DNS_LANS + 1];
        assert!(matches!(checked(&many), Err(LanError::TooMany(_))));
    }
}
