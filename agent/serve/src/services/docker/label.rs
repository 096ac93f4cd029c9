//! From a container's labels to a service: pure.

use std::{collections::BTreeMap, net::IpAddr};

use innermesh_control::{
    check::{Check, CheckError},
    spec::{Spec, SpecError},
};
use innermesh_proto::{
    name::{Label, NameError},
    near::nearest,
    zone::{Protocol, ServiceTypeError},
};

use super::{
    ContainerService, Unwell,
    answer::{Binding, DockerHealth, Inspected, NetworkMode, PREFIX, RunState},
};

const KNOWN: [&str; 5] = ["name", "port", "proto", "type", "check"];
/// Longest part of a label that is shown, in characters.
const SHOWN: usize = 64;

/// Why a container's labels make no service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Who made an image has no say in the mesh.
    #[error(
        "innermesh.name comes with its image; a label counts that the container is given, by \
         `docker run --label` or below `labels:` of its service in Compose"
    )]
    FromImage,
    #[error("innermesh.{0} is no label of a service{1}")]
    Unknown(String, String),
    #[error("innermesh.name: {0}")]
    Name(#[from] NameError),
    #[error("it has no label innermesh.port, the port in the container")]
    NoPort,
    #[error("innermesh.port is \"{0}\"; a port is a number from 1 to 65535")]
    Port(String),
    #[error("innermesh.proto is \"{0}\"; it can be tcp or udp")]
    Protocol(String),
    #[error("innermesh.type: {0}")]
    Type(#[from] ServiceTypeError),
    #[error("innermesh.check: {0}")]
    Check(#[from] CheckError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Other nodes don't reach the addresses of containers.
    #[error(
        "its port {0}/{1} isn't published, so other nodes don't reach it; publish it \
         (`-p {0}:{0}{2}`), or give the container the host's network"
    )]
    NotPublished(u16, Protocol, &'static str),
    #[error(
        "its port {port}/{protocol} is published at {at} only, where other nodes don't reach it; \
         publish it at all addresses of this host, or at its address in the mesh"
    )]
    PublishedBeside {
        port: u16,
        protocol: Protocol,
        at: IpAddr,
    },
    #[error("it has the network of another container; give that one the labels")]
    NetworkOfOther,
    /// The first that started keeps the name.
    #[error("the container {0} is {1} already")]
    Taken(String, Label),
    #[error("Docker's answer about it can't be used: {0}")]
    Answer(String),
}

/// The service of a container that runs; `None` where it doesn't. `image` are our
/// labels of its image, `own` this node's addresses in the mesh.
///
/// # Errors
/// `LabelError`.
pub fn service(
    read: &Inspected,
    image: &BTreeMap<String, String>,
    own: &[IpAddr],
) -> Result<Option<ContainerService>, LabelError> {
    let Some(name) = read.labels.get("name") else {
        return Ok(None);
    };
    let health = match read.state {
        RunState::Ended => return Ok(None),
        RunState::Paused => Some(Err(Unwell::Paused)),
        RunState::Running { health } => health.map(|health| match health {
            DockerHealth::Healthy => Ok(()),
            DockerHealth::Starting => Err(Unwell::Starting),
            DockerHealth::Unhealthy => Err(Unwell::Unhealthy),
        }),
    };
    if image.get("name") == Some(name) {
        return Err(LabelError::FromImage);
    }
    let mut spec = described(name, &read.labels)?;
    match read.network {
        NetworkMode::Host => {}
        NetworkMode::OfContainer => return Err(LabelError::NetworkOfOther),
        NetworkMode::Own => {
            let key = (spec.port, spec.protocol);
            let at = read.published.get(&key).map_or(&[][..], Vec::as_slice);
            (spec.port, spec.address) = reached(at, own, key)?;
        }
    }
    spec.validate()?;
    Ok(Some(ContainerService {
        spec,
        health,
        container: read.name.clone(),
    }))
}

/// What the labels say.
fn described(name: &str, labels: &BTreeMap<String, String>) -> Result<Spec, LabelError> {
    if let Some(other) = labels.keys().find(|it| !KNOWN.contains(&it.as_str())) {
        let meant = nearest(other, KNOWN.into_iter());
        let meant = meant.map(|it| format!("; did you mean {PREFIX}{it}?"));
        return Err(LabelError::Unknown(shown(other), meant.unwrap_or_default()));
    }
    let port = labels.get("port").ok_or(LabelError::NoPort)?;
    let port = match port.parse() {
        Ok(0) | Err(_) => return Err(LabelError::Port(shown(port))),
        Ok(port) => port,
    };
    let mut spec = Spec::new(name.parse::<Label>()?.grantable()?, port);
    if let Some(protocol) = labels.get("proto") {
        let read = protocol.parse();
        spec.protocol = read.map_err(|_| LabelError::Protocol(shown(protocol)))?;
    }
    let service_type = labels.get("type").map(|said| said.parse());
    spec.service_type = service_type.transpose()?;
    let check = labels.get("check").map(|check| check.parse::<Check>());
    spec.check = check.transpose()?;
    Ok(spec)
}

