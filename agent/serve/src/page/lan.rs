//! Which addresses are those of a LAN.

use std::net::IpAddr;

/// Whether an address is of a private network: what is reached from the internet,
/// or comes from there, isn't (RFC 1918, RFC 3927, RFC 4193, RFC 4291 §2.5.6).
pub fn is_of_a_lan(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_of_a_lan_and_no_others() {
        for (address, is_lan) in [
            ("192.168.1.2", true),
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("169.254.7.7", true),
            ("fd12::1", true),
            ("fe80::1", true),
            ("::ffff:192.168.1.2", true),
            ("172.32.0.1", false),
            ("100.64.0.1", false),
            ("203.0.113.7", false),
            ("2001:db8::1", false),
            ("127.0.0.1", false),
            ("::1", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(is_of_a_lan(address.parse().unwrap()), is_lan, "{address}");
        }
    }
}
