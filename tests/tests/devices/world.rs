//! A gateway, another node, and a phone behind a NAT.

use std::{
    io::{self, Read},
    net::IpAddr,
    sync::mpsc,
    thread,
};

use innermesh_tests::{
    Agent, Host, Lab,
    agent::PATIENCE,
    mesh::{NAMES, connect},
    phone::Phone,
    wait::ensure,
    wait_for,
};
use serde_json::Value;

/// Of a service that says who asks.
pub const PORT: u16 = 9000;

/// Agents on the first hosts of which the first is a gateway.
pub fn mesh<const N: usize>(lab: &Lab) -> [Agent<'_>; N] {
    mesh_with(lab, "")
}

/// As [`mesh`], with a configuration of all.
pub fn mesh_with<'lab, const N: usize>(lab: &'lab Lab, config: &str) -> [Agent<'lab>; N] {
    let mut agents = std::array::from_fn(|n| Agent::with_config(&lab.hosts[n], NAMES[n], config));
    let _ = connect(&mut agents);
    for agent in &agents {
        wait_rules(agent);
    }
    make_gateway(&agents[0], NAMES[0]);
    agents
}

/// Waits until the ledger knows devices.
pub fn wait_rules(agent: &Agent) {
    wait_for("the ledger's rules", PATIENCE, || {
        let devices = agent.cli(&["device", "rm", "nobody", "--yes"]);
        ensure(devices.stderr.contains("no device"), devices.stderr.clone())
    });
}

/// Makes a node a gateway, by the admin's.
pub fn make_gateway(admin: &Agent, node: &str) {
    let _ = admin.cli(&["role", "add", node, "gateway"]).ok();
}

/// Adds a device with a file for the phone; what was told.
pub fn add(agent: &Agent, phone: &Phone, name: &str, more: &[&str]) -> Value {
    let file = phone.file(name);
    let file = file.to_string_lossy();
    let words = ["device", "add", name, "--out", &file];
    agent.json(&[&words[..], more].concat())
}

/// The row of a device in `device list`.
pub fn row(agent: &Agent, name: &str) -> Result<Value, String> {
    let list = agent.json(&["device", "list"]);
    let rows = list.as_array().into_iter().flatten();
    let found = rows.into_iter().find(|row| row["name"] == name).cloned();
    found.ok_or_else(|| format!("no {name}: {list}"))
}

/// A service that answers each connection with the address that it came from, and
/// keeps it open.
pub fn serve(host: &Host) {
    let listener = host.listen(([0u16; 8], PORT).into()).expect("a port");
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let from = stream.peer_addr().map(|from| from.ip().to_canonical());
            let line = from.map_or_else(|e| e.to_string(), |ip| ip.to_string());
            let _ = io::Write::write_all(&mut stream, format!("{line}\n").as_bytes());
            open.push(stream);
        }
    });
}

/// Who the service at an address sees.
pub fn seen_by(phone: &Phone, service: IpAddr) -> IpAddr {
    let what = format!("the service at {service}");
    wait_for(&what, PATIENCE, || {
        let stream = phone.host.tcp_to((service, PORT).into());
        line(stream.map_err(|e| e.to_string())?)
    })
}

fn line(mut stream: impl Read + Send + 'static) -> Result<IpAddr, String> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() && byte != *b"\n" {
            text.extend(byte);
        }
        let _ = tell.send(String::from_utf8_lossy(&text).into_owned());
    });
    let said = told.recv_timeout(std::time::Duration::from_secs(5));
    let said = said.map_err(|e| e.to_string())?;
    said.parse().map_err(|_| format!("{said:?} is no address"))
}

/// Waits until a name has an address by the phone's own resolver.
pub fn wait_name(phone: &Phone, name: &str, rtype: &str, address: &str) {
    wait_for(name, PATIENCE, || {
        let said = phone.dig(&[name, rtype]).result()?;
        ensure(said.trim() == address, said)
    });
}
