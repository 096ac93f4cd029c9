//! How the roster and who waits for a place in it change.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    request::Role,
    state::{Issuer, State},
};
use crate::{certificate::KeptCertificate, crypto::PublicKey, id::NodeId};

impl State {
    pub(super) fn promote(&mut self, node: NodeId, issuers: Vec<KeptCertificate>) {
        self.set_role(node, true);
        self.number(node);
        self.add_issuers(node, issuers);
    }

    fn add_issuers(&mut self, node: NodeId, issuers: Vec<KeptCertificate>) {
        for certificate in issuers {
            let serial = certificate.serial;
            let issuer = Issuer {
                node,
                certificate,
                revoked: None,
            };
            self.issuers.insert(serial, issuer);
        }
    }

    pub(super) fn demote(&mut self, node: NodeId) {
        self.set_role(node, false);
        if !self.roster.contains(&node) {
            self.voters.remove(&node);
        }
    }

    pub(super) fn change_roster(&mut self, roster: BTreeSet<NodeId>) {
        let keys = roster
            .iter()
            .filter_map(|node| {
                let held = self.roster_keys.get(node).copied();
                let member = || self.members.get(node).map(|member| member.key);
                Some((*node, held.or_else(member)?))
            })
            .collect();
        let gone: Vec<NodeId> = self.roster.difference(&roster).copied().collect();
        self.roster = roster;
        self.set_roster_keys(keys);
        for node in gone {
            if !self.is_voter(node) {
                self.voters.remove(&node);
            }
        }
    }

    /// The roster that the root names where the old one is lost. Raft starts
    /// anew, so each has a new number; whoever isn't in it is no CA node any
    /// more.
    pub(super) fn recover(
        &mut self,
        number: u32,
        keys: &BTreeSet<PublicKey>,
        issuers: Vec<(NodeId, KeptCertificate)>,
    ) {
        let keys: BTreeMap<NodeId, PublicKey> =
            keys.iter().map(|key| (key.node_id(), *key)).collect();
        let lost: Vec<NodeId> = self
            .voters
            .keys()
            .filter(|node| !keys.contains_key(node))
            .copied()
            .collect();
        for node in lost {
            self.set_role(node, false);
        }
        self.voters.clear();
        self.roster = keys.keys().copied().collect();
        for node in keys.keys() {
            self.set_role(*node, true);
            self.number(*node);
            // Its admins may be lost with the others.
            if self.rules > 1 && !self.admins().any(|admin| admin == *node) {
                self.forget_makers(*node);
                self.make_admin(*node);
            }
        }
        for (node, issuer) in issuers {
            self.add_issuers(node, vec![issuer]);
        }
        self.set_roster_keys(keys);
        self.recovery = number;
    }

    fn set_roster_keys(&mut self, keys: BTreeMap<NodeId, PublicKey>) {
        self.roster_keys = keys;
        self.epoch += 1;
    }

    fn number(&mut self, node: NodeId) {
        if !self.voters.contains_key(&node) {
            self.voters.insert(node, self.next_voter);
            self.next_voter += 1;
        }
    }

    fn set_role(&mut self, node: NodeId, is_ca: bool) {
        if let Some(member) = self.members.get_mut(&node) {
            if is_ca {
                member.roles.insert(Role::Ca)
            } else {
                member.roles.remove(&Role::Ca)
            };
        }
    }
}
