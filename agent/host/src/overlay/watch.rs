//! News from the kernel of what others do to rules, routes, interfaces and
//! nftables.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use innermesh_proto::filter::nft::TABLE;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};
use tokio::io::unix::AsyncFd;

use crate::tunnel::interface::PROTOCOL;

/// Groups of rtnetlink(7): links, addresses, routes and rules of both families.
const ROUTE_GROUPS: [u32; 7] = [1, 5, 7, 8, 9, 11, 19];
/// NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h.
const NFTABLES_GROUP: u32 = 7;
/// RTM_NEWROUTE and RTM_DELROUTE of rtnetlink(7).
const ROUTE_MESSAGES: [u16; 2] = [24, 25];
/// More than one message of the kernel's.
const MESSAGE_BYTES: usize = 32 * 1024;

/// A socket that hears of one kind of news.
pub(super) struct Watch {
    socket: AsyncFd<OwnedFd>,
    concerns: fn(&[u8]) -> bool,
}

impl Watch {
    /// Of links, addresses, rules, and routes that have to do with us.
    pub(super) fn of_routing() -> io::Result<Self> {
        let mask = ROUTE_GROUPS
            .iter()
            .fold(0, |mask, group| mask | bit(*group));
        Self::open(SockProtocol::NetlinkRoute, mask, concerns_routing)
    }

    /// Of our own tables of nftables.
    pub(super) fn of_nftables() -> io::Result<Self> {
        Self::open(
            SockProtocol::NetlinkNetFilter,
            bit(NFTABLES_GROUP),
            concerns_tables,
        )
    }

    fn open(protocol: SockProtocol, groups: u32, concerns: fn(&[u8]) -> bool) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        // An OwnedFd is valid for as long as it lives.
        #[expect(deprecated, reason = "the way that isn't deprecated is unsafe code")]
        let socket = AsyncFd::new(socket)?;
        Ok(Self { socket, concerns })
    }

    /// Waits for news that concerns us, or for the loss of some.
    pub(super) async fn news(&self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            match self.take() {
                Some(true) => return Ok(()),
                Some(false) => {}
                None => ready.clear_ready(),
            }
        }
    }

    /// Whether there was such news; takes all that there is.
    pub(super) fn drain(&self) -> bool {
        let mut news = false;
        while let Some(concerns) = self.take() {
            news |= concerns;
        }
        news
    }

    /// One message, and whether it concerns us; `None` where there is none.
    fn take(&self) -> Option<bool> {
        let mut buffer = [0; MESSAGE_BYTES];
        match recv(
            self.socket.as_fd().as_raw_fd(),
            &mut buffer,
            MsgFlags::empty(),
        ) {
            Ok(length) => Some((self.concerns)(buffer.get(..length).unwrap_or_default())),
            // More came than the socket holds: something may have been ours.
            Err(Errno::ENOBUFS) => Some(true),
            Err(Errno::EINTR) => Some(false),
            Err(_) => None,
        }
    }
}

fn bit(group: u32) -> u32 {
    1 << (group - 1)
}

/// A host may have very many routes that come and go; only those of our table
/// and default routes concern us.
fn concerns_routing(datagram: &[u8]) -> bool {
    let mut rest = datagram;
    while let Some((length, kind, body)) = message(rest) {
        // struct rtmsg: family, destination's length, …, table at 4, protocol at 5.
        let is_route = ROUTE_MESSAGES.contains(&kind);
        let is_default = body.get(1) == Some(&0);
        let is_ours = body.get(4) == Some(&105) || body.get(5) == Some(&PROTOCOL);
        if !is_route || is_default || is_ours {
            return true;
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    false
}

/// Others' tables change often, such as where Docker starts a container.
fn concerns_tables(datagram: &[u8]) -> bool {
    let name = TABLE.as_bytes();
    datagram.windows(name.len()).any(|part| part == name)
}

/// The first message of a datagram: its padded length, its type, its body
/// (struct nlmsghdr of netlink(7)).
fn message(bytes: &[u8]) -> Option<(usize, u16, &[u8])> {
    let number = |at: usize| -> Option<[u8; 4]> { bytes.get(at..at + 4)?.try_into().ok() };
    let length = usize::try_from(u32::from_ne_bytes(number(0)?)).ok()?;
    let [low, high, ..] = number(4)?;
    let body = bytes.get(16..length)?;
    Some((
        length.next_multiple_of(4),
        u16::from_ne_bytes([low, high]),
        body,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn routes_of_others_are_no_news_and_rules_links_and_our_routes_are() {
        let route = |length: u8, table: u8| a_message(24, &[2, length, 0, 0, table, 3, 0, 1]);
        assert!(!concerns_routing(&route(24, 254)));
        assert!(concerns_routing(&a_message(
            25,
            &[2, 16, 0, 0, 254, PROTOCOL, 0, 1]
        )));
        assert!(concerns_routing(&route(16, 105)));
        assert!(concerns_routing(&route(0, 254)));
        assert!(concerns_routing(&a_message(33, &[2, 16, 0, 0])));
        assert!(concerns_routing(
            &[route(24, 254), a_message(16, &[0; 16])].concat()
        ));
        for torn in [&[][..], &[1, 2, 3], &[255; 20]] {
            assert!(!concerns_routing(torn));
        }
    }

    #[test]
    fn only_news_that_name_our_table_are_of_it() {
        assert!(concerns_tables(&a_message(
            2561,
            b"\x0e\0\x01\0innermesh\0"
        )));
        assert!(!concerns_tables(&a_message(2561, b"\x08\0\x01\0nat\0")));
    }
}
