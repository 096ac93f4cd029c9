//! What somebody asks of the ledger, and the grant inside a token.

#![allow(missing_docs, reason = "the names say it")]

use std::{collections::BTreeSet, fmt};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::position::Position;
pub use super::{
    content::{
        Admit, Certify, Evict, HoldId, Join, KeyedAdmit, KeyedJoin, Promote, RevokeInvite,
        RoleChange, RootWord, RosterChange, Share, Unhold, Withdraw,
    },
    device::{AddDevice, ChangeDevice, DeviceId},
    policy::PolicyText,
    publish::{PublicPort, Publish, PublishKey},
    record::{AddRecord, RemoveRecord, RemoveRecords},
    role::{Role, RoleError},
    route::RouteChange,
};
use crate::{
    certificate::Serial,
    codec::{self, CodecError},
    crypto::{PublicKey, Purpose, Sealed, Sign, Verify},
    id::{MeshId, NodeId},
    limits,
    name::{Label, NamePattern},
    tunnel::TunnelKey,
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

/// The first rules that know a policy.
pub(super) const POLICY_SINCE: u32 = 4;

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
    /// No longer let another node run instances of the author's name.
    Unshare(Share),
    /// Make a machine a member, by an admin.
    Admit(Box<Admit>),
    /// Make a member a CA node.
    Promote(Promote),
    /// Make a CA node an ordinary member.
    Demote(NodeId),
    Roster(RosterChange),
    /// The author is no member any more.
    Leave,
    /// Take a member out.
    Evict(Evict),
    /// Let a hold go.
    Unhold(Unhold),
    /// A certificate isn't to be trusted any more.
    Revoke(Serial),
    /// A DNS record more.
    AddRecord(AddRecord),
    /// DNS records less.
    RemoveRecords(RemoveRecords),
    /// Raise the rules to these.
    Rules(u32),
    /// Make a machine a member that has this WireGuard key; from rules 1 on.
    KeyedJoin(Box<KeyedJoin>),
    /// The author's WireGuard key is this from now on; from rules 1 on.
    TunnelKey(TunnelKey),
    /// As `Admit`, with the WireGuard key; from rules 1 on.
    KeyedAdmit(Box<KeyedAdmit>),
    /// Give a member a role; from rules 2 on.
    GiveRole(RoleChange),
    /// Take a role from a member; from rules 2 on.
    TakeRole(RoleChange),
    /// Take back what waits for a second admin; from rules 2 on.
    Withdraw(Withdraw),
    /// A token isn't to be spent any more; from rules 2 on.
    RevokeInvite(RevokeInvite),
    /// One DNS record less; from rules 3 on.
    RemoveRecord(RemoveRecord),
    /// A device more; from rules 4 on.
    AddDevice(Box<AddDevice>),
    /// Something about a device is another; from rules 4 on.
    ChangeDevice(Box<ChangeDevice>),
    /// A device less; from rules 4 on.
    RemoveDevice(DeviceId),
    /// A gateway brings a network; from rules 4 on.
    AddRoute(RouteChange),
    /// A gateway brings a network no longer; from rules 4 on.
    RemoveRoute(RouteChange),
    /// Who may reach what; from rules 4 on.
    Policy(PolicyText),
    /// A port of a public node leads to a service; from rules 5 on.
    Publish(Box<Publish>),
    /// It leads there no longer; from rules 5 on.
    Unpublish(PublicPort),
    /// The key of the author's end of a link; from rules 5 on.
    PublishKey(PublishKey),
}

mod kind {
    pub const JOIN: u16 = 1;
    pub const RENEW: u16 = 2;
    pub const CLAIM: u16 = 3;
    pub const SHARE: u16 = 4;
    pub const RELEASE: u16 = 5;
    pub const CERTIFY: u16 = 6;
    pub const UNSHARE: u16 = 7;
    pub const ADMIT: u16 = 8;
    pub const PROMOTE: u16 = 9;
    pub const DEMOTE: u16 = 10;
    pub const ROSTER: u16 = 11;
    pub const LEAVE: u16 = 12;
    pub const EVICT: u16 = 13;
    pub const UNHOLD: u16 = 14;
    pub const REVOKE: u16 = 15;
    pub const ADD_RECORD: u16 = 16;
    pub const REMOVE_RECORDS: u16 = 17;
    pub const RULES: u16 = 18;
    pub const KEYED_JOIN: u16 = 24;
    pub const TUNNEL_KEY: u16 = 25;
    pub const KEYED_ADMIT: u16 = 26;
    pub const GIVE_ROLE: u16 = 27;
    pub const TAKE_ROLE: u16 = 28;
    pub const WITHDRAW: u16 = 29;
    pub const REVOKE_INVITE: u16 = 30;
    pub const REMOVE_RECORD: u16 = 31;
    pub const ADD_DEVICE: u16 = 32;
    pub const CHANGE_DEVICE: u16 = 33;
    pub const REMOVE_DEVICE: u16 = 34;
    pub const ADD_ROUTE: u16 = 35;
    pub const REMOVE_ROUTE: u16 = 36;
    pub const POLICY: u16 = 37;
    pub const PUBLISH: u16 = 38;
    pub const UNPUBLISH: u16 = 39;
    pub const PUBLISH_KEY: u16 = 40;
}

