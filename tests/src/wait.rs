//! Waiting for a condition, never for a time.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

/// Asks `condition` again and again until it is met.
///
/// # Panics
/// With what was waited for and the last reason, when it isn't met `within`
/// the time.
pub fn wait_for<T, E: Display>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> Result<T, E>,
) -> T {
    let began = Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(why) if began.elapsed() > within => {
                panic!("waited {within:?} for {what}; at last: {why}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// `Ok` when `met`, otherwise `why`; for use with [`wait_for`].
///
/// # Errors
/// `why`.
pub fn ensure(met: bool, why: impl Display) -> Result<(), String> {
    if met { Ok(()) } else { Err(why.to_string()) }
}
