//! Docker's answers and events, as far as they matter here (Engine API: ContainerList,
//! ContainerInspect, ImageInspect, SystemEvents). All of it is taken as a local user's
//! words: ids that go into requests are ids, and what is kept has bounds.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use innermesh_proto::{limits, zone::Protocol};
use serde::Deserialize;

/// What labels of ours begin with.
pub(super) const PREFIX: &str = "innermesh.";
/// Digits of an id.
const ID_DIGITS: usize = 64;
/// Longest name of a container that is shown, in characters.
const NAME_CHARS: usize = 64;
/// Most labels of ours that are read of one container; there are four.
const LABELS: usize = 16;
/// Most ports at which one port of a container may be published.
const BINDINGS: usize = 64;

/// Why an answer can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error("its answer isn't understood: {0}")]
    Json(#[from] serde_json::Error),
    #[error("its answer has an id that is none")]
    Id,
    #[error("an event is longer than {} bytes", limits::DOCKER_EVENT_BYTES)]
    LongLine,
}

/// A container's id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    fn parse(text: String) -> Result<Self, AnswerError> {
        if is_hash(&text) {
            Ok(Self(text))
        } else {
            Err(AnswerError::Id)
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An image's id, such as `sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageId(String);

impl ImageId {
    fn parse(text: String) -> Result<Self, AnswerError> {
        match text.strip_prefix("sha256:") {
            Some(hash) if is_hash(hash) => Ok(Self(text)),
            _ => Err(AnswerError::Id),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Containers of a list, in its order.
///
/// # Errors
/// `AnswerError`.
pub fn listed(bytes: &[u8]) -> Result<Vec<ContainerId>, AnswerError> {
    #[derive(Deserialize)]
    struct Row {
        #[serde(rename = "Id")]
        id: String,
    }
    let rows: Vec<Row> = serde_json::from_slice(bytes)?;
    let ids = rows.into_iter().map(|row| ContainerId::parse(row.id));
    ids.collect()
}

/// What happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub container: ContainerId,
    /// Whether it has ended; else it has changed in some way.
    pub has_ended: bool,
}

/// An event, in a line of the stream; `None` for one that isn't of a container.
///
/// # Errors
/// `AnswerError`.
pub fn event(line: &[u8]) -> Result<Option<Event>, AnswerError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Line {
        #[serde(default)]
        r#type: String,
        #[serde(default)]
        action: String,
        actor: Actor,
    }
    #[derive(Deserialize)]
    struct Actor {
        #[serde(rename = "ID")]
        id: String,
    }
    let line: Line = serde_json::from_slice(line)?;
    if line.r#type != "container" {
        return Ok(None);
    }
    Ok(Some(Event {
        container: ContainerId::parse(line.actor.id)?,
        has_ended: matches!(line.action.as_str(), "die" | "destroy"),
    }))
}

/// What is known of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    pub id: ContainerId,
    /// Its name, as it may be shown.
    pub name: String,
    pub image: ImageId,
    /// When it was started, as Docker writes it: in order of time, nearly.
    pub started: String,
    pub state: RunState,
    /// Those that begin with [`PREFIX`], without that; a bounded number of them.
    pub labels: BTreeMap<String, String>,
    pub network: NetworkMode,
    /// Where its ports are published on this host.
    pub published: BTreeMap<(u16, Protocol), Vec<Binding>>,
}

/// Whether a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    Ended,
    Paused,
    Running {
        /// What its health check says; `None` where it has none.
        health: Option<DockerHealth>,
    },
}

/// What an image's HEALTHCHECK says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DockerHealth {
    Starting,
    Healthy,
    Unhealthy,
}

/// Whose network a container has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// A bridge or something else, whose ports are published or not.
    Own,
    Host,
    /// That of another container.
    OfContainer,
}

