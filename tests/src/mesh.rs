//! Meshes of agents on a laboratory's hosts, as most tests begin with one.

use serde_json::Value;

use crate::{Agent, Lab};

/// The agents' names, in the order of the hosts.
pub const NAMES: [&str; 5] = ["alpha", "beta", "gamma", "delta", "epsilon"];

impl Lab {
    /// Agents on the first hosts, as many as are taken, that don't run yet and
    /// are in no mesh.
    ///
    /// # Panics
    /// When there are more than hosts, or than [`NAMES`].
    #[must_use]
    pub fn agents<const N: usize>(&self) -> [Agent<'_>; N] {
        std::array::from_fn(|n| Agent::new(&self.hosts[n], NAMES[n]))
    }

    /// As [`Lab::agents`], in one mesh that the first has founded; each knows
    /// all of them.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn mesh<const N: usize>(&self) -> [Agent<'_>; N] {
        let mut agents = self.agents();
        let _ = connect(&mut agents);
        agents
    }
}

/// Has the first of the agents found a mesh and the others join it, and waits
/// until each knows all of them; what `init` told.
///
/// # Panics
/// When there is none.
pub fn connect(agents: &mut [Agent]) -> Value {
    let (first, others) = agents.split_first_mut().expect("a first");
    let told = first.init();
    for other in others {
        other.join(first);
    }
    for agent in agents.iter() {
        agent.wait_nodes(agents.len());
    }
    told
}
