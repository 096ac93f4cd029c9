//! What ACME asks of ledger and zone.

use std::{net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use innermesh_proto::{
    certificate::Serial,
    id::NodeId,
    ledger::{Content, request::Certify},
    view::MeshView,
    zone::{Answer, Caa, DomainName, Rdata, RecordType},
};
use tokio::sync::watch;

use crate::{
    acme::{
        mesh::{IssueError, Known, Mesh, Wanted},
        order::{Certified, Identifier},
    },
    dns::Dns,
    ledger::{
        Ledger,
        client::{Client, RequestError, SubmitError},
    },
    node::shared::{
        addresses::Addresses,
        certify::{Certifier, CertifyError},
        handles::Handles,
    },
};

/// How long the ledger may take to revoke one.
const PATIENCE: Duration = Duration::from_secs(15);

/// What ACME asks of this agent.
pub(crate) struct LedgerBackend {
    me: NodeId,
    ledger: Ledger,
    client: Client,
    view: watch::Sender<Arc<MeshView>>,
    dns: Arc<Dns>,
    addresses: Addresses,
    certifier: Certifier,
}

impl LedgerBackend {
    pub fn new(node: &Handles, dns: Arc<Dns>, addresses: Addresses) -> Self {
        Self {
            me: node.me,
            ledger: node.ledger.clone(),
            client: node.client.clone(),
            view: node.view.clone(),
            dns,
            addresses,
            certifier: Certifier::new(node),
        }
    }

    /// The data of a name's records of one type, aliases followed inside the
    /// mesh.
    fn data(&self, name: &str, rtype: RecordType) -> Vec<Rdata> {
        let Ok(name) = name.parse::<DomainName>() else {
            return Vec::new();
        };
        let zone = self.dns.zone();
        match zone.lookup(&name, rtype) {
            Answer::Records { data, .. } => data.to_vec(),
            Answer::Alias { records, .. } => {
                records.into_iter().map(|record| record.data).collect()
            }
            _ => Vec::new(),
        }
    }
}

#[async_trait]
impl Mesh for LedgerBackend {
    fn domain(&self) -> String {
        self.ledger.state().domain.to_string()
    }

    fn may_have(&self, identifier: &Identifier) -> bool {
        let state = self.ledger.state();
        let name = identifier.name();
        // Those are the agent's own.
        let is_own = ["acme", "ns"].map(|label| format!("{label}.{}", state.domain));
        !is_own.contains(&name) && state.may_certify(self.me, &name)
    }

    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let data = [RecordType::AAAA, RecordType::A].map(|rtype| self.data(name, rtype));
        let members = self.view.borrow().member_addresses();
        let addresses = data.into_iter().flatten().filter_map(|data| match data {
            Rdata::A(ip) => Some(IpAddr::V4(ip)),
            Rdata::Aaaa(ip) => Some(IpAddr::V6(ip)),
            _ => None,
        });
        let mut addresses: Vec<IpAddr> = addresses.filter(|ip| members.contains(ip)).collect();
        let own = self.addresses.own();
        addresses.sort_by_key(|ip| (!own.contains(ip), *ip));
        addresses
    }

    fn is_member(&self, address: IpAddr) -> bool {
        self.view.borrow().member_addresses().contains(&address)
    }

    fn texts(&self, name: &str) -> Vec<Vec<u8>> {
        let data = self.data(name, RecordType::TXT).into_iter();
        data.filter_map(|data| match data {
            Rdata::Txt(strings) => Some(strings.concat()),
            _ => None,
        })
        .collect()
    }

    fn caa(&self, name: &str) -> Vec<Caa> {
        let data = self.data(name, RecordType::CAA).into_iter();
        data.filter_map(|data| match data {
            Rdata::Caa(caa) => Some(caa),
            _ => None,
        })
        .collect()
    }

    async fn certify(&self, wanted: Wanted, patience: Duration) -> Result<Certified, IssueError> {
        certify(&self.certifier, wanted, patience).await
    }

    fn certificate(&self, serial: &Serial) -> Option<Known> {
        let state = self.ledger.state();
        let issued = state.certificates.get(serial)?;
        let issuer = state.issuers.get(&issued.issuer);
        // Whoever signed it signs no more: its issuer may be revoked soon.
        let is_superseded = issuer.is_some_and(|issuer| !state.is_voter(issuer.node));
        Some(Known {
            names: state.names_in(issued).to_vec(),
            not_before_ms: issued.not_before_ms,
            not_after_ms: issued.not_after_ms,
            is_revoked: state.is_revoked(serial, issued),
            is_superseded,
            is_own: issued.owner == self.me,
        })
    }

    async fn revoke(&self, serial: Serial) -> Result<(), IssueError> {
        let asked = self.client.ask(&Content::Revoke(serial), PATIENCE).await;
        asked.map(drop).map_err(not_done)
    }
}

/// Has the ledger issue a certificate.
///
/// # Errors
/// [`IssueError`].
pub(crate) async fn certify(
    certifier: &Certifier,
    wanted: Wanted,
    patience: Duration,
) -> Result<Certified, IssueError> {
    let certify = Certify {
        spki: wanted.spki,
        names: wanted.names,
        days: wanted.days,
    };
    let issued = certifier.certify(certify, patience).await;
    let issued = issued.map_err(|error| match error {
        CertifyError::Request(error) => not_done(error),
        error @ CertifyError::Unseen => IssueError::Unavailable(error.to_string()),
    })?;
    Ok(Certified {
        chain: issued.certificate + &issued.issuer,
        serial: issued.serial,
        not_after_ms: issued.not_after.ms(),
    })
}

fn not_done(error: RequestError) -> IssueError {
    match error {
        RequestError::Refused(refusal) => IssueError::Refused(refusal.to_string()),
        RequestError::Unavailable(error @ SubmitError::Spent(wait)) => {
            IssueError::Spent(error.to_string(), wait)
        }
        RequestError::Unavailable(error) => IssueError::Unavailable(error.to_string()),
    }
}
