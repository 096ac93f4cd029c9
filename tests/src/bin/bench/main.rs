//! Measures agents in network namespaces of this machine, and beside them, in
//! the same run, what a person would compare them with: Serf, pebble, name servers and wireguard-go.

mod abuse;
mod change;
mod death;
mod dns;
mod figures;
mod folder;
mod generous;
mod hostile;
mod idle;
mod issue;
mod join;
mod ledger;
mod mesh;
mod observe;
mod policy;
mod restart;
mod roster;
mod serf;
mod steady;
mod strangers;
mod tunnel;
mod upgrade;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::figures::Report;

#[derive(Parser)]
#[command(
    name = "ops/bench",
    about = "Measures Innermesh, and beside it Serf and pebble"
)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Also append each row to this file, as JSON lines
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// From `agent join` to the first ping through the tunnel
    Join {
        /// How often
        #[arg(long, default_value_t = 10)]
        rounds: usize,
    },
    /// From a change on one node to all nodes: a service in DNS, a tag of Serf
    Change(Sizes<3, 20, 50>),
    /// From the death of one of two instances to its absence in all answers
    Death {
        /// How many agents
        #[arg(long, default_value_t = 20)]
        agents: usize,
        /// How often, for each way to die
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// Memory, processor and traffic of each agent when nothing happens
    Idle {
        /// How many agents
        #[arg(long, default_value_t = 50)]
        agents: usize,
        /// Over how many seconds
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// All agents at once, with every seed and CA node away, until meshed
    Restart {
        /// How many agents; several separated by commas
        #[arg(long, value_delimiter = ',', default_values_t = [3, 50])]
        agents: Vec<usize>,
    },
    /// False deaths at packet loss, and under a burst of changes
    Steady {
        /// How many agents
        #[arg(long, default_value_t = 20)]
        agents: usize,
        /// For how many seconds there is loss
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// How much, in percent
        #[arg(long, default_value_t = 10)]
        loss: u32,
        /// How many changes in the burst
        #[arg(long, default_value_t = 1000)]
        changes: usize,
    },
    /// How fast three CA nodes decide, and while whoever leads hands over
    Ledger {
        /// How many agents, for the time until all know
        #[arg(long, default_value_t = 50)]
        agents: usize,
    },
    /// What a certificate costs with three CA nodes, and pebble beside it
    Issue {
        /// How many certificates of each kind
        #[arg(long, default_value_t = 100)]
        rounds: usize,
        /// How often the leader is killed before an order
        #[arg(long, default_value_t = 5)]
        kills: usize,
    },
    /// What is lost, and for how long nothing is decided, when the leader is
    /// killed
    Kills {
        /// How often
        #[arg(long, default_value_t = 50)]
        kills: usize,
    },
    /// The same while CA nodes come and go, and when a majority is lost
    Roster,
    /// What one member, with its own valid key, can do to four others
    Hostile {
        /// For how many minutes
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// Only one kind of request, such as certificates
        #[arg(long, default_value = hostile::member::ALL)]
        only: String,
    },
    /// What honest nodes may do at once, none of which may be refused
    Generous {
        /// Sites that Caddy gets certificates for
        #[arg(long, default_value_t = 120)]
        sites: usize,
        /// Nodes that join at once by one token
        #[arg(long, default_value_t = 50)]
        joins: usize,
    },
    /// Nodes upgraded one by one from an earlier version, under load
    Upgrade {
        /// The earlier version's program
        #[arg(long, value_name = "PATH")]
        old: PathBuf,
        /// How many agents
        #[arg(long, default_value_t = 20)]
        agents: usize,
    },
    /// A policy of 500 rules, compiled and applied
    Policy,
    /// DNS beside Knot, NSD, dnsmasq and Unbound
    Dns {
        /// How often each is asked
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// For how many seconds each time
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// How soon members are answered while strangers flood the name server
    Abuse {
        /// For how many seconds
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// Whether a sinkhole's answers show strangers which names exist inside
    Strangers {
        /// How many names of each kind
        #[arg(long, default_value_t = 10_000)]
        names: usize,
    },
    /// The tunnel beside wireguard-go, as ratios
    Tunnel {
        /// Largest packet inside; several separated by commas
        #[arg(long, value_delimiter = ',', default_values_t = [1280, 1420])]
        mtu: Vec<u32>,
        /// How often each, in turns
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// For how many seconds each time
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// TCP by a relay, between two nodes behind NATs, and by a lane
    Relay {
        /// How often
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// For how many seconds each time
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// A phone through a gateway into a LAN, beside wireguard-go there
    Forwarding {
        /// How often each, in turns
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// For how many seconds each time
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// A tunnel device with 1,000 peers of which one changes
    Peers,
    /// The program of that device
    #[command(hide = true)]
    PeersDevice {
        /// Key of the peer that is there
        key: String,
        /// Its place
        endpoint: String,
    },
    /// The hostile member's own program
    #[command(hide = true)]
    HostileMember {
        /// What it does: connect or ask
        what: String,
        /// For how long
        seconds: u64,
        /// Its folder, and whom it does it to
        places: Vec<String>,
    },
    /// Everything, as above
    All,
}

#[derive(Args)]
struct Sizes<const A: usize, const B: usize, const C: usize> {
    /// How many agents; several separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = [A, B, C])]
    agents: Vec<usize>,
    /// How often
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Only Serf
    #[arg(long)]
    only_serf: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut report = Report::new(arguments.json);
    let result = match arguments.what {
        What::Join { rounds } => join::measure(rounds, &mut report),
        What::Change(sizes) => {
            change::measure(&sizes.agents, sizes.rounds, sizes.only_serf, &mut report)
        }
        What::Death { agents, rounds } => death::measure(agents, rounds, &mut report),
        What::Idle { agents, seconds } => idle::measure(agents, seconds, &mut report),
        What::Restart { agents } => restart::measure(&agents, &mut report),
        What::Steady {
            agents,
            seconds,
            loss,
            changes,
        } => steady::measure(agents, seconds, loss, changes, &mut report),
        What::Ledger { agents } => ledger::measure(agents, &mut report),
        What::Issue { rounds, kills } => issue::measure(rounds, kills, &mut report),
        What::Kills { kills } => roster::kills(kills, &mut report),
        What::Roster => roster::changes(&mut report),
        What::Hostile { minutes, only } => hostile::measure(minutes, &only, &mut report),
        What::Generous { sites, joins } => generous::measure(sites, joins, &mut report),
        What::Upgrade { old, agents } => upgrade::measure(&old, agents, &mut report),
        What::Policy => policy::measure(&mut report),
        What::Dns { rounds, seconds } => dns::measure(rounds, seconds, &mut report),
        What::Abuse { seconds } => abuse::measure(seconds, &mut report),
        What::Strangers { names } => strangers::measure(names, &mut report),
        What::Tunnel {
            mtu,
            rounds,
            seconds,
        } => tunnel::measure(&mtu, rounds, seconds, &mut report),
        What::Forwarding { rounds, seconds } => {
            tunnel::forwarding::measure(rounds, seconds, &mut report)
        }
        What::Relay { rounds, seconds } => tunnel::relay::measure(rounds, seconds, &mut report),
        What::Peers => tunnel::peers::measure(&mut report),
        What::PeersDevice { key, endpoint } => {
            return ended(tunnel::peers::device(&key, &endpoint));
        }
        What::HostileMember {
            what,
            seconds,
            places,
        } => return ended(hostile::member::run(&what, seconds, &places)),
        What::All => join::measure(10, &mut report)
            .and_then(|()| change::measure(&[3, 20, 50], 15, false, &mut report))
            .and_then(|()| death::measure(20, 5, &mut report))
            .and_then(|()| idle::measure(50, 60, &mut report))
            .and_then(|()| restart::measure(&[3, 50], &mut report))
            .and_then(|()| steady::measure(20, 600, 10, 1000, &mut report))
            .and_then(|()| ledger::measure(50, &mut report))
            .and_then(|()| issue::measure(100, 5, &mut report))
            .and_then(|()| roster::kills(50, &mut report))
            .and_then(|()| roster::changes(&mut report))
            .and_then(|()| policy::measure(&mut report))
            .and_then(|()| dns::measure(5, 5, &mut report))
            .and_then(|()| abuse::measure(20, &mut report))
            .and_then(|()| strangers::measure(10_000, &mut report))
            .and_then(|()| tunnel::measure(&[1280, 1420], 3, 5, &mut report))
            .and_then(|()| tunnel::forwarding::measure(3, 5, &mut report))
            .and_then(|()| tunnel::relay::measure(3, 5, &mut report))
            .and_then(|()| tunnel::peers::measure(&mut report))
            .and_then(|()| hostile::measure(10.0, hostile::member::ALL, &mut report)),
    };
    report.table();
    ended(result)
}

fn ended(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
