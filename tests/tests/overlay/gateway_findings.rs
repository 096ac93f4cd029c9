//! What a gateway says of others' rules, and what they can do to true sources.

use innermesh_tests::{Lab, agent::PATIENCE, installed, wait::ensure, wait_for};

use crate::{
    subnets::{allows_lan, answers, brings, finding, no_finding},
    world::{
        SERVICE, STRANGER, Service, address, asks, cable, dropped, overlay_of, pair, reaches_not,
        shell,
    },
};

#[test]
fn s23_with_a_stray_masquerade_sources_stay_true_and_status_says_what_to_do() {
    if !installed(&["iptables"]) {
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let lan = &lab.hosts[2];
    let (alpha, beta) = pair(&lab);
    let own = overlay_of(&alpha, "alpha");
    cable(&lab, lan, beta.host, &[]);
    brings(&alpha, &beta);
    answers(lan, own);
    let _on_lan = Service::start(lan, SERVICE);
    let _on_alpha = Service::start(alpha.host, SERVICE);
    let far = STRANGER.map(address);
    assert_eq!(asks(alpha.host, far[0], SERVICE), own[0]);
    allows_lan(&alpha);

    shell(
        beta.host,
        "iptables -t nat -A POSTROUTING -o direct -j MASQUERADE
         iptables -t nat -A POSTROUTING -o im0 -j MASQUERADE
         ip6tables -t nat -A POSTROUTING -j MASQUERADE",
    );
    for (far, own) in far.into_iter().zip(own) {
        assert_eq!(asks(alpha.host, far, SERVICE), own, "to the LAN");
        assert_eq!(asks(lan, own, SERVICE), far, "from the LAN");
    }
    let told = finding(&beta, "masquerade");
    let text = told["text"].as_str().expect("a text");
    assert!(text.contains("mail server"), "{text}");
    // What it says to run is right, and there is nothing more to tell then.
    for _ in 0..6 {
        let status = beta.status();
        let mut all = status["findings"].as_array().into_iter().flatten();
        let Some(next) = all.find(|finding| finding["code"] == "masquerade") else {
            break;
        };
        let remedy = next["remedy"].as_str().expect("a remedy").to_owned();
        let command = remedy.split('`').nth(1).expect("a command").to_owned();
        shell(beta.host, &command);
        wait_for("what that did", PATIENCE, || {
            let status = beta.status();
            let mut all = status["findings"].as_array().into_iter().flatten();
            let same = all.any(|finding| {
                finding["code"] == "masquerade" && finding["remedy"] == remedy.as_str()
            });
            ensure(!same, status["findings"].to_string())
        });
    }
    no_finding(&beta, "masquerade");

    // One that comes before the agent's own can't be undone: nothing passes then.
    shell(
        beta.host,
        "nft add table ip early
         nft 'add chain ip early out { type nat hook postrouting priority 50; }'
         nft add rule ip early out oifname direct masquerade",
    );
    reaches_not(alpha.host, far[0], SERVICE);
    assert!(dropped(&beta, "rewritten") > 0);
    shell(beta.host, "nft delete table ip early");
    assert_eq!(asks(alpha.host, far[0], SERVICE), own[0]);
}

#[test]
fn a_policy_that_drops_what_is_forwarded_is_told_before_anything_is_lost() {
    if !installed(&["iptables"]) {
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let lan = &lab.hosts[2];
    let (alpha, beta) = pair(&lab);
    let own = overlay_of(&alpha, "alpha");
    cable(&lab, lan, beta.host, &[]);
    brings(&alpha, &beta);
    answers(lan, own);
    let _on_lan = Service::start(lan, SERVICE);
    let far = address(STRANGER[0]);
    // As Docker sets it.
    shell(
        beta.host,
        "iptables -N DOCKER-USER; iptables -I FORWARD -j DOCKER-USER; iptables -P FORWARD DROP",
    );
    let told = finding(&beta, "forward-policy");
    let text = told["text"].as_str().expect("a text");
    assert!(text.contains("Docker"), "{text}");
    reaches_not(alpha.host, far, SERVICE);
    let remedy = told["remedy"].as_str().expect("a remedy");
    shell(beta.host, remedy.split('`').nth(1).expect("a command"));
    assert_eq!(asks(alpha.host, far, SERVICE), own[0]);
    no_finding(&beta, "forward-policy");
}

#[test]
fn a_host_that_may_not_forward_is_told_with_the_setting_and_forwards_once_it_may() {
    let Some(lab) = Lab::new(3) else { return };
    let lan = &lab.hosts[2];
    let (alpha, mut beta) = pair(&lab);
    cable(&lab, lan, beta.host, &[]);
    answers(lan, overlay_of(&alpha, "alpha"));
    let _on_lan = Service::start(lan, SERVICE);
    // As in a container: the kernel's settings can't be written.
    beta.stop();
    shell(
        beta.host,
        "mount --bind /proc/sys/net /proc/sys/net
         mount -o remount,bind,ro /proc/sys/net",
    );
    beta.start();
    alpha.wait_nodes(2);
    brings(&alpha, &beta);
    let told = finding(&beta, "forwarding-off");
    let text = told["text"].as_str().expect("a text");
    assert!(
        text.contains("net.ipv4.conf.") && text.contains("forwarding"),
        "{text}"
    );
    shell(beta.host, "umount /proc/sys/net");
    no_finding(&beta, "forwarding-off");
    let own = overlay_of(&alpha, "alpha")[0];
    assert_eq!(asks(alpha.host, address(STRANGER[0]), SERVICE), own);
}
