//! Serf agents, with the LAN defaults, and as much of Serf's RPC (MessagePack
//! over TCP) as it takes to ask them what they know.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use innermesh_tests::{Lab, Process};

use crate::observe::{Observer, until_all};

/// Serf's own default.
const RPC: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7373);

/// As many Serf agents as the laboratory has hosts, all joined.
pub struct Fleet<'lab> {
    lab: &'lab Lab,
    pub processes: Vec<Option<Process>>,
    clients: Vec<Client>,
}

impl<'lab> Fleet<'lab> {
    pub fn start(lab: &'lab Lab) -> Result<Self, String> {
        let seed = lab.hosts[0].ipv4.to_string();
        let (mut processes, mut clients) = (Vec::new(), Vec::new());
        for host in &lab.hosts {
            let (node, bind) = (
                format!("-node={}", host.name),
                format!("-bind={}", host.ipv4),
            );
            let mut words = vec!["serf", "agent", &node, &bind, "-log-level=err"];
            let join = format!("-retry-join={seed}");
            if host.index > 0 {
                words.extend([join.as_str(), "-retry-interval=1s"]);
            }
            processes.push(Some(host.start("serf", &words, &[])));
            clients.push(Client::connect(host)?);
        }
        let mut fleet = Self {
            lab,
            processes,
            clients,
        };
        for host in &lab.hosts {
            let all = 0..lab.hosts.len();
            fleet.until(
                &host.name,
                "alive",
                all,
                Instant::now(),
                Duration::from_secs(180),
            )?;
        }
        Ok(fleet)
    }

    /// Sets a tag on one agent by Serf's command line, and returns how long
    /// it took to be known to all.
    pub fn tag(&mut self, node: usize, value: &str) -> Result<Duration, String> {
        let host = &self.lab.hosts[node];
        let began = Instant::now();
        let tag = format!("round={value}");
        let mut command = host.start("serf-tags", &["serf", "tags", "-set", &tag], &[]);
        let all = 0..self.lab.hosts.len();
        let took = self.until(&host.name, value, all, began, Duration::from_secs(60))?;
        command.wait(Duration::from_secs(30));
        Ok(took)
    }

    /// Waits until all of `watchers` tell `needle` of the member `name`.
    pub fn until(
        &mut self,
        name: &str,
        needle: &str,
        watchers: impl IntoIterator<Item = usize>,
        since: Instant,
        within: Duration,
    ) -> Result<Duration, String> {
        let watchers: Vec<usize> = watchers.into_iter().collect();
        let mut observers: Vec<Box<dyn Observer>> = Vec::new();
        for (index, client) in self.clients.iter_mut().enumerate() {
            if watchers.contains(&index) {
                observers.push(Box::new(Watch {
                    client,
                    name,
                    needle,
                }));
            }
        }
        until_all(&mut observers, since, within)
    }
}

/// One connection to an agent's RPC.
struct Client {
    stream: TcpStream,
    sequence: u8,
    received: Vec<u8>,
}

impl Client {
    fn connect(host: &innermesh_tests::Host) -> Result<Self, String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut stream = loop {
            match host.tcp_to(RPC) {
                Ok(stream) => break stream,
                Err(why) if Instant::now() > deadline => {
                    return Err(format!("serf on {}: {why}", host.name));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let mut message = Vec::new();
        header(&mut message, "handshake", 0);
        map(&mut message, 1);
        text(&mut message, "Version");
        message.push(1);
        let mut answer = [0; 256];
        stream
            .write_all(&message)
            .and_then(|()| stream.read(&mut answer))
            .and_then(|_| stream.set_nonblocking(true))
            .and_then(|()| stream.set_nodelay(true))
            .map_err(|e| format!("serf on {}: {e}", host.name))?;
        Ok(Self {
            stream,
            sequence: 0,
            received: Vec::new(),
        })
    }
}

/// Asks for one member. Its status and tags come as text between other
/// things, so it is enough to look for the wanted word.
struct Watch<'a> {
    client: &'a mut Client,
    name: &'a str,
    needle: &'a str,
}

impl Observer for Watch<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.client.stream.as_fd()
    }

    fn ask(&mut self) -> io::Result<()> {
        self.client.sequence = self.client.sequence % 100 + 1;
        self.client.received.clear();
        let mut message = Vec::new();
        header(&mut message, "members-filtered", self.client.sequence);
        map(&mut message, 1);
        text(&mut message, "Name");
        // Serf takes it for a regular expression.
        text(&mut message, &format!("^{}$", self.name));
        self.client.stream.write_all(&message)
    }

    fn answer(&mut self) -> io::Result<Option<bool>> {
        let mut buffer = [0; 4096];
        let length = self.client.stream.read(&mut buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.client.received.extend(&buffer[..length]);
        let has = |needle: &str| {
            self.client
                .received
                .windows(needle.len())
                .any(|w| w == needle.as_bytes())
        };
        // A member's tags come last; without a member the answer ends in an
        // empty list.
        let whole = has("Tags") || self.client.received.ends_with(b"Members\x90");
        Ok(whole.then(|| has(self.needle)))
    }
}

fn header(message: &mut Vec<u8>, command: &str, sequence: u8) {
    map(message, 2);
    text(message, "Command");
    text(message, command);
    text(message, "Seq");
    message.push(sequence);
}

/// A map of so many entries, fewer than 16.
fn map(message: &mut Vec<u8>, entries: u8) {
    message.push(0x80 | entries);
}

/// A text of fewer than 32 bytes.
fn text(message: &mut Vec<u8>, text: &str) {
    message.push(0xa0 | u8::try_from(text.len()).expect("a short text"));
    message.extend(text.as_bytes());
}
