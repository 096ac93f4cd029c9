//! The socket with lanes beside it, without anything outside.

#![allow(
    clippy::disallowed_methods,
    reason = "the test host's clock is tokio's, which a test pauses"
)]

use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    net::IpAddr,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::task::noop_waker;
use innermesh_proto::id::NodeId;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use super::*;
use crate::host::system;

/// A socket that has what it was given.
#[derive(Debug, Default)]
struct Udp {
    waiting: Mutex<VecDeque<(SocketAddr, Vec<u8>)>>,
    sent: Mutex<Vec<SocketAddr>>,
}

#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Udp {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.sent.lock().unwrap().push(transmit.destination);
        Ok(())
    }

    fn poll_recv(
        &self,
        _: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let Some((addr, datagram)) = self.waiting.lock().unwrap().pop_front() else {
            return Poll::Pending;
        };
        bufs[0][..datagram.len()].copy_from_slice(&datagram);
        meta[0] = RecvMeta {
            addr,
            len: datagram.len(),
            stride: datagram.len(),
            ecn: None,
            dst_ip: None,
        };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok("[::]:1".parse().unwrap())
    }
}

struct Bench {
    udp: Arc<Udp>,
    lanes: Lanes,
    socket: Arc<LaneSocket>,
}

impl Bench {
    fn new() -> Self {
        let registry = Arc::new(Registry::new(NodeId([1; 16])));
        let clock = system::host(PathBuf::new()).clock;
        let lanes = Lanes::new(registry, Arc::default(), clock);
        let udp = Arc::<Udp>::default();
        let socket = LaneSocket::new(udp.clone(), lanes.clone()).unwrap();
        Self { udp, lanes, socket }
    }

    fn by_udp(&self, from: &str, datagram: &[u8]) {
        let waiting = (from.parse().unwrap(), datagram.to_vec());
        self.udp.waiting.lock().unwrap().push_back(waiting);
    }

    /// What is read at once, by the first byte of each datagram and where it comes from.
    fn read(&self) -> Vec<(SocketAddr, u8)> {
        let mut room = [[0; 1600]; 4];
        let mut bufs = room.each_mut().map(|room| IoSliceMut::new(room));
        let mut meta = [RecvMeta::default(); 4];
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let count = match self.socket.poll_recv(&mut cx, &mut bufs, &mut meta) {
            Poll::Ready(count) => count.unwrap(),
            Poll::Pending => 0,
        };
        let read = meta.iter().zip(&bufs).take(count);
        let read = read.filter(|(meta, _)| meta.len > 0);
        read.map(|(meta, buf)| (meta.addr, buf[0])).collect()
    }

    fn send(&self, to: SocketAddr, contents: &[u8], segment: Option<usize>) {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents,
            segment_size: segment,
            src_ip: None,
        };
        self.socket.try_send(&transmit).unwrap();
    }
}

fn message<D: AsRef<[u8]>>(datagrams: &[D]) -> Bytes {
    let mut message = Vec::new();
    for datagram in datagrams.iter().map(AsRef::as_ref) {
        message.extend(lane::header(datagram).unwrap());
        message.extend(datagram);
    }
    message.into()
}

fn somebody() -> SocketAddr {
    "192.0.2.7:4000".parse().unwrap()
}

fn mapped(lane: &Lane) -> SocketAddr {
    let IpAddr::V4(ip) = lane.address().ip() else {
        panic!("a lane is of IPv4")
    };
    SocketAddr::new(ip.to_ipv6_mapped().into(), lane.address().port())
}

#[test]
fn lanes_and_udp_are_read_in_turns_and_so_are_lanes() {
    let bench = Bench::new();
    let (loud, quiet) = (bench.lanes.open(somebody()), bench.lanes.open(somebody()));
    assert!(loud.take(&message(&[&[1]; 20])));
    assert!(quiet.take(&message(&[&[2], &[2]])));
    for _ in 0..4 {
        bench.by_udp("[2001:db8::1]:9", &[3]);
    }
    let kinds = |read: Vec<(SocketAddr, u8)>| read.iter().map(|it| it.1).collect::<Vec<u8>>();
    let turns: Vec<Vec<u8>> = (0..6).map(|_| kinds(bench.read())).collect();
    assert_eq!(
        turns,
        [
            &[3][..],
            &[1, 2, 1, 2],
            &[3],
            &[1, 1, 1, 1],
            &[3],
            &[1, 1, 1, 1]
        ]
    );
    // quinn's socket is of IPv6: it knows lanes as mapped.
    drop(bench.read());
    assert_eq!(bench.read()[0], (mapped(&loud), 1));
}

