//! What somebody asks of the ledger, and the grant inside a token.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::batch::Position;
use crate::{
    codec,
    crypto::{PublicKey, Purpose, Sealed, Sign, Signature, Verify},
    id::{MeshId, NodeId},
    limits,
    name::{Label, NamePattern},
};

/// Names a request, so that a retry does nothing twice: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub [u8; 16]);

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "request:{}",
            data_encoding::HEXLOWER.encode(&self.0[..6])
        )
    }
}

/// Who signs a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Author {
    /// A member, with its node key.
    Node(NodeId),
    /// The holder of a token, with the token's key.
    Token(PublicKey),
}

/// One request. Sealed by its author under [`Purpose::Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The mesh it is meant for.
    pub mesh: MeshId,
    /// Its name; the same id is applied once.
    pub id: RequestId,
    /// Who asks.
    pub author: Author,
    /// When it is void, in milliseconds of ledger time; at most
    /// [`limits::REQUEST_LIFETIME_MS`] ahead.
    pub expires_ms: u64,
    /// Which kind of content: one of [`Content`]'s numbers. A number that this
    /// build doesn't know is recorded and changes nothing (S22).
    pub kind: u16,
    /// The encoded content.
    pub content: Vec<u8>,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Make a machine a member.
    Join(Box<Join>),
    /// A new membership certificate for the author.
    Renew,
    /// Give the author a name.
    Claim(Label),
    /// Let another node run instances of the author's name.
    Share(Share),
    /// Give a name of the author's back.
    Release(Label),
    /// A certificate for names that the author holds.
    Certify(Certify),
}

/// A machine asks to be a member; signed by the token's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The machine's key.
    pub node: PublicKey,
    /// The name it wants.
    pub name: Label,
    /// Exporter of the TLS session in which it asked (RFC 8446 §7.5): the
    /// contacted node checks it, so that a request can't be carried over from
    /// another session.
    pub exporter: [u8; 32],
    /// What the inviter signed: a [`Grant`].
    pub grant: Sealed,
    /// The machine's key over [`Join::possession_message`].
    pub possession: Signature,
}

impl Join {
    /// What the joining machine signs to show that the key is its own.
    pub fn possession_message(mesh: &MeshId, token: &PublicKey, exporter: &[u8; 32]) -> Vec<u8> {
        Purpose::Possession.message(mesh, &codec::encode(&(token, exporter)))
    }
}

/// Lets `with` run instances of `name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// A name of the author's.
    pub name: Label,
    /// The node that may use it too.
    pub with: NodeId,
}

/// Asks for a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certify {
    /// SubjectPublicKeyInfo of the key, DER; its owner has shown possession to
    /// the node that made this request.
    pub spki: Vec<u8>,
    /// Names below the mesh domain, lower case, without a trailing dot.
    pub names: BTreeSet<String>,
    /// Life, in days.
    pub days: u32,
}

mod kind {
    pub const JOIN: u16 = 1;
    pub const RENEW: u16 = 2;
    pub const CLAIM: u16 = 3;
    pub const SHARE: u16 = 4;
    pub const RELEASE: u16 = 5;
    pub const CERTIFY: u16 = 6;
}

impl Content {
    fn encode(&self) -> (u16, Vec<u8>) {
        match self {
            Self::Join(join) => (kind::JOIN, codec::encode(join)),
            Self::Renew => (kind::RENEW, Vec::new()),
            Self::Claim(name) => (kind::CLAIM, codec::encode(name)),
            Self::Share(share) => (kind::SHARE, codec::encode(share)),
            Self::Release(name) => (kind::RELEASE, codec::encode(name)),
            Self::Certify(certify) => (kind::CERTIFY, codec::encode(certify)),
        }
    }

    /// The content of a request; `None` when it is of a kind that this build
    /// doesn't know, or malformed.
    pub fn decode(kind: u16, bytes: &[u8]) -> Option<Self> {
        fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
            codec::decode(bytes, limits::REQUEST_BYTES).ok()
        }
        Some(match kind {
            kind::JOIN => Self::Join(Box::new(read(bytes)?)),
            kind::RENEW => Self::Renew,
            kind::CLAIM => Self::Claim(read(bytes)?),
            kind::SHARE => Self::Share(read(bytes)?),
            kind::RELEASE => Self::Release(read(bytes)?),
            kind::CERTIFY => Self::Certify(read(bytes)?),
            _ => return None,
        })
    }
}

impl Request {
    /// Makes and seals a request.
    pub fn seal(
        key: &dyn Sign,
        mesh: MeshId,
        id: RequestId,
        author: Author,
        expires_ms: u64,
        content: &Content,
    ) -> Sealed {
        let (kind, content) = content.encode();
        let request = Self {
            mesh,
            id,
            author,
            expires_ms,
            kind,
            content,
        };
        Sealed::new(key, Purpose::Request, &mesh, &request)
    }
}

/// What a member may do beyond having a name and an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Invites, approves, evicts.
    Admin,
    /// May be in the roster that decides the ledger.
    Ca,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "admin",
            Self::Ca => "ca",
        })
    }
}

/// Not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a role that an invite can give: admin")]
pub struct RoleError(String);

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(s: &str) -> Result<Self, RoleError> {
        match s {
            "admin" => Ok(Self::Admin),
            _ => Err(RoleError(s.chars().take(40).collect())),
        }
    }
}

/// What the holder of a token is granted. Sealed by the inviter under
/// [`Purpose::Grant`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The mesh.
    pub mesh: MeshId,
    /// The token's public key.
    pub token: PublicKey,
    /// Who invites: an admin when the token is spent.
    pub inviter: NodeId,
    /// Roles of those who join by it; at most what the inviter has.
    pub roles: BTreeSet<Role>,
    /// Names that they may be granted; at most what the inviter may.
    pub names: BTreeSet<NamePattern>,
    /// How many may join by it.
    pub uses: u32,
    /// When it is void, in milliseconds of ledger time.
    pub expires_ms: u64,
    /// The inviter's ledger position: a seed that can't prove it is refused.
    pub position: Position,
}

impl Grant {
    /// Reads a sealed grant and checks that its inviter, with `key`, signed it.
    pub fn open(
        sealed: &Sealed,
        key: &PublicKey,
        mesh: &MeshId,
        verify: &dyn Verify,
    ) -> Option<Self> {
        let grant: Self = sealed
            .open(verify, key, Purpose::Grant, mesh, limits::REQUEST_BYTES)
            .ok()?;
        (grant.mesh == *mesh && grant.inviter == key.node_id()).then_some(grant)
    }
}
