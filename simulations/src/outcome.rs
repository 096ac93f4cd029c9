//! What comes of a run.

#![allow(missing_docs, reason = "the names say it")]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{profile::Profile, schedule::Schedule};

/// What came of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub scenario: String,
    /// Machines.
    pub nodes: usize,
    /// What the agents talk over.
    pub profile: Profile,
    /// Of all randomness.
    pub seed: u64,
    /// Whether everything held that must.
    pub ok: bool,
    /// What didn't, in words.
    pub violation: Option<String>,
    /// Simulated time, in seconds.
    pub simulated_s: f64,
    /// Time that the run took, in seconds.
    pub wall_s: f64,
    /// Lines of its trace.
    pub events: u64,
    /// How often each kind of fault happened.
    pub faults: BTreeMap<String, u64>,
    /// SHA-256 over the trace.
    pub trace_hash: String,
    /// How long after the last fault all agreed, in milliseconds.
    pub healed_ms: Option<u64>,
    /// How long it took until all agreed again, each time that they didn't
    /// while things were done to the mesh.
    #[serde(default)]
    pub spread: Spread,
    /// The last events before the end, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<String>,
    /// The whole trace, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// How many agreed, and what was sent, over time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
}

impl Outcome {
    /// Of a run that ended without one; `words` say how.
    pub fn lost(schedule: &Schedule, words: String) -> Self {
        Self {
            scenario: schedule.scenario.clone(),
            nodes: schedule.nodes,
            profile: schedule.profile,
            seed: schedule.seed,
            ok: false,
            violation: Some(words),
            simulated_s: 0.0,
            wall_s: 0.0,
            events: 0,
            faults: BTreeMap::new(),
            trace_hash: String::new(),
            healed_ms: None,
            spread: Spread::default(),
            recent: Vec::new(),
            trace: None,
            samples: Vec::new(),
        }
    }
}

/// The mesh at one moment.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Milliseconds since the world began.
    pub at_ms: u64,
    /// Share of running machines whose view is the most common one, 0 to 1.
    pub agreed: f64,
    /// Bytes of UDP payload sent since the sample before, by all.
    pub bytes: u64,
}

/// How long all took to agree again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// How many times they didn't agree.
    pub changes: usize,
    /// Half of the times it took no longer, in milliseconds.
    pub median_ms: u64,
    /// The longest, in milliseconds.
    pub most_ms: u64,
}

impl Spread {
    /// From looks at the mesh; a time that hasn't ended doesn't count.
    pub fn of(samples: &[Sample]) -> Self {
        let mut times = Vec::new();
        let mut last = None;
        let mut since = None;
        for sample in samples {
            if sample.agreed >= 1.0 {
                times.extend(since.take().map(|since| sample.at_ms - since));
                last = Some(sample.at_ms);
            } else {
                // They may have parted right after the look before.
                since = since.or(last)
            }
        }
        times.sort_unstable();
        Self {
            changes: times.len(),
            median_ms: times.get(times.len() / 2).copied().unwrap_or(0),
            most_ms: times.last().copied().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_agree_lasts_from_the_last_look_at_which_all_did() {
        let looks = [1.0, 1.0, 0.5, 0.9, 1.0, 0.9, 1.0, 1.0, 0.2];
        let samples: Vec<Sample> = looks
            .iter()
            .zip(0..)
            .map(|(agreed, n)| Sample {
                at_ms: n * 50,
                agreed: *agreed,
                bytes: 0,
            })
            .collect();
        let expected = Spread {
            changes: 2,
            median_ms: 150,
            most_ms: 150,
        };
        assert_eq!(Spread::of(&samples), expected);
        assert_eq!(Spread::of(&[]), Spread::default());
    }
}
