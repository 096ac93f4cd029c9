//! How roles change, from rules 2 on.

use super::{
    effect::{RoleGiven, RoleTaken},
    request::{Role, Withdraw},
    state::State,
};
use crate::id::NodeId;

impl State {
    pub(super) fn give_role(&mut self, given: &RoleGiven) {
        let RoleGiven { node, role, maker } = *given;
        if maker.is_none() {
            self.extension.appointments.root_words += 1;
        }
        if role == Role::Admin {
            match maker {
                Some(maker) => self.note_maker(node, maker),
                None => self.forget_makers(node),
            }
            self.make_admin(node);
            return;
        }
        if let Some(member) = self.members.get_mut(&node) {
            member.roles.insert(role);
        }
    }

    /// A node is an admin from now on, whoever made it one.
    pub(super) fn make_admin(&mut self, node: NodeId) {
        let stamp_ms = self.stamp_ms;
        if let Some(member) = self.members.get_mut(&node)
            && member.roles.insert(Role::Admin)
        {
            let since = &mut self.extension.appointments.since;
            since.insert(node, Some(stamp_ms));
        }
    }

    pub(super) fn take_role(&mut self, taken: &RoleTaken) {
        let RoleTaken {
            node,
            role,
            is_by_root,
        } = *taken;
        let appointments = &mut self.extension.appointments;
        appointments.root_words += u64::from(is_by_root);
        appointments
            .proposals
            .retain(|(target, which, _), _| *target != node || *which != role);
        if role == Role::Ca {
            self.demote(node);
            return;
        }
        if let Some(member) = self.members.get_mut(&node) {
            member.roles.remove(&role);
        }
        if role == Role::Gateway {
            self.remove_routes_of(node);
        }
        if role == Role::Admin {
            // Nor does what it asked for count, should it be one again.
            self.extension.appointments.since.insert(node, None);
            let appointments = &mut self.extension.appointments;
            appointments.proposals.retain(|(.., by), _| *by != node);
            self.proposals.retain(|(_, by), _| *by != node);
        }
    }

    pub(super) fn propose_taking(&mut self, node: NodeId, role: Role, by: NodeId) {
        let stamp_ms = self.stamp_ms;
        let proposals = &mut self.extension.appointments.proposals;
        proposals.insert((node, role, by), stamp_ms);
    }

    pub(super) fn withdraw(&mut self, withdraw: &Withdraw, by: NodeId) {
        match withdraw.role {
            Some(role) => {
                let proposals = &mut self.extension.appointments.proposals;
                proposals.remove(&(withdraw.node, role, by));
            }
            None => {
                self.proposals.remove(&(withdraw.node, by));
            }
        }
    }
}
