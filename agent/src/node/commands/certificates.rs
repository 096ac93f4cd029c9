//! The certificates that the ledger knows: how one is issued, and revoked.

use std::collections::BTreeSet;

use innermesh_proto::{
    certificate::Serial,
    ledger::{Content, State, request::Certify},
};

use crate::{
    ca::csr::Csr,
    control::{
        ControlError,
        certificates::{CertKind, CertRequest, CertRevoked, CertRow, Issued},
    },
    host::UnixTime,
    node::shared::{
        certify::{Certifier, CertifyError},
        handles::Handles,
        refusals::{PATIENCE, decide, invalid, not_done, unavailable},
    },
};

/// All of them, by node and name.
pub fn list(state: &State) -> Vec<CertRow> {
    let mut rows: Vec<CertRow> = state
        .certificates
        .iter()
        .map(|(serial, issued)| {
            // A node's id is the beginning of its key's hash.
            let is_member = issued.key_hash.0.starts_with(&issued.owner.0);
            CertRow {
                serial: serial.to_string(),
                names: state.names_in(issued).to_vec(),
                node: state.name_of(issued.owner),
                not_before: UnixTime::from_ms(issued.not_before_ms),
                not_after: UnixTime::from_ms(issued.not_after_ms),
                kind: if is_member {
                    CertKind::Member
                } else {
                    CertKind::Service
                },
                revoked: state.is_revoked(serial, issued),
                renewal: None,
            }
        })
        .collect();
    rows.sort_by(|a, b| (&a.node, &a.names, a.not_after).cmp(&(&b.node, &b.names, b.not_after)));
    rows
}

/// Has a certificate issued for the key of a signing request.
///
/// # Errors
/// When the request is for other names, or why there is none.
pub async fn issue(node: &Handles, request: CertRequest) -> Result<Issued, ControlError> {
    let csr = Csr::parse(&request.csr.0).map_err(invalid)?;
    let names: BTreeSet<String> = request
        .names
        .iter()
        .map(|name| name.to_ascii_lowercase())
        .collect();
    if csr.dns != names || !csr.ips.is_empty() {
        return Err(invalid(
            "the signing request is for other names than those that were asked for",
        ));
    }
    let certify = Certify {
        spki: csr.spki,
        names,
        days: request.days,
    };
    let issued = Certifier::new(node).certify(certify, PATIENCE).await;
    issued.map_err(|error| match error {
        CertifyError::Request(error) => not_done(error),
        CertifyError::Unseen => unavailable(error),
    })
}

/// Revokes one, and with it its key.
///
/// # Errors
/// Why it stands.
pub async fn revoke(node: &Handles, serial: Serial) -> Result<CertRevoked, ControlError> {
    decide(&node.client, &Content::Revoke(serial)).await?;
    let state = node.ledger.state();
    let issued = state.certificates.get(&serial);
    Ok(CertRevoked {
        serial: serial.to_string(),
        names: issued
            .map(|issued| state.names_in(issued).to_vec())
            .unwrap_or_default(),
        node: issued
            .map(|issued| state.name_of(issued.owner))
            .unwrap_or_default(),
    })
}
