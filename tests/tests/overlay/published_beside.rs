//! What is published beside what else a node does: an exit that it uses, a program at
//! the same port, and the end of the agent.

use innermesh_tests::{Lab, agent::PATIENCE, wait::ensure, wait_for};

use crate::{
    published::{link, open, publish},
    subnets::{finding, no_finding},
    world::{LAN, SERVICE, STRANGER, Service, address, asks, cable, overlay_of, pair, shell},
};

#[test]
fn s23_answers_to_strangers_leave_by_the_link_where_a_node_uses_an_exit() {
    let Some(lab) = Lab::new(5) else { return };
    let [alpha, beta, gamma] = lab.mesh();
    let (stranger, internet) = (&lab.hosts[3], &lab.hosts[4]);
    cable(&lab, stranger, beta.host, &[]);
    let _service = Service::start(alpha.host, SERVICE);
    let _far = Service::start(internet, SERVICE);
    let _ = publish(&alpha, "alpha", 2525, SERVICE, "beta");
    open(&beta, 2525, "alpha");
    let (link, ends) = link(alpha.host);
    let _ = alpha.cli(&["role", "add", "gamma", "exit"]).ok();
    wait_for("the exit to be used", PATIENCE, || {
        alpha.cli(&["exit", "use", "gamma"]).result()
    });
    let far = address(internet.ipv4.to_string());
    assert_eq!(
        asks(alpha.host, far, SERVICE),
        address(gamma.host.ipv4.to_string())
    );
    for ((public, own), end) in LAN.into_iter().zip(STRANGER).zip(ends) {
        assert_eq!(asks(stranger, address(public), 2525), address(own));
        // What this host itself begins goes to the same stranger by the exit.
        let way = |more: &str| shell(alpha.host, &format!("ip route get {own}{more}"));
        assert!(way("").contains("dev im0 "), "{}", way(""));
        let answer = way(&format!(" from {end}"));
        assert!(answer.contains(&format!("dev {link} ")), "{answer}");
    }
    // Nor does anything go by the exit where the link isn't there.
    shell(alpha.host, &format!("ip link set {link} down"));
    let answer = alpha.host.run(&[
        "ip",
        "route",
        "get",
        STRANGER[0],
        "from",
        &ends[0].to_string(),
    ]);
    assert!(!answer.stdout.contains("im0 "), "{answer}");
}

#[test]
fn a_program_at_a_port_that_is_published_is_told_of() {
    let Some(lab) = Lab::new(3) else { return };
    let stranger = &lab.hosts[2];
    let (alpha, beta) = pair(&lab);
    cable(&lab, stranger, beta.host, &[]);
    let _service = Service::start(alpha.host, SERVICE);
    let _ = publish(&alpha, "alpha", 2525, SERVICE, "beta");
    open(&beta, 2525, "alpha");
    // One that strangers couldn't reach anyway takes nothing away.
    let near = beta.host.listen("127.0.0.1:2525".parse().expect("one"));
    no_finding(&beta, "publish-shadows");
    drop(near);
    let shadowed = Service::start(beta.host, 2525);
    let told = finding(&beta, "publish-shadows");
    let text = told["text"].as_str().expect("a text");
    assert!(
        text.contains("port 2525") && text.contains("alpha"),
        "{told}"
    );
    assert_eq!(asks(stranger, address(LAN[0]), 2525), address(STRANGER[0]));
    let before = overlay_of(&alpha, "alpha")[0];
    assert_eq!(
        asks(alpha.host, overlay_of(&alpha, "beta")[0], 2525),
        before,
        "members reach the program"
    );
    drop(shadowed);
    no_finding(&beta, "publish-shadows");
}

#[test]
fn what_a_link_sends_below_the_overlay_never_goes_into_the_tunnel() {
    let Some(lab) = Lab::new(2) else { return };
    let (alpha, beta) = pair(&lab);
    let _service = Service::start(alpha.host, SERVICE);
    let _ = publish(&alpha, "alpha", 2525, SERVICE, "beta");
    open(&beta, 2525, "alpha");
    let (link, _) = link(alpha.host);
    let port = shell(alpha.host, &format!("wg show {link} listen-port"));
    let begin = "nft list chain inet innermesh begin";
    wait_for("the link's port in the filter", PATIENCE, || {
        let rules = shell(alpha.host, begin);
        let rule = rules.lines().find(|line| line.contains("udp sport"));
        let has = rule.is_some_and(|rule| rule.contains(port.trim()));
        ensure(has && rules.contains("51820"), rules)
    });
    let _ = alpha.cli(&["unpublish", "alpha"]).ok();
    wait_for("its end", PATIENCE, || {
        let rules = shell(alpha.host, begin);
        ensure(!rules.contains(port.trim()), rules)
    });
}
