//! quinn's UDP socket, with lanes beside it.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use innermesh_proto::endpoint::{is_lane, lane_number};
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use super::Lanes;

/// See the module. Without lanes it passes on what it is given.
pub struct LaneSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    lanes: Lanes,
    /// quinn knows IPv4 addresses as mapped ones where its socket is of IPv6.
    is_ipv6: bool,
    /// Whether lanes are read before the socket next.
    lanes_first: AtomicBool,
}

impl LaneSocket {
    pub fn new(socket: Arc<dyn AsyncUdpSocket>, lanes: Lanes) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            is_ipv6: socket.local_addr()?.is_ipv6(),
            socket,
            lanes,
            lanes_first: AtomicBool::new(false),
        }))
    }

    /// How many datagrams were taken in.
    fn receive(&self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> usize {
        let mut slots = bufs.iter_mut().zip(meta.iter_mut());
        let mut count = 0;
        self.lanes.receive(|datagram, from| {
            let Some((buf, meta)) = slots.next() else {
                return false;
            };
            // quinn's buffers hold more than a lane's datagrams have.
            let length = datagram.len().min(buf.len());
            buf[..length].copy_from_slice(&datagram[..length]);
            *meta = RecvMeta {
                addr: self.as_quinn_knows(from),
                len: length,
                stride: length,
                ecn: None,
                dst_ip: None,
            };
            count += 1;
            true
        });
        count
    }

    fn as_quinn_knows(&self, address: SocketAddr) -> SocketAddr {
        match address.ip() {
            IpAddr::V4(ip) if self.is_ipv6 => {
                SocketAddr::new(ip.to_ipv6_mapped().into(), address.port())
            }
            _ => address,
        }
    }
}

impl fmt::Debug for LaneSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneSocket")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for LaneSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(number) = lane_number(&transmit.destination) else {
            return self.socket.try_send(transmit);
        };
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
        self.lanes.send(number, transmit.contents, segment);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.lanes.0.reader.register(cx.waker());
        // In turns, so that neither keeps the other waiting.
        let lanes_first = self.lanes_first.fetch_xor(true, Ordering::Relaxed);
        if lanes_first {
            let count = self.receive(bufs, meta);
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
        }
        let polled = self.socket.poll_recv(cx, bufs, meta);
        match polled {
            Poll::Pending if !lanes_first => match self.receive(bufs, meta) {
                0 => Poll::Pending,
                count => Poll::Ready(Ok(count)),
            },
            Poll::Ready(Ok(count)) => {
                for meta in meta.iter_mut().take(count) {
                    // No host has such an address: whoever says so by UDP would speak
                    // for a lane.
                    if is_lane(&meta.addr) {
                        meta.len = 0;
                    }
                }
                Poll::Ready(Ok(count))
            }
            polled => polled,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
