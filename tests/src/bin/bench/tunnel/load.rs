//! iperf3 and ping through a tunnel.

use std::time::Duration;

use innermesh_tests::wait_for;
use serde_json::Value;

use super::devices::Device;

/// Loads one tunnel.
pub struct Load<'a, 'lab> {
    pub device: &'a Device<'lab>,
    pub seconds: u64,
}

/// What TCP showed.
pub struct Tcp {
    pub megabits: f64,
    pub cpu_per_gb: f64,
    pub retransmits: f64,
    pub rtt_p99_ms: f64,
}

/// What UDP showed.
pub struct Udp {
    pub cpu_per_gb: f64,
    pub lost_percent: f64,
}

impl Load<'_, '_> {
    /// Median and 99th percentile of the round trip when nothing else is sent, in
    /// milliseconds.
    pub fn idle_rtt(&self) -> Result<(f64, f64), String> {
        let words = ["ping", "-i", "0.005", "-c", "400", &self.device.address];
        let told = self.device.hosts[0].run(&words).result()?;
        let times = times(&told);
        Ok((percentile(&times, 50), percentile(&times, 99)))
    }

    /// TCP as fast as it goes, and with `pings` the round trip meanwhile.
    pub fn tcp(&self, options: &[&str], pings: bool) -> Result<Tcp, String> {
        let host = self.device.hosts[0];
        let count = (self.seconds * 80).to_string();
        let words = ["ping", "-i", "0.01", "-c", &count, &self.device.address];
        let before = pings.then(|| host.start("ping", &words, &[]));
        let (told, cpu_s) = self.iperf(options)?;
        let end = &told["end"];
        let received = number(&end["sum_received"]["bytes"])
            + number(&end["sum_received_bidir_reverse"]["bytes"]);
        let took = number(&end["sum_received"]["seconds"]).max(0.001);
        let mut rtt_p99_ms = 0.0;
        if let Some(mut ping) = before {
            ping.wait(Duration::from_secs(self.seconds + 30));
            // Those of earlier rounds stand in the same log.
            let log = ping.log();
            let own = log.rfind("PING ").and_then(|at| log.get(at..));
            rtt_p99_ms = percentile(&times(own.unwrap_or_default()), 99);
        }
        Ok(Tcp {
            megabits: received * 8.0 / took / 1e6,
            cpu_per_gb: cpu_s / (received / 1e9).max(1e-6),
            retransmits: number(&end["sum_sent"]["retransmits"]),
            rtt_p99_ms,
        })
    }

    /// UDP at a rate in Mb/s.
    pub fn udp(&self, rate: u32) -> Result<Udp, String> {
        let rate = format!("{rate}M");
        let (told, cpu_s) = self.iperf(&["-u", "-b", &rate, "-l", "1200"])?;
        let sum = &told["end"]["sum"];
        let lost = number(&sum["lost_percent"]);
        let received = number(&sum["bytes"]) * (1.0 - lost / 100.0);
        Ok(Udp {
            cpu_per_gb: cpu_s / (received / 1e9).max(1e-6),
            lost_percent: lost,
        })
    }

    /// What iperf3 told, and the processor time of both ends meanwhile.
    fn iperf(&self, options: &[&str]) -> Result<(Value, f64), String> {
        let [client, server] = self.device.hosts;
        let mut serving = server.start("iperf3", &["iperf3", "-s", "-1"], &[]);
        wait_for("iperf3", Duration::from_secs(10), || {
            let listening = server
                .run(&["ss", "-Htln", "sport", "=", ":5201"])
                .result()?;
            if listening.is_empty() {
                return Err("it doesn't listen".to_owned());
            }
            Ok(())
        });
        let seconds = self.seconds.to_string();
        let mut words = vec!["iperf3", "-J", "-c", &self.device.address, "-t", &seconds];
        words.extend(options);
        let before = self.device.cpu_s()?;
        let told = client.run_for(120, &words).result()?;
        let cpu_s = self.device.cpu_s()? - before;
        serving.wait(Duration::from_secs(30));
        let told = serde_json::from_str(&told).map_err(|e| format!("iperf3: {e}: {told}"))?;
        Ok((told, cpu_s))
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

/// Round trips that ping told, in milliseconds.
fn times(text: &str) -> Vec<f64> {
    let told = text.split("time=").skip(1);
    let mut times: Vec<f64> = told
        .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let at = sorted.len() * percent / 100;
    sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}
