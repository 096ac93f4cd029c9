//! A certificate that proves nothing, for TLS whose other end knows by something else whom
//! it speaks with.

use std::sync::Arc;

use innermesh_host::keys::{CaKey, Keys};
use rcgen::SerialNumber;

use super::{
    CaError,
    build::{self, RcgenKey, encoding},
    random_serial,
};

/// How long one is good, in milliseconds: longer than any agent runs.
const LIFE_MS: u64 = 10 * 365 * 24 * 3600 * 1000;

/// A certificate of `key` by itself, in DER, with a name that says nothing of the mesh.
///
/// # Errors
/// [`CaError`].
pub fn unproved(key: &Arc<dyn CaKey>, now_ms: u64, keys: &dyn Keys) -> Result<Vec<u8>, CaError> {
    let mut params = build::params(Some("localhost"), now_ms, now_ms.saturating_add(LIFE_MS))?;
    params.serial_number = Some(SerialNumber::from_slice(&random_serial(keys).0));
    params.subject_alt_names = build::names([&"localhost".to_owned()], [])?;
    params.extended_key_usages = build::usages(false);
    let signed = params
        .self_signed(&RcgenKey(key.clone()))
        .map_err(encoding)?;
    Ok(signed.der().to_vec())
}
