//! A host whose IPv6 is switched off: the agent starts each time, and its names
//! and its tunnel work over IPv4.

use innermesh_tests::{Lab, agent::PATIENCE, wait_for};

/// The fault that this looks for was seen at ten of twelve starts.
const STARTS: usize = 20;

#[test]
fn an_agent_starts_each_time_on_a_host_without_ipv6() {
    let Some(lab) = Lab::new(2) else { return };
    let [mut alpha, mut beta] = lab.agents();
    let switch_off = "for all in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$all; done";
    let _ = alpha.host.run(&["sh", "-c", switch_off]).ok();
    let _ = alpha.init();
    beta.join(&alpha);
    let own = alpha.overlay_ipv4("alpha");
    for start in 0..STARTS {
        // At the end of a start, and cut off in the middle of what it does.
        if start % 2 == 0 {
            alpha.stop();
        } else {
            alpha.kill();
        }
        alpha.start();
        assert_eq!(alpha.dns().port(), 53, "start {start}");
        let answer = alpha.dig(&["alpha.lab.internal", "A"]).ok();
        assert_eq!(answer.trim(), own, "start {start}");
    }
    wait_for("a packet through the tunnel", PATIENCE, || {
        if beta.pings(&own) {
            Ok(())
        } else {
            Err("not yet")
        }
    });
    let log = alpha.log();
    assert!(!log.contains("names are not answered"), "{log}");
}
