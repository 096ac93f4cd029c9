//! When this node, leading, raises the ledger's rules: once each voter's build
//! knows the next ones, and each live node's does too or has had its time.

use std::{collections::BTreeMap, time::Duration};

use innermesh_host::Mono;
use innermesh_proto::{
    id::NodeId,
    ledger::{BatchError, RULES},
    limits,
    view::MeshView,
};

/// Which rules the builds of other nodes know, as their heads say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Builds {
    /// Of each voter that was ever heard of.
    pub voters: BTreeMap<NodeId, u32>,
    /// The least of all nodes that are live.
    pub live: u32,
}

impl Builds {
    /// As the heads in `view` say.
    pub fn of(view: &MeshView) -> Self {
        let rules = |node: &NodeId| view.nodes.get(node).map(|node| node.announcement.rules);
        let voters = view.ledger.voters.keys();
        let others = view.nodes.iter().filter(|(node, _)| **node != view.me);
        let live = others.filter(|(_, node)| node.live);
        Self {
            voters: voters
                .filter_map(|node| Some((*node, rules(node)?)))
                .collect(),
            live: live
                .map(|(_, node)| node.announcement.rules)
                .min()
                .unwrap_or(u32::MAX),
        }
    }
}

/// What the leader knows of others' builds.
#[derive(Default)]
pub struct Versions {
    /// The newest rules that this node goes along with.
    known: u32,
    builds: Builds,
    /// Since when all voters know the next rules.
    since: Option<Mono>,
    /// The rules of a batch that this node can't follow.
    beyond: Option<u32>,
}

impl Versions {
    pub fn new() -> Self {
        Self {
            known: RULES,
            ..Self::default()
        }
    }

    /// The newest rules that this node goes along with.
    pub fn known(&self) -> u32 {
        self.known
    }

    /// Goes along with these rules at most.
    pub fn set_known(&mut self, rules: u32) {
        self.known = rules.min(RULES);
    }

    pub fn set_builds(&mut self, builds: Builds) {
        self.builds = builds;
    }

    /// The rules of a batch that this node can't follow, if there was one.
    pub fn beyond(&self) -> Option<u32> {
        self.beyond
    }

    /// Notes that the ledger went on by rules that this node doesn't know;
    /// `agent status` tells it.
    pub fn note_unknown(&mut self, needed: u32) -> BatchError {
        let known = self.known;
        if self.beyond != Some(needed) {
            tracing::error!(
                needed,
                known,
                "the ledger follows newer rules than this version knows: update the agent"
            );
        }
        self.beyond = Some(needed);
        BatchError::Rules { needed, known }
    }

    /// The rules that leader `me` is to raise the ledger to now.
    pub fn due<'v>(
        &mut self,
        rules: u32,
        mut voters: impl Iterator<Item = &'v NodeId>,
        me: NodeId,
        now: Mono,
    ) -> Option<u32> {
        let next = rules + 1;
        let knows = |node: &NodeId| {
            let announced = || self.builds.voters.get(node).copied().unwrap_or(0);
            next <= if *node == me { self.known } else { announced() }
        };
        if !voters.all(knows) {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        let is_late = now.saturating_sub(since) >= Duration::from_millis(limits::RULES_WAIT_MS);
        (self.builds.live >= next || is_late).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 16])
    }

    fn due(versions: &mut Versions, rules: u32, hours: u64) -> Option<u32> {
        let voters = [node(1), node(2), node(3)];
        let now = Duration::from_secs(hours * 3600);
        versions.due(rules, voters.iter(), node(1), now)
    }

    #[test]
    fn rules_are_raised_once_all_voters_know_them_and_live_nodes_had_their_time() {
        let mut versions = Versions::new();
        assert_eq!(due(&mut versions, 0, 0), None);
        versions.builds.voters = [(node(2), 1)].into();
        versions.builds.live = 1;
        assert_eq!(
            due(&mut versions, 0, 100),
            None,
            "one voter doesn't know them"
        );
        versions.builds.voters.insert(node(3), 1);
        assert_eq!(due(&mut versions, 0, 100), Some(1));
        versions.builds.live = 0;
        assert_eq!(
            due(&mut versions, 0, 100),
            None,
            "a live node doesn't know them"
        );
        assert_eq!(due(&mut versions, 0, 123), None);
        assert_eq!(due(&mut versions, 0, 124), Some(1), "it had its time");
        versions.builds.voters.insert(node(3), 0);
        assert_eq!(due(&mut versions, 0, 200), None, "a voter went back");
        versions.builds.voters.insert(node(3), 1);
        assert_eq!(due(&mut versions, 0, 201), None, "time begins anew");
        assert_eq!(
            due(&mut versions, RULES, 400),
            None,
            "there are no newer ones"
        );
    }
}
