//! Scenarios of who may reach what, and of what comes in by gateways.

use super::draft::{Draft, Scenario};
use crate::{net::link::Link, schedule::Act};

/// All of them, in the order in which they are listed.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "policies",
        about: "the policy changes while the mesh is cut in two, and machines fail",
        promises: &["policy", "add", "cut", "heal", "crash"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: policies,
    },
    Scenario {
        name: "device-roams",
        about: "a phone goes from gateway to gateway while links are cut and lose packets",
        promises: &["tap", "handshake", "cut", "crash", "remove phone"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: roams,
    },
    Scenario {
        name: "gateway-dies",
        about: "a gateway dies that has a phone and a LAN; all switch within five seconds",
        promises: &["handshake", "gateway crash", "switched"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: dies,
    },
    Scenario {
        name: "overlapping-lans",
        about: "two gateways bring one LAN, of whose range others stand in another",
        promises: &["bring", "bring a part", "other LAN", "gateway crash", "cut"],
        nobody_dies: false,
        needs_datagrams: false,
        carries: false,
        make: lans,
    },
];

/// Of so many machines the first decides, two are gateways and one is neither.
const NODES: usize = 4;
/// The gateways.
const GATEWAYS: [usize; 2] = [1, 2];

impl Draft {
    /// Both gateways are there, each with the LAN and the phone.
    fn gateways(&mut self) {
        self.nodes = self.nodes.max(NODES);
        for node in GATEWAYS {
            self.at(100, Act::Gateway(node));
            self.at(1000, Act::Bring(node));
        }
        self.at(1500, Act::AddPhone(GATEWAYS.to_vec()));
    }

    fn one_gateway(&mut self) -> usize {
        self.random.pick(&GATEWAYS).copied().unwrap_or(1)
    }
}

fn roams(draft: &mut Draft) {
    draft.gateways();
    draft.at(2500, Act::Tap(1));
    draft.at(6000, Act::Tap(2));
    let (loss, latency_ms) = (draft.random.below(20), draft.random.range(1, 80));
    let link = Link {
        latency_ms,
        loss: loss as f64 / 100.0,
        ..Link::default()
    };
    draft.at(8000, Act::Links(link));
    let end = draft.length_ms.max(20_000);
    let mut at = 9000;
    let mut round: u64 = 0;
    while at < end {
        let node = draft.one_gateway();
        draft.at(at, Act::Tap(node));
        let long = draft.random.range(500, 9000);
        match round % 3 {
            0 => {
                let (from, to) = draft.halves();
                draft.at(at, Act::Cut(from.clone(), to.clone()));
                draft.at(at, Act::Cut(to, from));
                draft.at(at + long, Act::Heal);
                draft.at(at + long, Act::Links(link));
            }
            1 => {
                let node = draft.one_gateway();
                let soon = draft.random.below(300);
                draft.at(at + soon, Act::Crash(node));
                draft.at(at + long, Act::StartAll);
            }
            _ => {}
        }
        at += draft.random.range(1000, 10_000);
        round += 1;
    }
    // One time in two while the mesh is cut.
    if draft.random.chance(0.5) {
        let (from, to) = draft.halves();
        draft.at(end - 2000, Act::Cut(from.clone(), to.clone()));
        draft.at(end - 2000, Act::Cut(to, from));
    }
    draft.at(end - 1000, Act::RemovePhone);
}

fn dies(draft: &mut Draft) {
    draft.gateways();
    let first = draft.one_gateway();
    draft.at(2500, Act::Tap(first));
    draft.services(2);
    let mut at = 6000 + draft.random.below(4000);
    for _ in 0..2 {
        draft.at(at, Act::GatewayCrash);
        let tap = at + draft.random.below(2000);
        draft.at(tap, Act::TapAnother);
        // Of its death nobody hears before its lease ends.
        draft.at(tap.max(at) + 5000, Act::Switched);
        draft.at(at + 9000, Act::StartAll);
        at += draft.random.range(16_000, 20_000);
    }
}

fn lans(draft: &mut Draft) {
    draft.gateways();
    let stranger = NODES - 1;
    // There before the LAN is brought, or afterwards.
    let before = draft.random.below(4000);
    draft.at(before, Act::Stands(stranger, true));
    let moment = draft.random.range(4000, 8000);
    let node = draft.one_gateway();
    draft.at(moment, Act::BringPart(node));
    draft.at(moment + 1000, Act::GatewayCrash);
    draft.at(moment + 6000, Act::Switched);
    draft.at(moment + 7000, Act::StartAll);
    let (from, to) = draft.halves();
    draft.at(moment + 9000, Act::Cut(from.clone(), to.clone()));
    draft.at(moment + 9000, Act::Cut(to, from));
    let healed = moment + 9000 + draft.random.range(1000, 8000);
    draft.at(healed, Act::Heal);
    draft.at(healed + 500, Act::Crash(stranger));
    draft.at(healed + 1500, Act::StartAll);
    if draft.random.chance(0.5) {
        let left = healed + draft.random.range(3000, 9000);
        draft.at(left, Act::Stands(stranger, false));
    }
}

fn policies(draft: &mut Draft) {
    draft.nodes = draft.nodes.max(4);
    // Without one, with a phone, while nothing fails.
    draft.at(300, Act::Policy(0));
    let (node, number) = (draft.node(), draft.service());
    draft.at(600, Act::Add(node, number));
    let mut at = 3000;
    while at < draft.length_ms {
        let policy = draft.random.below(5);
        draft.at(at, Act::Policy(u32::try_from(policy).unwrap_or(0)));
        let (from, to) = draft.halves();
        match draft.random.below(3) {
            0 => {
                draft.at(at, Act::Cut(from, to));
                draft.at(at + 4000, Act::Heal);
            }
            1 => {
                let node = draft.node();
                draft.at(at + 50, Act::Crash(node));
                draft.at(at + 3000, Act::StartAll);
            }
            _ => {
                let (node, number) = (draft.node(), draft.service());
                draft.at(at + 500, Act::Add(node, number));
            }
        }
        at += draft.random.range(2000, 8000);
    }
    // Each kind at least once, whatever was drawn.
    let (from, to) = draft.halves();
    draft.at(1500, Act::Cut(from, to));
    draft.at(2500, Act::Heal);
    draft.at(2600, Act::Crash(1));
    draft.at(2900, Act::StartAll);
}
