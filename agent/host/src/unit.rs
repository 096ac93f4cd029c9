//! Which unit of systemd a socket belongs to: told by its control group, which
//! the kernel says also to whom it shows no other processes (sock_diag(7)).

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::holder::Kind;

/// `SOCK_DIAG_BY_FAMILY`, and `NLM_F_REQUEST | NLM_F_DUMP` of linux/netlink.h.
const BY_FAMILY: u16 = 20;
const DUMP: u16 = 0x301;
/// Bytes of `nlmsghdr`, of `inet_diag_req_v2`, of `inet_diag_msg`, and within that
/// before the inode.
const HEADER: usize = 16;
const QUESTION: usize = 56;
const MESSAGE: usize = 72;
const BEFORE_INODE: usize = 68;
/// `INET_DIAG_CGROUP_ID` of linux/inet_diag.h, since Linux 5.7.
const CGROUP_ID: u16 = 21;
/// `TCP_LISTEN` as a bit.
const LISTENING: u32 = 1 << 10;
/// Answers that are read, and groups that are looked at: a message to a person
/// isn't worth more.
const ANSWERS: usize = 64;
const GROUPS: usize = 4096;
/// Where the unified hierarchy is mounted.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// The unit of the socket with this inode on `port`, such as `dnsmasq.service`.
pub(crate) fn of_socket(kind: Kind, port: u16, inode: u64) -> Option<String> {
    let families = [AddressFamily::Inet, AddressFamily::Inet6];
    let group = families
        .into_iter()
        .find_map(|family| ask(kind, family, port, inode).ok().flatten())?;
    let path = path_of(group)?;
    unit(&path)
}

fn ask(kind: Kind, family: AddressFamily, port: u16, inode: u64) -> io::Result<Option<u64>> {
    let netlink: OwnedFd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkSockDiag,
    )?;
    let kernel = NetlinkAddr::new(0, 0);
    let question = question(kind, family, port);
    sendto(netlink.as_raw_fd(), &question, &kernel, MsgFlags::empty())?;
    let mut answer = vec![0; 32 * 1024];
    for _ in 0..ANSWERS {
        // The kernel has the next part ready whenever it is asked for one.
        let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let part = &answer[..length.min(answer.len())];
        if let Some(group) = messages(part).find_map(|message| group(message, inode)) {
            return Ok(Some(group));
        }
        if messages(part).next().is_none() {
            break;
        }
    }
    Ok(None)
}

fn question(kind: Kind, family: AddressFamily, port: u16) -> Vec<u8> {
    let (protocol, states) = match kind {
        Kind::Udp => (17, u32::MAX),
        Kind::Tcp => (6, LISTENING),
    };
    let mut message = Vec::with_capacity(HEADER + QUESTION);
    message.extend(((HEADER + QUESTION) as u32).to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(DUMP.to_ne_bytes());
    message.extend([0; 8]);
    // family, protocol, extensions, padding, states
    message.extend([family as u8, protocol, 0, 0]);
    message.extend(states.to_ne_bytes());
    message.extend(port.to_be_bytes());
    // any remote port, addresses and interface; no cookie
    message.extend([0; 2 + 32 + 4]);
    message.extend([0xff; 8]);
    message
}

/// The bodies of the sockets in an answer.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let body = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        (kind == BY_FAMILY).then_some(body)
    })
}