#[test]
fn nobody_speaks_for_a_lane_by_udp() {
    let bench = Bench::new();
    let lane = bench.lanes.open(somebody());
    bench.by_udp(&mapped(&lane).to_string(), &[1]);
    bench.by_udp(&lane.address().to_string(), &[1]);
    assert_eq!((bench.read(), bench.read()), (Vec::new(), Vec::new()));
    // Nor does what is for a lane leave by UDP, also once it is gone.
    for at in [lane.address(), mapped(&lane)] {
        bench.send(at, &[1], None);
    }
    drop(lane);
    bench.send(of_lane(0), &[1], None);
    bench.send(somebody(), &[1], None);
    assert_eq!(*bench.udp.sent.lock().unwrap(), [somebody()]);
}

#[tokio::test]
async fn what_is_sent_goes_in_messages_and_what_finds_no_room_is_lost() {
    let bench = Bench::new();
    let lane = bench.lanes.open(somebody());
    bench.send(lane.address(), &[1, 1, 2, 2, 3], Some(2));
    bench.send(mapped(&lane), &[4], None);
    let sent = lane.outgoing().await;
    assert_eq!(sent, message(&[&[1, 1][..], &[2, 2], &[3], &[4]]));
    let datagram = [7; limits::LANE_DATAGRAM_BYTES];
    for _ in 0..1000 {
        bench.send(lane.address(), &datagram, None);
    }
    bench.send(lane.address(), &[0; 4000], None);
    let kept = limits::LANE_MESSAGE_BYTES / (datagram.len() + lane::OVERHEAD);
    let dropped = bench.lanes.0.tally.read().lane_datagrams_dropped;
    assert_eq!(dropped, 1001 - kept as u64);
    let sent = lane.outgoing().await;
    assert_eq!(lane::datagrams(&sent).unwrap().len(), kept);
}

#[tokio::test]
async fn a_lane_is_not_read_while_much_of_it_waits() {
    let bench = Bench::new();
    let lane = bench.lanes.open(somebody());
    let datagram = [7; 1400];
    let full = message(&[&datagram; 40]);
    let mut taken = 0;
    while futures_util::poll!(std::pin::pin!(lane.has_room())).is_ready() {
        assert!(lane.take(&full));
        taken += 1;
        assert!(taken < 100);
    }
    let most = limits::LANE_RECEIVED_BYTES + limits::LANE_MESSAGE_BYTES;
    assert!(taken * 40 * datagram.len() <= most, "{taken}");
    let waits = lane.has_room();
    tokio::pin!(waits);
    assert!(futures_util::poll!(&mut waits).is_pending());
    while bench.lanes.lock().lanes[&lane.number].incoming_bytes >= limits::LANE_RECEIVED_BYTES {
        assert!(!bench.read().is_empty());
    }
    waits.await;
}

#[test]
fn what_is_no_message_of_a_lane_is_refused_and_numbers_are_not_used_twice() {
    let bench = Bench::new();
    let lane = bench.lanes.open(somebody());
    for bad in [&[][..], &[0, 0], &[0, 9, 1]] {
        assert!(!lane.take(&Bytes::copy_from_slice(bad)));
    }
    assert_eq!(bench.lanes.from(&lane.address()), Some(somebody()));
    bench.lanes.lock().next = u32::MAX;
    let others: Vec<Lane> = (0..3).map(|_| bench.lanes.open(somebody())).collect();
    let mut numbers: Vec<u32> = others.iter().map(|lane| lane.number).collect();
    numbers.push(lane.number);
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!((numbers.len(), bench.lanes.count()), (4, 4));
    let gone = lane.address();
    drop((lane, others));
    assert_eq!((bench.lanes.count(), bench.lanes.from(&gone)), (0, None));
}
