//! What the kinds of requests contain that are about members, the roster and
//! certificates.

#![allow(missing_docs, reason = "the names say it")]

use std::{collections::BTreeSet, fmt};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::role::Role;
use crate::{
    codec,
    crypto::{PublicKey, Purpose, Sealed, Signature},
    id::{MeshId, NodeId},
    name::{Label, NamePattern},
    tunnel::TunnelKey,
};

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
    /// What the inviter signed: a [`super::Grant`].
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

/// As [`Join`], with the WireGuard key that the machine is to have: known from
/// rules 1 on. The possession covers the key, so that nobody between the
/// machine and the ledger can put another in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedJoin {
    /// The join; its possession is over [`KeyedJoin::possession_message`].
    pub join: Join,
    /// The WireGuard key.
    pub tunnel: TunnelKey,
}

impl KeyedJoin {
    /// What the joining machine signs to show that the key is its own, and
    /// which WireGuard key it is to have.
    pub fn possession_message(
        mesh: &MeshId,
        token: &PublicKey,
        exporter: &[u8; 32],
        tunnel: &TunnelKey,
    ) -> Vec<u8> {
        Purpose::Possession.message(mesh, &codec::encode(&(token, exporter, tunnel)))
    }
}

/// An admin lets a machine in whose code was typed in; no token is spent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admit {
    /// The machine's key.
    pub node: PublicKey,
    /// The name it gets.
    pub name: Label,
    /// Its roles; at most what the admin may give.
    pub roles: BTreeSet<Role>,
    /// Names that it may be granted; at most what the admin may.
    pub names: BTreeSet<NamePattern>,
    /// Networks that it may bring; at most what the admin may.
    pub routes: BTreeSet<IpNet>,
    /// Hash of what the two machines' agents told each other, of which the
    /// typed code is a part.
    pub transcript: [u8; 32],
    /// The machine's key over [`Admit::possession_message`].
    pub possession: Signature,
}

impl Admit {
    /// What the joining machine signs to show that the key is its own, and
    /// that it is this admin who may let it in.
    pub fn possession_message(mesh: &MeshId, admin: &PublicKey, transcript: &[u8; 32]) -> Vec<u8> {
        Purpose::Admission.message(mesh, &codec::encode(&(admin, transcript)))
    }
}

/// As [`Admit`], with the WireGuard key that the machine is to have: known from
/// rules 1 on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedAdmit {
    /// Its possession is over [`KeyedAdmit::possession_message`].
    pub admit: Admit,
    /// The WireGuard key.
    pub tunnel: TunnelKey,
}

impl KeyedAdmit {
    /// What the joining machine signs to show that the key is its own, that it
    /// is this admin who may let it in, and which WireGuard key it is to have.
    pub fn possession_message(
        mesh: &MeshId,
        admin: &PublicKey,
        transcript: &[u8; 32],
        tunnel: &TunnelKey,
    ) -> Vec<u8> {
        Purpose::Admission.message(mesh, &codec::encode(&(admin, transcript, tunnel)))
    }
}

/// Lets `with` run instances of `name`, or no longer.
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

/// Makes a member a CA node, or gives one that is more issuers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promote {
    /// The member.
    pub node: NodeId,
    /// Its issuer certificates, signed by the root, DER: the one for now and
    /// its successors.
    pub issuers: Vec<Vec<u8>>,
}

/// Ends an epoch; alone in its batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterChange {
    /// Who decides from the next batch on.
    pub voters: BTreeSet<NodeId>,
}

/// Names an admin's hold on a member: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HoldId(pub [u8; 16]);

impl fmt::Debug for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hold:{}", data_encoding::HEXLOWER.encode(&self.0[..6]))
    }
}

/// Takes a member out for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evict {
    /// The member.
    pub node: NodeId,
    /// The author's hold on it that this decides.
    pub hold: Option<HoldId>,
    /// In place of a second admin: the root's signature (P-256, ASN.1 DER)
    /// over [`Evict::root_message`].
    pub root: Option<Vec<u8>>,
}

impl Evict {
    /// What the root signs. An evicted key never comes back, so the signature
    /// is of no use a second time.
    pub fn root_message(mesh: &MeshId, node: &NodeId) -> Vec<u8> {
        Purpose::Eviction.message(mesh, &codec::encode(node))
    }
}

/// A role that a member is to have, or no longer; from rules 2 on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleChange {
    pub node: NodeId,
    pub role: Role,
    /// In place of admins.
    pub root: Option<RootWord>,
}

/// What the root signs to change a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootWord {
    /// Until when it counts, in milliseconds of ledger time; at most twice
    /// [`crate::limits::REQUEST_LIFETIME_MS`] ahead.
    pub until_ms: u64,
    /// The root's signature (P-256, ASN.1 DER) over [`RoleChange::root_message`].
    pub signature: Vec<u8>,
}

impl RoleChange {
    /// What the root signs. A role can be given and taken again and again, so the
    /// word is for one author, some minutes, and the `number` that the ledger
    /// counts ([`super::State::next_root_word`]): nobody can use it a second time.
    pub fn root_message(
        &self,
        mesh: &MeshId,
        author: &NodeId,
        is_given: bool,
        number: u64,
        until_ms: u64,
    ) -> Vec<u8> {
        let content = (author, self.node, self.role, is_given, number, until_ms);
        Purpose::Role.message(mesh, &codec::encode(&content))
    }
}

/// The author takes back that it asked for something which waits for a second
/// admin; from rules 2 on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdraw {
    /// Against whom that was.
    pub node: NodeId,
    /// The role that was to be taken; none for an eviction.
    pub role: Option<Role>,
}

/// Nobody joins by a token any more; from rules 2 on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeInvite {
    /// The token's public key.
    pub token: PublicKey,
    /// Until when it could be spent, in milliseconds of ledger time.
    pub expires_ms: u64,
}

impl RevokeInvite {
    /// What people call the invite: the beginning of its token's public key.
    pub fn id(&self) -> String {
        invite_id(&self.token)
    }
}

/// The beginning of a token's public key, in hexadecimal.
pub fn invite_id(token: &PublicKey) -> String {
    data_encoding::HEXLOWER.encode(&token.0[..6])
}

/// Lets a hold go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unhold {
    /// The admin whose hold it is.
    pub author: NodeId,
    pub hold: HoldId,
}
