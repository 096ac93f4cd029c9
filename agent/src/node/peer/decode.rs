//! Reading what a peer asks.

use innermesh_proto::{codec, limits, rpc::Failure};
use serde::de::DeserializeOwned;

pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    codec::decode(body, limits::RPC_BYTES).map_err(|_| Failure::Malformed)
}
