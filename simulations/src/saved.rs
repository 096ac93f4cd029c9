//! Schedules as they are saved and read.

use std::fmt;

use crate::{
    profile::Profile,
    scenario,
    schedule::{Act, FORMAT, Schedule},
};

/// Why a saved schedule can't be used.
#[derive(Debug)]
pub enum ScheduleError {
    /// It isn't one.
    Malformed(serde_json::Error),
    /// It is of a later form.
    Format(u32),
    /// It names a machine that isn't there.
    Node(usize),
    /// It has no machines, or more than a world holds.
    Nodes(usize),
    /// So many of its machines can't decide.
    Roster(usize),
    /// Its scenario is for another profile than its own.
    Profile(String, Profile),
}

/// Machines in a world at most.
pub const MOST_NODES: usize = 4096;

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "this is no saved schedule: {error}"),
            Self::Format(format) => {
                write!(
                    f,
                    "the schedule has form {format}; this program reads {FORMAT}"
                )
            }
            Self::Node(node) => write!(f, "the schedule names node{node}, which it doesn't have"),
            Self::Profile(scenario, profile) => {
                write!(f, "{scenario} is not for the profile {profile}")
            }
            Self::Roster(ca) => write!(f, "1, 3 or 5 of the machines decide, not {ca}"),
            Self::Nodes(nodes) => write!(f, "a world has 1 to {MOST_NODES} machines, not {nodes}"),
        }
    }
}

impl std::error::Error for ScheduleError {}

impl Schedule {
    /// Reads a saved one.
    ///
    /// # Errors
    /// [`ScheduleError`].
    pub fn read(text: &str) -> Result<Self, ScheduleError> {
        let schedule: Self = serde_json::from_str(text).map_err(ScheduleError::Malformed)?;
        if schedule.format != FORMAT {
            return Err(ScheduleError::Format(schedule.format));
        }
        if !(1..=MOST_NODES).contains(&schedule.nodes) {
            return Err(ScheduleError::Nodes(schedule.nodes));
        }
        if ![1, 3, 5].contains(&schedule.ca) || schedule.ca > schedule.nodes {
            return Err(ScheduleError::Roster(schedule.ca));
        }
        let scenario = scenario::find(&schedule.scenario);
        if scenario.is_some_and(|scenario| !scenario.is_for(schedule.profile)) {
            let (scenario, profile) = (schedule.scenario, schedule.profile);
            return Err(ScheduleError::Profile(scenario, profile));
        }
        let named = schedule.steps.iter().flat_map(|step| match &step.act {
            Act::Crash(node)
            | Act::Stop(node)
            | Act::Start(node)
            | Act::Add(node, _)
            | Act::Remove(node, _)
            | Act::DiskFull(node)
            | Act::DiskSync(node)
            | Act::DiskWorks(node)
            | Act::DiskStops(node, _)
            | Act::BitFlip(node)
            | Act::Snapshot(node)
            | Act::Rollback(node)
            | Act::ClockStep(node, _)
            | Act::ClockDrift(node, _)
            | Act::Pause(node, _)
            | Act::Suspend(node, _)
            | Act::Roam(node)
            | Act::Nat(node, _)
            | Act::Rebind(node)
            | Act::Promote(node)
            | Act::Demote(node)
            | Act::TakeAdminByRoot(node)
            | Act::Claim(node, _)
            | Act::ClaimInTime(node, _)
            | Act::GiveBack(node, _)
            | Act::LeaderOnlyFor(node)
            | Act::Issue(node)
            | Act::Revoke(node)
            | Act::Evict(node)
            | Act::Lose(node)
            | Act::Recover(node)
            | Act::Clone(node)
            | Act::Upgrade(node)
            | Act::Relay(node)
            | Act::Gateway(node)
            | Act::Tap(node)
            | Act::Bring(node)
            | Act::BringPart(node)
            | Act::Noticed(node)
            | Act::Stands(node, _) => vec![*node],
            Act::Rivals(nodes, _) | Act::AddPhone(nodes) => nodes.clone(),
            Act::Cut(from, to) => [from.clone(), to.clone()].concat(),
            Act::Lie(liar, to, _) => vec![*liar, *to],
            Act::GiveAdmin(one, other) | Act::TakeAdmin(one, other) | Act::Talk(one, other) => {
                vec![*one, *other]
            }
            Act::Policy(_) => vec![0, 1],
            Act::Links(_)
            | Act::Heal
            | Act::Days(_)
            | Act::Contest(_)
            | Act::ContestWithout(..)
            | Act::LeaderCrash
            | Act::LeaderStops(_)
            | Act::LeaderClock(_)
            | Act::ClocksRight
            | Act::Decides
            | Act::RemovePhone
            | Act::TapAnother
            | Act::GatewayCrash
            | Act::Switched
            | Act::StartAll => Vec::new(),
        });
        if let Some(node) = named.into_iter().find(|node| *node >= schedule.nodes) {
            return Err(ScheduleError::Node(node));
        }
        Ok(schedule)
    }

    /// As it is saved.
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and words have a JSON form")
    }
}

#[cfg(test)]
mod tests {
    use innermesh_proto::ledger::RULES;

    use super::*;
    use crate::schedule::Step;

    #[test]
    fn a_schedule_is_saved_whole_and_a_wrong_one_is_refused() {
        let schedule = Schedule {
            format: FORMAT,
            scenario: "mix".into(),
            nodes: 3,
            ca: 1,
            profile: Profile::Wire,
            rules: RULES,
            seed: 7,
            length_ms: 1000,
            steps: vec![Step {
                at_ms: 5,
                act: Act::Cut(vec![0], vec![1, 2]),
            }],
        };
        assert_eq!(Schedule::read(&schedule.to_text()).unwrap(), schedule);
        for (from, to, why) in [
            ("\"nodes\": 3", "\"nodes\": 2", "node2"),
            ("\"format\": 1", "\"format\": 9", "form 9"),
            ("\"nodes\": 3", "\"nodes\": 0", "1 to 4096"),
            ("\"ca\": 1", "\"ca\": 5", "1, 3 or 5"),
            ("cut", "cure", "no saved schedule"),
        ] {
            let text = schedule.to_text().replace(from, to);
            assert!(Schedule::read(&text).unwrap_err().to_string().contains(why));
        }
    }
}
