//! The version of the rules by which requests are decided and batches change
//! the state. It is a fact of the ledger: all nodes change over at the same
//! batch, and old batches replay by the rules of their time.
//!
//! | rules | what they brought |
//! |---|---|
//! | 0 | what a mesh began with |
//! | 1 | shares of each node in the state, WireGuard keys, names that lead to their owners |
//! | 2 | roles that are given and taken, by whose word; on its first day an admin speaks for who made it one |
//! | 3 | addresses among the names that are kept of a certificate; DNS records with a TTL of their own, HTTPS and SVCB records, and one record taken away |
//! | 4 | devices without an agent; networks that gateways bring; the policy, whose text is read by exactly one version of its reader |
//! | 5 | ports of public nodes that lead to services inside; the role `exit`, and the name `internet` that nobody gets from then on |
//! | 6 | certificates for the resolver's addresses and for `ns`, where every agent answers DNS |
//! | 7 | SSHFP and TLSA records of users |
//! | 8 | the hash of the batch after the one that admitted each member, by which it has its neighbours |

use serde::{Serialize, de::DeserializeOwned};

use crate::codec::{self, CodecError};

/// The newest rules that this build knows.
pub const RULES: u32 = 8;

/// Encodes what says by which rules it is: those of rules 0 as builds before
/// there were others did.
pub(super) fn encode<T: Serialize>(value: &T, rules: u32) -> Vec<u8> {
    if rules == 0 {
        return codec::encode(value);
    }
    codec::encode(&(value, rules))
}

/// Reads what [`encode`] wrote. Of rules that this build doesn't know, what
/// else they may have added is passed over.
pub(super) fn decode<T: DeserializeOwned>(
    bytes: &[u8],
    limit: usize,
) -> Result<(T, u32), CodecError> {
    let (value, rest) = codec::decode_front(bytes, limit)?;
    if rest.is_empty() {
        return Ok((value, 0));
    }
    let (rules, rest): (u32, _) = codec::decode_next(rest)?;
    match rules {
        0 => Err(CodecError::Trailing(1)),
        1..=RULES if !rest.is_empty() => Err(CodecError::Trailing(rest.len())),
        _ => Ok((value, rules)),
    }
}
