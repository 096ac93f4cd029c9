//! Each attack that works against chitchat as it is, and each lie of a
//! byzantine member, told to a pair of honest agents that run: afterwards they
//! see each other as before, and hear each other's news.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use innermesh_agent::{control::services::ServiceAddRequest, node::Agent, services::Spec};
use innermesh_proto::{gate::gossip_id, head::to_text, id::NodeId};
use simulations::{
    Machine, World,
    byzantine::{Byzantine, Lie},
    forge::{self, Entry, Op},
    memory,
    mesh::{addresses, meet, resolve, until},
    panics,
    world::PORT,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Two honest agents and a member that lies.
struct Scene {
    machines: [Machine; 2],
    honest: [Agent; 2],
    liar: Byzantine,
    /// Services that were added so far, to make news.
    news: u16,
}

/// What the honest pair holds of each other: the order of its heads.
type Orders = BTreeMap<NodeId, (u64, u64)>;

impl Scene {
    async fn new() -> Self {
        panics::watch();
        let mut world = World::new(1);
        let (machines, agents) = meet(&mut world, ["one", "two", "liar"]).await;
        let ([one, two, mut three], [first, second, third]) = (machines, agents);
        three.crash().await;
        let liar = Byzantine::new(&three, &third).await;
        // The recovery file's passphrase asks for much on purpose.
        memory::take_largest();
        Self {
            machines: [one, two],
            honest: [first, second],
            liar,
            news: 0,
        }
    }

    fn at(&self, number: usize) -> SocketAddr {
        SocketAddr::new(self.machines[number].address, PORT)
    }

    /// The first agent's entry in a digest, as it is.
    fn entry(&self) -> Entry {
        let head = self.honest[0].own_head().unwrap();
        let id = gossip_id(&head.node, head.generation);
        Entry {
            node: id.node.to_string(),
            generation: id.generation,
            address: id.address,
            heartbeat: 1,
            last_gc: 0,
            max_version: head.seq,
        }
    }

    /// Tells both agents a gossip message, in the envelope for raw ones.
    async fn gossip(&mut self, message: &[u8]) {
        for number in 0..2 {
            let to = self.at(number);
            assert!(self.liar.gossip(to, message).await);
        }
        self.holds().await;
    }

    async fn lie(&mut self, lie: Lie) {
        for number in 0..2 {
            let to = self.at(number);
            assert!(self.liar.tell(to, lie).await);
        }
        // What the liar itself had to ask for.
        memory::take_largest();
        self.holds().await;
    }

    /// What each holds of the other, none of it beyond what that has signed.
    fn orders(&self) -> [Orders; 2] {
        let own: Orders = self
            .honest
            .iter()
            .filter_map(|agent| agent.own_head())
            .map(|head| (head.node, head.order()))
            .collect();
        [0, 1].map(|number| {
            let heads = self.honest[number].heads().into_iter();
            let orders = heads.filter_map(|(head, _)| {
                let signed = own.get(&head.node)?;
                assert!(head.order() <= *signed, "nobody signed it");
                Some((head.node, head.order()))
            });
            orders.collect()
        })
    }

    /// Nothing came of it.
    async fn holds(&mut self) {
        let before = self.orders();
        tokio::time::sleep(Duration::from_secs(3)).await;
        for (before, after) in before.iter().zip(self.orders()) {
            for (node, order) in before {
                assert!(after[node] >= *order, "a head went back");
            }
        }
        self.news += 1;
        let name = format!("news{}", self.news);
        let spec = Spec::new(name.parse().unwrap(), 8000 + self.news);
        self.honest[0]
            .control()
            .ask(ServiceAddRequest(spec))
            .await
            .unwrap();
        let [one, two] = &self.honest;
        until("news arrive", PATIENCE, async || {
            resolve(two, &name).await == addresses(one)
        })
        .await;
        for (agent, other) in [(one, two), (two, one)] {
            let view = agent.view().borrow().clone();
            let other = other.view().borrow().me;
            assert!(view.nodes[&other].live);
        }
        assert_eq!(panics::first(), None);
        assert!(memory::take_largest() < 16 << 20);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bomb_is_not_unpacked() {
    let mut scene = Scene::new().await;
    scene.lie(Lie::Bomb).await;
    // The same in as many blocks as a message has room for.
    let zeros = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap();
    let many = vec![(1, &zeros[..]); 60_000 / (zeros.len() + 3)];
    scene.gossip(&forge::ack(&forge::blocks(&many))).await;
}

#[tokio::test(start_paused = true)]
async fn versions_are_not_set_by_an_operation_and_do_not_go_down() {
    let mut scene = Scene::new().await;
    let entry = scene.entry();
    let ops = [Op::Node(entry.clone(), 0), Op::MaxVersion(u64::MAX)];
    scene.gossip(&forge::ack(&forge::raw(&ops))).await;
    let ops = [
        Op::Node(entry, 0),
        Op::Set("head".into(), "x".into(), 9, 0),
        Op::Set("head".into(), "x".into(), 8, 0),
    ];
    scene.gossip(&forge::ack(&forge::raw(&ops))).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_tells_a_node_about_itself() {
    let mut scene = Scene::new().await;
    let (entry, own) = (scene.entry(), scene.honest[0].own_head().unwrap());
    let signed = scene.honest[1].heads();
    let (_, sealed) = signed
        .iter()
        .find(|(head, _)| head.node == own.node)
        .unwrap();
    // A genuine head under the highest version, and one that is none.
    for text in [to_text(sealed), "x".into()] {
        let ops = [
            Op::Node(entry.clone(), 0),
            Op::Set("head".into(), text, u64::MAX, 0),
        ];
        scene.gossip(&forge::ack(&forge::raw(&ops))).await;
        let answer = forge::syn_ack(std::slice::from_ref(&entry), &forge::raw(&ops));
        scene.gossip(&answer).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_forgotten_because_a_peer_says_so() {
    let mut scene = Scene::new().await;
    let entry = Entry {
        last_gc: u64::MAX - 1,
        ..scene.entry()
    };
    let ops = [Op::Node(entry.clone(), 0)];
    scene.gossip(&forge::ack(&forge::raw(&ops))).await;
    let cluster = scene.liar.cluster();
    scene.gossip(&forge::syn(&cluster, &[entry])).await;
}

#[tokio::test(start_paused = true)]
async fn ids_by_the_hundred_are_not_taken_in() {
    let mut scene = Scene::new().await;
    let cluster = scene.liar.cluster();
    let strangers: Vec<Entry> = (0..700u32)
        .map(|number| Entry {
            node: format!("{number:026}"),
            ..scene.entry()
        })
        .collect();
    scene.gossip(&forge::syn(&cluster, &strangers)).await;
    scene.lie(Lie::FloodOfIds).await;
    assert!(scene.honest.iter().all(|agent| agent.heads().len() <= 2));
}

#[tokio::test(start_paused = true)]
async fn the_highest_generation_and_version_hurt_only_who_says_so() {
    let mut scene = Scene::new().await;
    let cluster = scene.liar.cluster();
    let highest = Entry {
        generation: u64::MAX,
        max_version: u64::MAX,
        ..scene.entry()
    };
    scene.gossip(&forge::syn(&cluster, &[highest])).await;
    scene.lie(Lie::HighestVersion).await;
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_far_ahead_keeps_no_dead_node_alive() {
    let mut scene = Scene::new().await;
    let cluster = scene.liar.cluster();
    let ahead = Entry {
        heartbeat: u64::MAX,
        ..scene.entry()
    };
    scene
        .gossip(&forge::syn(&cluster, std::slice::from_ref(&ahead)))
        .await;
    let dead = scene.honest[0].view().borrow().me;
    scene.machines[0].crash().await;
    let to = scene.at(1);
    for beat in 0..10 {
        let ahead = Entry {
            heartbeat: u64::MAX - 10 + beat,
            ..ahead.clone()
        };
        let message = forge::syn(&cluster, &[ahead]);
        assert!(scene.liar.gossip(to, &message).await);
        scene.liar.tell(to, Lie::Replay).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let view = scene.honest[1].view().borrow().clone();
    assert!(!view.nodes[&dead].live);
    assert_eq!(panics::first(), None);
}

#[tokio::test(start_paused = true)]
async fn lies_about_others_and_about_itself_come_to_nothing() {
    let mut scene = Scene::new().await;
    for lie in Lie::ALL {
        scene.lie(lie).await;
    }
    for agent in &scene.honest {
        let conflicts = agent.conflicts();
        assert!(
            conflicts.len() == 1,
            "the two heads with one number are told"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_later_version_says_is_understood_as_far_as_it_can_be() {
    let mut scene = Scene::new().await;
    scene.lie(Lie::Newer).await;
    let liar = scene.liar.id();
    for agent in &scene.honest {
        let view = agent.view().borrow().clone();
        assert_eq!(view.nodes[&liar].announcement.version, "99.0.0");
    }
}
