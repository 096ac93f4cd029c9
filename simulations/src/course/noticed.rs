//! How soon all know of a machine that it doesn't run.

use super::Course;

impl Course<'_> {
    /// By now all that run must take a machine for dead, unless it runs.
    pub(super) fn must_have_noticed(&mut self, dead: usize) -> bool {
        if self.agents[dead].is_some() {
            return false;
        }
        let id = self.ids[dead];
        for node in 0..self.agents.len() {
            let Some(agent) = &self.agents[node] else {
                continue;
            };
            let view = agent.view().borrow().clone();
            if view.nodes.get(&id).is_some_and(|seen| seen.live) {
                let words = format!("node{dead} doesn't run, and is taken for live");
                self.violated(node, ("S14", words));
            }
        }
        true
    }
}
