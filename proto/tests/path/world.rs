//! Two ends of a tunnel, each behind a NAT of a kind (RFC 4787), and a relay: packets of
//! the pair travel between them by simulated time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use innermesh_proto::path::{Heard, Output, Selector, Via};

/// What stands between an end and the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Nothing.
    None,
    /// One mapping for all, and anybody may use it.
    FullCone,
    /// Whose address was sent to may answer.
    AddressRestricted,
    /// Whose address and port were sent to may.
    PortRestricted,
    /// A mapping for each destination.
    Symmetric,
    /// Nothing passes.
    Blocked,
}

/// When it arrives, a number, at which end, from where and what.
type Flying = (Duration, u64, usize, Option<SocketAddr>, Message);

const INNER: [&str; 2] = ["10.1.0.2:51820", "10.2.0.2:51820"];
const OUTER: [&str; 2] = ["203.0.113.1:40000", "198.51.100.1:40000"];

/// Stands for all destinations, where a NAT has one mapping for them.
const ANYBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Message {
    Initiation,
    Response,
    Data,
    Probe(u64),
    Reply(u64),
}

/// One end.
pub struct End {
    pub selector: Selector,
    nat: Nat,
    /// Ports by destination, where there is one for each.
    mappings: BTreeMap<SocketAddr, u16>,
    sent_to: BTreeSet<SocketAddr>,
    has_session: bool,
    endpoint: Option<Via>,
    heard: Option<Duration>,
    unanswered: Option<Duration>,
    staged: usize,
    initiated: Option<Duration>,
    /// Data that came.
    pub received: usize,
    pub first: Option<Duration>,
    /// Changes of way.
    pub uses: Vec<(Duration, Via)>,
    pub probes: usize,
}