/// The port of this host at which other nodes reach what is published, and the one
/// address in the mesh where it isn't at all of them.
fn reached(
    at: &[Binding],
    own: &[IpAddr],
    (port, protocol): (u16, Protocol),
) -> Result<(u16, Option<IpAddr>), LabelError> {
    let answers = |binding: &Binding, ip: IpAddr| {
        let is_any = binding.ip.is_unspecified() && binding.ip.is_ipv4() == ip.is_ipv4();
        is_any || binding.ip == ip
    };
    // At most addresses of this node first, then by the number.
    let mut best: Option<(usize, u16, Vec<IpAddr>)> = None;
    for number in at.iter().map(|binding| binding.port) {
        let of_number = at.iter().filter(|binding| binding.port == number);
        let of_number: Vec<&Binding> = of_number.collect();
        let has = |ip: &&IpAddr| of_number.iter().any(|binding| answers(binding, **ip));
        let reached: Vec<IpAddr> = own.iter().filter(has).copied().collect();
        let is_better = best
            .as_ref()
            .is_none_or(|(count, least, _)| (reached.len(), *least) > (*count, number));
        if !reached.is_empty() && is_better {
            best = Some((reached.len(), number, reached));
        }
    }
    match (best, at.first()) {
        (Some((count, number, _)), _) if count == own.len() => Ok((number, None)),
        (Some((_, number, reached)), _) => Ok((number, reached.first().copied())),
        (None, Some(binding)) => Err(LabelError::PublishedBeside {
            port,
            protocol,
            at: binding.ip,
        }),
        (None, None) => Err(LabelError::NotPublished(
            port,
            protocol,
            match protocol {
                Protocol::Tcp => "",
                Protocol::Udp => "/udp",
            },
        )),
    }
}

