//! Whole agents whose ledger's files are damaged at their start: they have what
//! they need from the other nodes, and say so; nobody joins anew for it, and no
//! CA node votes with a log that it lost.

use std::{path::Path, time::Duration};

use innermesh_agent::{
    control::{ca::CaStatusRequest, node::StatusRequest},
    host::Disk,
    ledger::{VotingDisabled, file},
    node::{Agent, BuildError, Loading},
};
use innermesh_proto::{
    ledger::Content,
    limits,
    zone::{DomainName, RecordType},
};
use simulations::{
    Machine, World,
    mesh::{
        DOMAIN, ask, found_with_root, have_met, join, meet, promote, start, until, write_batches,
    },
};
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(60);

fn index(agent: &Agent) -> u64 {
    agent.view().borrow().ledger.position.index
}

/// Damages the first batch of a machine's ledger: nothing behind the genesis can
/// be read any more.
async fn damage(machine: &Machine) {
    let bytes = machine.disk.read(Path::new(file::LEDGER)).await;
    let loaded = file::parse(bytes.unwrap().unwrap()).unwrap();
    machine
        .disk
        .flip(file::LEDGER, loaded.offset(0) as usize + 5);
}

async fn exists(machine: &Machine, file: &str) -> bool {
    let read = machine.disk.read(Path::new(file)).await;
    read.unwrap().is_some()
}

async fn is_told(agent: &Agent) -> bool {
    let status = agent.control().ask(StatusRequest {}).await.unwrap();
    status
        .warnings
        .iter()
        .any(|warning| warning.contains("were damaged"))
}

/// Three agents that have met, the first of which decides.
struct Scene {
    world: World,
    machines: [Machine; 3],
    agents: [Option<Agent>; 3],
}

