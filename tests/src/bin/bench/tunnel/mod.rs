//! The tunnel beside wireguard-go: two hosts on one network, on which both devices are
//! up at once and take turns.

mod devices;
pub mod forwarding;
mod load;
pub mod peers;
pub mod relay;

use innermesh_tests::Lab;
use serde_json::json;

use self::{
    devices::{Device, WireGuardGo},
    load::Load,
};
use crate::{figures::Report, mesh::Mesh};

/// What is measured of a device in one round.
#[derive(Clone, Default)]
struct Figures {
    /// As named in [`NAMES`].
    values: [f64; COUNT],
}

const COUNT: usize = 11;

const NAMES: [&str; COUNT] = [
    "one TCP stream, Mb/s",
    "its CPU-s/GB",
    "its retransmits",
    "four TCP streams, Mb/s",
    "both ways, Mb/s",
    "UDP 400 Mb/s, CPU-s/GB",
    "its loss, percent",
    "RTT idle, median ms",
    "RTT idle, p99 ms",
    "RTT under load, p99 ms",
    "resident, MiB",
];

/// Measures both at each of `mtus`, `rounds` times in turns.
pub fn measure(
    mtus: &[u32],
    rounds: usize,
    seconds: u64,
    report: &mut Report,
) -> Result<(), String> {
    for mtu in mtus {
        at_mtu(*mtu, rounds, seconds, report)?;
    }
    Ok(())
}

fn at_mtu(mtu: u32, rounds: usize, seconds: u64, report: &mut Report) -> Result<(), String> {
    let lab = Lab::build(2)?;
    let config = format!("[tunnel]\nbackend = \"embedded\"\nmtu = {mtu}\n");
    let mesh = Mesh::start(&lab, &config)?;
    let mut other = WireGuardGo::new();
    let theirs = other.between(&lab, mtu)?;
    let contenders = [Device::of_agents(&lab, mesh)?, theirs];
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (contender, figures) in contenders.iter().zip(&mut all) {
            figures.push(round(contender, seconds)?);
        }
    }
    let medians = all.map(|figures| median(&figures));
    for (index, name) in NAMES.iter().enumerate() {
        let [ours, theirs] = [0, 1].map(|n: usize| medians[n].values[index]);
        let ratio = if theirs == 0.0 {
            f64::NAN
        } else {
            ours / theirs
        };
        report.add(
            &format!("tunnel at MTU {mtu}: {name}"),
            "agent beside wireguard-go",
            2,
            format!("{ours:.2} to {theirs:.2}, {ratio:.2}×"),
            json!({ "mtu": mtu, "agent": ours, "wireguard_go": theirs, "ratio": ratio, "rounds": rounds }),
        );
    }
    println!("wireguard-go: {}", other.version());
    Ok(())
}

fn round(device: &Device<'_>, seconds: u64) -> Result<Figures, String> {
    let load = Load { device, seconds };
    let (idle, idle_p99) = load.idle_rtt()?;
    let one = load.tcp(&[], true)?;
    let four = load.tcp(&["-P", "4"], false)?;
    let both = load.tcp(&["--bidir"], false)?;
    let udp = load.udp(400)?;
    Ok(Figures {
        values: [
            one.megabits,
            one.cpu_per_gb,
            one.retransmits,
            four.megabits,
            both.megabits,
            udp.cpu_per_gb,
            udp.lost_percent,
            idle,
            idle_p99,
            one.rtt_p99_ms,
            device.resident_mib()?,
        ],
    })
}

fn median(rounds: &[Figures]) -> Figures {
    let mut figures = Figures::default();
    for (index, value) in figures.values.iter_mut().enumerate() {
        let mut all: Vec<f64> = rounds.iter().map(|round| round.values[index]).collect();
        all.sort_by(f64::total_cmp);
        *value = all.get(all.len() / 2).copied().unwrap_or_default();
    }
    figures
}
