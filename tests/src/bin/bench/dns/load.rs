//! Who asks the servers: dnsperf, and over HTTPS h2load.

use std::{fs, path::PathBuf, time::Duration};

use innermesh_tests::Host;

use super::{ASKING, servers::Server};

/// Clients' sockets.
const CLIENTS: &str = "8";
/// Requests under way on each connection over HTTPS: as many in all as by others.
const STREAMS: &str = "50";

/// One kind of questions.
pub struct Load {
    pub what: String,
    pub transport: [&'static str; 2],
    pub names: PathBuf,
    pub open: &'static str,
}

impl Load {
    /// Asks for some seconds; gives questions for each second of the server's processor
    /// time.
    pub fn run(&self, host: &Host, server: &mut Server, seconds: u64) -> Result<f64, String> {
        let before = server.cpu_s()?;
        let completed = match self.transport {
            [_, "doh"] => self.by_h2load(host, server, seconds)?,
            _ => self.by_dnsperf(host, server, seconds)?,
        };
        let rate = completed / (server.cpu_s()? - before);
        println!("  {}, {}: {:.0}k", self.what, server.name, rate / 1e3);
        Ok(rate)
    }

    fn by_dnsperf(&self, host: &Host, server: &Server, seconds: u64) -> Result<f64, String> {
        let _ = fs::remove_file(host.directory.join("dnsperf.log"));
        let [m, transport] = self.transport;
        let (ip, port) = (
            server.at.ip().to_string(),
            server.port(transport).to_string(),
        );
        let (names, long) = (self.names.display().to_string(), seconds.to_string());
        let words = [
            "taskset",
            "-c",
            ASKING,
            "dnsperf",
            "-s",
            &ip,
            "-p",
            &port,
            m,
            transport,
            "-d",
            &names,
            "-l",
            &long,
            "-q",
            self.open,
            "-c",
            CLIENTS,
            "-T",
            "1",
            "-O",
            "suppress=timeout",
        ];
        let mut dnsperf = host.start("dnsperf", &words, &[]);
        dnsperf.wait(Duration::from_secs(seconds + 60));
        let text = dnsperf.log();
        let count = |line: &str| {
            let found = text.lines().find_map(|l| l.trim().strip_prefix(line));
            found?.split_whitespace().next()?.parse::<f64>().ok()
        };
        let (sent, completed) = (count("Queries sent:"), count("Queries completed:"));
        let (Some(sent), Some(completed)) = (sent, completed) else {
            return Err(format!("dnsperf of {}: {text}", server.name));
        };
        if completed < sent * 0.99 || text.contains("SERVFAIL") || text.contains("REFUSED") {
            return Err(format!("{} lost or failed too many: {text}", server.name));
        }
        Ok(completed)
    }

    /// Over HTTPS. dnsperf 2.10 waits for up to 100 ms for an answer that it has read
    /// already.
    fn by_h2load(&self, host: &Host, server: &Server, seconds: u64) -> Result<f64, String> {
        let _ = fs::remove_file(host.directory.join("h2load.log"));
        let (ip, port) = (server.at.ip(), server.port("doh"));
        let names = fs::read_to_string(&self.names).map_err(|e| e.to_string())?;
        let names = names
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        let uris: Vec<String> = names
            .map(|name| {
                let question = data_encoding::BASE64URL_NOPAD.encode(&question(0, name));
                format!("https://{ip}:{port}/dns-query?dns={question}\n")
            })
            .collect();
        let list = host.directory.join("h2load.uris");
        fs::write(&list, uris.concat()).map_err(|e| e.to_string())?;
        let (list, long) = (list.display().to_string(), seconds.to_string());
        let words = [
            "taskset", "-c", ASKING, "h2load", "-i", &list, "-c", CLIENTS, "-m", STREAMS, "-t",
            "1", "-D", &long,
        ];
        let mut h2load = host.start("h2load", &words, &[]);
        h2load.wait(Duration::from_secs(seconds + 60));
        let text = h2load.log();
        let requests = text.lines().find_map(|l| l.strip_prefix("requests:"));
        let counts = requests.unwrap_or_default().split(',');
        let count = |what: &str| {
            let mut pairs = counts.clone().filter_map(|c| c.trim().split_once(' '));
            pairs.find(|(_, name)| *name == what)?.0.parse::<f64>().ok()
        };
        match (count("total"), count("succeeded")) {
            (Some(total), Some(succeeded)) if total > 0.0 && succeeded >= total * 0.99 => {
                Ok(succeeded)
            }
            _ => Err(format!("h2load of {}: {text}", server.name)),
        }
    }
}

/// A question for an A record.
pub fn question(id: u16, name: &str) -> Vec<u8> {
    let mut question = id.to_be_bytes().to_vec();
    question.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        question.push(label.len() as u8);
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    question
}