impl Scene {
    async fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let (machines, agents) = meet(&mut world, ["one", "two", "three"]).await;
        let scene = Self {
            world,
            machines,
            agents: agents.map(Some),
        };
        scene.have_met().await;
        scene
    }

    async fn have_met(&self) {
        let all: Vec<&Agent> = self.agents.iter().flatten().collect();
        have_met(&all).await;
        // What is known of peers is written a moment later.
        until("their addresses are kept", PATIENCE, async || {
            for machine in &self.machines {
                if !exists(machine, "peers.a").await && !exists(machine, "peers.b").await {
                    return false;
                }
            }
            true
        })
        .await;
    }

    fn first(&self) -> &Agent {
        self.agents[0].as_ref().unwrap()
    }

    async fn crash(&mut self, number: usize) {
        self.agents[number] = None;
        self.machines[number].crash().await;
    }

    async fn has_caught_up(&self, agent: &Agent) {
        until("it has all of the ledger", PATIENCE, async || {
            agent.view().borrow().ledger.position == self.first().view().borrow().ledger.position
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_of_whose_ledger_only_the_genesis_is_left_fetches_it_again() {
    let mut scene = Scene::new(1).await;
    scene.crash(1).await;
    ask(scene.first(), &Content::Claim("photos".parse().unwrap()))
        .await
        .unwrap();
    for round in 0..2 {
        damage(&scene.machines[1]).await;
        let second = start(&scene.machines[1]).await;
        scene.has_caught_up(&second).await;
        assert!(is_told(&second).await, "round {round}");
        assert!(exists(&scene.machines[1], "ledger.damaged").await);
        scene.agents[1] = Some(second);
        scene.have_met().await;
        scene.crash(1).await;
    }
    // What was mended is no news at the next start.
    let second = start(&scene.machines[1]).await;
    scene.has_caught_up(&second).await;
    assert!(!is_told(&second).await);
}

#[tokio::test(start_paused = true)]
async fn without_its_own_certificate_a_member_has_another_issued_first() {
    for what in ["missing", "damaged"] {
        let mut scene = Scene::new(2).await;
        scene.crash(1).await;
        damage(&scene.machines[1]).await;
        match what {
            "missing" => scene.machines[1]
                .disk
                .remove(Path::new("membership"))
                .await
                .unwrap(),
            _ => scene.machines[1].disk.flip("membership", 100),
        }
        let second = start(&scene.machines[1]).await;
        scene.has_caught_up(&second).await;
        assert!(is_told(&second).await, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_is_no_ledger_is_fetched_by_what_was_kept_beside_it() {
    let mut scene = Scene::new(3).await;
    scene.crash(1).await;
    let path = Path::new(file::LEDGER);
    let disk = scene.machines[1].disk.clone();
    disk.replace(path, &[0xff; 1000]).await.unwrap();
    let second = start(&scene.machines[1]).await;
    scene.has_caught_up(&second).await;
    scene.agents[1] = Some(second);
    scene.crash(1).await;

    // Where nothing says what mesh it is, the person is told what helps.
    disk.replace(path, &[0xff; 1000]).await.unwrap();
    disk.remove(Path::new("membership")).await.unwrap();
    let machine = &scene.machines[1];
    let refused = Agent::build(machine.config(), machine.host.clone()).await;
    let refused = refused.err().unwrap();
    assert!(matches!(refused, BuildError::Ledger(_)), "{refused}");
    assert!(refused.to_string().contains("agent join"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn names_can_not_be_told_until_somebody_is_reached_who_has_all_that_was_held() {
    let mut scene = Scene::new(4).await;
    // The third never hears of the last batch that the second had.
    let wire = scene.world.wire.clone();
    let [one, two, three] = [0, 1, 2].map(|number: usize| scene.machines[number].place);
    for other in [one, two] {
        wire.cut(other, three);
        wire.cut(three, other);
    }
    ask(scene.first(), &Content::Claim("photos".parse().unwrap()))
        .await
        .unwrap();
    let wanted = index(scene.first());
    until("the second has it", PATIENCE, async || {
        index(scene.agents[1].as_ref().unwrap()) == wanted
    })
    .await;
    // What it holds is written down now and then.
    tokio::time::sleep(Duration::from_secs(700)).await;
    scene.crash(1).await;
    damage(&scene.machines[1]).await;
    wire.heal();
    wire.cut(one, two);
    wire.cut(two, one);
    wire.cut(one, three);
    wire.cut(three, one);

    let machine = &scene.machines[1];
    let (tell, mut told) = watch::channel(None);
    let building = Agent::build_telling(machine.config(), machine.host.clone(), &tell);
    tokio::pin!(building);
    let loading: Loading = tokio::select! {
        _ = &mut building => panic!("it has nobody to ask"),
        told = told.wait_for(Option::is_some) => told.unwrap().clone().unwrap(),
    };
    let name: DomainName = format!("photos.{DOMAIN}").parse().unwrap();
    let rcode = async || loading.dns.query(&name, RecordType::A).await.rcode;
    tokio::select! {
        _ = &mut building => panic!("an older ledger is not enough"),
        () = tokio::time::sleep(Duration::from_secs(60)) => {}
    }
    assert_eq!(rcode().await, "SERVFAIL");
    let progress = loading.progress.borrow().clone();
    assert!(
        progress.failures > 0 && progress.had >= wanted,
        "{progress:?}"
    );
    assert!(progress.to_string().contains("damaged"), "{progress}");
    wire.heal();
    let second = building.await.unwrap();
    assert!(index(&second) >= wanted);
}

#[tokio::test(start_paused = true)]
async fn a_state_and_its_copy_that_are_damaged_are_fetched_again_whatever_is_wrong_with_them() {
    const FILES: [&str; 2] = ["ledger.snapshot", "ledger.snapshot.copy"];
    let mut world = World::new(5);
    let mut machines = ["one", "two", "three", "late"].map(|name| world.machine(name));
    let (first, root) = found_with_root(&machines[0]).await;
    let second = join(&machines[1], "one", &first).await;
    let third = join(&machines[2], "one", &first).await;
    write_batches(&[&first, &second], limits::SNAPSHOT_SPARES + 8).await;
    // An epoch ends with a state.
    for machine in &machines[1..3] {
        promote(&first, &root, &machine.host).await.unwrap();
    }
    until("three decide", PATIENCE, async || {
        first.view().borrow().ledger.roster.len() == 3
    })
    .await;
    let late = join(&machines[3], "one", &first).await;
    assert!(
        exists(&machines[3], FILES[0]).await,
        "it began with a state"
    );
    until("it has met all", PATIENCE, async || late.heads().len() == 3).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop((late, third));

    // Longer than any state of one's own may be, as its first frame says.
    let oversized = [&u32::MAX.to_le_bytes()[..], &[7; 5000]].concat();
    let disk = machines[3].disk.clone();
    for (what, damaged, is_fetched) in [
        ("the state", &FILES[..1], false),
        ("its copy", &FILES[1..], false),
        ("both", &FILES[..], true),
        ("both too long", &FILES[..], true),
        ("the state gone", &FILES[..1], false),
        ("both gone", &FILES[..], true),
    ] {
        machines[3].crash().await;
        for file in damaged {
            let path = Path::new(file);
            match what {
                "both too long" => disk.replace(path, &oversized).await.unwrap(),
                "the state gone" | "both gone" => disk.remove(path).await.unwrap(),
                _ => disk.flip(file, 5000),
            }
        }
        let back = start(&machines[3]).await;
        assert_eq!(is_told(&back).await, is_fetched, "{what}");
        until("it has all of the ledger", PATIENCE, async || {
            back.view().borrow().ledger.position == first.view().borrow().ledger.position
        })
        .await;
        assert!(exists(&machines[3], FILES[0]).await, "{what}");
    }
    let kept = disk.list(Path::new("")).await.unwrap();
    let kept = kept
        .iter()
        .filter(|path| path.to_string_lossy().contains("damaged"));
    assert!(kept.count() <= 2, "what is put aside doesn't add up");
}

#[tokio::test(start_paused = true)]
async fn a_ca_node_that_lost_its_ledger_follows_and_votes_only_if_it_has_its_log() {
    let mut world = World::new(6);
    let mut machines = ["one", "two", "three"].map(|name| world.machine(name));
    let (first, root) = found_with_root(&machines[0]).await;
    let second = join(&machines[1], "one", &first).await;
    let third = join(&machines[2], "one", &first).await;
    for machine in &machines[1..] {
        promote(&first, &root, &machine.host).await.unwrap();
    }
    until("three decide", PATIENCE, async || {
        [&first, &second, &third]
            .iter()
            .all(|agent| agent.view().borrow().ledger.roster.len() == 3)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(third);
    for has_log in [true, false] {
        machines[2].crash().await;
        damage(&machines[2]).await;
        if !has_log {
            machines[2]
                .disk
                .remove(Path::new("raft.log"))
                .await
                .unwrap();
        }
        let name = format!("photos-{has_log}").parse().unwrap();
        ask(&first, &Content::Claim(name)).await.unwrap();
        let third = start(&machines[2]).await;
        assert!(is_told(&third).await);
        until("it follows", PATIENCE, async || {
            index(&third) == index(&first)
        })
        .await;
        let council = third.raft_status();
        if has_log {
            until("it votes again", PATIENCE, async || council.borrow().votes).await;
            continue;
        }
        until("it knows that it may not vote", PATIENCE, async || {
            council.borrow().disabled.is_some()
        })
        .await;
        assert!(!council.borrow().votes);
        assert_eq!(council.borrow().disabled, Some(VotingDisabled::Missing));
        let status = third.control().ask(CaStatusRequest {}).await.unwrap();
        let words = status
            .warnings
            .iter()
            .find(|warning| warning.contains("demote"));
        assert!(words.is_some(), "{:?}", status.warnings);
        // Nothing needs its vote, and it goes on following.
        ask(&first, &Content::Claim("films".parse().unwrap()))
            .await
            .unwrap();
        until("it follows", PATIENCE, async || {
            index(&third) == index(&first)
        })
        .await;
        drop(third);
    }
}
