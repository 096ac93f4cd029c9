//! DER in JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

/// DER, written as base64.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Der(pub Vec<u8>);

impl fmt::Debug for Der {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of DER", self.0.len())
    }
}

/// Not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not base64")]
pub struct DerError;

impl TryFrom<String> for Der {
    type Error = DerError;
    fn try_from(s: String) -> Result<Self, DerError> {
        data_encoding::BASE64
            .decode(s.as_bytes())
            .map(Self)
            .map_err(|_| DerError)
    }
}

impl From<Der> for String {
    fn from(der: Der) -> Self {
        data_encoding::BASE64.encode(&der.0)
    }
}
