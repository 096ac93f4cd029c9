//! Join tokens: a one-time signing key, what its holder is granted, the mesh's
//! fingerprint and where to ask. As text: `imt1` and URL-safe base64.

#![allow(missing_docs, reason = "the names say it")]

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use data_encoding::BASE64URL_NOPAD;
use innermesh_proto::{
    codec,
    crypto::{Sealed, Sign},
    id::MeshId,
    ledger::{Grant, Position, Role},
    name::NamePattern,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::host::{
    Host,
    keys::{Keys, NodeKey},
};

const PREFIX: &str = "imt1";
/// Longest text of a token, in bytes.
pub const TEXT: usize = 8192;
/// DER of an Ed25519 private key in PKCS #8 up to its seed (RFC 8410 §7).
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The mesh: the fingerprint of its root.
    pub mesh: MeshId,
    /// Seed of the token's signing key (RFC 8032 §5.1.5).
    seed: [u8; 32],
    /// What the inviter signed: a [`Grant`].
    pub grant: Sealed,
    /// Addresses of members, as `host:port`.
    pub seeds: Vec<String>,
}

/// What an invite gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteOptions {
    /// Roles of those who join by it.
    pub roles: BTreeSet<Role>,
    /// Names that they may be granted.
    pub names: BTreeSet<NamePattern>,
    /// Networks that they may bring.
    pub routes: BTreeSet<IpNet>,
    /// Addresses outside the mesh that their names may lead to.
    pub addresses: BTreeSet<IpNet>,
    /// How many may join by it.
    pub uses: u32,
    /// When it is void, in milliseconds of ledger time.
    pub expires_ms: u64,
}

/// Why a text is no token. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token at all, or one that was cut or changed on its way.
    #[error(
        "this is not a token, or not a whole one; copy the whole line that `agent invite` printed, from imt1 on"
    )]
    Malformed,
}

impl Token {
    /// Makes a token, its grant signed by the inviter's `key`.
    pub fn new(
        host: &Host,
        key: &dyn Sign,
        mesh: MeshId,
        position: Position,
        options: InviteOptions,
        seeds: Vec<String>,
    ) -> Self {
        let mut seed = [0; 32];
        host.keys.random(&mut seed);
        let signer = load(&seed, &*host.keys);
        let grant = Grant {
            mesh,
            token: signer.public(),
            inviter: key.public().node_id(),
            roles: options.roles,
            names: options.names,
            routes: options.routes,
            uses: options.uses,
            expires_ms: options.expires_ms,
            position,
            addresses: options.addresses,
        };
        Self {
            mesh,
            seed,
            grant: grant.seal(key),
            seeds,
        }
    }

    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&codec::encode(self)))
    }

    /// Where it says that members answer.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let seeds = self.seeds.iter();
        seeds.filter_map(|seed| seed.parse().ok()).collect()
    }

    /// From its text.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let encoded = text.strip_prefix(PREFIX).filter(|_| text.len() <= TEXT);
        let bytes = BASE64URL_NOPAD
            .decode(encoded.ok_or(TokenError::Malformed)?.as_bytes())
            .map_err(|_| TokenError::Malformed)?;
        let token: Self = codec::decode(&bytes, TEXT).map_err(|_| TokenError::Malformed)?;
        token.stated_grant()?;
        Ok(token)
    }

    /// The token's signing key.
    pub fn signer(&self, keys: &dyn Keys) -> Arc<dyn NodeKey> {
        load(&self.seed, keys)
    }

    /// What the grant says; whether its inviter signed it, the ledger tells.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn stated_grant(&self) -> Result<Grant, TokenError> {
        Grant::peek(&self.grant).map_err(|_| TokenError::Malformed)
    }
}

fn load(seed: &[u8; 32], keys: &dyn Keys) -> Arc<dyn NodeKey> {
    keys.load_ed25519(&[&PKCS8[..], seed].concat())
        .expect("every 32 bytes are a seed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::system;
    use innermesh_proto::crypto::Hash;

    fn token() -> Token {
        let host = system::host("/nonexistent".into());
        let key = host.keys.generate_ed25519();
        let options = InviteOptions {
            roles: BTreeSet::new(),
            names: BTreeSet::from([NamePattern::any()]),
            routes: BTreeSet::new(),
            addresses: BTreeSet::new(),
            uses: 1,
            expires_ms: 5,
        };
        let position = Position {
            index: 0,
            hash: Hash::default(),
        };
        Token::new(
            &host,
            &*key,
            MeshId([3; 32]),
            position,
            options,
            vec!["192.0.2.1:51819".into()],
        )
    }

    #[tokio::test]
    async fn a_token_survives_its_text_and_its_key_is_the_one_that_the_grant_names() {
        let token = token();
        let read = Token::parse(&format!(" {}\n", token.to_text())).unwrap();
        assert_eq!(read, token);
        let keys = crate::host::keys::SystemKeys;
        assert_eq!(
            read.signer(&keys).public(),
            read.stated_grant().unwrap().token
        );
    }

    #[tokio::test]
    async fn a_token_that_was_cut_is_refused() {
        let text = token().to_text();
        for length in 0..text.len() {
            assert_eq!(
                Token::parse(&text[..length]),
                Err(TokenError::Malformed),
                "{length}"
            );
        }
        assert_eq!(
            Token::parse(&format!("{text}A")),
            Err(TokenError::Malformed)
        );
    }
}
