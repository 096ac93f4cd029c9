//! Keys by which clients are bound to a name of this node's (external account
//! binding, RFC 8555 §7.3.4).

use std::sync::Arc;

use crate::{
    acme::{Acme, mesh::Mesh, order::Identifier},
    control::{ControlError, ErrorCode, acme::ExternalAccount},
    node::{
        follow::ledger_backend::LedgerBackend,
        shared::refusals::{internal, refused},
    },
};

/// Makes and takes away such keys.
pub(crate) struct ExternalAccounts {
    pub acme: Arc<Acme>,
    pub backend: Arc<LedgerBackend>,
}

impl ExternalAccounts {
    /// Makes a key for a name.
    ///
    /// # Errors
    /// When this node doesn't hold the name.
    pub async fn add(&self, name: String) -> Result<ExternalAccount, ControlError> {
        if !self.backend.may_have(&Identifier::Dns(name.clone())) {
            return Err(refused(format!(
                "this machine doesn't hold the name {name}; `agent service add` gets it"
            )));
        }
        let (kid, binding) = self.acme.bind(&name).await.map_err(internal)?;
        Ok(ExternalAccount {
            name,
            kid,
            hmac_key: binding.key,
            directory: self.acme.directory_url(),
        })
    }

    /// Takes the keys of a name away.
    ///
    /// # Errors
    /// When there is none.
    pub async fn rm(&self, name: String) -> Result<(), ControlError> {
        match self.acme.unbind(&name).await.map_err(internal)? {
            0 => Err(ControlError::new(
                ErrorCode::NotFound,
                format!("there is no key for {name}"),
            )),
            _ => Ok(()),
        }
    }
}
