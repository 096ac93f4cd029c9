//! Hosts on one network, each a network namespace of this machine: addresses
//! in 192.0.2.0/24 and 2001:db8::/64 below the overlay, a router between them
//! in a namespace of its own. Not a bridge: with fifty hosts on one link each
//! has fifty neighbours, and the kernel keeps at most 1,024 over all
//! namespaces and then loses packets.
//!
//! The namespaces have no names and no files: each lives in a process that
//! waits, and is gone with it, however the test ends. Nothing is added to the
//! machine's own network. Each host also has its own `/run` (two agents on
//! one machine would share `/run/wireguard`) and its own `/etc/resolv.conf`.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use tempfile::TempDir;

use crate::{
    namespace::{Namespace, inside},
    process::{Finished, Process, run, run_for},
    skip,
};

/// Most hosts in one laboratory: what 192.0.2.10 and up leaves room for.
pub const HOSTS: usize = 200;

/// The hosts and the network between them.
#[derive(Debug)]
pub struct Lab {
    /// In the order of their addresses.
    pub hosts: Vec<Host>,
    router: Namespace,
    scratch: TempDir,
}

impl Lab {
    /// Hosts on one link. `None` when this machine can't have them, after
    /// saying why: the test is then skipped.
    #[must_use]
    pub fn new(hosts: usize) -> Option<Self> {
        Self::build(hosts).map_err(skip).ok()
    }

    /// As [`Lab::new`].
    ///
    /// # Errors
    /// What this machine lacks.
    pub fn build(hosts: usize) -> Result<Self, String> {
        if hosts > HOSTS {
            return Err(format!("at most {HOSTS} hosts"));
        }
        if !geteuid().is_root() {
            return Err("network namespaces need root here".into());
        }
        if !Path::new("/dev/net/tun").exists() {
            return Err("there is no /dev/net/tun".into());
        }
        let scratch = TempDir::with_prefix("innermesh-lab-").map_err(|e| e.to_string())?;
        let router = Namespace::new("router", scratch.path())?;
        router.shell(
            "echo 1 >/proc/sys/net/ipv4/ip_forward
             echo 1 >/proc/sys/net/ipv6/conf/all/forwarding",
            &[],
        );
        let mut lab = Self {
            hosts: Vec::new(),
            router,
            scratch,
        };
        for index in 0..hosts {
            let host = lab.add_host(index)?;
            lab.hosts.push(host);
        }
        Ok(lab)
    }

