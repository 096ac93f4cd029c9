//! What a test says that can't run on this machine, or not all of it. Rust's
//! test harness knows no such outcome and calls the test passed, so
//! `ops/test` reads these lines and counts them. Where everything is said to
//! be there ([`ALL_THERE`]) such a test fails.

use std::{
    env,
    fmt::Display,
    io::{self, Write},
    path::Path,
    thread,
};

/// Set to anything but nothing, no test may be skipped; `ops/test --all-there`
/// sets it.
pub const ALL_THERE: &str = "INNERMESH_ALL_THERE";

/// Says that this test is skipped; the caller then returns.
///
/// # Panics
/// Where everything is said to be there.
pub fn skip(why: impl Display) {
    say("skipped", &why);
}

/// Says that this test runs without a part of it; it counts as run.
///
/// # Panics
/// Where everything is said to be there.
pub fn leave_out(why: impl Display) {
    say("left out", &why);
}

/// Whether all of these programs are there; the test is skipped otherwise.
///
/// # Panics
/// Where one isn't, and everything is said to be there.
#[must_use]
pub fn installed(programs: &[&str]) -> bool {
    match missing(programs) {
        Some(program) => {
            skip(format!("{program} is not installed"));
            false
        }
        None => true,
    }
}

/// The first of these programs that isn't there: neither on the path nor
/// where servers are, which not every user's path has.
#[must_use]
pub fn missing<'a>(programs: &[&'a str]) -> Option<&'a str> {
    let path = env::var("PATH").unwrap_or_default() + ":/usr/local/bin:/usr/sbin:/sbin";
    let is_there = |program: &str| {
        let mut folders = path.split(':');
        folders.any(|folder| Path::new(folder).join(program).is_file())
    };
    programs.iter().find(|program| !is_there(program)).copied()
}

fn say(what: &str, why: &dyn Display) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("unnamed");
    let line = format!("test {name} ... {what}: {why}\n");
    // Not eprintln!, which the test harness would swallow. Without standard
    // error there is nobody to read it.
    let _ = io::stderr().write_all(line.as_bytes());
    assert!(
        env::var_os(ALL_THERE).is_none_or(|all| all.is_empty()),
        "{what}, where {ALL_THERE} says that everything is there: {why}"
    );
}

#[cfg(test)]
mod tests {
    use super::{installed, missing};

    #[test]
    fn a_program_is_found_on_the_path_and_one_that_nobody_has_is_named() {
        assert!(installed(&["sh"]));
        assert_eq!(missing(&["sh", "no-such-program"]), Some("no-such-program"));
    }
}
