//! An agent that a LAN may ask, with a neighbour in that LAN and a stranger beside it.

use std::{net::Ipv4Addr, sync::Arc, thread};

use super::{
    flood::{Flood, flood},
    slow::{Abuse, Target, hold},
};
use crate::{Agent, Host, Lab, agent::PATIENCE, wait_for};

const LAN: &str = "192.168.77";
const OUTSIDE: &str = "198.51.100";
/// Its port of DNS over HTTPS.
pub const HTTPS: u16 = 8443;
/// Messages of strangers in a second.
pub const RATE: u64 = 20_000;
/// Neighbours and strangers that hold connections.
const CLIENTS: [usize; 2] = [400, 100];

/// Who does it to whom.
#[derive(Debug)]
pub struct World<'lab> {
    pub neighbour: &'lab Host,
    pub stranger: &'lab Host,
    near: Vec<Ipv4Addr>,
    far: Vec<Ipv4Addr>,
    /// Where both reach it.
    pub target: Target,
}

impl<'lab> World<'lab> {
    /// Starts the agent on the first of three hosts; it answers by every way.
    ///
    /// # Panics
    /// When it doesn't.
    #[must_use]
    pub fn start(lab: &'lab Lab) -> (Self, Agent<'lab>) {
        let [inside, neighbour, stranger] = [0, 1, 2].map(|n| &lab.hosts[n]);
        lab.cable("lan", LAN, inside, neighbour);
        lab.connect_directly(inside, stranger);
        let served = Ipv4Addr::new(192, 168, 77, 1);
        let gateway = format!("{OUTSIDE}.1");
        let route = ["ip", "route", "add", &served.to_string(), "via", &gateway];
        let _ = stranger.run(&route).ok();
        let config = format!("[dns]\nlan = [\"{LAN}.0/24\"]\nhttps = {HTTPS}\n");
        let mut agent = Agent::with_config(inside, "alpha", &config);
        agent.init();
        for (ip, port) in [agent.dns().ip(), served.into()]
            .into_iter()
            .flat_map(|ip| [853, HTTPS].map(|port| (ip, port)))
        {
            wait_for("encrypted DNS", PATIENCE, || {
                inside.tcp_to((ip, port).into()).map(drop)
            });
        }
        let world = Self {
            near: more_addresses(neighbour, "lan", LAN),
            far: more_addresses(stranger, "direct", OUTSIDE),
            neighbour,
            stranger,
            target: Target {
                tcp: (served, 53).into(),
                tls: (served, 853).into(),
                https: (served, HTTPS).into(),
            },
        };
        (world, agent)
    }

    /// Has them do all of it for as long as `meanwhile` takes.
    ///
    /// # Panics
    /// When they can't, or as `meanwhile` does.
    pub fn abuse<T>(&self, meanwhile: impl FnOnce(&Abuse) -> T) -> (Flood, T) {
        let abuse = Arc::new(Abuse::default());
        let (flooders, holders) = self.far.split_at(self.far.len() / 2);
        let (tcp, target) = (self.target.tcp, self.target);
        thread::scope(|scope| {
            let ends = EndsAbuse(&abuse);
            let flooding = scope.spawn(|| flood(self.stranger, flooders, tcp, RATE, &abuse));
            scope.spawn(|| hold(self.neighbour, &self.near, target, CLIENTS[0], &abuse));
            scope.spawn(|| hold(self.stranger, holders, target, CLIENTS[1], &abuse));
            let came = meanwhile(&abuse);
            drop(ends);
            (flooding.join().expect("a flood"), came)
        })
    }
}

/// Ends it also where an assertion fails: else those who do it would be waited for.
struct EndsAbuse<'a>(&'a Abuse);

impl Drop for EndsAbuse<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Gives a host twenty addresses more.
fn more_addresses(host: &Host, device: &str, network: &str) -> Vec<Ipv4Addr> {
    let each = (20..40).map(|last| {
        let address = format!("{network}.{last}");
        let words = [
            "ip",
            "address",
            "add",
            &format!("{address}/24"),
            "dev",
            device,
        ];
        let _ = host.run(&words).ok();
        address.parse().expect("an address")
    });
    each.collect()
}
