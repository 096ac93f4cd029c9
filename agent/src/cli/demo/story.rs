//! What is shown: a mesh, two hosts that join it, a service, and what a person
//! would try from another host.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    error::DemoError,
    fit,
    host::Host,
    report::{Report, Step},
};

const DOMAIN: &str = "demo.internal";
/// What addresses on the cable begin with: seen by a service or a client, they
/// would tell that the packets went beside the tunnel.
const CABLE: &str = "192.0.2.";

/// Plays it, from hosts on a cable to a page fetched by name.
///
/// # Errors
/// [`DemoError`], after the failed step's output was shown.
pub async fn play(hosts: &[Host], report: &Report) -> Result<(), DemoError> {
    let [birch, cedar, maple] = hosts else {
        return Err(DemoError::Step("making three hosts".to_owned()));
    };

    report.chapter("birch starts a mesh");
    let init = Step::new("agent init --domain demo.internal --name birch --no-start --json");
    report.run(birch, init.silent()).await?;
    report.background(birch, "agent run")?;
    let status = up(birch, report).await?;
    let first = status.ipv4("birch")?;

    for host in [cedar, maple] {
        report.chapter(&format!("{} joins it", host.name));
        let invited = report
            .run(birch, Step::new("agent invite --json").silent())
            .await?;
        let invited: Invited = json("agent invite --json", &invited)?;
        let began = Instant::now();
        let join = format!(
            "agent join {} --token - --name {} --no-start",
            birch.address, host.name
        );
        report
            .run(host, Step::new(&join).reads(&invited.token))
            .await?;
        report.background(host, "agent run")?;
        let ping = Step::new(&format!("ping -n -c 1 -W 0.3 {first}"));
        report.run(host, ping.patient()).await?;
        let took = began.elapsed().as_secs_f64();
        report.line(&format!("from `agent join` to the first ping: {took:.2} s"));
        up(host, report).await?;
    }
    for host in [birch, cedar, maple] {
        report
            .run(host, Step::new("agent wait --nodes 3 --timeout 60s"))
            .await?;
    }

    report.chapter("cedar runs an HTTPS service, with a certificate from the mesh");
    let add = Step::new("agent service add photos --port 443 --check tcp");
    report.run(cedar, add).await?;
    let issue = "agent cert issue photos --out photos --json";
    let issued = report
        .run(cedar, Step::new(issue).silent().patient())
        .await?;
    let Issued { cert, key, chain } = json(issue, &issued)?;
    report.background(
        cedar,
        &format!("agent demo page --listen [::]:443 --cert {cert} --chain {chain} --key {key}"),
    )?;

    // The first check came before the page was there; the next finds it.
    let listed = Step::new("agent service list").prints("photos");
    report
        .run(cedar, listed.without("refused").patient())
        .await?;

    report.chapter("What a person would try on maple");
    let name = Step::new("getent hosts photos.demo.internal");
    report.run(maple, name.patient()).await?;
    if fit::find("dig").is_some() {
        let dig = Step::new("dig +short photos.demo.internal AAAA");
        report.run(maple, dig.prints(":")).await?;
    }
    let root = Step::new("agent ca root").prints("BEGIN CERTIFICATE");
    report.run(maple, root.into_file("root.pem")).await?;
    let fetch =
        Step::new("curl --silent --show-error --cacert root.pem https://photos.demo.internal/");
    report
        .run(
            maple,
            fetch.prints("photos on cedar").without(CABLE).patient(),
        )
        .await?;
    let ping = Step::new("ping -c 3 birch.demo.internal");
    report
        .run(maple, ping.prints(" 0% packet loss").without(CABLE))
        .await?;
    let status = Step::new("agent status")
        .prints("photos")
        .without("  no")
        .patient();
    report.run(maple, status).await?;

    report.summary("All of it works");
    Ok(())
}

/// Waits until a host's agent answers, and lets the host ask it for names.
async fn up(host: &Host, report: &Report) -> Result<Status, DemoError> {
    const TYPED: &str = "agent status --json";
    let status = report
        .run(host, Step::new(TYPED).silent().patient())
        .await?;
    let status: Status = json(TYPED, &status)?;
    let resolver = status.dns.address;
    if resolver.port() != 53 {
        // resolv.conf has no place for a port.
        let what = format!("{}: serving DNS on port 53, not {resolver}", host.name);
        return Err(DemoError::Step(what));
    }
    let used = host.use_resolver(resolver.ip(), DOMAIN);
    used.map_err(|error| DemoError::System {
        what: format!("{}: resolv.conf", host.name),
        error,
    })?;
    Ok(status)
}

fn json<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, DemoError> {
    serde_json::from_str(text).map_err(|error| DemoError::System {
        what: format!("what `{what}` printed"),
        error: error.into(),
    })
}

#[derive(Deserialize)]
struct Invited {
    token: String,
}

#[derive(Deserialize)]
struct Issued {
    cert: String,
    key: String,
    chain: String,
}

#[derive(Deserialize)]
struct Status {
    dns: Dns,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Dns {
    address: SocketAddr,
}

#[derive(Deserialize)]
struct Node {
    name: String,
    addresses: Vec<String>,
}

impl Status {
    /// A node's overlay address.
    fn ipv4(&self, name: &str) -> Result<IpAddr, DemoError> {
        let node = self.nodes.iter().find(|node| node.name == name);
        let mut addresses = node
            .into_iter()
            .flat_map(|node| &node.addresses)
            .filter_map(|address| {
                // With or without the length of the network behind it.
                let (address, _) = address.split_once('/').unwrap_or((address, ""));
                address.parse().ok()
            });
        addresses
            .find(IpAddr::is_ipv4)
            .ok_or_else(|| DemoError::Step(format!("finding the address of {name} in its status")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_address_is_read_from_its_status() {
        let status = r#"{"dns": {"address": "10.7.0.53:53"}, "more": 1, "nodes": [
            {"name": "birch", "addresses": ["fd00::1/48", "10.7.0.1/16"]},
            {"name": "cedar", "addresses": ["10.7.0.2"]}]}"#;
        let status: Status = json("status", status).unwrap();
        assert_eq!(status.ipv4("birch").unwrap(), IpAddr::from([10, 7, 0, 1]));
        assert_eq!(status.ipv4("cedar").unwrap(), IpAddr::from([10, 7, 0, 2]));
        assert!(status.ipv4("maple").is_err());
    }
}
