//! Keys by which clients are bound to a name of this machine's (external account
//! binding, RFC 8555 §7.3.4).

use std::sync::Arc;

use crate::{
    acme::{Acme, mesh::Mesh, order::Identifier},
    control::{ControlError, ErrorCode, acme::ExternalAccount},
    node::{
        Inner,
        follow::acme::Asked,
        refusals::{internal, refused, unavailable},
    },
};

/// Makes a key for a name.
///
/// # Errors
/// When this machine doesn't hold the name, or ACME isn't open yet.
pub async fn eab_add(inner: &Arc<Inner>, name: String) -> Result<ExternalAccount, ControlError> {
    let acme = acme(inner)?;
    let asked = Asked(Arc::downgrade(inner));
    if !asked.may_have(&Identifier::Dns(name.clone())) {
        return Err(refused(format!(
            "this machine doesn't hold the name {name}; `agent service add` gets it"
        )));
    }
    let (kid, binding) = acme.bind(&name).await.map_err(internal)?;
    Ok(ExternalAccount {
        name,
        kid,
        hmac_key: binding.key,
        directory: acme.directory_url(),
    })
}

/// Takes the keys of a name away.
///
/// # Errors
/// When there is none.
pub async fn eab_rm(inner: &Inner, name: String) -> Result<(), ControlError> {
    match acme(inner)?.unbind(&name).await.map_err(internal)? {
        0 => Err(ControlError::new(
            ErrorCode::NotFound,
            format!("there is no key for {name}"),
        )),
        _ => Ok(()),
    }
}

fn acme(inner: &Inner) -> Result<&Arc<Acme>, ControlError> {
    inner
        .acme
        .get()
        .ok_or_else(|| unavailable("the agent is starting"))
}
