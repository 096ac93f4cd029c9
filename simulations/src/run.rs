//! One run: a mesh is made, a schedule is done to it, and what must hold is
//! checked all the time and at the end.

use crate::{course::Course, entropy, outcome::Outcome, panics, schedule::Schedule};

/// Runs `schedule` in a world of its own; `whole` keeps its whole trace.
///
/// The same schedule gives the same trace as the first run in a process; a
/// later one has other random numbers inside tokio, which counts its runtimes
/// for a process. So `simulate` gives each run a process of its own.
#[allow(
    clippy::disallowed_methods,
    reason = "how long a run took in truth is told beside what it simulated"
)]
pub fn run(schedule: &Schedule, whole: bool) -> Outcome {
    let began = std::time::Instant::now();
    let mut outcome = entropy::seeded(schedule.seed, || {
        panics::watch();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without sockets");
        // Inside, where the clock is the paused one.
        runtime.block_on(async { Course::new(schedule, whole).run().await })
    });
    outcome.wall_s = began.elapsed().as_secs_f64();
    outcome
}
