//! Hosts behind NATs, as routers at home and of providers translate: by nftables, with the
//! mapping and filtering of RFC 4787 §4 and §5.

#![allow(missing_docs, reason = "the names say it")]

use std::{fs, net::Ipv4Addr, path::PathBuf};

use crate::{
    Host, Lab,
    namespace::Namespace,
    process::{Process, run},
};

/// How a NAT maps and filters UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    /// One mapping for all, which anybody may use.
    FullCone,
    /// Addresses that were sent to may answer, from any port.
    AddressRestricted,
    /// Addresses and ports that were sent to may.
    PortRestricted,
    /// A mapping for each destination, at a port that nobody guesses.
    Symmetric,
    /// As [`NatKind::PortRestricted`], and UDP passes to the port of the seed alone: the
    /// tunnel's is closed.
    NoTunnel,
    /// As [`NatKind::PortRestricted`] for TCP, and no UDP passes at all.
    NoUdp,
}

/// By what a router is asked for ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Pcp,
    NatPmp,
    Upnp,
    /// Any of them.
    All,
}

/// A NAT, with the outer address that its first host had.
#[derive(Debug)]
pub struct Nat {
    pub outer: Ipv4Addr,
    namespace: Namespace,
    file: PathBuf,
    /// What maps ports for those who ask.
    mapper: Option<Process>,
}

impl Lab {
    /// Puts hosts behind a NAT, in one network of their own, without IPv6.
    pub fn put_behind_nat(&self, kind: NatKind, hosts: &[&Host]) -> Nat {
        let first = hosts.first().expect("a host");
        let namespace = Namespace::new(&format!("nat{}", first.index), &first.directory)
            .expect("a namespace, as the host has one");
        let outer = first.ipv4;
        let pid = namespace.pid().to_string();
        for host in hosts {
            self.unplug(host);
        }
        self.plug_in(first, &pid);
        namespace.shell(
            r#"echo 1 >/proc/sys/net/ipv4/ip_forward
               ip link set lo up
               ip address add "$1" peer 192.0.2.1 dev wan
               ip link set wan up
               ip route add default via 192.0.2.1 dev wan onlink
               ip link add lan type bridge
               ip address add 192.168.77.1/24 dev lan
               ip link set lan up"#,
            &[&outer.to_string()],
        );
        for host in hosts {
            let inner = inner_address(host);
            host.shell(
                r#"ip link add eth0 type veth peer name "in$2" netns "$1"
                   ip address add "$3"/24 dev eth0
                   ip link set eth0 up
                   ip route add default via 192.168.77.1"#,
                &[&pid, &host.index.to_string(), &inner.to_string()],
            );
            namespace.shell(
                r#"ip link set "in$1" master lan up"#,
                &[&host.index.to_string()],
            );
        }
        let file = first.directory.join("nat.nft");
        let nat = Nat {
            outer,
            namespace,
            file,
            mapper: None,
        };
        nat.translate(kind);
        nat
    }
}

/// The address of a host behind a NAT.
pub fn inner_address(host: &Host) -> Ipv4Addr {
    let number = u8::try_from(host.index + 10).expect("few hosts");
    Ipv4Addr::new(192, 168, 77, number)
}

