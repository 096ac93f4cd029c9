//! The private keys in a state folder. The identity is made once and never
//! again: a damaged one is refused, not replaced.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use innermesh_proto::{codec, crypto::Hash, id::NodeId, limits, pair_key::Agreed};

use crate::{
    Host,
    keys::{CaKey, NodeKey},
    tunnel,
};

const IDENTITY: &str = "identity.key";
const WIREGUARD: &str = "wireguard.key";
/// What the next WireGuard key is in until it is in use.
const WIREGUARD_NEXT: &str = "wireguard.new.key";
const PAIRS: &str = "pair.keys";
/// As many as a node has issuers, those included that ended of late.
const ISSUERS: [&str; limits::ISSUERS_PER_NODE] = [
    "issuer.key",
    "issuer.1.key",
    "issuer.2.key",
    "issuer.3.key",
    "issuer.4.key",
    "issuer.5.key",
    "issuer.6.key",
    "issuer.7.key",
];
/// For the next issuer, and the one after it.
const OFFERED: [&str; 2] = ["issuer.new.0.key", "issuer.new.1.key"];

/// Why a key can't be had. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The disk's own error.
    #[error("{0} can't be read or written: {1}")]
    Io(&'static str, io::Error),
    /// The file isn't what was written.
    #[error(
        "{1}/{0} is damaged. It is never made anew by itself, since others know this machine by it: \
         restore it from a backup, or `agent join` with a new invite and another state folder (keep \
         root-recovery.pem, if this one has it: it may be the only key of the mesh's root)"
    )]
    Damaged(&'static str, String),
    /// There is none.
    #[error(
        "{1}/{0} is missing: this state folder isn't whole; restore it from a backup, or join again"
    )]
    Absent(&'static str, String),
}

/// The node's identity, if it has one.
///
/// # Errors
/// [`KeyFileError`].
pub async fn identity(host: &Host) -> Result<Option<Arc<dyn NodeKey>>, KeyFileError> {
    let Some(pkcs8) = read(host, IDENTITY).await? else {
        return Ok(None);
    };
    host.keys
        .load_ed25519(&pkcs8)
        .map(Some)
        .map_err(|_| damaged(host, IDENTITY))
}

/// The node's identity; made now if it has none.
///
/// # Errors
/// [`KeyFileError`].
pub async fn identity_or_new(host: &Host) -> Result<Arc<dyn NodeKey>, KeyFileError> {
    if let Some(key) = identity(host).await? {
        return Ok(key);
    }
    let key = host.keys.generate_ed25519();
    write(host, IDENTITY, key.pkcs8().as_bytes()).await?;
    Ok(key)
}

/// The identity of a member.
///
/// # Errors
/// [`KeyFileError`], also when there is none.
pub async fn require_identity(host: &Host) -> Result<Arc<dyn NodeKey>, KeyFileError> {
    identity(host)
        .await?
        .ok_or_else(|| KeyFileError::Absent(IDENTITY, host.disk.root().display().to_string()))
}

/// The WireGuard private key. It is no identity: the ledger gives this node
/// another when it asks, so a damaged one is replaced.
///
/// # Errors
/// [`KeyFileError::Io`].
pub async fn wireguard(host: &Host) -> Result<[u8; 32], KeyFileError> {
    if let Some(bytes) = read(host, WIREGUARD).await.or_else(ignore_damage)?
        && let Ok(key) = <[u8; 32]>::try_from(bytes)
    {
        return Ok(key);
    }
    new_wireguard(host).await
}

/// Puts a new WireGuard key in the place of the one that there is: of a machine
/// that is no member yet.
///
/// # Errors
/// [`KeyFileError::Io`].
pub async fn new_wireguard(host: &Host) -> Result<[u8; 32], KeyFileError> {
    let key = random_wireguard(host);
    write(host, WIREGUARD, &key).await?;
    Ok(key)
}

fn random_wireguard(host: &Host) -> [u8; 32] {
    let mut random = [0; 32];
    host.keys.random(&mut random);
    tunnel::generate_private_key(random)
}

/// The WireGuard key that was asked for, or is about to be.
///
/// # Errors
/// [`KeyFileError::Io`].
pub async fn next_wireguard(host: &Host) -> Result<Option<[u8; 32]>, KeyFileError> {
    let bytes = read(host, WIREGUARD_NEXT).await.or_else(ignore_damage)?;
    Ok(bytes.and_then(|bytes| bytes.try_into().ok()))
}

/// As [`next_wireguard`], made now and durable if there is none.
///
/// # Errors
/// [`KeyFileError::Io`].
pub async fn next_wireguard_or_new(host: &Host) -> Result<[u8; 32], KeyFileError> {
    if let Some(key) = next_wireguard(host).await? {
        return Ok(key);
    }
    let key = random_wireguard(host);
    write(host, WIREGUARD_NEXT, &key).await?;
    Ok(key)
}

/// The next WireGuard key is the one in use now.
///
/// # Errors
/// [`KeyFileError::Io`]; the key is in at least one place.
pub async fn switch_wireguard(host: &Host, key: &[u8; 32]) -> Result<(), KeyFileError> {
    write(host, WIREGUARD, key).await?;
    drop_next_wireguard(host).await
}

