//! What is done to a world, as data: made from a seed, saved, replayed and
//! shrunk.

#![allow(missing_docs, reason = "the names say it")]

use std::fmt;

use innermesh_proto::ledger::RULES;
use serde::{Deserialize, Serialize};

pub use crate::profile::Profile;
use crate::{
    byzantine::Lie,
    net::{link::Link, nat::Class},
};

/// The newest form of a saved schedule.
pub const FORMAT: u32 = 1;

/// Everything that decides a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// [`FORMAT`].
    pub format: u32,
    pub scenario: String,
    /// Machines; the first makes the mesh.
    pub nodes: usize,
    /// How many of them decide the ledger: 1, 3 or 5, from the first on.
    #[serde(default = "one")]
    pub ca: usize,
    /// What the agents talk over.
    #[serde(default)]
    pub profile: Profile,
    /// The rules that the mesh begins with, which are all that the builds of its
    /// machines know then.
    #[serde(default = "newest")]
    pub rules: u32,
    /// Of all randomness.
    pub seed: u64,
    /// How long things are done to the mesh after all have joined.
    pub length_ms: u64,
    /// What is done, in the order of time.
    pub steps: Vec<Step>,
}

fn newest() -> u32 {
    RULES
}

fn one() -> usize {
    1
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wire => "wire",
            Self::Message => "message",
        })
    }
}

/// One thing that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When, after all have joined.
    pub at_ms: u64,
    pub act: Act,
}

/// What can be done. Machines are numbered from 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// The power of a machine fails.
    Crash(usize),
    /// Its agent is stopped as an operator does.
    Stop(usize),
    /// Its agent is started.
    Start(usize),
    /// Nothing passes from the first group to the second.
    Cut(Vec<usize>, Vec<usize>),
    /// What lies between any two machines changes.
    Links(Link),
    /// All links are good again.
    Heal,
    /// A service is added on a machine: `s<number>`.
    Add(usize, u32),
    /// It is removed, and its name given back.
    Remove(usize, u32),
    /// A machine's disk is full.
    DiskFull(usize),
    /// What a machine writes can't be made durable.
    DiskSync(usize),
    /// A machine's disk works again.
    DiskWorks(usize),
    /// A machine's disk stops in the middle of the so manieth write, and the
    /// machine with it.
    DiskStops(usize, u64),
    /// A machine's power fails, and its disk has lost one bit.
    BitFlip(usize),
    /// What a machine's disk holds is remembered.
    Snapshot(usize),
    /// A machine's power fails, and its disk holds what was remembered.
    Rollback(usize),
    /// A machine's wall clock jumps by so many milliseconds.
    ClockStep(usize, i64),
    /// A machine's wall clock gains so many parts of a million.
    ClockDrift(usize, i64),
    /// So many days pass on all wall clocks in one moment.
    Days(u32),
    /// A machine stands still for so many milliseconds.
    Pause(usize, u64),
    /// A machine sleeps for so many milliseconds: its monotonic clock stops.
    Suspend(usize, u64),
    /// A machine has another address from now on.
    Roam(usize),
    /// A machine is behind a NAT from now on.
    Nat(usize, Class),
    /// A machine's NAT forgets its mappings.
    Rebind(usize),
    /// A member that lies tells the agent of another machine something.
    Lie(usize, usize, Lie),
    /// So many new machines try to join with one token for one use.
    Contest(usize),
    /// As [`Act::Contest`], and the leader's power fails so many milliseconds
    /// later.
    ContestWithout(usize, u64),
    /// The power of the machine that leads the roster fails.
    LeaderCrash,
    /// Its disk stops in the middle of the so manieth write, and the machine
    /// with it.
    LeaderStops(u64),
    /// Its wall clock jumps by so many milliseconds.
    LeaderClock(i64),
    /// All wall clocks are right again.
    ClocksRight,
    /// The agents of all machines that are down are started.
    StartAll,
    /// A machine becomes a CA node.
    Promote(usize),
    /// A CA node becomes an ordinary machine.
    Demote(usize),
    /// A machine asks that another be an admin.
    GiveAdmin(usize, usize),
    /// A machine asks that another, or itself, be no admin any more.
    TakeAdmin(usize, usize),
    /// The first machine sets one of some policies.
    Policy(u32),
    /// A machine sends packets to another for twelve seconds, by now with two ways.
    Talk(usize, usize),
    /// A machine becomes a relay.
    Relay(usize),
    /// A machine becomes a gateway.
    Gateway(usize),
    /// A phone is added, which comes in by these.
    AddPhone(Vec<usize>),
    /// It is removed.
    RemovePhone,
    /// The phone uses this gateway from now on.
    Tap(usize),
    /// It uses another one that runs.
    TapAnother,
    /// A gateway brings a LAN.
    Bring(usize),
    /// It is asked to bring a part of that LAN.
    BringPart(usize),
    /// A machine stands in another LAN of that range, or no more.
    Stands(usize, bool),
    /// The power of the gateway fails by which the LAN is reached.
    GatewayCrash,
    /// By now all must use gateways that run.
    Switched,
    /// By now all must take a machine that doesn't run for dead.
    Noticed(usize),
    /// The first machine asks for that with the root's word.
    TakeAdminByRoot(usize),
    /// A machine asks the ledger for the name `n<number>`.
    Claim(usize, u32),
    /// As [`Act::Claim`], `p<number>`; there must be an answer soon.
    ClaimInTime(usize, u32),
    /// A machine gives the name `n<number>` back that it was given.
    GiveBack(usize, u32),
    /// The machine that leads the roster and this one are cut off from the
    /// others, from now on.
    LeaderOnlyFor(usize),
    /// Machines ask the ledger for the name `r<number>` at the same time.
    Rivals(Vec<usize>, u32),
    /// A machine asks for a certificate.
    Issue(usize),
    /// A machine has one of its certificates revoked.
    Revoke(usize),
    /// The ledger must decide what is asked, within a while.
    Decides,
    /// The first machine has another one evicted.
    Evict(usize),
    /// A machine is lost for good, with its disk.
    Lose(usize),
    /// A machine's user has it go on as the only CA node, with the root's key.
    Recover(usize),
    /// A copy of a machine's disk is started on another machine.
    Clone(usize),
    /// A machine that is down gets the newest build.
    Upgrade(usize),
}