impl Content {
    /// Its kind's number, and its encoding.
    pub fn encode(&self) -> (u16, Vec<u8>) {
        match self {
            Self::Join(join) => (kind::JOIN, codec::encode(join)),
            Self::Renew => (kind::RENEW, Vec::new()),
            Self::Claim(name) => (kind::CLAIM, codec::encode(name)),
            Self::Share(share) => (kind::SHARE, codec::encode(share)),
            Self::Release(name) => (kind::RELEASE, codec::encode(name)),
            Self::Certify(certify) => (kind::CERTIFY, codec::encode(certify)),
            Self::Unshare(share) => (kind::UNSHARE, codec::encode(share)),
            Self::Admit(admit) => (kind::ADMIT, codec::encode(admit)),
            Self::Promote(promote) => (kind::PROMOTE, codec::encode(promote)),
            Self::Demote(node) => (kind::DEMOTE, codec::encode(node)),
            Self::Roster(change) => (kind::ROSTER, codec::encode(change)),
            Self::Leave => (kind::LEAVE, Vec::new()),
            Self::Evict(evict) => (kind::EVICT, codec::encode(evict)),
            Self::Unhold(unhold) => (kind::UNHOLD, codec::encode(unhold)),
            Self::Revoke(serial) => (kind::REVOKE, codec::encode(serial)),
            Self::AddRecord(record) => (kind::ADD_RECORD, codec::encode(record)),
            Self::RemoveRecords(records) => (kind::REMOVE_RECORDS, codec::encode(records)),
            Self::Rules(rules) => (kind::RULES, codec::encode(rules)),
            Self::KeyedJoin(join) => (kind::KEYED_JOIN, codec::encode(join)),
            Self::TunnelKey(key) => (kind::TUNNEL_KEY, codec::encode(key)),
            Self::KeyedAdmit(admit) => (kind::KEYED_ADMIT, codec::encode(admit)),
            Self::GiveRole(change) => (kind::GIVE_ROLE, codec::encode(change)),
            Self::TakeRole(change) => (kind::TAKE_ROLE, codec::encode(change)),
            Self::Withdraw(withdraw) => (kind::WITHDRAW, codec::encode(withdraw)),
            Self::RevokeInvite(revoke) => (kind::REVOKE_INVITE, codec::encode(revoke)),
            Self::RemoveRecord(remove) => (kind::REMOVE_RECORD, codec::encode(remove)),
            Self::AddDevice(add) => (kind::ADD_DEVICE, codec::encode(add)),
            Self::ChangeDevice(change) => (kind::CHANGE_DEVICE, codec::encode(change)),
            Self::RemoveDevice(id) => (kind::REMOVE_DEVICE, codec::encode(id)),
            Self::AddRoute(add) => (kind::ADD_ROUTE, codec::encode(add)),
            Self::RemoveRoute(remove) => (kind::REMOVE_ROUTE, codec::encode(remove)),
            Self::Policy(text) => (kind::POLICY, codec::encode(text)),
            Self::Publish(publish) => (kind::PUBLISH, codec::encode(publish)),
            Self::Unpublish(at) => (kind::UNPUBLISH, codec::encode(at)),
            Self::PublishKey(set) => (kind::PUBLISH_KEY, codec::encode(set)),
        }
    }

    /// What a machine with a token asks, with or without its WireGuard key.
    pub fn join(&self) -> Option<&Join> {
        match self {
            Self::Join(join) => Some(join),
            Self::KeyedJoin(keyed) => Some(&keyed.join),
            _ => None,
        }
    }

