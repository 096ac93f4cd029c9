//! The scenarios: each makes a schedule from a seed, and says which faults it
//! promises. How often what happens is drawn anew for each seed (swarm
//! testing: Groce et al., ISSTA 2012).

mod access;
mod admins;
mod certificates;
mod draft;
mod hostile;
mod links;
mod roster;
mod usual;
mod versions;

pub use self::draft::Scenario;

/// All of them, in the order in which they are listed.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    usual::ALL
        .iter()
        .chain(roster::ALL)
        .chain(admins::ALL)
        .chain(access::ALL)
        .chain(certificates::ALL)
        .chain(hostile::ALL)
        .chain(links::ALL)
        .chain(versions::ALL)
}

/// The scenario with this name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    all().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::schedule::Schedule;

    #[test]
    fn a_seed_makes_one_schedule_and_names_are_unlike() {
        for scenario in all() {
            let schedule = scenario.schedule(5, 1, 60_000);
            assert_eq!(schedule, scenario.schedule(5, 1, 60_000));
            assert_ne!(schedule.steps, scenario.schedule(5, 2, 60_000).steps);
            assert_eq!(Schedule::read(&schedule.to_text()).unwrap(), schedule);
        }
        let names: BTreeSet<_> = all().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all().count());
    }
}
