//! Secondary name servers, as a person asks for them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use innermesh_proto::{name::Label, zone::DomainName};

use crate::{
    control::{
        ControlError, ErrorCode,
        secondaries::{
            SecondaryAddRequest, SecondaryAdded, SecondaryKey, SecondaryRow, SecondaryZone,
        },
    },
    dns::{Algorithm, Dns, NoticeState, PORT, Secondary, SharedKey, ZoneReport},
    node::{
        follow::dns::Listening,
        shared::{
            handles::Handles,
            refusals::{internal, invalid, refused},
            secondaries::{Secondaries, SecondaryError},
        },
    },
};

/// Adds, shows and removes them.
pub(crate) struct SecondaryDesk {
    pub node: Handles,
    pub dns: Arc<Dns>,
    pub listening: Arc<Listening>,
    pub secondaries: Arc<Secondaries>,
}

impl SecondaryDesk {
    /// Lets a name server copy zones from this node. The answer has its key.
    ///
    /// # Errors
    /// Why it may not; nothing was changed.
    pub async fn add(&self, request: SecondaryAddRequest) -> Result<SecondaryAdded, ControlError> {
        let key = self.key(&request)?;
        let zones = self.zones(&request.zones)?;
        let listen = self.listen(&request)?;
        let secondary = Secondary {
            name: request.name,
            key,
            addresses: request.addresses,
            zones,
            listen,
        };
        let added = self.added(&secondary);
        self.secondaries.add(secondary).await.map_err(by_error)?;
        Ok(added)
    }

    /// Takes one away.
    ///
    /// # Errors
    /// When there is none, or the disk fails.
    pub async fn rm(&self, name: &Label) -> Result<(), ControlError> {
        self.secondaries.rm(name).await.map_err(by_error)
    }

    /// All of them, without their secrets.
    pub fn list(&self) -> Vec<SecondaryRow> {
        let all = self.secondaries.list().into_iter();
        all.map(|secondary| self.row(&secondary)).collect()
    }

    fn key(&self, request: &SecondaryAddRequest) -> Result<SharedKey, ControlError> {
        let algorithm = match &request.algorithm {
            Some(algorithm) => algorithm.parse().map_err(invalid)?,
            None => Algorithm::Sha256,
        };
        let name = format!("{}.{}", request.name, self.node.ledger.state().domain);
        let name: DomainName = name.parse().map_err(invalid)?;
        let Some(text) = &request.key else {
            let mut secret = vec![0; algorithm.length()];
            self.node.host.keys.random(&mut secret);
            return Ok(SharedKey {
                name,
                algorithm,
                secret,
            });
        };
        let key = SharedKey::parse(&text.0, name, algorithm);
        key.map_err(|error| invalid(format!("the key can't be used: {error}")))
    }

    fn zones(&self, wanted: &[String]) -> Result<Vec<DomainName>, ControlError> {
        let zone = self.dns.zone();
        let all: Vec<&DomainName> = zone.origins().collect();
        let of = |text: &String| {
            let name = text.parse::<DomainName>().map_err(invalid)?;
            if all.contains(&&name) {
                return Ok(name);
            }
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            Err(ControlError::new(
                ErrorCode::NotFound,
                format!("{text} is no zone of this mesh; it has {}", all.join(", ")),
            ))
        };
        wanted.iter().map(of).collect()
    }

    /// Where it is to ask: at the address of this host from which packets go to it.
    fn listen(&self, request: &SecondaryAddRequest) -> Result<SocketAddr, ControlError> {
        let to = request.addresses.first().copied();
        let to = to.ok_or_else(|| invalid("a secondary has an address"))?;
        let listen = request.listen.or_else(|| self.leading_to(to.ip()));
        let listen = listen.ok_or_else(|| {
            refused(format!(
                "no address of this host leads to {}; say by --listen at which one it asks",
                to.ip()
            ))
        })?;
        if listen.ip().is_unspecified() || listen.ip().is_multicast() || listen.port() == 0 {
            return Err(invalid(format!(
                "{listen} is no address of this host and a port that a secondary could ask at"
            )));
        }
        if listen.is_ipv4() != to.is_ipv4() {
            return Err(invalid(format!("{to} can't ask at {listen}")));
        }
        Ok(listen)
    }

    fn leading_to(&self, to: IpAddr) -> Option<SocketAddr> {
        if to.is_loopback() {
            // It has port 53 there itself; at the mesh's resolver address it hasn't.
            let mut addresses = self.listening.addresses().into_iter();
            return addresses.find(|at| at.is_ipv4() == to.is_ipv4());
        }
        let from = self.node.host.net.source_towards(to)?;
        Some(SocketAddr::new(from, PORT))
    }

    fn added(&self, secondary: &Secondary) -> SecondaryAdded {
        let zone = self.dns.zone();
        let zones = zone.origins().filter(|zone| secondary.may_have(zone));
        SecondaryAdded {
            name: secondary.name.to_string(),
            key: SecondaryKey {
                name: text(&secondary.key.name),
                algorithm: secondary.key.algorithm.to_string(),
                secret: secondary.key.secret_text(),
            },
            listen: secondary.listen,
            addresses: secondary.addresses.clone(),
            zones: zones.map(text).collect(),
        }
    }

    fn row(&self, secondary: &Secondary) -> SecondaryRow {
        let reports = self.secondaries.report(secondary);
        let zone = self.dns.zone();
        let zones = zone.origins().filter(|zone| secondary.may_have(zone));
        let zones = zones.map(|origin| {
            let mut reports = reports.iter();
            self.zone_row(origin, reports.find(|report| report.zone == *origin))
        });
        SecondaryRow {
            name: secondary.name.to_string(),
            key_name: text(&secondary.key.name),
            algorithm: secondary.key.algorithm.to_string(),
            addresses: secondary.addresses.clone(),
            listen: secondary.listen,
            listening: self.listening.covers(secondary.listen),
            zones: zones.collect(),
        }
    }

    fn zone_row(&self, origin: &DomainName, report: Option<&ZoneReport>) -> SecondaryZone {
        let now = self.node.host.clock.now();
        let fetched = report.and_then(|report| report.fetched);
        let notice = report.and_then(|report| report.notice.as_ref());
        SecondaryZone {
            zone: text(origin),
            serial: report.map(|report| report.serial),
            fetched_serial: fetched.map(|fetched| fetched.serial),
            fetched_s: fetched.map(|fetched| now.saturating_sub(fetched.at).as_secs()),
            asked_s: report
                .and_then(|report| report.asked)
                .map(|asked| now.saturating_sub(asked).as_secs()),
            notify: notice.map(|notice| match notice {
                NoticeState::Silent => "silent".to_owned(),
                NoticeState::Answered => "answered".to_owned(),
                NoticeState::Refused(why) => why.clone(),
            }),
        }
    }
}

/// A name as configurations have it: without the dot at the end.
fn text(name: &DomainName) -> String {
    name.to_string().trim_end_matches('.').to_owned()
}

fn by_error(error: SecondaryError) -> ControlError {
    match error {
        SecondaryError::Unknown(_) => ControlError::new(ErrorCode::NotFound, error),
        SecondaryError::Disk { .. } => internal(error),
        SecondaryError::Exists(_) | SecondaryError::KeyName(_) | SecondaryError::TooMany => {
            refused(error)
        }
    }
}