    /// The first rules that know it: under earlier ones it counts as of an
    /// unknown kind, as it is for builds of their time.
    pub fn since_rules(&self) -> u32 {
        match self {
            Self::KeyedJoin(_) | Self::TunnelKey(_) => 1,
            Self::Admit(admit) => of_roles(&admit.roles),
            Self::KeyedAdmit(keyed) => of_roles(&keyed.admit.roles).max(1),
            Self::GiveRole(change) | Self::TakeRole(change) => change.role.since_rules().max(2),
            Self::Withdraw(withdraw) => of_roles(&withdraw.role).max(2),
            Self::RevokeInvite(_) => 2,
            Self::RemoveRecord(remove) => remove.data.since_rules().max(3),
            Self::AddDevice(_)
            | Self::ChangeDevice(_)
            | Self::RemoveDevice(_)
            | Self::AddRoute(_)
            | Self::RemoveRoute(_)
            | Self::Policy(_) => 4,
            Self::Publish(_) | Self::Unpublish(_) | Self::PublishKey(_) => 5,
            Self::AddRecord(add) if add.ttl_s.is_some() => add.data.since_rules().max(3),
            Self::AddRecord(add) => add.data.since_rules(),
            _ => 0,
        }
    }

    /// The content of a request; `None` when it is of a kind that this build
    /// doesn't know, or malformed.
    pub fn decode(kind: u16, bytes: &[u8]) -> Option<Self> {
        fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
            codec::decode(bytes, limits::POLICY_REQUEST_BYTES).ok()
        }
        if bytes.len() > limits::REQUEST_BYTES && kind != kind::POLICY {
            return None;
        }
        Some(match kind {
            kind::JOIN => Self::Join(Box::new(read(bytes)?)),
            kind::RENEW => Self::Renew,
            kind::CLAIM => Self::Claim(read(bytes)?),
            kind::SHARE => Self::Share(read(bytes)?),
            kind::RELEASE => Self::Release(read(bytes)?),
            kind::CERTIFY => Self::Certify(read(bytes)?),
            kind::UNSHARE => Self::Unshare(read(bytes)?),
            kind::ADMIT => Self::Admit(Box::new(read(bytes)?)),
            kind::PROMOTE => Self::Promote(read(bytes)?),
            kind::DEMOTE => Self::Demote(read(bytes)?),
            kind::ROSTER => Self::Roster(read(bytes)?),
            kind::LEAVE => Self::Leave,
            kind::EVICT => Self::Evict(read(bytes)?),
            kind::UNHOLD => Self::Unhold(read(bytes)?),
            kind::REVOKE => Self::Revoke(read(bytes)?),
            kind::ADD_RECORD => Self::AddRecord(read(bytes)?),
            kind::REMOVE_RECORDS => Self::RemoveRecords(read(bytes)?),
            kind::RULES => Self::Rules(read(bytes)?),
            kind::KEYED_JOIN => Self::KeyedJoin(Box::new(read(bytes)?)),
            kind::TUNNEL_KEY => Self::TunnelKey(read(bytes)?),
            kind::KEYED_ADMIT => Self::KeyedAdmit(Box::new(read(bytes)?)),
            kind::GIVE_ROLE => Self::GiveRole(read(bytes)?),
            kind::TAKE_ROLE => Self::TakeRole(read(bytes)?),
            kind::WITHDRAW => Self::Withdraw(read(bytes)?),
            kind::REVOKE_INVITE => Self::RevokeInvite(read(bytes)?),
            kind::REMOVE_RECORD => Self::RemoveRecord(read(bytes)?),
            kind::ADD_DEVICE => Self::AddDevice(Box::new(read(bytes)?)),
            kind::CHANGE_DEVICE => Self::ChangeDevice(Box::new(read(bytes)?)),
            kind::REMOVE_DEVICE => Self::RemoveDevice(read(bytes)?),
            kind::ADD_ROUTE => Self::AddRoute(read(bytes)?),
            kind::REMOVE_ROUTE => Self::RemoveRoute(read(bytes)?),
            kind::POLICY => Self::Policy(read(bytes)?),
            kind::PUBLISH => Self::Publish(Box::new(read(bytes)?)),
            kind::UNPUBLISH => Self::Unpublish(read(bytes)?),
            kind::PUBLISH_KEY => Self::PublishKey(read(bytes)?),
            _ => return None,
        })
    }
}

/// The first rules that know all of these roles.
fn of_roles<'r>(roles: impl IntoIterator<Item = &'r Role>) -> u32 {
    let since = roles.into_iter().map(|role| role.since_rules());
    since.max().unwrap_or_default()
}

impl Request {
    /// Reads a sealed request **without** checking who signed it. One that sets the
    /// policy may be as large as that, any other has [`limits::REQUEST_BYTES`].
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are none.
    pub fn peek(sealed: &Sealed) -> Result<Self, CodecError> {
        let request: Self = sealed.peek(limits::POLICY_REQUEST_BYTES)?;
        let (got, limit) = (sealed.bytes.len(), limits::REQUEST_BYTES);
        if got > limit && !request.sets_policy() {
            return Err(CodecError::TooLong { got, limit });
        }
        Ok(request)
    }

