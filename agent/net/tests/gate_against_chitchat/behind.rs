//! chitchat instances that hear each other through gates only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use chitchat::{ChitchatMessage, Deserializable, Serializable};
use innermesh_proto::gate::{GossipId, HeadFilter, KEY, Name, Value, read};

use crate::mesh::{CLUSTER, GRACE, Inlet, Mesh, id, noise};

/// One node's table of verified heads, and what its gate refused.
#[derive(Default)]
struct Table {
    held: BTreeMap<Name, (GossipId, u64)>,
    refused: Vec<String>,
}

type Shared = Arc<Mutex<Table>>;

/// The text that stands for a signed head.
fn sealed(id: &GossipId, version: u64) -> String {
    let about = format!("{} {} {} {version}", id.node, id.generation, id.address);
    noise(&about, 300)
}

impl Table {
    fn take(&mut self, id: GossipId, version: u64) {
        let held = self.held.entry(id.node).or_insert((id, 0));
        if (held.0.generation, held.1) < (id.generation, version) {
            *held = (id, version);
        }
    }
}

impl HeadFilter for Table {
    fn verified(&self, id: &GossipId) -> Option<u64> {
        let (held, version) = self.held.get(&id.node)?;
        (held == id).then_some(*version)
    }

    fn is_genuine(&self, id: &GossipId, head: &Value) -> bool {
        let held = self.held.get(&id.node);
        let outdated = held.is_some_and(|(held, _)| held.generation > id.generation);
        !outdated && head.text == sealed(id, head.version)
    }
}

fn gate(me: GossipId, table: Shared) -> Inlet {
    Arc::new(move |message| {
        let mut table = table.lock().expect("no panic");
        let bytes = message.serialize_to_vec();
        let incoming = match read(&bytes, CLUSTER, &me) {
            Ok(incoming) => incoming,
            Err(error) => {
                table.refused.push(error.to_string());
                return None;
            }
        };
        for (id, head) in incoming.heads() {
            if id.node != me.node && table.is_genuine(id, head) {
                table.take(*id, head.version);
            }
        }
        let filtered = incoming.filter(&*table);
        let mut rest = &filtered.bytes[..];
        Some(ChitchatMessage::deserialize(&mut rest).expect("what leaves the gate is readable"))
    })
}

/// A mesh behind gates, and each node's table.
struct Guarded {
    mesh: Mesh,
    tables: BTreeMap<u8, Shared>,
    generations: BTreeMap<u8, u64>,
}

impl Guarded {
    async fn start(&mut self, n: u8, generation: u64) {
        let table = self.tables.entry(n).or_default().clone();
        let inlet = gate(id(n, generation), table);
        self.generations.insert(n, generation);
        self.mesh.start_behind(n, generation, inlet).await;
    }

    /// Every running node renews its head each 1.5 s.
    async fn live(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < end {
            for (n, handle) in &self.mesh.nodes {
                let id = id(*n, self.generations[n]);
                handle
                    .with_chitchat(|chitchat| {
                        let state = chitchat.self_node_state();
                        state.set(KEY, sealed(&id, state.max_version() + 1));
                    })
                    .await;
            }
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
    }

    async fn version(&self, n: u8) -> u64 {
        let handle = &self.mesh.nodes[&n];
        handle
            .with_chitchat(|chitchat| chitchat.self_node_state().max_version())
            .await
    }

    /// Each running node holds a head of each other one that is at most three
    /// renewals old, in its table and in its chitchat.
    async fn assert_fresh(&self) {
        for (n, handle) in &self.mesh.nodes {
            for m in self.mesh.nodes.keys().filter(|m| *m != n) {
                let newest = self.version(*m).await;
                let id = id(*m, self.generations[m]);
                let table = self.tables[n].lock().expect("no panic").verified(&id);
                assert!(
                    table.is_some_and(|v| v + 3 >= newest),
                    "{n} on {m}: {table:?}, {newest}"
                );
                let states = handle
                    .with_chitchat(|chitchat| {
                        let states = chitchat.node_states().iter();
                        let states = states.map(|(id, state)| {
                            let of = (id.node_id.to_string(), id.generation_id);
                            (of, state.max_version())
                        });
                        states.collect::<BTreeMap<_, _>>()
                    })
                    .await;
                let held = states.get(&(id.node.to_string(), id.generation));
                assert!(
                    held.is_some_and(|v| v + 3 >= newest),
                    "{n} on {m}: {held:?}, {newest}"
                );
            }
        }
    }

    async fn knows(&self, n: u8, of: &GossipId) -> bool {
        let handle = &self.mesh.nodes[&n];
        handle
            .with_chitchat(|chitchat| {
                let mut ids = chitchat.node_states().keys();
                ids.any(|id| *id.node_id == *of.node && id.generation_id == of.generation)
            })
            .await
    }
}

#[tokio::test(start_paused = true)]
async fn chitchat_lives_on_behind_gates_far_beyond_its_grace_period() {
    let mut guarded = Guarded {
        mesh: Mesh::recording(),
        tables: BTreeMap::new(),
        generations: BTreeMap::new(),
    };
    for n in 0..5 {
        guarded.start(n, 1).await;
    }
    guarded.live(Duration::from_secs(20)).await;
    guarded.assert_fresh().await;
    guarded.live(3 * GRACE).await;
    guarded.assert_fresh().await;

    // One restarts, one stays away until it is forgotten, then comes back.
    guarded.mesh.stop(4).await;
    guarded.mesh.stop(3).await;
    guarded.start(4, 2).await;
    guarded.live(Duration::from_secs(20)).await;
    guarded.assert_fresh().await;
    guarded.live(2 * GRACE).await;
    guarded.assert_fresh().await;
    for gone in [id(3, 1), id(4, 1)] {
        assert!(
            !guarded.knows(0, &gone).await,
            "{gone:?} should be forgotten"
        );
    }
    guarded.start(3, 2).await;
    guarded.live(Duration::from_secs(20)).await;
    guarded.assert_fresh().await;

    for table in guarded.tables.values() {
        let refused = &table.lock().expect("no panic").refused;
        assert!(
            refused.is_empty(),
            "honest traffic was refused: {refused:?}"
        );
    }
}
