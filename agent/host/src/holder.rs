//! Who holds a port, from /proc: for error messages only.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::unit;

/// Who holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The user whose socket it is.
    pub uid: u32,
    /// The process, where it can be seen: as a service with its own view of
    /// /proc the agent sees its own only.
    pub process: Option<Process>,
    /// The unit of systemd that it belongs to, where the process can't be seen.
    pub unit: Option<String>,
    /// Whether it is no program's socket but the kernel's, such as that of a
    /// WireGuard interface.
    pub is_kernel: bool,
}

impl Holder {
    /// A program of this user, of which nothing more is known.
    pub fn of_user(uid: u32) -> Self {
        Self {
            uid,
            process: None,
            unit: None,
            is_kernel: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// Its name, as the kernel knows it.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            _ if self.is_kernel => {
                f.write_str("the kernel, as for another WireGuard interface (`wg show` lists them)")
            }
            Some(Process { pid, name }) => write!(f, "pid {pid} ({name}) of user id {}", self.uid),
            None => match &self.unit {
                Some(unit) => write!(f, "{unit} (user id {})", self.uid),
                None => write!(f, "a program of user id {}", self.uid),
            },
        }
    }
}

/// The kind of port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Udp,
    /// TCP, listening.
    Tcp,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}

/// Who stands in the way of one that would bind to `address`, where /proc tells:
/// without root only processes of the same user are visible. Port 53 often has
/// several holders on one host.
pub fn of_address(kind: Kind, address: SocketAddr) -> Option<Holder> {
    of_socket(kind, address.port(), in_the_way_of(address.ip()))
}

/// Whether a socket bound to an address keeps another from `wanted`.
fn in_the_way_of(wanted: IpAddr) -> impl Fn(IpAddr) -> bool {
    move |bound| bound == wanted || bound.is_unspecified() || wanted.is_unspecified()
}

fn of_socket(kind: Kind, port: u16, at: impl Fn(IpAddr) -> bool) -> Option<Holder> {
    let tables = match kind {
        Kind::Udp => ["udp", "udp6"],
        Kind::Tcp => ["tcp", "tcp6"],
    };
    let found: Vec<(u32, u64)> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/net/{table}")).ok())
        .flat_map(|table| sockets(&table, kind, port, &at))
        .collect();
    let (uid, inode) = *found.first()?;
    if inode == 0 {
        // No file leads to it, so no program has it open.
        return Some(Holder {
            is_kernel: true,
            ..Holder::of_user(uid)
        });
    }
    let inodes: Vec<String> = found
        .iter()
        .map(|(_, inode)| format!("socket:[{inode}]"))
        .collect();
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let pid = pids.into_iter().find(|pid| holds(*pid, &inodes));
    let process = pid.map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Process {
            pid,
            name: name.trim().chars().filter(|c| !c.is_control()).collect(),
        }
    });
    let unit = match process {
        Some(_) => None,
        None => unit::of_socket(kind, port, inode),
    };
    Some(Holder {
        process,
        unit,
        ..Holder::of_user(uid)
    })
}

fn holds(pid: u32, sockets: &[String]) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|fds| {
        fds.flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|to| sockets.iter().any(|s| to.as_os_str() == s.as_str()))
    })
}

/// Users and inodes of the sockets on `port` in a table such as /proc/net/udp,
/// see proc_pid_net(5).
fn sockets(table: &str, kind: Kind, port: u16, at: impl Fn(IpAddr) -> bool) -> Vec<(u32, u64)> {
    /// TCP_LISTEN in the kernel's net/tcp_states.h.
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (host, local_port) = fields.nth(1)?.rsplit_once(':')?;
            let state = fields.nth(1)?;
            let uid = fields.nth(3)?.parse().ok()?;
            let inode = fields.nth(1)?.parse().ok()?;
            let here = u16::from_str_radix(local_port, 16) == Ok(port);
            let here = here && address(host).is_some_and(&at);
            (here && (kind == Kind::Udp || state == LISTEN)).then_some((uid, inode))
        })
        .collect()
}

/// An address as the kernel prints it: words of 32 bits in the host's order.
fn address(text: &str) -> Option<IpAddr> {
    let words: Vec<[u8; 4]> = (0..text.len() / 8)
        .map(|n| {
            let word = text.get(n * 8..n * 8 + 8)?;
            Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
        })
        .collect::<Option<_>>()?;
    match words[..] {
        [v4] => Some(Ipv4Addr::from(v4).into()),
        [a, b, c, d] => {
            let octets: [u8; 16] = [a, b, c, d].concat().try_into().ok()?;
            Some(IpAddr::from(Ipv6Addr::from(octets)).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_udp_port_is_found() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        let holder = of_address(Kind::Udp, at).unwrap();
        assert_eq!(holder.process.unwrap().pid, std::process::id());
        assert_eq!(holder.uid, nix::unistd::geteuid().as_raw());
    }

    #[test]
    fn a_holder_is_told_by_its_process_else_its_unit_else_its_user() {
        let user = Holder::of_user(7);
        let unit = Holder {
            unit: Some("dnsmasq.service".into()),
            ..user.clone()
        };
        let process = Holder {
            process: Some(Process {
                pid: 9,
                name: "dnsmasq".into(),
            }),
            ..user.clone()
        };
        let kernel = Holder {
            is_kernel: true,
            ..user.clone()
        };
        assert_eq!(user.to_string(), "a program of user id 7");
        assert_eq!(unit.to_string(), "dnsmasq.service (user id 7)");
        assert_eq!(process.to_string(), "pid 9 (dnsmasq) of user id 7");
        assert!(kernel.to_string().contains("`wg show`"), "{kernel}");
    }

    #[test]
    fn lines_that_are_no_socket_are_passed_over() {
        let table = "head\n  1: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000 33 0 4242 2\nx\n\n1: zz";
        assert_eq!(sockets(table, Kind::Udp, 53, |_| true), [(33, 4242)]);
        assert!(sockets(table, Kind::Udp, 54, |_| true).is_empty());
        assert!(sockets(table, Kind::Tcp, 53, |_| true).is_empty());
    }

    #[test]
    fn the_holder_at_one_address_is_told_from_one_at_another() {
        let table = "head\n  1: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4242 2\n";
        let held = |host: &str| sockets(table, Kind::Udp, 53, in_the_way_of(host.parse().unwrap()));
        assert_eq!(held("127.0.0.1"), [(0, 4242)]);
        assert_eq!(held("0.0.0.0"), [(0, 4242)]);
        assert!(held("127.0.0.9").is_empty());
        assert!(held("::1").is_empty());
    }

    #[test]
    fn addresses_are_read_as_the_kernel_prints_them() {
        assert_eq!(address("00000000"), Some(Ipv4Addr::UNSPECIFIED.into()));
        let mapped = Ipv6Addr::LOCALHOST.octets();
        let text: String = mapped
            .chunks(4)
            .map(|word| format!("{:08X}", u32::from_ne_bytes(word.try_into().unwrap())))
            .collect();
        assert_eq!(address(&text), Some(Ipv6Addr::LOCALHOST.into()));
        for bad in ["", "xyz", "zzzzzzzz"] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }
}
