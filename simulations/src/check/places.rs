//! Every member has its place among its neighbours, from rules 8 on.

use innermesh_proto::view::MeshView;

/// A member without one.
pub fn lacking(view: &MeshView) -> Option<String> {
    let ledger = &view.ledger;
    if ledger.rules < 8 || ledger.members.len() < 2 {
        return None;
    }
    let mut members = ledger.members.iter();
    let found = members.find(|(node, _)| ledger.batch_after(node).is_none());
    found.map(|(_, member)| {
        let index = ledger.position.index;
        format!(
            "{} has no place among its neighbours at batch {index}",
            member.name
        )
    })
}
