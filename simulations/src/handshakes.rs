//! TLS handshakes that are the seed's like all else in a world. What both ends export of
//! one stands in a request to join, so that its bytes decide the hash of a batch of the
//! ledger, and by that who is whose neighbour.

use innermesh_proto::crypto::Hash;
use rustls::{
    Error, NamedGroup,
    crypto::{
        ActiveKeyExchange, CompletedKeyExchange, GetRandomFailed, SecureRandom, SharedSecret,
        SupportedKxGroup,
    },
};

use crate::entropy;

/// Randomness of TLS: in a world the seed's.
#[derive(Debug)]
pub struct Drawn;

impl SecureRandom for Drawn {
    fn fill(&self, out: &mut [u8]) -> Result<(), GetRandomFailed> {
        entropy::draw(out).map_err(|_| GetRandomFailed)
    }
}

/// A key exchange with the sizes of X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem, section
/// 4). It keeps nothing from this process; each side's share is drawn, and the secret is
/// the hash of both.
#[derive(Debug)]
pub struct Exchange;

/// Bytes of the shares of a client and of a server, and of what both know then.
const CLIENT_SHARE: usize = 1216;
const SERVER_SHARE: usize = 1120;
const SECRET: usize = 64;

impl SupportedKxGroup for Exchange {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let share = drawn(CLIENT_SHARE)?;
        Ok(Box::new(Started { share }))
    }

    fn start_and_complete(&self, client: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let share = drawn(SERVER_SHARE)?;
        Ok(CompletedKeyExchange {
            group: self.name(),
            secret: secret(client, &share)?,
            pub_key: share,
        })
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

struct Started {
    share: Vec<u8>,
}

impl ActiveKeyExchange for Started {
    fn complete(self: Box<Self>, server: &[u8]) -> Result<SharedSecret, Error> {
        secret(&self.share, server)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

fn drawn(length: usize) -> Result<Vec<u8>, Error> {
    let mut share = vec![0; length];
    Drawn.fill(&mut share)?;
    Ok(share)
}

fn secret(client: &[u8], server: &[u8]) -> Result<SharedSecret, Error> {
    if client.len() != CLIENT_SHARE || server.len() != SERVER_SHARE {
        return Err(rustls::PeerMisbehaved::InvalidKeyShare.into());
    }
    let half = |name: &[u8]| Hash::of(&[name, client, server].concat()).0;
    let secret: Vec<u8> = [half(b"first"), half(b"second")].concat();
    debug_assert_eq!(secret.len(), SECRET);
    Ok(SharedSecret::from(&secret[..]))
}
