//! The keys of this node's issuers, in its folder.

use innermesh_ca::Issuer;
use innermesh_host::{
    Host,
    key_files::{self as keys, KeyFileError},
    keys::CaKey,
};
use innermesh_proto::{
    id::NodeId,
    ledger::{State, state::Issuer as ListedIssuer},
};

/// Why the keys of this node's issuers can't be had.
#[derive(Debug, thiserror::Error)]
pub enum IssuerKeysError {
    /// The folder's.
    #[error(transparent)]
    Files(#[from] KeyFileError),
    /// The ledger can't be written since its disk failed.
    #[error("{0}")]
    Stopped(String),
    /// The agent stops.
    #[error("the ledger's writer ended")]
    Ended,
}

/// Of the issuers that `state` lists for `me` those that can be signed with:
/// not revoked, and with a key in the node's folder.
///
/// # Errors
/// The folder's.
pub async fn load(host: &Host, state: &State, me: NodeId) -> Result<Vec<Issuer>, KeyFileError> {
    let listed: Vec<&ListedIssuer> = state.issuers_of(me).collect();
    let is_listed = |key: &dyn CaKey| {
        let spki = key.spki();
        listed.iter().any(|issuer| issuer.certificate.spki == spki)
    };
    keys::keep_issuers(host, is_listed).await?;
    let held = keys::issuers(host).await?;
    let usable = listed.iter().filter(|issuer| issuer.revoked.is_none());
    Ok(usable
        .filter_map(|issuer| {
            let certificate = &issuer.certificate;
            let key = held.iter().find(|key| key.spki() == certificate.spki)?;
            Issuer::new(key.clone(), certificate.der().to_vec()).ok()
        })
        .collect())
}

/// Public keys of issuers that the root is to sign; the private ones stay in the
/// node's folder.
///
/// # Errors
/// The folder's.
pub async fn offer(host: &Host) -> Result<Vec<Vec<u8>>, KeyFileError> {
    let offered = keys::offer_issuers(host).await?;
    Ok(offered.iter().map(|key| key.spki()).collect())
}
