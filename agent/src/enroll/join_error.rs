//! Why a machine did not join, and what it is told when it did.

#![allow(missing_docs, reason = "the names say it")]

use std::net::{IpAddr, SocketAddr};

use innermesh_proto::{
    admission::Ending,
    crypto::PublicKey,
    id::{MeshId, resolver_v4},
    ledger::State,
    name::{Label, MeshDomain},
    path::LaneUrl,
    view::MeshView,
};
use ipnet::IpNet;

use super::token::TokenError;
use crate::{
    host::key_files::KeyFileError, ledger::file::FileError, quic::TransportError, tls::TlsError,
};

/// What came of it.
#[derive(Clone, Debug)]
pub struct JoinReport {
    pub mesh: MeshId,
    /// The domain of its names.
    pub domain: MeshDomain,
    pub name: Label,
    pub addresses: Vec<IpAddr>,
    /// Where the mesh's names are answered.
    pub resolver: SocketAddr,
}

/// Why this machine did not join. Unless said otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It is in a mesh.
    #[error("this machine is in a mesh already; for one more use another --dir")]
    Exists,
    /// It was in one, and left it.
    #[error("{said}; use another --dir, or make room: {room}")]
    Left {
        /// What its folder says.
        said: String,
        /// How room is made in it.
        room: String,
    },
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Not a host and port.
    #[error(
        "\"{0}\" is not an address: give a host name or address, with :PORT if it isn't 51819, or \
         wss://HOST/PATH of a relay that takes in lanes"
    )]
    Seed(String),
    /// The name of the seed has no address.
    #[error("{0} can't be resolved: {1}")]
    Resolve(String, std::io::Error),
    /// None of the addresses answered as an agent of the token's mesh.
    #[error(
        "no agent of this mesh answers at {seed}: {why}; is the agent running there, and UDP port {port} open?"
    )]
    Unreachable {
        /// What was asked for.
        seed: String,
        port: u16,
        why: String,
    },
    /// No lane leads to an agent of the mesh.
    #[error(
        "no agent of this mesh answers over TCP at {url}: {why}; is the agent running there, with \
         [lane] in its configuration?"
    )]
    Lane { url: LaneUrl, why: String },
    #[error(
        "{0} belongs to another mesh than the token; ask an admin of the right mesh for the address"
    )]
    OtherMesh(String),
    /// The overlay is in use here.
    #[error(
        "the mesh's overlay {0} clashes with {1}, which this machine has already: renumber that \
         network, or move this machine out of it"
    )]
    Clash(IpNet, String),
    /// A machine without a token wasn't let in.
    #[error("{0}")]
    NotLetIn(#[from] Ending),
    /// It was let in by somebody who wasn't told the code.
    #[error(
        "whoever let this machine in was not told its code: possible man-in-the-middle. Nothing was \
         kept; ask through another member or over another network"
    )]
    InBetween,
    /// The mesh said no.
    #[error("the mesh refused: {0}")]
    Refused(String),
    /// Somebody has each new WireGuard key of this machine before it.
    #[error(
        "another node had this machine's new WireGuard key written down as its own, twice: somebody \
         at or before the seed is in the way. Nothing was spent; join through another seed"
    )]
    KeyTaken,
    /// An older seed can't read what it is asked.
    #[error(
        "this seed can't read what this machine asks; update the agent there, or join through \
         another member"
    )]
    NotRead,
    /// What the seed says isn't right.
    #[error("the seed's answer is not right: {0}; nothing of it was kept")]
    Seeded(String),
    /// The seed's ledger lacks what the inviter knew.
    #[error(
        "this seed's ledger is not the one that the inviter knew; nothing of it was kept. Try another seed"
    )]
    Stale,
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the state folder can't be written: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    File(#[from] FileError),
}

pub(super) fn report(state: &State, key: &PublicKey) -> Result<JoinReport, JoinError> {
    let (_, member) = state
        .member_by_key(key)
        .ok_or_else(|| JoinError::Seeded("its ledger doesn't list this machine".into()))?;
    Ok(JoinReport {
        mesh: state.mesh,
        domain: state.domain.clone(),
        name: member.name.clone(),
        addresses: MeshView::addresses(member),
        resolver: SocketAddr::new(resolver_v4(state.ipv4).into(), 53),
    })
}
