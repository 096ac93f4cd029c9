//! A device with a thousand peers of which one changes, while another is pinged.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use innermesh_agent::tunnel::{
    BackendChoice, DEFAULT_MTU, Tunnel, TunnelSettings, generate_private_key, open, public_key,
    relayed::Relayed,
};
use innermesh_proto::tunnel::{TunnelKey, TunnelPeer, TunnelPlan};
use innermesh_tests::{Lab, wait_for};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::devices::{PeerOf, WireGuardGo, bring_up, set};
use crate::figures::Report;

const PEERS: u16 = 1000;
const CHANGES: u16 = 200;
const PORT: u16 = 51990;
/// Between two changes.
const PAUSE: Duration = Duration::from_millis(20);
/// For about six seconds, within which all changes are made.
const PINGS: &str = "600";
/// For how long the device is there, from the first handshake on.
const STAYS: Duration = Duration::from_secs(12);

/// Measures it.
pub fn measure(report: &mut Report) -> Result<(), String> {
    let lab = Lab::build(2)?;
    let [here, there] = [&lab.hosts[0], &lab.hosts[1]];
    let own = public_key(&private_key()).to_string();
    let inside = Ipv4Addr::from(address(PEERS)).to_string();
    let mut other = WireGuardGo::new();
    let made = other.run_on(there, WireGuardGo::INTERFACE)?;
    let peer = PeerOf {
        public: &own,
        endpoint: Some((here.ipv4, PORT).into()),
        allowed: &format!("{inside}/32"),
    };
    set(there, &made, &peer)?;
    let its = format!("{}/16", Ipv4Addr::from(address(0)));
    bring_up(there, WireGuardGo::INTERFACE, &its, DEFAULT_MTU)?;
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let program = program.to_string_lossy();
    let endpoint = SocketAddr::from((there.ipv4, WireGuardGo::PORT));
    let words = [
        &*program,
        "peers-device",
        &made.public,
        &endpoint.to_string(),
    ];
    let mut device = here.start("peers-device", &words, &[]);
    wait_for("a ping", Duration::from_secs(60), || {
        let words = ["ping", "-c", "1", "-W", "1", &inside];
        there.run(&words).result()
    });
    let words = ["ping", "-i", "0.01", "-q", "-c", PINGS, &inside];
    let told = there.run_for(60, &words).result()?;
    device.wait(Duration::from_secs(60));
    let log = device.log();
    let line = log.lines().find(|line| line.starts_with('{'));
    let figures: Value = serde_json::from_str(line.unwrap_or_default())
        .map_err(|e| format!("the device: {e}: {log}"))?;
    let lost = told.split(", ").find(|part| part.contains("loss"));
    report.add(
        "one of 1,000 peers changes",
        "agent",
        2,
        format!(
            "median {} ms, at most {} ms; all at first {} ms; pings of another: {}",
            figures["median_ms"],
            figures["most_ms"],
            figures["first_ms"],
            lost.unwrap_or("?")
        ),
        figures,
    );
    Ok(())
}

/// The device's program, on its own host: gives its peers, and changes one after the
/// other.
pub fn device(key: &str, endpoint: &str) -> Result<(), String> {
    let key: TunnelKey = key.parse().map_err(|e| format!("{key}: {e}"))?;
    let endpoint = endpoint.parse().map_err(|e| format!("{endpoint}: {e}"))?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
    runtime.block_on(changes(key, endpoint))
}

async fn changes(key: TunnelKey, endpoint: SocketAddr) -> Result<(), String> {
    let settings = TunnelSettings {
        interface: "im0".into(),
        private_key: private_key(),
        earlier_key: None,
        listen_port: PORT,
        mtu: DEFAULT_MTU,
        backend: BackendChoice::Embedded,
        offloads: true,
        relayed: Relayed::default(),
    };
    let tunnel = open(settings, Arc::new(|| 0)).await;
    let tunnel = tunnel.map_err(|e| e.to_string())?;
    let mut plan = TunnelPlan::default();
    let own = IpNet::new(IpAddr::from(address(PEERS)), 16).map_err(|e| e.to_string())?;
    plan.addresses.insert(own);
    for n in 0..PEERS {
        let key = if n == 0 { key } else { key_of(n) };
        plan.peers.insert(key, peer(n, endpoint));
    }
    let first_ms = timed(&*tunnel, &plan).await?;
    loop {
        let state = tunnel.observe().await.map_err(|e| e.to_string())?;
        let seen = state.peers.get(&key);
        if seen.is_some_and(|peer| peer.last_handshake.is_some()) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    let ends = Instant::now() + STAYS;
    // The other end is pinging then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut all = Vec::new();
    for n in 1..=CHANGES {
        let moved = SocketAddr::from(([192, 0, 2, 250], 10_000 + n));
        plan.peers.insert(key_of(n), peer(n, moved));
        all.push(timed(&*tunnel, &plan).await?);
        tokio::time::sleep(PAUSE).await;
    }
    all.sort_by(f64::total_cmp);
    let most = all.last().copied().unwrap_or_default();
    let median = all.get(all.len() / 2).copied().unwrap_or_default();
    let told =
        json!({ "first_ms": round(first_ms), "median_ms": round(median), "most_ms": round(most) });
    println!("{told}");
    tokio::time::sleep(ends.saturating_duration_since(Instant::now())).await;
    tunnel.down().await.map_err(|e| e.to_string())
}

async fn timed(tunnel: &dyn Tunnel, plan: &TunnelPlan) -> Result<f64, String> {
    let begun = Instant::now();
    tunnel.apply(plan).await.map_err(|e| e.to_string())?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

fn round(ms: f64) -> f64 {
    (ms * 100.0).round() / 100.0
}

fn private_key() -> [u8; 32] {
    generate_private_key([7; 32])
}

fn key_of(n: u16) -> TunnelKey {
    let mut random = [9; 32];
    random[..2].copy_from_slice(&n.to_be_bytes());
    public_key(&generate_private_key(random))
}

/// Of the peer with this number, and after the last one the device's own.
fn address(n: u16) -> [u8; 4] {
    let [high, low] = (n + 256).to_be_bytes();
    [198, 18, high, low]
}

fn peer(n: u16, endpoint: SocketAddr) -> TunnelPeer {
    TunnelPeer {
        allowed_ips: [IpNet::from(IpAddr::from(address(n)))].into(),
        endpoint: Some(endpoint),
        keepalive_s: None,
        preshared_key: None,
    }
}