/// One place at which a port is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    pub ip: IpAddr,
    pub port: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspect {
    id: String,
    #[serde(default)]
    name: String,
    image: String,
    state: State,
    config: Config,
    #[serde(default)]
    host_config: HostConfig,
    #[serde(default)]
    network_settings: NetworkSettings,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    restarting: bool,
    #[serde(default)]
    started_at: String,
    #[serde(default)]
    health: Option<Health>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    #[serde(default)]
    status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    network_mode: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    ports: Option<BTreeMap<String, Option<Vec<HostPort>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostPort {
    #[serde(default)]
    host_ip: String,
    #[serde(default)]
    host_port: String,
}

/// What an inspection says.
///
/// # Errors
/// `AnswerError`.
pub fn inspected(bytes: &[u8]) -> Result<Inspected, AnswerError> {
    let read: Inspect = serde_json::from_slice(bytes)?;
    let name = read.name.trim_start_matches('/').chars();
    Ok(Inspected {
        id: ContainerId::parse(read.id)?,
        name: name
            .filter(|c| c.is_ascii_graphic())
            .take(NAME_CHARS)
            .collect(),
        image: ImageId::parse(read.image)?,
        started: read.state.started_at.chars().take(NAME_CHARS).collect(),
        state: run_state(&read.state),
        labels: own_labels(read.config.labels),
        network: match read.host_config.network_mode.as_str() {
            "host" => NetworkMode::Host,
            mode if mode.starts_with("container:") => NetworkMode::OfContainer,
            _ => NetworkMode::Own,
        },
        published: published(read.network_settings.ports.unwrap_or_default()),
    })
}

/// Our labels of an image.
///
/// # Errors
/// `AnswerError`.
pub fn image_labels(bytes: &[u8]) -> Result<BTreeMap<String, String>, AnswerError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Image {
        #[serde(default)]
        config: Option<Config>,
    }
    let read: Image = serde_json::from_slice(bytes)?;
    Ok(own_labels(read.config.and_then(|config| config.labels)))
}

fn run_state(state: &State) -> RunState {
    // One that is to be started again by its policy counts as running to Docker.
    if !state.running || state.restarting {
        return RunState::Ended;
    }
    if state.paused {
        return RunState::Paused;
    }
    let status = state.health.as_ref().map(|health| health.status.as_str());
    let health = match status {
        Some("healthy") => Some(DockerHealth::Healthy),
        Some("unhealthy") => Some(DockerHealth::Unhealthy),
        Some("starting") => Some(DockerHealth::Starting),
        _ => None,
    };
    RunState::Running { health }
}

fn own_labels(labels: Option<BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let all = labels.unwrap_or_default().into_iter();
    let own = all.filter_map(|(label, value)| {
        let label = label.strip_prefix(PREFIX)?.to_owned();
        Some((label, value))
    });
    own.take(LABELS).collect()
}

fn published(
    ports: BTreeMap<String, Option<Vec<HostPort>>>,
) -> BTreeMap<(u16, Protocol), Vec<Binding>> {
    let all = ports.into_iter().filter_map(|(port, bindings)| {
        let (port, protocol) = port.split_once('/')?;
        let key = (port.parse().ok()?, protocol.parse().ok()?);
        let mut bindings: Vec<Binding> = bindings?
            .iter()
            .filter_map(binding)
            .take(BINDINGS)
            .collect();
        bindings.sort_unstable();
        Some((key, bindings))
    });
    all.collect()
}

