//! What a thief does with an admin's key.

use innermesh_proto::{
    codec,
    id::NodeId,
    ledger::{
        Content, Role,
        request::{Evict, RoleChange},
    },
    message::Propose,
    rpc::method,
};

use super::{Byzantine, PATIENCE};

impl Byzantine {
    /// Makes admins of members that aren't, takes their roles from those that
    /// matter, and evicts them.
    pub(super) async fn takes_over(&mut self, peer: NodeId) -> bool {
        self.follow(peer).await;
        let me = self.id();
        let change = |node: &NodeId, role: Role| RoleChange {
            node: *node,
            role,
            root: None,
        };
        let mut contents = Vec::new();
        for (node, member) in self.state.members.iter().filter(|(node, _)| **node != me) {
            let mut roles = member.roles.iter();
            if !roles.any(|role| matches!(role, Role::Admin | Role::Ca)) {
                contents.push(Content::GiveRole(change(node, Role::Admin)));
                continue;
            }
            contents.push(Content::TakeRole(change(node, Role::Admin)));
            contents.push(Content::TakeRole(change(node, Role::Ca)));
            contents.push(Content::Evict(Evict {
                node: *node,
                hold: None,
                root: None,
            }));
        }
        self.propose(peer, contents).await
    }

    /// Whether any of it was answered.
    pub(super) async fn propose(&self, peer: NodeId, contents: Vec<Content>) -> bool {
        let mut asked = false;
        for content in contents {
            let request = self.request(&content);
            let propose = codec::encode(&Propose { request });
            let answer = self
                .transport
                .call(peer, method::PROPOSE, propose, PATIENCE)
                .await;
            asked |= answer.is_ok();
        }
        asked
    }
}
