//! The state that a ledger starts with.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    batch::{Genesis, SignedGenesis},
    extension::Extension,
    request::Role,
    rules,
    state::{Issuer, Member, State},
    version::RULES,
};
use crate::{
    certificate::{self, CertificateError, KeptCertificate, LeafPlan},
    codec::CodecError,
    crypto::{Purpose, Verify},
    id::MeshId,
    map::Map,
    name::NamePattern,
};

/// Why a genesis isn't one. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Not an encoding of a genesis.
    #[error("the genesis is malformed: {0}")]
    Codec(#[from] CodecError),
    /// It starts with rules that this build doesn't know.
    #[error("the mesh follows rules {0}, which this version doesn't know: update the agent")]
    Rules(u32),
    /// Not signed by its own root.
    #[error("the genesis is not signed by the mesh's root")]
    Signature,
    /// The root or the issuer is not what it must be.
    #[error("a certificate of the genesis is not right: {0}")]
    Certificate(#[from] CertificateError),
    /// The first node's certificate is not what it must be.
    #[error("the first node's certificate is not right: {0}")]
    Membership(String),
    /// The IPv4 overlay has no room for a node.
    #[error(
        "the overlay {0} has no room; it must be a /16 to /22 within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
    )]
    Overlay(Ipv4Net),
}

impl Genesis {
    /// The first node, as the genesis makes it.
    ///
    /// # Errors
    /// [`GenesisError::Overlay`] when it gets no address.
    pub fn founder_member(&self, mesh: &MeshId) -> Result<Member, GenesisError> {
        let node = self.founder.node_id();
        let ipv4 =
            rules::free_ipv4(self.ipv4, |_| false, node).ok_or(GenesisError::Overlay(self.ipv4))?;
        Ok(Member {
            key: self.founder,
            name: self.name.clone(),
            ipv4,
            ipv6: node.ipv6(mesh),
            roles: BTreeSet::from([Role::Admin, Role::Ca]),
            names: BTreeSet::from([NamePattern::any()]),
            routes: [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())].into(),
            invited_by: None,
            joined: 0,
            joined_ms: self.stamp_ms,
            certificate: None,
        })
    }

    /// What the first node's membership certificate must say.
    ///
    /// # Errors
    /// As [`Genesis::founder_member`].
    pub fn membership_plan(&self, mesh: &MeshId) -> Result<LeafPlan, GenesisError> {
        let member = self.founder_member(mesh)?;
        Ok(rules::membership_plan(&self.domain, &member, self.stamp_ms))
    }
}

impl State {
    /// The state that a genesis starts with, after checking all of it.
    ///
    /// # Errors
    /// [`GenesisError`].
    pub fn genesis(signed: &SignedGenesis, verify: &dyn Verify) -> Result<Self, GenesisError> {
        let genesis: Genesis = signed.peek()?;
        if genesis.rules > RULES {
            return Err(GenesisError::Rules(genesis.rules));
        }
        let root = KeptCertificate::parse(&genesis.root)?;
        let mesh = MeshId::of_root(&root.spki);
        let message = Purpose::Genesis.message(&mesh, &signed.bytes);
        if !verify.p256(&root.spki, &message, &signed.signature) {
            return Err(GenesisError::Signature);
        }
        let (domain, ipv4) = (&genesis.domain, genesis.ipv4);
        certificate::check_root(&root, domain, ipv4, mesh.ula(), verify)?;
        let issuer = KeptCertificate::parse(&genesis.issuer)?;
        certificate::check_issuer(&issuer, &root, verify)?;

        let founder = genesis.founder.node_id();
        let plan = genesis.membership_plan(&mesh)?;
        let membership = genesis.membership.clone();
        let issuer = Issuer {
            node: founder,
            certificate: issuer,
            revoked: None,
        };
        let mut state = Self {
            mesh,
            domain: genesis.domain.clone(),
            ipv4: genesis.ipv4,
            root,
            position: signed.position(),
            stamp_ms: genesis.stamp_ms,
            epoch: 0,
            roster: BTreeSet::from([founder]),
            roster_keys: BTreeMap::from([(founder, genesis.founder)]),
            voters: BTreeMap::from([(founder, 1)]),
            next_voter: 2,
            members: Map::default(),
            addresses: Map::default(),
            names: Map::default(),
            name_counts: Map::default(),
            tokens: Map::default(),
            issuers: Map::from([(issuer.certificate.serial, issuer)]),
            certificates: Map::default(),
            revoked: Map::default(),
            revoked_keys: Map::default(),
            evicted: Map::default(),
            proposals: Map::default(),
            evictions: Vec::new(),
            inviters: Map::default(),
            decided: Map::default(),
            records: Map::default(),
            record_count: 0,
            recovery: 0,
            requests: Map::default(),
            rules: 0,
            extension: Extension::default(),
        };
        state.admit(founder, genesis.founder_member(&mesh)?);
        let serial = state
            .take_leaf(&plan, founder, &membership, verify)
            .map_err(|error| GenesisError::Membership(error.to_string()))?;
        state.set_membership(founder, serial);
        if genesis.rules > 0 {
            state.raise_rules(genesis.rules, 0);
        }
        Ok(state)
    }
}