/// Forgets the next WireGuard key.
///
/// # Errors
/// [`KeyFileError::Io`].
pub async fn drop_next_wireguard(host: &Host) -> Result<(), KeyFileError> {
    let gone = host.disk.remove(Path::new(WIREGUARD_NEXT)).await;
    gone.map_err(|e| KeyFileError::Io(WIREGUARD_NEXT, e))
}

/// The pre-shared keys that were agreed with other nodes. Where they are damaged others
/// are agreed.
///
/// # Errors
/// [`KeyFileError::Io`].
pub async fn pair_keys(host: &Host) -> Result<BTreeMap<NodeId, Agreed>, KeyFileError> {
    let read = match read(host, PAIRS).await {
        Err(KeyFileError::Damaged(..)) => None,
        other => other?,
    };
    let keys = read.and_then(|bytes| codec::decode_large(&bytes).ok());
    Ok(keys.unwrap_or_default())
}

/// Stores them, in place of those that were there.
///
/// # Errors
/// [`KeyFileError::Io`].
pub async fn store_pair_keys(
    host: &Host,
    keys: &BTreeMap<NodeId, Agreed>,
) -> Result<(), KeyFileError> {
    write(host, PAIRS, &codec::encode(keys)).await
}

/// The keys of this node's issuers: those in use, and those that were offered
/// to an admin and that no issuer is known for yet. A damaged one is left out:
/// an issuer's key is replaced by promoting the node again.
///
/// # Errors
/// [`KeyFileError::Io`].
pub async fn issuers(host: &Host) -> Result<Vec<Arc<dyn CaKey>>, KeyFileError> {
    let mut keys = Vec::new();
    for name in ISSUERS.into_iter().chain(OFFERED) {
        keys.extend(p256(host, name).await?);
    }
    Ok(keys)
}

/// Stores the first issuer's key.
///
/// # Errors
/// [`KeyFileError::Io`].
pub async fn store_issuer(host: &Host, key: &dyn CaKey) -> Result<(), KeyFileError> {
    write(host, ISSUERS[0], key.pkcs8().as_bytes()).await
}

/// Keys for issuers that are still to be signed; made where there are none.
/// Asked again they are the same, until [`keep_issuers`] finds them in use.
///
/// # Errors
/// [`KeyFileError::Io`].
pub async fn offer_issuers(host: &Host) -> Result<Vec<Arc<dyn CaKey>>, KeyFileError> {
    let mut keys = Vec::new();
    for name in OFFERED {
        let key = match p256(host, name).await? {
            Some(key) => key,
            None => {
                let key = host.keys.generate_p256();
                write(host, name, key.pkcs8().as_bytes()).await?;
                key
            }
        };
        keys.push(key);
    }
    Ok(keys)
}

/// Puts offered keys that are in use, of which `is_listed` tells, where nothing
/// new is offered in their place. What is no longer in use makes room.
///
/// # Errors
/// [`KeyFileError::Io`]; each key is in at least one place.
pub async fn keep_issuers(
    host: &Host,
    is_listed: impl Fn(&dyn CaKey) -> bool,
) -> Result<(), KeyFileError> {
    for offered in OFFERED {
        let Some(key) = p256(host, offered).await?.filter(|key| is_listed(&**key)) else {
            continue;
        };
        for name in ISSUERS {
            let held = p256(host, name).await?;
            if held.is_none_or(|held| !is_listed(&*held) || held.spki() == key.spki()) {
                write(host, name, key.pkcs8().as_bytes()).await?;
                let gone = host.disk.remove(Path::new(offered)).await;
                gone.map_err(|e| KeyFileError::Io(offered, e))?;
                break;
            }
        }
    }
    Ok(())
}

async fn p256(host: &Host, name: &'static str) -> Result<Option<Arc<dyn CaKey>>, KeyFileError> {
    let key = match read(host, name).await {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) => host.keys.load_p256(&bytes).ok(),
        Err(KeyFileError::Damaged(..)) => None,
        Err(error) => return Err(error),
    };
    if key.is_none() {
        tracing::warn!(
            file = name,
            "an issuer's key is damaged; have an admin `agent ca promote` this node again"
        );
    }
    Ok(key)
}

/// A file's content after its checksum: a flipped bit in a key would still
/// parse, as another key.
async fn read(host: &Host, name: &'static str) -> Result<Option<Vec<u8>>, KeyFileError> {
    let bytes = host
        .disk
        .read(Path::new(name))
        .await
        .map_err(|e| KeyFileError::Io(name, e))?;
    let Some(bytes) = bytes else { return Ok(None) };
    match bytes.split_first_chunk::<32>() {
        Some((sum, rest)) if Hash::of(rest).0 == *sum => Ok(Some(rest.to_vec())),
        _ => Err(damaged(host, name)),
    }
}

async fn write(host: &Host, name: &'static str, bytes: &[u8]) -> Result<(), KeyFileError> {
    let file = [&Hash::of(bytes).0[..], bytes].concat();
    host.disk
        .replace(Path::new(name), &file)
        .await
        .map_err(|e| KeyFileError::Io(name, e))
}

fn damaged(host: &Host, name: &'static str) -> KeyFileError {
    KeyFileError::Damaged(name, host.disk.root().display().to_string())
}

fn ignore_damage(error: KeyFileError) -> Result<Option<Vec<u8>>, KeyFileError> {
    match error {
        KeyFileError::Damaged(..) => {
            tracing::warn!("the WireGuard key is damaged and is made anew");
            Ok(None)
        }
        error => Err(error),
    }
}