    fn add_host(&self, index: usize) -> Result<Host, String> {
        let name = format!("host{index}");
        let directory = self.scratch.path().join(&name);
        fs::create_dir(&directory).map_err(|e| e.to_string())?;
        let resolver = directory.join("resolv.conf");
        fs::write(&resolver, "").map_err(|e| e.to_string())?;

        let number = u8::try_from(10 + index).map_err(|e| e.to_string())?;
        let ipv4 = Ipv4Addr::new(192, 0, 2, number);
        let ipv6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into());
        let namespace = Namespace::new(&name, &directory)?;
        self.router.shell(
            r#"ip link add "$1" type veth peer name eth0 netns "$2""#,
            &[&format!("h{index}"), &namespace.pid().to_string()],
        );
        namespace.shell(
            r#"resolver=$(readlink -m /etc/resolv.conf)
               mount -t tmpfs -o mode=755 tmpfs /run
               mkdir -p "$(dirname "$resolver")" /run/wireguard
               [ -e "$resolver" ] || : >"$resolver"
               mount --bind "$1" "$resolver"
               mount -t sysfs sysfs /sys
               ip link set lo up
               ip address add "$2" peer 192.0.2.1 dev eth0
               ip address add "$3" peer 2001:db8::1 dev eth0 nodad
               ip link set eth0 up
               ip route add default via 192.0.2.1 dev eth0 onlink
               ip route add default via 2001:db8::1 dev eth0 onlink"#,
            &[
                &resolver.to_string_lossy(),
                &ipv4.to_string(),
                &ipv6.to_string(),
            ],
        );
        let host = Host {
            name,
            index,
            ipv4,
            ipv6,
            directory,
            namespace,
        };
        self.connect(&host);
        Ok(host)
    }

    /// Brings the router's end of the host's cable up, with its addresses and
    /// routes, which the kernel drops whenever it is down.
    fn connect(&self, host: &Host) {
        self.router.shell(
            r#"ip link set "$1" up
               ip address replace 192.0.2.1 peer "$2" dev "$1"
               ip address replace 2001:db8::1 peer "$3" dev "$1" nodad"#,
            &[
                &format!("h{}", host.index),
                &host.ipv4.to_string(),
                &host.ipv6.to_string(),
            ],
        );
    }

    /// Drops a share of all packets between hosts, each way, in percent; 0
    /// ends it.
    ///
    /// # Panics
    /// When nftables refuses.
    pub fn set_loss(&self, percent: u32) {
        // nftables refuses a comparison that is always true.
        let chosen = match percent {
            100 => String::new(),
            _ => format!("numgen random mod 100 < {percent}"),
        };
        let table = format!(
            "table inet loss {{\nchain forward {{\ntype filter hook forward priority 0\n\
             {chosen} counter drop\n}}\n}}\n"
        );
        let mut rules = "add table inet loss\ndelete table inet loss\n".to_owned();
        if percent > 0 {
            rules.push_str(&table);
        }
        let file = self.scratch.path().join("loss.nft");
        fs::write(&file, rules).expect("a file of the laboratory");
        let _ = run(
            self.router.pid(),
            &["nft", "-f", &file.to_string_lossy()],
            &[],
        )
        .ok();
    }

    /// Packets that [`Lab::set_loss`] has dropped.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let rules = run(
            self.router.pid(),
            &["nft", "list", "table", "inet", "loss"],
            &[],
        )
        .ok();
        let mut words = rules
            .split_whitespace()
            .skip_while(|w| *w != "packets")
            .skip(1);
        words
            .next()
            .and_then(|w| w.parse().ok())
            .unwrap_or_default()
    }

    /// A second cable, from one host straight to another: a network card
    /// `direct` on each, with 198.51.100.1 on the first and 198.51.100.2 on
    /// the second.
    pub fn connect_directly(&self, first: &Host, second: &Host) {
        self.cable("direct", "198.51.100", first, second);
    }

    /// As [`Lab::connect_directly`], with another name of the network cards, and
    /// another network of 256 addresses by their first three numbers.
    pub fn cable(&self, name: &str, network: &str, first: &Host, second: &Host) {
        first.namespace.shell(
            r#"ip link add "$1" type veth peer name "$1" netns "$2""#,
            &[name, &second.namespace.pid().to_string()],
        );
        for (host, number) in [(first, 1), (second, 2)] {
            let address = format!("{network}.{number}/24");
            host.namespace.shell(
                r#"ip address add "$2" dev "$1"; ip link set "$1" up"#,
                &[name, &address],
            );
        }
    }

    /// Makes the way to each host narrower than its cable, by a router that says
    /// nothing of it.
    pub fn narrow(&self, mtu: u32) {
        let mtu = mtu.to_string();
        for host in &self.hosts {
            self.router.shell(
                r#"ip route replace "$2" dev "$1" src 192.0.2.1 mtu lock "$4"
                   ip -6 route replace "$3" dev "$1" metric 256 mtu lock "$4""#,
                &[
                    &format!("h{}", host.index),
                    &host.ipv4.to_string(),
                    &host.ipv6.to_string(),
                    &mtu,
                ],
            );
        }
        self.router.shell(
            "nft add table inet silence
             nft 'add chain inet silence out { type filter hook output priority 0; }'
             nft 'add rule inet silence out icmp type destination-unreachable drop'
             nft 'add rule inet silence out icmpv6 type packet-too-big drop'",
            &[],
        );
    }

    /// Drops packets between hosts that have more than so many bytes.
    pub fn lose_larger(&self, bytes: u32) {
        self.router.shell(
            r#"nft add table inet narrow
               nft 'add chain inet narrow forward { type filter hook forward priority 0; }'
               nft "add rule inet narrow forward meta length > $1 drop""#,
            &[&bytes.to_string()],
        );
    }

    /// Gives a host other addresses below the overlay, none of IPv6; returns the
    /// new one.
    pub fn renumber(&self, host: &Host) -> Ipv4Addr {
        let [.., last] = host.ipv4.octets();
        let new = Ipv4Addr::new(203, 0, 113, last);
        let text = new.to_string();
        host.namespace.shell(
            r#"ip address flush dev eth0 scope global
               ip address add "$1" peer 192.0.2.1 dev eth0
               ip route add default via 192.0.2.1 dev eth0 onlink"#,
            &[&text],
        );
        self.router.shell(
            r#"ip address flush dev "$1" scope global
               ip address add 192.0.2.1 peer "$2" dev "$1""#,
            &[&format!("h{}", host.index), &text],
        );
        new
    }

    /// Takes a host's cable away, with its network card.
    pub(crate) fn unplug(&self, host: &Host) {
        self.router
            .shell(r#"ip link delete "$1""#, &[&format!("h{}", host.index)]);
    }

    /// Leads a host's address to a network card `wan` in the namespaces of a process.
    pub(crate) fn plug_in(&self, host: &Host, pid: &str) {
        self.router.shell(
            r#"ip link add "$1" type veth peer name wan netns "$2""#,
            &[&format!("h{}", host.index), pid],
        );
        self.connect(host);
    }

    /// Leads another address to where the host's own is.
    pub(crate) fn lead(&self, address: Ipv4Addr, host: &Host) {
        self.router.shell(
            r#"ip route replace "$2" dev "$1""#,
            &[&format!("h{}", host.index), &address.to_string()],
        );
    }

    /// Takes the host's cable out, or puts it back.
    ///
    /// # Panics
    /// When the host is of another laboratory.
    pub fn set_link(&self, host: &Host, up: bool) {
        if up {
            self.connect(host);
        } else {
            let port = format!("h{}", host.index);
            self.router.shell(r#"ip link set "$1" down"#, &[&port]);
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Whatever was started here and got away from its handle.
        let own: BTreeSet<_> = self
            .hosts
            .iter()
            .map(|h| &h.namespace)
            .chain([&self.router])
            .map(Namespace::inode)
            .collect();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|n| n.parse::<i32>().ok())
            else {
                continue;
            };
            if fs::read_link(entry.path().join("ns/net")).is_ok_and(|inode| own.contains(&inode)) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

#[derive(Debug)]
pub struct Host {
    /// `host0` and up.
    pub name: String,
    /// Its place in [`Lab::hosts`].
    pub index: usize,
    /// Its address below the overlay.
    pub ipv4: Ipv4Addr,
    /// Its address below the overlay.
    pub ipv6: Ipv6Addr,
    /// A folder of its own, gone with the laboratory.
    pub directory: PathBuf,
    namespace: Namespace,
}

impl Host {
    /// Runs a script of the laboratory's own here.
    pub(crate) fn shell(&self, script: &str, arguments: &[&str]) {
        self.namespace.shell(script, arguments);
    }

    /// Runs a command here, to the end.
    pub fn run(&self, words: &[&str]) -> Finished {
        run(self.namespace.pid(), words, &[])
    }

    /// As [`Host::run`], with environment variables.
    pub fn run_with(&self, words: &[&str], environment: &[(&str, &str)]) -> Finished {
        run(self.namespace.pid(), words, environment)
    }

    /// As [`Host::run`], for a command that may take this many seconds.
    pub fn run_for(&self, seconds: u32, words: &[&str]) -> Finished {
        run_for(seconds, self.namespace.pid(), words, &[])
    }

    /// Starts a process here; its log lies in [`Host::directory`].
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start(&self, name: &str, words: &[&str], environment: &[(&str, &str)]) -> Process {
        let log = self.directory.join(format!("{name}.log"));
        let title = format!("{name} on {}", self.name);
        Process::start(&title, Some(self.namespace.pid()), words, environment, &log)
            .unwrap_or_else(|e| panic!("{title} can't be started: {e}"))
    }

    /// Makes programs here ask this name server.
    ///
    /// # Panics
    /// When the file can't be written.
    pub fn use_resolver(&self, server: IpAddr) {
        self.write_resolv_conf(&format!("nameserver {server}\n"));
    }

    /// Has this stand in the host's resolv.conf.
    ///
    /// # Panics
    /// When the file can't be written.
    pub fn write_resolv_conf(&self, text: &str) {
        // Written in place: the file is bound over /etc/resolv.conf.
        fs::write(self.directory.join("resolv.conf"), text).expect("a file of the laboratory");
    }

    /// A UDP socket of this host that talks to `server`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn udp_to(&self, server: SocketAddr) -> io::Result<UdpSocket> {
        inside(self.network()?, move || {
            let any = if server.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            let socket = UdpSocket::bind(any)?;
            socket.connect(server)?;
            Ok(socket)
        })
    }

    /// A TCP connection from this host to `server`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn tcp_to(&self, server: SocketAddr) -> io::Result<TcpStream> {
        inside(self.network()?, move || {
            TcpStream::connect_timeout(&server, Duration::from_secs(5))
        })
    }

    /// A TCP socket of this host that listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        inside(self.network()?, move || TcpListener::bind(address))
    }

    /// A UDP socket of this host.
    ///
    /// # Errors
    /// The operating system's.
    pub fn udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        inside(self.network()?, move || UdpSocket::bind(address))
    }

    /// This host's network, to open sockets in it by [`inside`].
    ///
    /// # Errors
    /// The operating system's.
    pub fn network(&self) -> io::Result<File> {
        File::open(self.network_path())
    }

    /// As [`Host::network`], for a command that enters it.
    #[must_use]
    pub fn network_path(&self) -> String {
        format!("/proc/{}/ns/net", self.namespace.pid())
    }

    /// Bytes received and sent by this host's network card so far.
    ///
    /// # Panics
    /// When the counters can't be read.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        let devices = fs::read_to_string(format!("/proc/{}/net/dev", self.namespace.pid()))
            .expect("the counters of a host");
        let line = devices
            .lines()
            .find_map(|l| l.trim().strip_prefix("eth0:"))
            .expect("eth0");
        let figures: Vec<u64> = line
            .split_whitespace()
            .filter_map(|w| w.parse().ok())
            .collect();
        (figures[0], figures[8])
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Lab;
    use crate::wait_for;

    #[test]
    fn hosts_reach_each_other_and_nothing_stays_behind() {
        let Some(lab) = Lab::new(3) else { return };
        for target in [lab.hosts[2].ipv4.to_string(), lab.hosts[2].ipv6.to_string()] {
            let _ = lab.hosts[0].run(&["ping", "-c1", "-W5", &target]).ok();
        }
        let words = ["sh", "-c", "echo up; exec sleep infinity"];
        let mut stray = lab.hosts[1].start("stray", &words, &[]);
        // Until then it may not have entered the host that is to end with it.
        wait_for("stray", Duration::from_secs(10), || {
            let up = stray.log().contains("up");
            up.then_some(()).ok_or("it isn't up")
        });
        let log = lab.hosts[1].directory.clone();
        drop(lab);
        let _ = stray.wait(Duration::from_secs(5));
        assert!(!log.exists());
    }

    #[test]
    fn a_cable_can_be_taken_out_and_packets_lost() {
        let Some(lab) = Lab::new(2) else { return };
        let target = lab.hosts[1].ipv4.to_string();
        let ping = || lab.hosts[0].run(&["ping", "-c1", "-W1", &target]);
        let heal = || wait_for("a ping", Duration::from_secs(10), || ping().result());
        lab.set_link(&lab.hosts[1], false);
        assert_ne!(ping().code, 0);
        lab.set_link(&lab.hosts[1], true);
        heal();
        lab.set_loss(100);
        assert_ne!(ping().code, 0);
        assert!(lab.lost() > 0);
        lab.set_loss(0);
        heal();
    }
}
