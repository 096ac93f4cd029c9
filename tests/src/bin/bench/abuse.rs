//! How soon members are answered while strangers flood the name server and hundreds of
//! clients hold connections.

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use innermesh_tests::{Agent, Lab, abuse::World, dns};
use serde_json::json;

use crate::figures::Report;

/// Between two questions of a member.
const PACE: Duration = Duration::from_millis(2);
/// How long the abuse goes on before it is measured.
const BEFORE: Duration = Duration::from_secs(3);
/// In which 99 of 100 answers have to be there.
const P99: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(2);

pub fn measure(seconds: u64, report: &mut Report) -> Result<(), String> {
    let lab = Lab::build(3)?;
    let (world, mut alpha) = World::start(&lab);
    let long = Duration::from_secs(seconds);
    let quiet = ask(&alpha, long)?;
    tell("members, nothing else asked", &quiet, &mut alpha, report);
    let (flooded, asked) = world.abuse(|abuse| {
        thread::sleep(BEFORE);
        let began = Instant::now();
        let asked = ask(&alpha, long);
        (asked, began.elapsed(), abuse.done())
    });
    let (times, took, done) = asked;
    let times = times?;
    let p99 = tell("members, under abuse", &times, &mut alpha, report);
    let clients: u64 = done.values().sum();
    let a_second = flooded.sent as f64 / (took + BEFORE).as_secs_f64();
    report.add(
        "the abuse",
        "innermesh",
        1,
        format!(
            "{a_second:.0} messages a second, {} of {} bytes answered, {clients} connections",
            flooded.received_bytes, flooded.sent_bytes
        ),
        json!({ "per_second": a_second, "sent": flooded.sent, "received": flooded.received,
                "sent_bytes": flooded.sent_bytes, "received_bytes": flooded.received_bytes,
                "connections": done }),
    );
    if !flooded.longer.is_empty() {
        return Err(format!(
            "answers longer than questions: {:?}",
            flooded.longer
        ));
    }
    if p99 > P99 {
        return Err(format!(
            "over the limit: p99 {p99:?} for members, not {P99:?}"
        ));
    }
    Ok(())
}

/// How soon each of a member's questions is answered; all are, by the first try.
fn ask(agent: &Agent, long: Duration) -> Result<Vec<Duration>, String> {
    let failed = |error: std::io::Error| format!("a member's question: {error}");
    let socket: UdpSocket = agent.host.udp_to(agent.dns()).map_err(failed)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let (mut times, began) = (Vec::new(), Instant::now());
    while began.elapsed() < long {
        let id = (times.len() & 0xffff) as u16;
        let asked = Instant::now();
        socket
            .send(&dns::query(id, "alpha.lab.internal"))
            .map_err(failed)?;
        let mut reply = [0; 1500];
        let length = socket.recv(&mut reply).map_err(failed)?;
        times.push(asked.elapsed());
        let answer = dns::parse(&reply[..length]);
        if answer.is_none_or(|answer| answer.id != id || answer.addresses.is_empty()) {
            return Err("a member's question has another answer".into());
        }
        thread::sleep(PACE);
    }
    times.sort();
    Ok(times)
}

fn tell(what: &str, times: &[Duration], agent: &mut Agent, report: &mut Report) -> Duration {
    let share = |percent: usize| times[(times.len() - 1) * percent / 100];
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let (p50, p99, most) = (share(50), share(99), share(100));
    let kib = agent.process().map_or(0, |process| process.resident_kib());
    let mib = kib as f64 / 1024.0;
    let (p50_us, p99_us, most_us) = (us(p50), us(p99), us(most));
    report.add(
        what,
        "innermesh",
        1,
        format!(
            "p50 {p50_us:.0} µs, p99 {p99_us:.0} µs, at most {most_us:.0} µs of {}; {mib:.1} MiB",
            times.len()
        ),
        json!({ "p50_us": p50_us, "p99_us": p99_us, "max_us": most_us, "rss_mib": mib }),
    );
    p99
}