    /// As [`Request::peek`], by rules of which the first ones know no policy: to
    /// builds of their time what is larger than others is no request.
    pub(super) fn peek_under(sealed: &Sealed, rules: u32) -> Result<Self, CodecError> {
        if rules < POLICY_SINCE {
            return sealed.peek(limits::REQUEST_BYTES);
        }
        Self::peek(sealed)
    }

    /// Whether it sets the policy.
    pub fn sets_policy(&self) -> bool {
        self.kind == kind::POLICY
    }

    /// Whether it only takes something away or lets it go: there must be room
    /// for that where there is hardly any.
    pub fn takes_away(&self) -> bool {
        matches!(
            self.kind,
            kind::UNSHARE
                | kind::RELEASE
                | kind::DEMOTE
                | kind::LEAVE
                | kind::EVICT
                | kind::UNHOLD
                | kind::REVOKE
                | kind::REMOVE_RECORDS
                | kind::TAKE_ROLE
                | kind::WITHDRAW
                | kind::REVOKE_INVITE
                | kind::REMOVE_RECORD
                | kind::REMOVE_DEVICE
                | kind::REMOVE_ROUTE
                | kind::UNPUBLISH
        )
    }

    /// Whether it is about who decides, and what they sign with.
    pub fn is_for_roster(&self) -> bool {
        matches!(self.kind, kind::PROMOTE | kind::DEMOTE | kind::ROSTER)
    }

    /// Whether it renews its author's membership.
    pub fn is_renewal(&self) -> bool {
        self.kind == kind::RENEW
    }

    /// Whether it lets a machine in.
    pub fn makes_member(&self) -> bool {
        matches!(
            self.kind,
            kind::JOIN | kind::KEYED_JOIN | kind::ADMIT | kind::KEYED_ADMIT
        )
    }

    /// Whether it raises the rules: only whoever leads knows when that may be.
    pub fn raises_rules(&self) -> bool {
        self.kind == kind::RULES
    }

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

/// What the holder of a token is granted. Sealed by the inviter under
/// [`Purpose::Grant`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub mesh: MeshId,
    /// The token's public key.
    pub token: PublicKey,
    /// Who invites: an admin when the token is spent.
    pub inviter: NodeId,
    /// Roles of those who join by it; at most what the inviter has.
    pub roles: BTreeSet<Role>,
    /// Names that they may be granted; at most what the inviter may.
    pub names: BTreeSet<NamePattern>,
    /// Networks that they may bring; at most what the inviter may.
    pub routes: BTreeSet<IpNet>,
    /// How many may join by it.
    pub uses: u32,
    /// When it is void, in milliseconds of ledger time.
    pub expires_ms: u64,
    /// The inviter's ledger position: a seed that can't prove it is refused.
    pub position: Position,
    /// Addresses outside the mesh that their names may lead to. A grant without
    /// any is encoded as it was before there were such; one with some counts
    /// from rules 1 on, and is no grant to a build that doesn't know those.
    #[serde(skip)]
    pub addresses: BTreeSet<IpNet>,
}

impl Grant {
    /// The grant, signed by the inviter's `key`.
    pub fn seal(&self, key: &dyn Sign) -> Sealed {
        if self.addresses.is_empty() {
            return Sealed::new(key, Purpose::Grant, &self.mesh, self);
        }
        Sealed::new(key, Purpose::Grant, &self.mesh, &(self, &self.addresses))
    }

    /// The first rules that know all that it grants.
    pub fn since_rules(&self) -> u32 {
        let addresses = u32::from(!self.addresses.is_empty());
        of_roles(&self.roles).max(addresses)
    }

    /// Reads a sealed grant **without** checking who signed it.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are none.
    pub fn peek(sealed: &Sealed) -> Result<Self, CodecError> {
        let (mut grant, rest): (Self, _) =
            codec::decode_front(&sealed.bytes, limits::REQUEST_BYTES)?;
        if rest.is_empty() {
            return Ok(grant);
        }
        let (addresses, rest): (BTreeSet<IpNet>, _) = codec::decode_next(rest)?;
        // Else one grant would have several encodings.
        if addresses.is_empty() || !rest.is_empty() {
            return Err(CodecError::Trailing(rest.len()));
        }
        grant.addresses = addresses;
        Ok(grant)
    }

    /// Reads a sealed grant and checks that its inviter, with `key`, signed it.
    pub fn open(
        sealed: &Sealed,
        key: &PublicKey,
        mesh: &MeshId,
        verify: &dyn Verify,
    ) -> Option<Self> {
        let grant = Self::peek(sealed).ok()?;
        if !sealed.is_by(verify, key, Purpose::Grant, mesh) {
            return None;
        }
        (grant.mesh == *mesh && grant.inviter == key.node_id()).then_some(grant)
    }
}