impl Nat {
    /// Maps and filters by this kind from now on, and forgets all mappings.
    pub fn translate(&self, kind: NatKind) {
        fs::write(&self.file, rules(kind)).expect("a file of the laboratory");
        self.namespace
            .shell(r#"nft -f "$1""#, &[&self.file.to_string_lossy()]);
        self.forget();
    }

    /// Has `miniupnpd` map ports for those who ask in its three ways or one, at an address
    /// that this returns: it has none that are for documentation.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn map_on_request(&mut self, lab: &Lab, host: &Host, by: Asked) -> Ipv4Addr {
        let [.., last] = self.outer.octets();
        let external = Ipv4Addr::new(9, 9, 9, last);
        lab.lead(external, host);
        let (pcp_or_pmp, upnp) = match by {
            Asked::Upnp => ("no", "yes"),
            Asked::Pcp | Asked::NatPmp => ("yes", "no"),
            Asked::All => ("yes", "yes"),
        };
        // The first byte is the version.
        let closed = match by {
            Asked::Pcp => "udp dport 5351 @th,64,8 0 drop",
            Asked::NatPmp => "udp dport 5351 @th,64,8 2 drop",
            Asked::Upnp | Asked::All => "",
        };
        let rules = host.directory.join("mapper.nft");
        let table = format!(
            "table inet mapper {{
  chain forward {{
    type filter hook forward priority filter - 1
    jump mapped
  }}
  chain mapped {{
  }}
  chain to {{
    type nat hook prerouting priority dstnat - 1
    jump mapped_to
  }}
  chain mapped_to {{
  }}
  chain from {{
    type nat hook postrouting priority srcnat - 1
    jump mapped_from
  }}
  chain mapped_from {{
  }}
  chain ask {{
    type filter hook input priority filter
    {closed}
  }}
}}
"
        );
        fs::write(&rules, table).expect("a file of the laboratory");
        let config = host.directory.join("mapper.conf");
        let text = format!(
            "ext_ifname=wan
listening_ip=lan
ext_ip={external}
enable_natpmp={pcp_or_pmp}
enable_upnp={upnp}
upnp_table_name=mapper
upnp_nat_table_name=mapper
upnp_forward_chain=mapped
upnp_nat_chain=mapped_to
upnp_nat_postrouting_chain=mapped_from
secure_mode=yes
uuid=11111111-1111-4111-8111-111111111111
allow 1024-65535 0.0.0.0/0 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"
        );
        fs::write(&config, text).expect("a file of the laboratory");
        self.namespace.shell(
            r#"mount -t tmpfs -o mode=755 tmpfs /run
               ip address add "$1/32" dev wan
               nft -f "$2""#,
            &[&external.to_string(), &rules.to_string_lossy()],
        );
        let config = config.to_string_lossy().into_owned();
        let words = ["miniupnpd", "-d", "-f", &config];
        let log = host.directory.join("mapper.log");
        let pid = Some(self.namespace.pid());
        let mapper = Process::start("miniupnpd", pid, &words, &[], &log);
        self.mapper = Some(mapper.expect("miniupnpd is there"));
        external
    }

    /// The rules by which mapped ports lead inside.
    #[must_use]
    pub fn mapped(&self) -> String {
        let list = ["nft", "list", "chain", "inet", "mapper", "mapped_to"];
        run(self.namespace.pid(), &list, &[]).ok()
    }

    /// Forgets all mappings, as one that starts again.
    pub fn forget(&self) {
        self.namespace.shell(
            "conntrack -F 2>/dev/null || true
             nft flush map ip nat cone
             nft flush set ip nat seen",
            &[],
        );
    }
}

/// The kernel's own translation keeps a port where it can, and so maps for all
/// destinations alike; which of them may answer is for the maps and what they accept.
fn rules(kind: NatKind) -> String {
    let translate = match kind {
        NatKind::Symmetric => "masquerade random,fully-random",
        _ => "masquerade",
    };
    let accept = match kind {
        NatKind::FullCone => "iifname wan meta l4proto udp dnat ip to udp dport map @cone",
        NatKind::AddressRestricted => {
            "iifname wan ip saddr . udp dport @seen dnat ip to udp dport map @cone"
        }
        _ => "",
    };
    let close = match kind {
        NatKind::NoTunnel => "udp dport 51820 drop\nudp sport 51820 drop",
        NatKind::NoUdp => "meta l4proto udp drop",
        _ => "",
    };
    format!(
        "add table ip nat
delete table ip nat
table ip nat {{
  map cone {{
    type inet_service : ipv4_addr . inet_service
    flags dynamic, timeout
    timeout 120s
  }}
  set seen {{
    type ipv4_addr . inet_service
    flags dynamic, timeout
    timeout 120s
  }}
  chain pre {{
    type nat hook prerouting priority dstnat
    {accept}
  }}
  chain post {{
    type nat hook postrouting priority srcnat
    oifname wan {translate}
  }}
  chain note {{
    type filter hook forward priority filter
    {close}
    iifname lan oifname wan meta l4proto udp update @cone {{ udp sport : ip saddr . udp sport }}
    iifname lan oifname wan meta l4proto udp update @seen {{ ip daddr . udp sport }}
  }}
  chain guard {{
    type filter hook forward priority filter + 1
    iifname wan ct status dnat accept
    iifname wan ct state new drop
  }}
  chain inp {{
    type filter hook input priority filter
    iifname wan ct state new drop
  }}
}}
"
    )
}