fn binding(port: &HostPort) -> Option<Binding> {
    // Older versions leave out what is any address of IPv4.
    let ip = match port.host_ip.as_str() {
        "" => IpAddr::from([0, 0, 0, 0]),
        ip => ip.parse().ok()?,
    };
    let port = port.host_port.parse().ok().filter(|port| *port != 0)?;
    Some(Binding { ip, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "e90e34656806f4b1f6d9d7a6f0b1a4f2b1b6a6d5c4b3a29180706050403020ff";

    #[test]
    fn ids_are_ids_and_nothing_that_leads_elsewhere() {
        let list = |id: &str| listed(format!(r#"[{{"Id": "{id}", "Names": ["/a"]}}]"#).as_bytes());
        assert_eq!(list(ID).unwrap()[0].as_str(), ID);
        for bad in [
            "",
            "abc",
            "../../images/prune",
            &ID[1..],
            &format!("{}/", &ID[1..]),
        ] {
            assert!(list(bad).is_err(), "{bad}");
        }
        assert!(ImageId::parse(format!("sha256:{ID}")).is_ok());
        assert!(ImageId::parse(ID.to_owned()).is_err());
        assert!(ImageId::parse(format!("sha256:{}?", &ID[1..])).is_err());
    }

    #[test]
    fn an_event_says_whether_the_container_has_ended() {
        let ends = |action: &str| {
            let line = format!(
                r#"{{"status": "{action}", "id": "{ID}", "Type": "container", "Action": "{action}",
                    "Actor": {{"ID": "{ID}", "Attributes": {{"innermesh.name": "photos"}}}},
                    "scope": "local", "time": 1, "timeNano": 1}}"#
            );
            super::event(line.as_bytes()).unwrap().unwrap().has_ended
        };
        assert!(ends("die") && ends("destroy"));
        assert!(!ends("start") && !ends("health_status: healthy") && !ends("unpause"));
        let other = format!(r#"{{"Type": "network", "Action": "x", "Actor": {{"ID": "{ID}"}}}}"#);
        assert_eq!(super::event(other.as_bytes()).unwrap(), None);
        assert!(super::event(b"{}").is_err() && super::event(b"\xff").is_err());
    }

    #[test]
    fn an_inspection_is_read_as_docker_writes_it() {
        let text = format!(
            r#"{{"Id": "{ID}", "Created": "2026-11-29T20:00:00Z", "Name": "/photos_1",
                "Image": "sha256:{ID}",
                "State": {{"Status": "running", "Running": true, "Paused": false,
                    "Restarting": false, "StartedAt": "2026-11-29T20:00:01.5Z",
                    "Health": {{"Status": "starting", "FailingStreak": 0, "Log": []}}}},
                "Config": {{"Labels": {{"innermesh.name": "photos", "maintainer": "me"}}}},
                "HostConfig": {{"NetworkMode": "default"}},
                "NetworkSettings": {{"Ports": {{
                    "8080/tcp": [{{"HostIp": "::", "HostPort": "80"}},
                        {{"HostIp": "0.0.0.0", "HostPort": "80"}}],
                    "53/udp": [{{"HostIp": "", "HostPort": "5353"}}],
                    "9/sctp": [{{"HostIp": "", "HostPort": "9"}}], "90/tcp": null}}}}}}"#
        );
        let read = inspected(text.as_bytes()).unwrap();
        assert_eq!(read.name, "photos_1");
        assert_eq!(
            read.labels,
            [("name".to_owned(), "photos".to_owned())].into()
        );
        let health = Some(DockerHealth::Starting);
        assert_eq!(read.state, RunState::Running { health });
        let web = &read.published[&(8080, Protocol::Tcp)];
        let any = |ip: &str| Binding {
            ip: ip.parse().unwrap(),
            port: 80,
        };
        assert_eq!(*web, [any("0.0.0.0"), any("::")]);
        assert_eq!(read.published[&(53, Protocol::Udp)][0].port, 5353);
        assert_eq!(read.published.len(), 2);
    }

    #[test]
    fn one_that_docker_starts_again_and_again_does_not_run() {
        let state = |more: &str| {
            let text = format!(
                r#"{{"Id": "{ID}", "Image": "sha256:{ID}", "Config": {{"Labels": null}},
                    "State": {{{more}}}}}"#
            );
            inspected(text.as_bytes()).unwrap().state
        };
        assert_eq!(state(r#""Running": false"#), RunState::Ended);
        assert_eq!(
            state(r#""Running": true, "Restarting": true"#),
            RunState::Ended
        );
        assert_eq!(
            state(r#""Running": true, "Paused": true"#),
            RunState::Paused
        );
        let health = None;
        assert_eq!(state(r#""Running": true"#), RunState::Running { health });
    }
}
