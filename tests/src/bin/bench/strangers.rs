//! What a stranger can learn of the inside from a sinkhole's answers: names that exist
//! inside and names that don't are asked for in turn, and bytes, sizes and times compared.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, dns, wait::ensure, wait_for};
use serde_json::json;

use crate::figures::Report;

/// Services that exist inside.
const SERVICES: usize = 50;
/// Standard deviations by which the sum of ranks may differ by chance: once in 15,000
/// runs it is more.
const CHANCE: f64 = 4.0;

pub fn measure(names: usize, report: &mut Report) -> Result<(), String> {
    let lab = Lab::build(2)?;
    let [inside, stranger] = [0, 1].map(|n| &lab.hosts[n]);
    let mut alpha = Agent::with_config(inside, "alpha", &config(inside));
    let folder = alpha.dir.join("services.d");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    for number in 0..SERVICES {
        let file = folder.join(format!("s{number:03}.toml"));
        let service = format!("name = \"s{number:03}\"\nport = {}\n", 8000 + number);
        fs::write(file, service).map_err(|error| error.to_string())?;
    }
    alpha.init();
    let _ = alpha.cli(&["role", "add", "alpha", "sinkhole"]).ok();
    let server: IpAddr = inside.ipv4.into();
    wait_for("the name server", PATIENCE, || {
        let told = alpha
            .cli(&["dns", "zone", "--public", "--delegated"])
            .result()?;
        ensure(told.contains("ns1."), told)
    });
    let mut asker = Asker::new(stranger, server)?;
    for (what, rtype) in [("A", 1), ("TXT", 16), ("SRV", 33)] {
        for (place, exists, missing) in [("services", "s", "n"), ("below a node", "alpha", "nobdy")]
        {
            let name = |first: &str, n: usize| match first.len() {
                1 => format!("{first}{:03}.lab.internal", n % SERVICES),
                _ => format!("x{:05}.{first}.lab.internal", n),
            };
            let mut times: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
            for n in 0..names {
                // Which is first is chosen without a pattern that a timer could follow.
                let first = (n.wrapping_mul(2_654_435_761) >> 7) % 2;
                let mut told = [Vec::new(), Vec::new()];
                for which in [first, 1 - first] {
                    let name = name([exists, missing][which], n);
                    let (reply, took) = asker.ask(&name, rtype)?;
                    told[which] = reply;
                    times[which].push(took.as_secs_f64() * 1e6);
                }
                if told[0] != told[1] {
                    return Err(format!("{place} {what}: {:?} and {:?}", told[0], told[1]));
                }
            }
            let score = rank_sum(&times[0], &times[1]);
            let [exist, miss] = times.map(median);
            let figures = format!(
                "same bytes; median {exist:.1} and {miss:.1} µs, rank sum {score:+.2} standard deviations"
            );
            report.add(
                &format!("{names} {place}, {what}: exist and don't"),
                "innermesh",
                1,
                figures,
                json!({"exist_us": exist, "missing_us": miss, "z": score}),
            );
            if score.abs() > CHANCE {
                return Err(format!(
                    "{place} {what}: times differ beyond chance: {score:+.2}"
                ));
            }
        }
    }
    Ok(())
}

fn config(host: &Host) -> String {
    format!("[sinkhole]\ndns = [\"{}\"]\n", host.ipv4)
}

/// Asks with the cookie that it was given: it isn't limited.
struct Asker {
    socket: UdpSocket,
    cookie: Vec<u8>,
}

impl Asker {
    fn new(host: &Host, server: IpAddr) -> Result<Self, String> {
        let failed = |error: std::io::Error| error.to_string();
        let socket = host.udp_to(SocketAddr::new(server, 53)).map_err(failed)?;
        let patience = Some(Duration::from_secs(2));
        socket.set_read_timeout(patience).map_err(failed)?;
        Ok(Self {
            socket,
            cookie: b"12345678".to_vec(),
        })
    }

    /// All but the question and the cookie.
    fn ask(&mut self, name: &str, rtype: u16) -> Result<(Vec<u8>, Duration), String> {
        let mut message = dns::query(7, name);
        let end = message.len();
        message[end - 4..end - 2].copy_from_slice(&rtype.to_be_bytes());
        message[11] = 1;
        let length = u8::try_from(self.cookie.len()).map_err(|error| error.to_string())?;
        message.extend([
            0,
            0,
            41,
            4,
            208,
            0,
            0,
            0,
            0,
            0,
            length + 4,
            0,
            10,
            0,
            length,
        ]);
        message.extend(&self.cookie);
        let mut reply = [0; 2048];
        let begun = Instant::now();
        self.socket
            .send(&message)
            .map_err(|error| error.to_string())?;
        let length = self
            .socket
            .recv(&mut reply)
            .map_err(|error| error.to_string())?;
        let took = begun.elapsed();
        let mut reply = reply[..length].to_vec();
        let cookie = length.checked_sub(24).ok_or("a reply without a cookie")?;
        self.cookie = reply.split_off(cookie);
        reply.drain(12..end.min(reply.len()));
        Ok((reply, took))
    }
}

/// The sum of ranks of `a` among both (Mann and Whitney), in standard deviations from what
/// chance gives where both are alike.
fn rank_sum(a: &[f64], b: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = a
        .iter()
        .map(|time| (*time, true))
        .chain(b.iter().map(|time| (*time, false)))
        .collect();
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (mut sum, mut at) = (0.0, 0);
    while at < all.len() {
        let alike = all[at..]
            .iter()
            .take_while(|other| other.0 == all[at].0)
            .count();
        let rank = at as f64 + (alike as f64 + 1.0) / 2.0;
        sum += rank * all[at..at + alike].iter().filter(|(_, of_a)| *of_a).count() as f64;
        at += alike;
    }
    let (n, m) = (a.len() as f64, b.len() as f64);
    let expected = n * (n + m + 1.0) / 2.0;
    (sum - expected) / (n * m * (n + m + 1.0) / 12.0).sqrt()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_differ_are_found_and_those_that_don_t_are_not() {
        let noise = |n: u64| (n.wrapping_mul(6_364_136_223_846_793_005) >> 40) as f64 / 1e6;
        let a: Vec<f64> = (0..10_000).map(|n| 20.0 + noise(2 * n)).collect();
        let b: Vec<f64> = (0..10_000).map(|n| 20.0 + noise(2 * n + 1)).collect();
        assert!(rank_sum(&a, &b).abs() < CHANCE);
        let slower: Vec<f64> = b.iter().map(|time| time + 1.0).collect();
        assert!(rank_sum(&a, &slower) < -CHANCE);
        assert_eq!(rank_sum(&[1.0, 1.0], &[1.0, 1.0]), 0.0);
    }
}
