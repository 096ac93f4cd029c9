//! Has certificates issued for keys of this node's, and finds those that were.

use std::time::Duration;

use innermesh_proto::{
    certificate::Serial,
    crypto::Hash,
    id::NodeId,
    ledger::{Content, State, request::Certify, state::Issued as Listed},
};

use crate::{
    ca::pem,
    control::certificates::Issued,
    host::UnixTime,
    ledger::{
        Ledger,
        client::{Client, RequestError},
    },
    node::shared::handles::Handles,
};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertifyError {
    /// The ledger didn't take it.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It was issued, and this node hasn't seen it.
    #[error("issued, but not in the ledger here yet; ask again")]
    Unseen,
}

/// Has certificates issued. Clones are the same.
#[derive(Clone)]
pub(crate) struct Certifier {
    ledger: Ledger,
    client: Client,
}

impl Certifier {
    pub fn new(node: &Handles) -> Self {
        Self {
            ledger: node.ledger.clone(),
            client: node.client.clone(),
        }
    }

    /// Has a certificate for a key of this node's issued; asks for as long as
    /// `patience`.
    ///
    /// # Errors
    /// [`CertifyError`].
    pub async fn certify(
        &self,
        certify: Certify,
        patience: Duration,
    ) -> Result<Issued, CertifyError> {
        let accepted = self
            .client
            .ask(&Content::Certify(certify), patience)
            .await?;
        let leaf = accepted.certificate.ok_or(CertifyError::Unseen)?;
        let state = self.ledger.state();
        let listed = state.certificates.get(&leaf.serial);
        let listed = listed.ok_or(CertifyError::Unseen)?;
        issued(&state, leaf.serial, listed, &leaf.der).ok_or(CertifyError::Unseen)
    }
}

/// The newest certificate of a node for a key.
pub(crate) fn newest<'a>(
    state: &'a State,
    node: NodeId,
    spki: &[u8],
) -> Option<(Serial, &'a Listed)> {
    let hash = Hash::of(spki);
    let all = state.certificates.iter();
    all.filter(|(_, issued)| issued.key_hash == hash && issued.owner == node)
        .max_by_key(|(_, issued)| issued.not_before_ms)
        .map(|(serial, issued)| (*serial, issued))
}

/// A certificate with what it hangs from; `None` where it isn't kept any more.
pub(crate) fn issued(state: &State, serial: Serial, listed: &Listed, der: &[u8]) -> Option<Issued> {
    let issuer = state.issuer_of(listed)?;
    (!der.is_empty()).then(|| Issued {
        certificate: pem::encode(pem::CERTIFICATE, der),
        issuer: pem::encode(pem::CERTIFICATE, issuer.der()),
        root: pem::encode(pem::CERTIFICATE, state.root.der()),
        serial: serial.to_string(),
        not_after: UnixTime::from_ms(listed.not_after_ms),
    })
}