/// The control group in the message about the socket with this inode.
fn group(message: &[u8], inode: u64) -> Option<u64> {
    let own = message.get(BEFORE_INODE..MESSAGE)?.try_into().ok()?;
    if u64::from(u32::from_ne_bytes(own)) != inode {
        return None;
    }
    let mut rest = message.get(MESSAGE..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        if kind == CGROUP_ID {
            return Some(u64::from_ne_bytes(*value.first_chunk()?));
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

/// A group's id is the inode of its folder.
fn path_of(group: u64) -> Option<PathBuf> {
    ROOTS.iter().find_map(|root| find(Path::new(root), group))
}

fn find(root: &Path, group: u64) -> Option<PathBuf> {
    let mut waiting = vec![root.to_owned()];
    for _ in 0..GROUPS {
        let folder = waiting.pop()?;
        if fs::metadata(&folder).is_ok_and(|meta| meta.ino() == group) {
            return Some(folder);
        }
        let below = fs::read_dir(&folder).into_iter().flatten().flatten();
        let folders = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        waiting.extend(folders.map(|entry| entry.path()));
    }
    None
}

/// The innermost unit on the way to a group.
fn unit(path: &Path) -> Option<String> {
    let mut names = path.iter().rev().filter_map(|name| name.to_str());
    let is_unit = |name: &&str| name.ends_with(".service") || name.ends_with(".scope");
    let name = names.find(is_unit)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@:\\".contains(c);
    Some(name.chars().filter(|c| plain(*c)).take(80).collect())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// As the kernel answers about a socket with inode 4242 in group 77.
    fn answer() -> Vec<u8> {
        let mut body = vec![0; BEFORE_INODE];
        body.extend(4242u32.to_ne_bytes());
        // Shutdown (5 bytes and padding), mark, the group.
        body.extend([5, 0, 8, 0, 0, 0, 0, 0]);
        body.extend([8, 0, 15, 0, 1, 0, 0, 0]);
        body.extend([12, 0, 21, 0]);
        body.extend(77u64.to_ne_bytes());
        let mut answer = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        answer.extend(BY_FAMILY.to_ne_bytes());
        answer.extend([0; 10]);
        answer.extend(body);
        answer
    }

    #[test]
    fn the_group_of_one_socket_among_several_is_read() {
        let two = [answer(), answer()].concat();
        assert_eq!(messages(&two).count(), 2);
        let of = |inode| messages(&two).find_map(|message| group(message, inode));
        assert_eq!((of(4242), of(1)), (Some(77), None));
    }

    #[test]
    fn an_answer_that_is_cut_or_of_another_kind_is_none() {
        let whole = answer();
        for length in 0..whole.len() {
            assert_eq!(messages(&whole[..length]).next(), None, "{length}");
            for at in 0..length {
                let _ = group(&whole[at..length], 4242);
            }
        }
        let mut done = answer();
        done[4] = 3;
        assert_eq!(messages(&done).next(), None);
        // No room for itself: read to its end, and not for ever.
        assert_eq!(messages(&[0; 64]).next(), None);
    }

    #[test]
    fn the_kernel_says_which_group_a_socket_is_of() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let link = link.to_string_lossy();
        let inode = link.trim_start_matches("socket:[").trim_end_matches(']');
        let inode = inode.parse().unwrap();
        match ask(Kind::Udp, AddressFamily::Inet, at.port(), inode).unwrap() {
            Some(group) => assert_ne!(group, 0),
            None => innermesh_skip::skip("this kernel has no control groups of sockets"),
        }
    }

    #[test]
    fn a_unit_is_the_innermost_on_the_way_to_its_group() {
        let of = |path: &str| unit(Path::new(path));
        for (path, name) in [
            (
                "/sys/fs/cgroup/system.slice/dnsmasq.service",
                "dnsmasq.service",
            ),
            (
                "/sys/fs/cgroup/system.slice/named.service/worker",
                "named.service",
            ),
            (
                "/sys/fs/cgroup/system.slice/docker-1a2b.scope",
                "docker-1a2b.scope",
            ),
        ] {
            assert_eq!(of(path).as_deref(), Some(name));
        }
        assert_eq!(of("/sys/fs/cgroup/user.slice"), None);
    }

    #[test]
    fn a_group_is_found_by_the_inode_of_its_folder() {
        let root = tempfile::tempdir().unwrap();
        let below = root.path().join("system.slice/x.service");
        fs::create_dir_all(&below).unwrap();
        let inode = fs::metadata(&below).unwrap().ino();
        assert_eq!(find(root.path(), inode), Some(below));
        assert_eq!(find(root.path(), u64::MAX), None);
    }
}