fn shown(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(SHOWN)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::answer::inspected, *};

    const OWN: [&str; 2] = ["10.77.0.1", "fd77::1"];
    const ID: &str = "e90e34656806f4b1f6d9d7a6f0b1a4f2b1b6a6d5c4b3a29180706050403020ff";

    struct Container {
        labels: serde_json::Value,
        ports: serde_json::Value,
        network: &'static str,
        state: serde_json::Value,
        image: BTreeMap<String, String>,
    }

    fn container(labels: &[(&str, &str)]) -> Container {
        let labels = labels.iter().map(|(k, v)| (format!("innermesh.{k}"), *v));
        Container {
            labels: labels.collect::<BTreeMap<_, _>>().into_iter().collect(),
            ports: serde_json::json!({}),
            network: "bridge",
            state: serde_json::json!({ "Running": true }),
            image: BTreeMap::new(),
        }
    }

    impl Container {
        fn at(mut self, port: &str, bindings: &[(&str, &str)]) -> Self {
            let bindings = bindings
                .iter()
                .map(|(ip, port)| serde_json::json!({ "HostIp": ip, "HostPort": port }));
            self.ports[port] = bindings.collect();
            self
        }

        fn read(&self) -> Result<Option<ContainerService>, LabelError> {
            let text = serde_json::json!({
                "Id": ID, "Name": "/box", "Image": format!("sha256:{ID}"), "State": self.state,
                "Config": { "Labels": self.labels }, "HostConfig": { "NetworkMode": self.network },
                "NetworkSettings": { "Ports": self.ports },
            });
            let read = inspected(text.to_string().as_bytes()).unwrap();
            service(&read, &self.image, &OWN.map(|ip| ip.parse().unwrap()))
        }

        fn spec(&self) -> Spec {
            self.read().unwrap().unwrap().spec
        }

        fn refusal(&self) -> String {
            self.read().unwrap_err().to_string()
        }
    }

    const WEB: [(&str, &str); 2] = [("name", "photos"), ("port", "8080")];
    const ANY: [(&str, &str); 2] = [("0.0.0.0", "80"), ("::", "80")];

    #[test]
    fn the_port_is_that_at_which_other_nodes_reach_it() {
        let any = container(&WEB).at("8080/tcp", &ANY);
        assert_eq!((any.spec().port, any.spec().address), (80, None));
        let mut host = container(&WEB);
        host.network = "host";
        assert_eq!((host.spec().port, host.spec().address), (8080, None));
        // At one family only: the name leads to that address alone.
        for (at, own) in [("0.0.0.0", OWN[0]), ("::", OWN[1]), (OWN[0], OWN[0])] {
            let spec = container(&WEB).at("8080/tcp", &[(at, "81")]).spec();
            assert_eq!((spec.port, spec.address), (81, Some(own.parse().unwrap())));
        }
        let several = [
            ("0.0.0.0", "70"),
            ("0.0.0.0", "90"),
            ("::", "90"),
            ("127.0.0.1", "60"),
        ];
        assert_eq!(container(&WEB).at("8080/tcp", &several).spec().port, 90);
        let spoken = [&WEB[..], &[("type", "HTTPS")]].concat();
        let spoken = container(&spoken).at("8080/tcp", &ANY).spec();
        assert_eq!(spoken.service_type, "https".parse().ok());
        let udp = [&WEB[..], &[("proto", "udp")]].concat();
        let udp = container(&udp).at("8080/udp", &ANY).spec();
        assert_eq!((udp.port, udp.protocol), (80, Protocol::Udp));
    }

    #[test]
    fn what_other_nodes_do_not_reach_is_refused_with_what_to_do() {
        let none = container(&WEB).refusal();
        assert!(none.contains("8080/tcp isn't published") && none.contains("-p 8080:8080"));
        let other = container(&WEB).at("8080/udp", &ANY).refusal();
        assert!(other.contains("isn't published"), "{other}");
        for ip in ["127.0.0.1", "192.168.1.2"] {
            let beside = container(&WEB).at("8080/tcp", &[(ip, "80")]).refusal();
            assert!(beside.contains(&format!("at {ip} only")), "{beside}");
        }
        let mut shared = container(&WEB);
        shared.network = "container:abc";
        assert_eq!(shared.read(), Err(LabelError::NetworkOfOther));
    }

    #[test]
    fn labels_that_make_no_service_are_refused_with_the_reason() {
        for (labels, part) in [
            (&[("name", "photos")][..], "no label innermesh.port"),
            (&[("name", "a b"), ("port", "1")], "innermesh.name: "),
            (&[("name", ""), ("port", "1")], "innermesh.name: "),
            (&[("name", "wpad"), ("port", "1")], "reserved"),
            (&[("name", "a"), ("port", "0")], "from 1 to 65535"),
            (&[("name", "a"), ("port", "65536")], "from 1 to 65535"),
            (
                &[("name", "a"), ("port", "1"), ("prto", "x")],
                "did you mean innermesh.proto?",
            ),
            (
                &[("name", "a"), ("port", "1"), ("proto", "sctp")],
                "tcp or udp",
            ),
            (
                &[("name", "a"), ("port", "1"), ("check", "ping")],
                "is not a check",
            ),
            (
                &[("name", "a"), ("port", "1"), ("type", "http/2")],
                "innermesh.type: \"http/2\" is not",
            ),
        ] {
            let error = container(labels).refusal();
            assert!(error.contains(part), "{labels:?}: {error}");
        }
        let udp = [
            ("name", "a"),
            ("port", "1"),
            ("proto", "udp"),
            ("check", "tcp"),
        ];
        let mut udp = container(&udp);
        udp.network = "host";
        assert!(udp.refusal().contains("udp service"));
        let long = "x".repeat(100_000);
        let long = container(&[("name", "a"), ("port", &long)]).refusal();
        assert!(long.len() < 200, "{}", long.len());
    }

    #[test]
    fn a_name_that_comes_with_the_image_counts_for_nothing() {
        let mut web = container(&WEB).at("8080/tcp", &ANY);
        web.image = [("name".to_owned(), "photos".to_owned())].into();
        assert_eq!(web.read(), Err(LabelError::FromImage));
        web.image = [("name".to_owned(), "other".to_owned())].into();
        assert_eq!(web.spec().name.as_str(), "photos");
    }

    #[test]
    fn docker_s_own_health_is_the_service_s_where_there_is_one() {
        let health = |state: serde_json::Value| {
            let mut web = container(&WEB).at("8080/tcp", &ANY);
            web.state = state;
            web.read().unwrap().map(|service| service.health)
        };
        let of = |status: &str| serde_json::json!({"Running": true, "Health": {"Status": status}});
        assert_eq!(health(of("healthy")), Some(Some(Ok(()))));
        assert_eq!(health(of("starting")), Some(Some(Err(Unwell::Starting))));
        assert_eq!(health(of("unhealthy")), Some(Some(Err(Unwell::Unhealthy))));
        assert_eq!(health(of("none")), Some(None));
        let paused = serde_json::json!({"Running": true, "Paused": true});
        assert_eq!(health(paused), Some(Some(Err(Unwell::Paused))));
        assert_eq!(health(serde_json::json!({"Running": false})), None);
    }
}
