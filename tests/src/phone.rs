//! A phone: a host without an agent, on which Debian's wg-quick and wireguard-go run
//! by a configuration that `agent device add` printed.

#![allow(missing_docs, reason = "the names say it")]

use std::{fs, net::IpAddr, os::unix::fs::PermissionsExt, path::PathBuf};

use crate::{Finished, Host, Lab};

/// What programs of Debian it takes.
pub const PROGRAMS: [&str; 5] = ["wg", "wg-quick", "wireguard-go", "dig", "nft"];

/// What `resolvconf` is to wg-quick: here it has a file to itself.
const RESOLVCONF: &str = r#"#!/bin/sh
case $1 in
-a) cat >/etc/resolv.conf ;;
-d) : >/etc/resolv.conf ;;
esac
"#;

/// A phone behind the NAT of a home router.
#[derive(Debug)]
pub struct Phone<'lab> {
    pub host: &'lab Host,
    programs: PathBuf,
}

impl<'lab> Phone<'lab> {
    /// The phone has no cable but the one to its router, which hides it behind its
    /// own addresses.
    ///
    /// # Panics
    /// When the laboratory can't be made so.
    #[must_use]
    pub fn behind(lab: &Lab, router: &Host, phone: &'lab Host) -> Self {
        lab.connect_directly(phone, router);
        let shell = |host: &Host, script: &str| {
            let _ = host.run(&["sh", "-euc", script]).ok();
        };
        shell(
            router,
            "echo 1 >/proc/sys/net/ipv4/ip_forward
             echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
             ip address add 2001:db8:5::2/64 dev direct nodad
             nft add table inet home
             nft 'add chain inet home out { type nat hook postrouting priority srcnat; }'
             nft 'add rule inet home out oifname eth0 masquerade'
             nft 'add chain inet home through { type filter hook forward priority filter; }'
             nft 'add rule inet home through iifname eth0 ct state new drop'",
        );
        shell(
            phone,
            "ip link set eth0 down
             ip address add 2001:db8:5::1/64 dev direct nodad
             ip route replace default via 198.51.100.2 dev direct
             ip -6 route replace default via 2001:db8:5::2 dev direct",
        );
        let programs = phone.directory.join("programs");
        fs::create_dir(&programs).expect("a folder of the laboratory");
        let resolvconf = programs.join("resolvconf");
        fs::write(&resolvconf, RESOLVCONF).expect("a file of the laboratory");
        fs::set_permissions(&resolvconf, fs::Permissions::from_mode(0o755)).expect("its mode");
        Self {
            host: phone,
            programs,
        }
    }

    /// Where a configuration may be written; its name is the interface's.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.host.directory.join(format!("{name}.conf"))
    }

    /// Connects by a configuration, as the app's switch does.
    pub fn up(&self, name: &str) -> Finished {
        self.wg_quick("up", name)
    }

    /// The reverse.
    pub fn down(&self, name: &str) -> Finished {
        self.wg_quick("down", name)
    }

    fn wg_quick(&self, action: &str, name: &str) -> Finished {
        let file = self.file(name);
        let words = ["wg-quick", action, &file.to_string_lossy()];
        self.host.run_with(&words, &[("PATH", &self.path())])
    }

    fn path(&self) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        format!("{}:{path}", self.programs.display())
    }

    /// What has a shell find the phone's own programs first.
    #[must_use]
    pub fn preamble(&self) -> String {
        format!("PATH='{}'; export PATH", self.path())
    }

    /// Has a name of the world outside have an address.
    ///
    /// # Panics
    /// When the laboratory can't be changed so.
    pub fn knows(&self, name: &str, address: IpAddr) {
        let hosts = self.host.directory.join("hosts");
        fs::write(&hosts, format!("{address} {name}\n")).expect("a file of the laboratory");
        let mount = ["mount", "--bind", &hosts.to_string_lossy(), "/etc/hosts"];
        // Entering the host's namespaces each time sees what is mounted there.
        let _ = self.host.run(&mount).ok();
    }

    /// What the phone's own resolver says.
    pub fn dig(&self, question: &[&str]) -> Finished {
        let words = ["dig", "+short", "+tries=1", "+time=2"];
        self.host.run(&[&words[..], question].concat())
    }

    /// Its overlay addresses, by its configuration.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn addresses(&self, name: &str) -> [IpAddr; 2] {
        let text = fs::read_to_string(self.file(name)).expect("a configuration");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Address = "));
        let mut all = line.expect("addresses").split(", ").map(|net| {
            let address = net.split('/').next().unwrap_or_default();
            address.parse().expect("an address")
        });
        let mut next = || all.next().expect("two addresses");
        [next(), next()]
    }
}
