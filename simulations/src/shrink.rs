//! Makes a failing schedule smaller by delta debugging (Zeller and Hildebrandt,
//! "Simplifying and Isolating Failure-Inducing Input", 2002).

use crate::schedule::{Schedule, Step};

/// The smallest schedule that was found for which `fails` still holds; no
/// single step can be left out of it. It is `schedule` itself when that
/// doesn't fail.
pub fn shrink(schedule: &Schedule, mut fails: impl FnMut(&Schedule) -> bool) -> Schedule {
    let with = |steps: Vec<Step>| Schedule {
        steps,
        ..schedule.clone()
    };
    if !fails(schedule) {
        return schedule.clone();
    }
    let mut steps = schedule.steps.clone();
    let mut parts = 2;
    while !steps.is_empty() {
        let length = steps.len().div_ceil(parts);
        let without = (0..steps.len()).step_by(length).find_map(|from| {
            let to = (from + length).min(steps.len());
            let rest = [&steps[..from], &steps[to..]].concat();
            fails(&with(rest.clone())).then_some(rest)
        });
        match without {
            Some(rest) => {
                steps = rest;
                parts = (parts - 1).max(2);
            }
            None if length == 1 => break,
            None => parts = (parts * 2).min(steps.len()),
        }
    }
    with(steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scenario, schedule::Act};

    #[test]
    fn what_matters_is_left_and_nothing_else() {
        let schedule = scenario::find("churn").unwrap().schedule(5, 1, 60_000);
        let adds = |schedule: &Schedule| {
            let adds = schedule
                .steps
                .iter()
                .filter(|step| matches!(step.act, Act::Add(..)));
            adds.count()
        };
        assert!(adds(&schedule) >= 2 && schedule.steps.len() > 10);
        let small = shrink(&schedule, |schedule| adds(schedule) >= 2);
        assert_eq!((small.steps.len(), adds(&small)), (2, 2));
        let none = shrink(&schedule, |_| true);
        assert!(none.steps.is_empty());
        assert_eq!(shrink(&schedule, |_| false), schedule);
    }
}