impl Act {
    /// The name of its kind, in counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Crash(_) => "crash",
            Self::Stop(_) => "stop",
            Self::Start(_) => "start",
            Self::Cut(..) => "cut",
            Self::Links(_) => "links",
            Self::Heal => "heal",
            Self::Add(..) => "add",
            Self::Remove(..) => "remove",
            Self::DiskFull(_) => "disk full",
            Self::DiskSync(_) => "disk doesn't sync",
            Self::DiskWorks(_) => "disk works",
            Self::DiskStops(..) => "disk stops",
            Self::BitFlip(_) => "bit flip",
            Self::Snapshot(_) => "snapshot",
            Self::Rollback(_) => "rollback",
            Self::ClockStep(..) => "clock step",
            Self::ClockDrift(..) => "clock drift",
            Self::Days(_) => "days",
            Self::Pause(..) => "pause",
            Self::Suspend(..) => "suspend",
            Self::Roam(_) => "roam",
            Self::Nat(..) => "nat",
            Self::Rebind(_) => "rebind",
            Self::Lie(..) => "lie",
            Self::Contest(_) | Self::ContestWithout(..) => "contest",
            Self::LeaderCrash => "leader crash",
            Self::LeaderStops(_) => "leader's disk stops",
            Self::LeaderClock(_) => "leader clock",
            Self::ClocksRight => "clocks right",
            Self::StartAll => "start all",
            Self::Promote(_) => "promote",
            Self::Demote(_) => "demote",
            Self::GiveAdmin(..) => "give admin",
            Self::TakeAdmin(..) => "take admin",
            Self::TakeAdminByRoot(_) => "take admin by root",
            Self::Policy(_) => "policy",
            Self::Talk(..) => "talk",
            Self::Relay(_) => "relay",
            Self::Gateway(_) => "gateway",
            Self::AddPhone(_) => "add phone",
            Self::RemovePhone => "remove phone",
            Self::Tap(_) | Self::TapAnother => "tap",
            Self::Bring(_) => "bring",
            Self::BringPart(_) => "bring a part",
            Self::Stands(..) => "other LAN",
            Self::GatewayCrash => "gateway crash",
            Self::Switched => "switched",
            Self::Noticed(_) => "noticed",
            Self::Claim(..) => "claim",
            Self::ClaimInTime(..) => "claim in time",
            Self::GiveBack(..) => "give back",
            Self::LeaderOnlyFor(_) => "leader alone",
            Self::Rivals(..) => "rivals",
            Self::Issue(_) => "issue",
            Self::Revoke(_) => "revoke",
            Self::Decides => "decides",
            Self::Evict(_) => "evict",
            Self::Clone(_) => "clone",
            Self::Upgrade(_) => "upgrade",
            Self::Lose(_) => "lose",
            Self::Recover(_) => "recover",
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = |group: &[usize]| {
            let names: Vec<String> = group.iter().map(|node| format!("node{node}")).collect();
            names.join(", ")
        };
        match self {
            Self::Crash(node) => write!(f, "the power of node{node} fails"),
            Self::Stop(node) => write!(f, "node{node} is stopped"),
            Self::Start(node) => write!(f, "node{node} is started"),
            Self::Cut(from, to) => {
                write!(f, "nothing passes from {} to {}", group(from), group(to))
            }
            Self::Links(link) => write!(
                f,
                "links take {} to {} ms, lose {:.0} %, double {:.0} %, reorder {:.0} %",
                link.latency_ms,
                link.latency_ms + link.jitter_ms,
                link.loss * 100.0,
                link.duplicate * 100.0,
                link.reorder * 100.0
            ),
            Self::Heal => write!(f, "all links are good again"),
            Self::Add(node, service) => write!(f, "node{node} adds the service s{service}"),
            Self::Remove(node, service) => write!(f, "node{node} removes the service s{service}"),
            Self::DiskFull(node) => write!(f, "the disk of node{node} is full"),
            Self::DiskSync(node) => write!(f, "the disk of node{node} can't be synced"),
            Self::DiskWorks(node) => write!(f, "the disk of node{node} works again"),
            Self::DiskStops(node, writes) => {
                write!(
                    f,
                    "the disk of node{node} stops in its write number {writes} from now"
                )
            }
            Self::BitFlip(node) => {
                write!(f, "the power of node{node} fails, and its disk loses a bit")
            }
            Self::Snapshot(node) => write!(f, "the disk of node{node} is copied"),
            Self::Rollback(node) => {
                write!(
                    f,
                    "the power of node{node} fails, and it gets the copy of its disk"
                )
            }
            Self::ClockStep(node, ms) => write!(f, "the clock of node{node} jumps by {ms} ms"),
            Self::ClockDrift(node, ppm) => {
                write!(f, "the clock of node{node} gains {ppm} parts of a million")
            }
            Self::Days(days) => write!(f, "{days} days pass on all wall clocks"),
            Self::Pause(node, ms) => write!(f, "node{node} stands still for {ms} ms"),
            Self::Suspend(node, ms) => write!(f, "node{node} sleeps for {ms} ms"),
            Self::Roam(node) => write!(f, "node{node} has another address"),
            Self::Nat(node, class) => write!(f, "node{node} is behind a NAT ({class:?})"),
            Self::Rebind(node) => write!(f, "the NAT of node{node} forgets its mappings"),
            Self::Lie(liar, to, lie) => write!(f, "node{liar} tells node{to} a {}", lie.name()),
            Self::Contest(rivals) => write!(f, "{rivals} machines try to join with one token"),
            Self::ContestWithout(rivals, ms) => write!(
                f,
                "{rivals} machines try to join with one token, and {ms} ms later the leader's \
                 power fails"
            ),
            Self::LeaderCrash => write!(f, "the leader's power fails"),
            Self::LeaderStops(writes) => {
                write!(
                    f,
                    "the leader's disk stops in its write number {writes} from now"
                )
            }
            Self::LeaderClock(ms) => write!(f, "the leader's clock jumps by {ms} ms"),
            Self::ClocksRight => write!(f, "all clocks are right again"),
            Self::StartAll => write!(f, "all that are down are started"),
            Self::Promote(node) => write!(f, "node{node} becomes a CA node"),
            Self::Demote(node) => write!(f, "node{node} is to be no CA node any more"),
            Self::Policy(number) => write!(f, "node0 sets policy {number}"),
            Self::Talk(from, to) => write!(f, "node{from} talks to node{to}"),
            Self::Relay(node) => write!(f, "node{node} becomes a relay"),
            Self::Gateway(node) => write!(f, "node{node} becomes a gateway"),
            Self::AddPhone(gateways) => write!(f, "a phone of {} is added", group(gateways)),
            Self::RemovePhone => write!(f, "the phone is removed"),
            Self::Tap(node) => write!(f, "the phone uses node{node}"),
            Self::TapAnother => write!(f, "the phone uses another gateway"),
            Self::Bring(node) => write!(f, "node{node} brings a LAN"),
            Self::BringPart(node) => write!(f, "node{node} is to bring a part of the LAN"),
            Self::Stands(node, true) => write!(f, "node{node} comes into a LAN of the same range"),
            Self::Stands(node, false) => write!(f, "node{node} leaves the LAN of the same range"),
            Self::GatewayCrash => write!(f, "the power of the LAN's gateway fails"),
            Self::Switched => write!(f, "all must use a gateway that runs"),
            Self::Noticed(node) => write!(f, "all must take node{node} for dead"),
            Self::GiveAdmin(by, node) => write!(f, "node{by} makes node{node} an admin"),
            Self::TakeAdmin(by, node) => {
                write!(f, "node{by} asks that node{node} be no admin any more")
            }
            Self::TakeAdminByRoot(node) => {
                write!(
                    f,
                    "node{node} is to be no admin any more, by the root's word"
                )
            }
            Self::Claim(node, name) => write!(f, "node{node} asks for the name n{name}"),
            Self::ClaimInTime(node, name) => {
                write!(f, "node{node} asks for the name p{name}, and waits")
            }
            Self::GiveBack(node, name) => write!(f, "node{node} gives the name n{name} back"),
            Self::LeaderOnlyFor(node) => {
                write!(f, "the leader and node{node} are cut off from the others")
            }
            Self::Rivals(nodes, name) => {
                write!(f, "{} ask for the name r{name}", group(nodes))
            }
            Self::Issue(node) => write!(f, "node{node} asks for a certificate"),
            Self::Revoke(node) => write!(f, "node{node} has a certificate revoked"),
            Self::Decides => write!(f, "the ledger must decide"),
            Self::Evict(node) => write!(f, "node{node} is evicted"),
            Self::Lose(node) => write!(f, "node{node} is lost for good"),
            Self::Recover(node) => write!(f, "node{node} is to go on as the only CA node"),
            Self::Clone(node) => write!(f, "a copy of node{node} is started"),
            Self::Upgrade(node) => write!(f, "node{node} gets the newest build"),
        }
    }
}
