//! What of a view strangers may be told: where the sinkholes are, and what users
//! published. Nothing else is looked at (S34).

use std::{collections::BTreeSet, net::IpAddr};

use super::MeshView;
use crate::{
    crypto::Hash,
    endpoint,
    id::NodeId,
    ledger::{Member, Role, record::UserRecord},
    zone::{self, DomainName, Rdata, Record, StrangerInput},
};

impl MeshView {
    /// Where the public world finds the sinkholes: at their public addresses.
    pub fn sinkhole_addresses(&self) -> BTreeSet<IpAddr> {
        let seen = self
            .sinkholes()
            .filter_map(|(node, _)| self.nodes.get(node));
        let announced = seen.flat_map(|seen| &seen.announcement.quic);
        let announced = announced.map(|at| at.ip().to_canonical());
        announced.filter(|ip| endpoint::is_public(*ip)).collect()
    }

    /// Users' records that strangers may see, too.
    pub fn public_records(&self) -> Vec<Record> {
        let all = self.ledger.records.iter();
        all.flat_map(|(name, all)| {
            let served = |record: &&UserRecord| record.public && self.is_served(record);
            let public = all.iter().filter(served);
            public.map(|record| Record {
                name: name.clone(),
                ttl_s: record.ttl_s.unwrap_or(zone::PUBLIC_TTL_S),
                data: record.data.rdata(),
            })
        })
        .collect()
    }

    /// As those, without addresses that nobody outside reaches, or is to know of.
    pub fn published(&self) -> Vec<Record> {
        let is_outside = |record: &Record| match &record.data {
            Rdata::A(ip) => endpoint::is_public((*ip).into()),
            Rdata::Aaaa(ip) => endpoint::is_public((*ip).into()),
            Rdata::Svcb(data) | Rdata::Https(data) => data.hints().all(endpoint::is_public),
            _ => true,
        };
        let all = self.public_records().into_iter();
        all.filter(is_outside).collect()
    }

    /// The sinkholes that answer strangers' DNS, those first that have been members for
    /// longest, with the public addresses at which they say that they do.
    pub fn name_servers(&self) -> Vec<(NodeId, &BTreeSet<IpAddr>)> {
        let sinkholes = self.sinkholes();
        let mut servers: Vec<_> = sinkholes
            .filter_map(|(node, member)| {
                let at = &self.nodes.get(node)?.announcement.name_server;
                (!at.is_empty()).then_some((member.joined, *node, at))
            })
            .collect();
        servers.sort();
        servers
            .into_iter()
            .map(|(_, node, at)| (node, at))
            .collect()
    }

    /// What strangers are told, where the domain is delegated to sinkholes. `None` for a
    /// domain that DNS can't have.
    pub fn stranger_input(&self) -> Option<StrangerInput> {
        let apex: DomainName = self.ledger.domain.as_str().parse().ok()?;
        let servers = self.name_servers();
        Some(StrangerInput {
            apex,
            name_servers: servers.into_iter().map(|(_, at)| at.clone()).collect(),
            sinkhole: self.sinkhole_addresses(),
            published: self.published(),
            secret: self.stranger_secret(),
        })
    }

    /// What members know and strangers don't: WireGuard never shows a public key to who
    /// doesn't have it. Only the sinkholes' count, so that it doesn't change with the
    /// mesh.
    fn stranger_secret(&self) -> Hash {
        let mut bytes = b"innermesh stranger".to_vec();
        bytes.extend(self.ledger.mesh.0);
        for (node, _) in self.sinkholes() {
            bytes.extend(node.0);
            let keys = self.ledger.tunnel_keys(node);
            bytes.extend(keys.iter().flat_map(|keys| keys.current.0));
        }
        Hash::of(&bytes)
    }

    fn sinkholes(&self) -> impl Iterator<Item = (&NodeId, &Member)> {
        let members = self.members();
        members.filter(|(_, member)| member.roles.contains(&Role::Sinkhole))
    }
}
