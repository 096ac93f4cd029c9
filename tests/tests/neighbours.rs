//! A machine that falls silent is soon out of all answers, however it went.

use std::time::{Duration, Instant};

use innermesh_tests::{Agent, Lab, wait::ensure, wait_for};

/// Three and a half seconds are usual (see `ops/bench`); a machine that does much else
/// gets longer. By leases alone it is at least four and a half.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn who_is_killed_or_cut_off_is_out_of_all_answers_within_seconds() {
    let Some(lab) = Lab::new(3) else { return };
    let [alpha, beta, mut gamma] = lab.mesh();
    let share = ["service", "add", "web", "--port", "80", "--share", "gamma"];
    let _ = beta.cli(&share).ok();
    let both = ["beta", "gamma"].map(|node| alpha.overlay_ipv4(node));
    let lines = both.each_ref().map(String::as_str);
    alpha.wait_answer(&["web.lab.internal", "A"], &lines[..1]);
    let _ = gamma.cli(&["service", "add", "web", "--port", "80"]).ok();
    let all_answer = || {
        for agent in [&alpha, &beta] {
            agent.wait_answer(&["web.lab.internal", "A"], &lines);
        }
    };
    all_answer();

    lab.set_link(gamma.host, false);
    wait_until_gone("whose cable is out", [&alpha, &beta], &lines);
    lab.set_link(gamma.host, true);
    all_answer();
    // It never took itself for alone for good.
    gamma.wait_nodes(3);

    gamma.kill();
    wait_until_gone("that was killed", [&alpha, &beta], &lines);
    gamma.start();
    all_answer();
}

/// Waits until neither leads to the second address any more.
fn wait_until_gone(who: &str, agents: [&Agent; 2], lines: &[&str; 2]) {
    let begin = Instant::now();
    for agent in agents {
        let what = format!("{} to leave the one out {who}", agent.name);
        wait_for(&what, SOON, || {
            let got = agent.dig(&["web.lab.internal", "A"]).result()?;
            let is_out = got.lines().eq(lines[..1].iter().copied());
            let took = begin.elapsed();
            ensure(is_out, format!("{got:?} after {took:.1?}"))
        });
    }
    println!(
        "the one {who} was out of all answers after {:.1?}",
        begin.elapsed()
    );
}
