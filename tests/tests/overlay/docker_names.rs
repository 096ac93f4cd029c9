//! Names in containers, by the one line that `agent dns docker` gives.

use innermesh_tests::{
    Lab,
    agent::PATIENCE,
    docker::{BRIDGE, Docker},
    wait::ensure,
    wait_for,
};

use crate::{
    containers::Container,
    world::{overlay_of, pair, pair_with, shell},
};

#[test]
fn containers_of_all_networks_find_the_mesh_s_names_by_one_line_and_ask_as_themselves() {
    let Some(lab) = Lab::new(2) else { return };
    let (alpha, _beta) = pair(&lab);
    let Some(mut docker) = Docker::start(alpha.host) else {
        return;
    };
    let far = overlay_of(&alpha, "beta");
    let resolver = alpha.dns().ip().to_string();
    let printed = alpha.cli(&["dns", "docker"]).ok();
    assert_eq!(printed, format!("{{ \"dns\": [\"{resolver}\"] }}\n"));

    let file = docker.daemon_json();
    std::fs::write(&file, "{\n    \"debug\": false\n}\n").expect("a file");
    let file = file.to_string_lossy().into_owned();
    let told = alpha.cli(&["dns", "docker", "--write", &file]);
    assert!(told.stderr.contains("systemctl restart docker"), "{told}");
    docker.stop();
    docker.launch();

    let _ = docker.run(&["network", "create", "backend"]).ok();
    let format = "{{(index .IPAM.Config 0).Subnet}}";
    let inspect = ["network", "inspect", "-f", format, "backend"];
    let subnet = docker.run(&inspect).ok().trim().to_owned();
    // Who asks, as the host sees it.
    let count = |source: &str| {
        format!("ip daddr {resolver} udp dport 53 ip saddr {source} counter comment \"{source}\"")
    };
    let bridge = format!("{BRIDGE}/24");
    shell(
        alpha.host,
        &format!(
            "nft -f - <<'RULES'
             table inet asked {{
                 chain in {{
                     type filter hook input priority -400;
                     {}
                     {}
                     iifname != \"lo\" ip daddr {resolver} udp dport 53 counter comment \"all\"
                 }}
             }}
RULES",
            count(&bridge),
            count(&subnet),
        ),
    );
    let name = ["nslookup", "beta.lab.internal"];
    for network in ["bridge", "backend"] {
        wait_for("a name, asked by a container", PATIENCE, || {
            let said = docker.in_container(&["--network", network], &name)?;
            ensure(said.contains(&far[0].to_string()), said)
        });
    }
    let rules = shell(alpha.host, "nft list table inet asked");
    let packets = |comment: &str| -> u64 {
        let line = rules.lines().find(|line| line.contains(comment));
        let line = line.unwrap_or_else(|| panic!("{comment}: {rules}"));
        let mut words = line
            .split_whitespace()
            .skip_while(|word| *word != "packets");
        let packets = words.nth(1).and_then(|word| word.parse().ok());
        packets.expect("a number")
    };
    let [by_bridge, by_backend, all] = [&bridge, &subnet, "\"all\""].map(packets);
    assert!(by_bridge > 0 && by_backend > 0, "{rules}");
    assert_eq!(by_bridge + by_backend, all, "{rules}");

    let status = alpha.cli(&["dns", "docker", "--write", &file]).ok();
    assert!(status.contains("already"), "{status}");
    std::fs::write(&file, "{ \"dns\": [\"9.9.9.9\"] }").expect("a file");
    alpha.refused(&["dns", "docker", "--write", &file], "--replace");
    let _ = alpha
        .cli(&["dns", "docker", "--write", &file, "--replace"])
        .ok();
}

/// What ACME's directory says to a container; `curl` is the host's own.
fn directory(container: &Container, at: &str) -> Result<serde_json::Value, String> {
    let url = format!("https://{at}:7443/directory");
    let said = container
        .run(&["curl", "-sk", "--max-time", "5", &url])
        .result()?;
    serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))
}

#[test]
fn a_container_is_answered_names_and_counts_as_its_host_for_certificates_only_where_it_is_said() {
    for (config, needs_account) in [("", true), ("local_sources = [\"172.30.0.0/24\"]\n", false)] {
        let Some(lab) = Lab::new(2) else { return };
        let (alpha, _beta) = pair_with(&lab, config);
        let container = Container::start(alpha.host, 0);
        let resolver = alpha.dns().ip();
        let far = overlay_of(&alpha, "beta")[0].to_string();
        wait_for("an answer to the container", PATIENCE, || {
            let said = container.digs(resolver)?;
            ensure(said.trim() == far, said)
        });
        let told = wait_for("ACME's directory", PATIENCE, || {
            directory(&container, &resolver.to_string())
        });
        let needs = &told["meta"]["externalAccountRequired"];
        assert_eq!(needs.as_bool(), Some(needs_account), "{config}: {told}");
    }
}
