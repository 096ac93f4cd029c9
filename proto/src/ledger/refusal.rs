//! Why requests are refused.

#![allow(missing_docs, reason = "the names say it")]

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{certificate::Serial, name::Label};

/// Why a request was refused. Refusals change nothing; they are recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// A kind or an encoding that this build doesn't know.
    #[error("the request is of a kind that this version doesn't know; update the CA nodes first")]
    NotUnderstood,
    /// Made for another mesh.
    #[error("the request is for another mesh")]
    Mesh,
    /// Not signed by its stated author.
    #[error("the signature is not its author's")]
    Signature,
    /// Ledger time is past its expiry.
    #[error("the request has expired; is this machine's clock right?")]
    Expired,
    /// Its expiry is further ahead than is allowed.
    #[error("the request expires too far ahead; is this machine's clock right?")]
    TooFarAhead,
    /// The author is no member.
    #[error("the author is not a member of this mesh")]
    NotMember,
    /// The inviter is no member, or no admin any more.
    #[error("the token's inviter is not an admin of this mesh; ask an admin for a new invite")]
    Inviter,
    /// The token gives more than its inviter has.
    #[error("the token grants more than its inviter holds; ask for a new invite")]
    GrantTooWide,
    /// The grant doesn't belong to the key that signed.
    #[error("the token is damaged or forged; ask for a new invite")]
    Grant,
    /// The token is past its expiry.
    #[error("the token has expired; ask for a new invite")]
    TokenExpired,
    /// All uses of the token are spent.
    #[error("the token is used up or was revoked; ask for a new invite")]
    TokenUsedUp,
    /// The machine is a member already.
    #[error(
        "this machine is a member already: an earlier join was cut short here once the mesh had let \
         it in. Have an admin run `agent evict` for it, then join with a new state folder, which \
         has a new key"
    )]
    AlreadyMember,
    /// The mesh has as many members as it may.
    #[error("the mesh has as many members as it may have")]
    MeshFull,
    /// Every IPv4 address of the overlay is taken.
    #[error("every IPv4 address of the overlay is taken")]
    AddressesExhausted,
    /// Somebody else has the name.
    #[error("{}", name_taken(name, owner))]
    NameTaken {
        name: Label,
        /// Name of the node that has it.
        owner: Label,
    },
    /// The name is kept for the mesh itself.
    #[error("the name {0} is reserved")]
    NameReserved(Label),
    /// The author's invite doesn't cover the name.
    #[error("the name {0} is outside what this machine's invite allows")]
    NameNotAllowed(Label),
    /// The author has as many names as one node may.
    #[error("this machine holds as many names as one may")]
    TooManyNames,
    /// The author doesn't own the name.
    #[error("the name {0} is not this machine's")]
    NotOwner(Label),
    /// A node's own name can't be given back while it is a member.
    #[error("{0} is a machine's own name; it is freed when the machine leaves")]
    NodeName(Label),
    /// The other node is no member.
    #[error("the node to share with is not a member")]
    NoSuchNode,
    /// A certificate was asked for a name that the author may not have.
    #[error("{0} is not a name that this machine holds; add the service first")]
    NotCertifiable(String),
    /// The asked life or number of names is out of bounds.
    #[error("a certificate may have 1 to 32 names and live 1 to 824 days")]
    CertificateBounds,
    /// The membership expired too long ago to renew.
    #[error("the membership expired too long ago to be renewed; join again with a new invite")]
    GraceOver,
    /// The name is shared with as many nodes as it may be.
    #[error("the name is shared with as many machines as one may be")]
    TooManyShares,
    /// Only an admin may ask for that.
    #[error("only an admin may do that; run it on a machine that is one")]
    NotAdmin,
    /// The grant has a route that isn't one, or lies within the overlay.
    #[error("{0} can't be a route: it isn't a network, or it lies within the overlay")]
    Route(IpNet),
    /// The machine's key was evicted.
    #[error("this machine was evicted; join with a new state folder, which has a new key")]
    Evicted,
    /// An issuer isn't one of this mesh, or somebody has it already.
    #[error("the issuer can't be used: {0}")]
    Issuer(String),
    /// As many CA nodes as there may be.
    #[error("the mesh has as many CA nodes as it may have; demote one first")]
    TooManyCas,
    /// The node is no CA node.
    #[error("that machine is not a CA node")]
    NotCa,
    /// Nobody would be left to decide.
    #[error("it is the last CA node; promote another one first")]
    LastCa,
    /// Nobody would be left who could invite.
    #[error(
        "it is the last admin, and nobody could let a machine in any more; make another one first: \
         `agent role add NODE admin`"
    )]
    LastAdmin,
    /// The node is still one of those that decide.
    #[error("this machine is in the roster still; `agent ca demote` it first")]
    InRoster,
    /// Without the node the roster could not change any more.
    #[error(
        "without it too few of the roster are left to agree; bring another CA node back, or use `agent ca recover`"
    )]
    NoMajority,
    /// Not a roster that may follow the one in force.
    #[error("that roster can't follow the one in force")]
    Roster,
    /// Something else stands before it in its batch.
    #[error("a roster change stands alone in its batch")]
    NotAlone,
    /// The batch ended with a roster change.
    #[error("the epoch ended before this; ask again")]
    EpochEnded,
    /// One doesn't evict oneself.
    #[error("a machine takes itself out with `agent leave`")]
    Oneself,
    /// The root's signature isn't one.
    #[error("the signature is not that of this mesh's root key")]
    RootSignature,
    /// The hold isn't one of a member.
    #[error("that hold is not one of a member")]
    NoSuchHold,
    /// No such certificate is known.
    #[error("no certificate with the serial {0} is in force")]
    NoSuchCertificate(Serial),
    /// A membership ends by eviction.
    #[error("{0} is a machine's membership; evict the machine, or have it renew")]
    MembershipSerial(Serial),
    /// The certificate is another's.
    #[error("the certificate is another machine's; only its owner or an admin may revoke it")]
    NotYourCertificate,
    /// The key was revoked.
    #[error("that key was revoked; make a new one")]
    KeyRevoked,
    /// The record's name isn't one here.
    #[error("{0} is not a name that records can have here")]
    RecordName(String),
    /// The author may not change records there.
    #[error("{0} is not this machine's name; run it on the machine that has it, or on an admin's")]
    NotYourName(String),
    /// The data is not to be served.
    #[error("{0}")]
    Record(String),
    /// An address or an alias in a machine's own place.
    #[error(
        "{0} is a machine's name, and its addresses are those of the machine; use another name"
    )]
    MachineRecord(String),
    /// An alias beside other records, or at the domain itself.
    #[error("an alias (CNAME) stands alone at its name, and never at the domain itself")]
    AliasAlone,
    /// As many records as there may be.
    #[error("there are as many records as there may be")]
    TooManyRecords,
    /// There is nothing to remove.
    #[error("there is no such record; `agent record list` shows those that there are")]
    NoSuchRecord,
    /// The leader attached a certificate that isn't what was asked for.
    #[error("the certificate is not what was asked for: {0}")]
    Certificate(String),
    /// The rules can't be raised to these now.
    #[error("the rules of the ledger can't be raised to these now")]
    Rules,
    /// The author has as many requests remembered as one may.
    #[error("this node made too many requests within a few minutes; try again in 10 minutes")]
    TooManyRequests,
    /// The inviter has as many tokens in use as one may.
    #[error("the inviting node has too many invites in use; wait until some expire")]
    TooManyInvites,
    /// As many certificates in force as one node may have.
    #[error(
        "this node has as many certificates in force as one may have; renew with the same key, or \
         wait until some expire"
    )]
    TooManyCertificates,
    /// The node's facts take up its whole share.
    #[error(
        "this node's names, records and certificates take up its share of the ledger; remove some first"
    )]
    ShareUsedUp,
    /// What isn't reserved for others is taken.
    #[error(
        "the ledger has no room left beyond what is reserved for each node; remove something first"
    )]
    StateFull,
    /// The record's address is another node's.
    #[error(
        "{0} is not an address of this node: add the record on the node that has it, share the \
         name with that node (`agent service add NAME --share NODE`) and run the service there, \
         or ask an admin to add the record"
    )]
    OthersAddress(IpAddr),
    /// The record's address is outside the mesh.
    #[error(
        "{0} is outside the mesh, and this node wasn't granted it: ask an admin to add the record, \
         or for an invite with --addresses"
    )]
    ForeignAddress(IpAddr),
    /// The alias leads to a name of another node's.
    #[error(
        "{0} is not this node's name: ask its owner to share it (`agent service add NAME --share \
         NODE`), or an admin to add the record"
    )]
    OthersName(String),
    /// The alias leads to a name outside the mesh.
    #[error(
        "{0} is outside the mesh, and only an admin may point a name there: ask one to add the record"
    )]
    ForeignName(String),
    /// Another node has the WireGuard key.
    #[error("that WireGuard key can't be had: another node has it; use a new one")]
    TunnelKey,
    /// The root has to sign more than that.
    #[error("a node gets the role ca by `agent ca promote NODE`")]
    CaByPromotion,
    /// It had that role from as many nodes as are remembered.
    #[error("too many different nodes made that one an admin before; have one of those do it")]
    TooManyMakers,
    /// The author didn't ask for that, or it is decided.
    #[error("this node asked for nothing against that node that still waits for a second admin")]
    NothingToWithdraw,
    /// Only an admin, or who a policy lets, may add one.
    #[error("only an admin may add a device; a policy can let others add their own")]
    DeviceNotAllowed,
    #[error("the owner of a device must be a node of this mesh")]
    NoSuchOwner,
    #[error("there are as many devices as there may be: of this owner, or in all")]
    TooManyDevices,
    /// S26.
    #[error("that WireGuard key can't be had: another node or device has it; use a new one")]
    DeviceKey,
    #[error("there is no such device; `agent device list` shows those that there are")]
    NoSuchDevice,
    #[error("the device is another node's; run it there, or on an admin's")]
    NotYourDevice,
    #[error("{0} is a device's name; it is freed by `agent device rm {0}`")]
    DeviceName(Label),
    #[error("a device's gateway must be a node of this mesh")]
    NoSuchGateway,
    #[error("{0} is no gateway; make it one: `agent role add {0} gateway`")]
    NotGateway(Label),
    #[error(
        "the device has too many gateways, networks or groups (at most 4, 16 and 8), or an endpoint \
         that is none"
    )]
    DeviceBounds,
    /// A network that can't be one beside the overlay.
    #[error(
        "{0} can't be a route: it is no network of a LAN, reaches into the overlay, or is too wide \
         (for everything there is an exit node)"
    )]
    Net(IpNet),
    #[error(
        "this node's invite doesn't grant it the network {0}: have an admin run it, with --gateway"
    )]
    RouteNotGranted(IpNet),
    #[error("it overlaps {0}, which is a route already; only equal networks may have two gateways")]
    RouteOverlaps(IpNet),
    #[error("there are as many routes as there may be: of this gateway, or in all")]
    TooManyRoutes,
    #[error("a port is a number from 1 to 65535")]
    PublishPort,
    /// Neither a service nor a node has the name.
    #[error("{0} can't be published: there is neither a service nor a node of that name")]
    PublishName(Label),
    /// What is published, and where.
    #[error(
        "{0} runs on {1} itself, where strangers reach it at its own port; publish is for what runs \
         on another node"
    )]
    PublishToItself(Label, Label),
    #[error(
        "port {port} of {on} leads to {name} already; end that first: `agent unpublish {name} --port \
         {port} --on {on}`"
    )]
    PortPublished { port: u16, on: Label, name: Label },
    #[error("port {0} of that node isn't published; `agent publish list` shows those that are")]
    NotPublished(u16),
    #[error("that node publishes nothing that leads to this one")]
    NothingPublished,
    #[error("there is as much published as there may be: on this node, or in all")]
    TooManyPublications,
    #[error("{0} is no route of that gateway; `agent route list` shows those that there are")]
    NoSuchRoute(IpNet),
    /// What is wrong with it.
    #[error("the policy can't be in force: {0}")]
    Policy(String),
}

/// A node's own name is mostly asked for by the machine that had it.
fn name_taken(name: &Label, owner: &Label) -> String {
    if name == owner {
        return format!(
            "the name {name} is taken by the node {name}: if that was this machine before it was set \
             up anew, have an admin run `agent evict {name}` and do this again; else choose another \
             name"
        );
    }
    format!("the name {name} is taken by {owner}; choose another, or ask its owner to share it")
}

impl Refusal {
    /// Whether the author isn't proved to be a member or an invited machine.
    /// Such a refusal isn't written down: anybody could fill the ledger with it.
    pub fn is_anonymous(&self) -> bool {
        matches!(
            self,
            Self::Mesh
                | Self::Signature
                | Self::NotMember
                | Self::Expired
                | Self::TooFarAhead
                | Self::NotUnderstood
                | Self::Inviter
                | Self::Grant
                | Self::TokenExpired
                | Self::TokenUsedUp
                | Self::EpochEnded
        )
    }
}