/// Both of them.
pub struct World {
    pub now: Duration,
    pub ends: [End; 2],
    relay_works: bool,
    /// Nothing goes straight any more.
    straight_is_cut: bool,
    flying: BinaryHeap<Reverse<Flying>>,
    count: u64,
    /// How long a packet straight and one by the relay takes.
    delay: [Duration; 2],
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl World {
    pub fn new(nats: [Nat; 2], has_relay: bool) -> Self {
        let end = |n: usize| End {
            selector: Selector::new(1000 * n as u64),
            nat: nats[n],
            mappings: BTreeMap::new(),
            sent_to: BTreeSet::new(),
            has_session: false,
            endpoint: None,
            heard: None,
            unanswered: None,
            staged: 0,
            initiated: None,
            received: 0,
            first: None,
            uses: Vec::new(),
            probes: 0,
        };
        let mut world = Self {
            now: Duration::from_secs(1),
            ends: [end(0), end(1)],
            relay_works: has_relay,
            straight_is_cut: false,
            flying: BinaryHeap::new(),
            count: 0,
            delay: [Duration::from_millis(20), Duration::from_millis(30)],
        };
        for n in 0..2 {
            let candidates = world.candidates(1 - n);
            let now = world.now;
            world.ends[n]
                .selector
                .set_remote(&candidates, has_relay, now);
        }
        world
    }

    /// What an end announces: its own address, and the one that others see.
    fn candidates(&self, n: usize) -> Vec<SocketAddr> {
        let inner = address(INNER[n]);
        match self.ends[n].nat {
            Nat::None => vec![address(OUTER[n])],
            Nat::Blocked => vec![inner],
            // As the node that was asked saw it, by the mapping for that.
            Nat::Symmetric => vec![SocketAddr::new(address(OUTER[n]).ip(), 61_000), inner],
            _ => vec![self.mapped(n), inner],
        }
    }

    /// Where others see an end's packets come from.
    fn mapped(&self, n: usize) -> SocketAddr {
        let outer = address(OUTER[n]);
        let port = self.ends[n].mappings.get(&ANYBODY);
        SocketAddr::new(outer.ip(), port.copied().unwrap_or(outer.port()))
    }

    /// What an end announces is heard by the other.
    pub fn announce(&mut self, n: usize) {
        let candidates = self.candidates(n);
        let (has_relay, now) = (self.relay_works, self.now);
        let other = &mut self.ends[1 - n].selector;
        other.set_remote(&candidates, has_relay, now);
        self.follow(1 - n);
    }

    pub fn cut_straight(&mut self, is_cut: bool) {
        self.straight_is_cut = is_cut;
    }

    /// An end's NAT forgets its mappings and gives others.
    pub fn rebind(&mut self, n: usize) {
        self.ends[n].sent_to.clear();
        self.ends[n].mappings.clear();
        self.ends[n].mappings.insert(ANYBODY, 45_000);
    }

    /// A packet of an end for the other.
    pub fn send(&mut self, n: usize) {
        let end = &mut self.ends[n];
        if end.has_session
            && let Some(via) = end.endpoint
        {
            end.unanswered.get_or_insert(self.now);
            let (heard, unanswered, now) = (end.heard, end.unanswered, self.now);
            end.selector.traffic(heard, unanswered, now);
            self.put(n, via, Message::Data);
        } else {
            end.staged += 1;
            self.initiate(n);
        }
        self.follow(n);
    }

    fn initiate(&mut self, n: usize) {
        let end = &mut self.ends[n];
        if end
            .initiated
            .is_none_or(|at| self.now >= at + Duration::from_secs(5))
        {
            end.initiated = Some(self.now);
            end.selector.handshake(end.heard, self.now);
        }
    }

    fn follow(&mut self, n: usize) {
        while let Some(output) = self.ends[n].selector.poll_output() {
            match output {
                Output::Handshake(via) => {
                    if self.ends[n].initiated.is_some() {
                        self.put(n, via, Message::Initiation);
                    }
                }
                Output::Probe(via, number) => {
                    self.ends[n].probes += 1;
                    if self.ends[n].has_session {
                        self.put(n, via, Message::Probe(number));
                    }
                }
                Output::Reply(via, number) => self.put(n, via, Message::Reply(number)),
                Output::Use(via) => {
                    let end = &mut self.ends[n];
                    end.endpoint = Some(via);
                    end.heard = Some(self.now);
                    end.unanswered = None;
                    end.uses.push((self.now, via));
                }
                Output::AskPunch => {
                    let other = 1 - n;
                    if self.ends[other].selector.punch(self.now) {
                        self.ends[other].initiated = None;
                        self.initiate(other);
                        self.follow(other);
                    }
                }
            }
        }
    }

    fn put(&mut self, n: usize, via: Via, message: Message) {
        self.count += 1;
        let count = self.count;
        match via {
            Via::Relay if self.relay_works => {
                let at = self.now + self.delay[1];
                self.flying.push(Reverse((at, count, 1 - n, None, message)));
            }
            Via::Relay => {}
            Via::Direct(to) => {
                if let Some(from) = self.outside(n, to)
                    && self.lets_in(1 - n, to, from)
                    && !self.straight_is_cut
                {
                    let at = self.now + self.delay[0];
                    self.flying
                        .push(Reverse((at, count, 1 - n, Some(from), message)));
                }
            }
        }
    }

    /// As which address an end's packet leaves.
    fn outside(&mut self, n: usize, to: SocketAddr) -> Option<SocketAddr> {
        let end = &mut self.ends[n];
        let outer = address(OUTER[n]);
        end.sent_to.insert(to);
        match end.nat {
            Nat::Blocked => None,
            Nat::Symmetric => {
                let next = 50_000 + u16::try_from(end.mappings.len()).unwrap();
                let port = *end.mappings.entry(to).or_insert(next);
                Some(SocketAddr::new(outer.ip(), port))
            }
            Nat::None => Some(outer),
            _ => Some(self.mapped(n)),
        }
    }

    fn lets_in(&self, n: usize, to: SocketAddr, from: SocketAddr) -> bool {
        let end = &self.ends[n];
        let outer = address(OUTER[n]);
        if to.ip() != outer.ip() {
            return false;
        }
        let is_mapped = to == self.mapped(n);
        match end.nat {
            Nat::None => is_mapped,
            Nat::FullCone => is_mapped,
            Nat::AddressRestricted => {
                is_mapped && end.sent_to.iter().any(|sent| sent.ip() == from.ip())
            }
            Nat::PortRestricted => is_mapped && end.sent_to.contains(&from),
            Nat::Symmetric => end.mappings.get(&from) == Some(&to.port()),
            Nat::Blocked => false,
        }
    }

    fn take(&mut self, n: usize, from: Option<SocketAddr>, message: Message) {
        let via = from.map_or(Via::Relay, Via::Direct);
        let now = self.now;
        let what = match message {
            Message::Probe(number) => Heard::Probe(number),
            Message::Reply(number) => Heard::Reply(number),
            _ => Heard::Traffic,
        };
        if !self.ends[n].has_session && !matches!(message, Message::Initiation | Message::Response)
        {
            return;
        }
        self.ends[n].selector.heard(via, what, now);
        let end = &mut self.ends[n];
        if end.endpoint == Some(via) {
            (end.heard, end.unanswered) = (Some(now), None);
        }
        match message {
            Message::Initiation => {
                end.has_session = true;
                self.follow(n);
                self.put(n, via, Message::Response);
            }
            Message::Response => end.has_session = true,
            Message::Data => {
                end.received += 1;
                end.first.get_or_insert(now);
            }
            Message::Probe(_) | Message::Reply(_) => {}
        }
        self.follow(n);
        if self.ends[n].has_session {
            for _ in 0..std::mem::take(&mut self.ends[n].staged) {
                self.send(n);
            }
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let packet = self.flying.peek().map(|Reverse((at, ..))| *at);
            let timers = self
                .ends
                .iter()
                .filter_map(|end| end.selector.poll_timeout());
            let next = timers.chain(packet).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if packet == Some(next)
                && let Some(Reverse((_, _, to, from, message))) = self.flying.pop()
            {
                self.take(to, from, message);
            }
            for n in 0..2 {
                self.ends[n].selector.handle_timeout(self.now);
                self.follow(n);
            }
        }
    }

    /// A packet each way and again, each `pause`, for `time`.
    pub fn talk(&mut self, time: Duration, pause: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.send(0);
            self.send(1);
            self.run(pause);
        }
    }
}
