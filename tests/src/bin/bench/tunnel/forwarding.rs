//! A phone that comes in by a gateway to a host in the LAN behind it: by the agent's
//! device, and by wireguard-go's with the kernel's forwarding. The phone runs wireguard-go
//! for both.

use std::fs;

use innermesh_agent::tunnel::DEFAULT_MTU;
use innermesh_tests::{Agent, Host, Lab, wait_for};
use serde_json::json;

use super::{
    devices::{Device, PeerOf, WireGuardGo, bring_up, set},
    load::Load,
};
use crate::figures::Report;

const NET: &str = "172.29.0.0/24";
/// The LAN's host, as it is reached by the agent's device and by the other one.
const OURS: &str = "172.29.0.1";
const THEIRS: &str = "172.29.0.3";
/// The phone's interface to the agent.
const TO_AGENT: &str = "wgp0";

const NAMES: [&str; 4] = [
    "to the LAN, Mb/s",
    "its CPU-s/GB at the gateway",
    "from the LAN, Mb/s",
    "its CPU-s/GB at the gateway",
];

/// Measures both, `rounds` times in turns.
pub fn measure(rounds: usize, seconds: u64, report: &mut Report) -> Result<(), String> {
    let lab = Lab::build(3)?;
    let [gateway, phone, lan] = [&lab.hosts[0], &lab.hosts[1], &lab.hosts[2]];
    lab.cable("home", "172.29.0", lan, gateway);
    shell(
        lan,
        "ip address add 172.29.0.3/24 dev home
         ip link set eth0 down
         ip route replace default via 172.29.0.2 dev home",
    )?;
    shell(gateway, "echo 1 >/proc/sys/net/ipv4/ip_forward")?;
    let mut other = WireGuardGo::new();
    let theirs = by_kernel(&mut other, gateway, phone)?;
    let mut agent = Agent::with_config(gateway, "gateway", "[tunnel]\nbackend = \"embedded\"\n");
    by_agent(&mut agent, &mut other, phone)?;
    let ours = agent.process().ok_or("the agent doesn't run")?.id();

    let contenders = [
        Device::through([phone, lan], OURS, ours),
        Device::through([phone, lan], THEIRS, theirs),
    ];
    let mut all = [const { Vec::new() }; 2];
    for _ in 0..rounds {
        for (device, figures) in contenders.iter().zip(&mut all) {
            let load = Load { device, seconds };
            let (to, from) = (load.tcp(&[], false)?, load.tcp(&["-R"], false)?);
            figures.push([to.megabits, to.cpu_per_gb, from.megabits, from.cpu_per_gb]);
        }
    }
    for (index, name) in NAMES.iter().enumerate() {
        let [ours, theirs] = all.each_ref().map(|rounds| {
            let mut values: Vec<f64> = rounds.iter().map(|round| round[index]).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or_default()
        });
        let ratio = ours / theirs;
        report.add(
            &format!("phone through a gateway: {name}"),
            "agent beside wireguard-go",
            1,
            format!("{ours:.2} to {theirs:.2}, {ratio:.2}×"),
            json!({ "agent": ours, "wireguard_go": theirs, "ratio": ratio, "rounds": rounds }),
        );
    }
    println!("wireguard-go: {}", other.version());
    Ok(())
}

/// wireguard-go at the gateway too; gives its process.
fn by_kernel(program: &mut WireGuardGo, gateway: &Host, phone: &Host) -> Result<u32, String> {
    let interface = WireGuardGo::INTERFACE;
    let [at_gateway, at_phone] = [
        program.run_on(gateway, interface)?,
        program.run_on(phone, interface)?,
    ];
    let peer = PeerOf {
        public: &at_phone.public,
        endpoint: None,
        allowed: "198.18.7.2/32",
    };
    set(gateway, &at_gateway, &peer)?;
    let peer = PeerOf {
        public: &at_gateway.public,
        endpoint: Some((gateway.ipv4, WireGuardGo::PORT).into()),
        allowed: &format!("198.18.7.1/32,{THEIRS}/32"),
    };
    set(phone, &at_phone, &peer)?;
    bring_up(gateway, interface, "198.18.7.1/24", DEFAULT_MTU)?;
    bring_up(phone, interface, "198.18.7.2/24", DEFAULT_MTU)?;
    shell(phone, &format!("ip route add {THEIRS} dev {interface}"))?;
    Ok(at_gateway.process)
}

/// The agent as gateway, with the phone as a device of its own.
fn by_agent(agent: &mut Agent, program: &mut WireGuardGo, phone: &Host) -> Result<(), String> {
    agent.init();
    wait_for(
        "the ledger's rules",
        innermesh_tests::agent::PATIENCE,
        || agent.cli(&["role", "add", "gateway", "gateway"]).result(),
    );
    agent.cli(&["route", "add", NET]).result()?;
    let file = phone.directory.join("phone.conf");
    let path = file.display().to_string();
    let words = ["device", "add", "phone", "--routes", NET, "--out", &path];
    agent.cli(&words).result()?;
    let text = fs::read_to_string(&file).map_err(|e| e.to_string())?;
    let addresses = text
        .lines()
        .find_map(|line| line.strip_prefix("Address = "));
    let address = addresses.and_then(|all| all.split(',').next());
    let address = address.ok_or("the phone has no address")?;
    // What wg-quick keeps for itself.
    let own = ["Address", "DNS", "MTU"];
    let lines = text
        .lines()
        .filter(|line| !own.iter().any(|own| line.starts_with(own)));
    let bare: String = lines.map(|line| format!("{line}\n")).collect();
    fs::write(&file, bare).map_err(|e| e.to_string())?;
    let _ = program.run_on(phone, TO_AGENT)?;
    phone.run(&["wg", "setconf", TO_AGENT, &path]).result()?;
    bring_up(phone, TO_AGENT, address, DEFAULT_MTU)?;
    shell(
        phone,
        &format!(
            "ip route add {OURS} dev {TO_AGENT} src {}",
            bare_address(address)
        ),
    )
}

fn bare_address(net: &str) -> &str {
    net.split('/').next().unwrap_or(net)
}

fn shell(host: &Host, script: &str) -> Result<(), String> {
    host.run(&["sh", "-euc", script]).result().map(drop)
}
