//! The certificates that the ledger knows: how one is had, and its end before
//! its time.

use std::collections::BTreeSet;

use innermesh_proto::{
    certificate::Serial,
    crypto::Hash,
    id::NodeId,
    ledger::{Content, State, request::Certify, state::Issued as Listed},
};

use crate::node::Inner;
use crate::node::refusals::{decide, invalid};
use crate::{
    ca::{csr::Csr, pem},
    control::{
        ControlError, ErrorCode,
        certificates::{CertKind, CertRequest, CertRevoked, CertRow, Issued},
    },
    host::UnixTime,
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
pub async fn issue(inner: &Inner, request: CertRequest) -> Result<Issued, ControlError> {
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
    certify(inner, csr.spki, names, request.days).await
}

/// Has a certificate for a key of this node's issued.
///
/// # Errors
/// Why there is none.
pub async fn certify(
    inner: &Inner,
    spki: Vec<u8>,
    names: BTreeSet<String>,
    days: u32,
) -> Result<Issued, ControlError> {
    let content = Content::Certify(Certify {
        spki: spki.clone(),
        names: names.clone(),
        days,
    });
    let before = inner.ledger.state();
    decide(inner, &content).await?;
    let state = inner.ledger.state();
    let added = added(&state, &before, inner.me, &spki, &names);
    added
        .and_then(|(serial, listed)| issued(&state, serial, listed))
        .ok_or_else(|| {
            ControlError::new(
                ErrorCode::Unavailable,
                "issued, but not in the ledger here yet; ask again",
            )
        })
}

/// The newest certificate of a node for a key.
pub fn newest<'a>(state: &'a State, node: NodeId, spki: &[u8]) -> Option<(Serial, &'a Listed)> {
    select(state, node, spki, |_, _| true)
}

/// The newest for exactly these names that wasn't there `before`: of several
/// that begin in the same second nothing else tells which came last.
pub fn added<'a>(
    state: &'a State,
    before: &State,
    node: NodeId,
    spki: &[u8],
    names: &BTreeSet<String>,
) -> Option<(Serial, &'a Listed)> {
    select(state, node, spki, |serial, issued| {
        !before.certificates.contains_key(serial) && issued.names.iter().eq(names)
    })
}

fn select<'a>(
    state: &'a State,
    node: NodeId,
    spki: &[u8],
    counts: impl Fn(&Serial, &Listed) -> bool,
) -> Option<(Serial, &'a Listed)> {
    let hash = Hash::of(spki);
    let all = state.certificates.iter();
    all.filter(|(_, issued)| issued.key_hash == hash && issued.owner == node)
        .filter(|(serial, issued)| counts(serial, issued))
        .max_by_key(|(_, issued)| issued.not_before_ms)
        .map(|(serial, issued)| (*serial, issued))
}

/// A certificate with what it hangs from; `None` where it isn't kept any more.
pub fn issued(state: &State, serial: Serial, listed: &Listed) -> Option<Issued> {
    let issuer = state.issuer_of(listed)?;
    (!listed.der.is_empty()).then(|| Issued {
        certificate: pem::encode(pem::CERTIFICATE, &listed.der),
        issuer: pem::encode(pem::CERTIFICATE, issuer.der()),
        root: pem::encode(pem::CERTIFICATE, state.root.der()),
        serial: serial.to_string(),
        not_after: UnixTime::from_ms(listed.not_after_ms),
    })
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
            .map(|issued| state.names_in(issued).to_vec())
            .unwrap_or_default(),
        node: issued
            .map(|issued| state.name_of(issued.owner))
            .unwrap_or_default(),
    })
}
