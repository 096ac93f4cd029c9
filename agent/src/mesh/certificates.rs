//! The certificates that the ledger knows, and the end of one before its time.

use std::collections::BTreeSet;

use innermesh_proto::{
    certificate::{KeptCertificate, Serial},
    crypto::Hash,
    id::NodeId,
    ledger::{Content, State, state::Issued},
};

use super::{Inner, control::decide};
use crate::control::{
    ControlError, UnixTime,
    api::{CertKind, CertRow},
    authority::CertRevoked,
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
                names: issued.names.clone(),
                node: state.name_of(issued.owner),
                not_before: UnixTime::from_ms(issued.not_before_ms),
                not_after: UnixTime::from_ms(issued.not_after_ms),
                kind: match is_member {
                    true => CertKind::Member,
                    false => CertKind::Service,
                },
                revoked: state.is_revoked(serial, issued),
            }
        })
        .collect();
    rows.sort_by(|a, b| (&a.node, &a.names, a.not_after).cmp(&(&b.node, &b.names, b.not_after)));
    rows
}

/// The newest of a node's certificates for a key, for exactly these names
/// where some are given, and who signed it.
pub fn newest<'a>(
    state: &'a State,
    node: NodeId,
    spki: &[u8],
    names: Option<&BTreeSet<String>>,
) -> Option<(Serial, &'a Issued, &'a KeptCertificate)> {
    let hash = Hash::of(spki);
    let fits = |issued: &Issued| {
        let is_same = |names: &BTreeSet<String>| issued.names.iter().eq(names);
        issued.key_hash == hash && issued.owner == node && names.is_none_or(is_same)
    };
    let certificates = state.certificates.iter();
    let (serial, issued) = certificates
        .filter(|(_, issued)| fits(issued))
        .max_by_key(|(_, issued)| issued.not_before_ms)?;
    Some((*serial, issued, state.issuer_of(issued)?))
}

/// Revokes one, and with it its key.
///
/// # Errors
/// Why it stands.
pub async fn revoke(inner: &Inner, serial: Serial) -> Result<CertRevoked, ControlError> {
    decide(inner, &Content::Revoke(serial)).await?;
    let state = inner.ledger.state();
    let issued = state.certificates.get(&serial);
    Ok(CertRevoked {
        serial: serial.to_string(),
        names: issued
            .map(|issued| issued.names.clone())
            .unwrap_or_default(),
        node: issued
            .map(|issued| state.name_of(issued.owner))
            .unwrap_or_default(),
    })
}
