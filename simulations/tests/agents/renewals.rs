//! Certificates that agents renew by themselves: on time, after sleep, without
//! a leader, and where files or commands fail.

use std::{collections::BTreeSet, time::Duration};

use innermesh_agent::{
    ca::csr,
    control::{
        Der,
        certificates::{CertListRequest, CertRequest},
        members::EvictRequest,
        node::StatusRequest,
        renewals::{
            RenewNowRequest, RenewalAddRequest, RenewalCheckRequest, RenewalRmRequest, RenewalRow,
            RenewalWish, WhichRenewal,
        },
    },
    host::{
        identity::FileIdentity,
        outside::{Outside, SetPlace},
    },
    node::Agent,
    program_certs::{
        files::{self, Found},
        kept,
    },
};
use innermesh_proto::{
    certificate::Certificate,
    ledger::{Content, request::Evict},
};
use simulations::{
    Machine, World,
    mesh::{DOMAIN, ask, found, found_with_root, join, join_as_admin, promote, start, until},
    schedule::Profile,
    world::START_MS,
};

const DAY_MS: i64 = 86_400_000;
/// How long a renewal that is due may take, in simulated time.
const PATIENCE: Duration = Duration::from_secs(300);

fn wish(name: &str) -> RenewalWish {
    RenewalWish {
        names: vec![format!("{name}.{DOMAIN}")],
        days: 90,
        folder: "/etc/ssl".into(),
        stem: name.into(),
        owner: None,
        group: None,
        mode: 0o600,
        new_key: false,
        renew_before_s: None,
        exec: Some("reload".into()),
        exec_now: false,
    }
}

/// What `agent cert issue` does.
async fn issue(machine: &Machine, agent: &Agent, wish: &RenewalWish) -> RenewalRow {
    let host = &machine.host;
    let key = host.keys.generate_p256();
    let names: BTreeSet<String> = wish.names.iter().cloned().collect();
    let csr = csr::make(&key, &names, &BTreeSet::new()).unwrap();
    let request = CertRequest {
        names: wish.names.clone(),
        csr: Der(csr),
        days: wish.days,
    };
    let issued = agent.control().ask(request).await.unwrap();
    let set = files::of(&issued, &*key, kept::access(wish));
    let place = kept::place(wish);
    machine.outside.replace(&place, set).await.unwrap();
    agent
        .control()
        .ask(RenewalAddRequest(wish.clone()))
        .await
        .unwrap()
}

struct Mine<'a> {
    machine: &'a Machine,
    place: SetPlace,
}

impl<'a> Mine<'a> {
    fn new(machine: &'a Machine, wish: &RenewalWish) -> Self {
        Self {
            machine,
            place: kept::place(wish),
        }
    }

    /// What a server would load.
    fn served(&self, agent: &Agent) -> Found {
        let files = self.machine.outside.files(&self.place);
        let state = agent.view().borrow().ledger.clone();
        let root = Certificate::parse(state.root.der()).unwrap();
        files::found(&files, &root, &*self.machine.host.keys).expect("a pair that fits")
    }
}

async fn row(agent: &Agent) -> RenewalRow {
    let rows = agent.control().ask(CertListRequest {}).await.unwrap();
    let mut renewals = rows.into_iter().filter_map(|row| row.renewal);
    renewals.next().expect("a renewal")
}

async fn warnings(agent: &Agent) -> String {
    agent
        .control()
        .ask(StatusRequest {})
        .await
        .unwrap()
        .warnings
        .join("\n")
}

fn count(agent: &Agent, name: &str) -> usize {
    let state = agent.view().borrow().ledger.clone();
    let name = format!("{name}.{DOMAIN}");
    let all = state.certificates.iter();
    all.filter(|(_, issued)| state.names_in(issued) == [name.clone()] && issued.not_after_ms > 0)
        .filter(|(_, issued)| {
            // A node's id is the beginning of its key's hash.
            !issued.key_hash.0.starts_with(&issued.owner.0)
        })
        .count()
}

#[tokio::test(start_paused = true)]
async fn it_is_renewed_at_two_thirds_by_wall_time_and_its_program_is_told() {
    let mut world = World::of(1, Profile::Message);
    let one = world.machine("one");
    let agent = found(&one).await;
    let wish = wish("one");
    let mine = Mine::new(&one, &wish);
    let first = issue(&one, &agent, &wish).await;
    let served = mine.served(&agent);
    assert_eq!(first.serial, served.leaf.serial.to_string());
    one.clock.jump(59 * DAY_MS);
    tokio::time::sleep(PATIENCE).await;
    assert_eq!(mine.served(&agent).leaf.serial, served.leaf.serial);
    assert!(one.outside.commands().is_empty());

    // As much as the jitter may be.
    one.clock.jump(4 * DAY_MS);
    until("it is renewed", PATIENCE, async || {
        mine.served(&agent).leaf.serial != served.leaf.serial
    })
    .await;
    let renewed = mine.served(&agent);
    assert_eq!(renewed.key.spki(), served.key.spki(), "the key stays");
    until("the command is run", PATIENCE, async || {
        one.outside.commands().len() == 1
    })
    .await;
    let command = &one.outside.commands()[0];
    assert_eq!((command.line.as_str(), command.uid), ("reload", 0));
    let variable = |name| {
        let mut all = command.environment.iter();
        all.find(|(key, _)| *key == name).unwrap().1.clone()
    };
    assert_eq!(variable("INNERMESH_NAME"), format!("one.{DOMAIN}"));
    assert_eq!(variable("INNERMESH_KEY"), "/etc/ssl/one.key");
    assert_eq!(
        variable("INNERMESH_SERIAL"),
        renewed.leaf.serial.to_string()
    );
    let told = row(&agent).await;
    assert_eq!((told.failures, told.exec_pending), (0, false));
    assert!(told.next.unwrap().ms() > renewed.leaf.not_before_ms + 59 * DAY_MS as u64);
    // Once, and not again.
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert_eq!(one.outside.writes(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_slept_for_months_renews_when_it_wakes() {
    // Past two thirds, and past the end.
    for days in [70, 200] {
        let mut world = World::of(days as u64, Profile::Message);
        let one = world.machine("one");
        let mut two = world.machine("two");
        let first = found(&one).await;
        let agent = join(&two, "one", &first).await;
        let wish = wish("two");
        issue(&two, &agent, &wish).await;
        let served = Mine::new(&two, &wish).served(&agent);
        // Its clock goes on while it sleeps, and its tasks don't.
        two.still(Duration::from_secs(20), true);
        for _ in 0..days / 10 {
            one.clock.jump(10 * DAY_MS);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        two.clock.jump(days * DAY_MS);
        let agent = if days > 100 {
            drop(agent);
            two.crash().await;
            start(&two).await
        } else {
            agent
        };
        let mine = Mine::new(&two, &wish);
        until("it is renewed", 4 * PATIENCE, async || {
            mine.served(&agent).leaf.serial != served.leaf.serial
        })
        .await;
        let renewed = mine.served(&agent);
        assert!(renewed.leaf.is_valid_at(two.host.clock.wall_ms()));
        until("nothing is left to tell", PATIENCE, async || {
            let row = row(&agent).await;
            row.failures == 0 && !row.exec_pending
        })
        .await;
        assert!(!warnings(&agent).await.contains("can't be renewed"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_leader_is_dead_when_it_is_due_and_the_next_one_issues() {
    let mut world = World::of(3, Profile::Message);
    let mut machines = ["one", "two", "three", "four"].map(|name| world.machine(name));
    let (first, root) = found_with_root(&machines[0]).await;
    let second = join(&machines[1], "one", &first).await;
    let third = join(&machines[2], "one", &first).await;
    let fourth = join(&machines[3], "one", &first).await;
    for machine in &machines[1..3] {
        promote(&first, &root, &machine.host).await.unwrap();
    }
    let agents = [first, second, third];
    until("a roster of three", PATIENCE, async || {
        let mut all = agents.iter().chain([&fourth]);
        all.all(|agent| agent.view().borrow().ledger.roster.len() == 3)
    })
    .await;
    let wish = wish("four");
    issue(&machines[3], &fourth, &wish).await;
    let served = Mine::new(&machines[3], &wish).served(&fourth);
    let leads = |agent: &Agent| agent.raft_status().borrow().leads;
    let leader = agents.iter().position(leads).expect("one leads");
    machines[leader].crash().await;
    for machine in &machines {
        machine.clock.jump(64 * DAY_MS);
    }
    let mine = Mine::new(&machines[3], &wish);
    until("it is renewed", 4 * PATIENCE, async || {
        mine.served(&fourth).leaf.serial != served.leaf.serial
    })
    .await;
    assert_eq!(count(&fourth, "four"), 2, "one attempt, one certificate");
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_told_and_fills_no_ledger() {
    let mut world = World::of(4, Profile::Message);
    let one = world.machine("one");
    let agent = found(&one).await;
    let wish = wish("one");
    let mine = Mine::new(&one, &wish);
    issue(&one, &agent, &wish).await;
    let served = mine.served(&agent);
    // Not writable: the ledger isn't even asked.
    one.outside.set_read_only(true);
    one.clock.jump(64 * DAY_MS);
    until("it is told at once", PATIENCE, async || {
        warnings(&agent)
            .await
            .contains("must be able to write there")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert_eq!(count(&agent, "one"), 1);
    assert!(row(&agent).await.next.is_none());

    // It seems to be, and the write fails: what was issued is kept for later.
    one.outside.set_read_only(false);
    one.outside.set_full(true);
    until("it failed again and again", 20 * PATIENCE, async || {
        row(&agent).await.failures >= 5
    })
    .await;
    assert_eq!(count(&agent, "one"), 2);
    let told = warnings(&agent).await;
    assert!(told.contains("times in a row"), "{told}");
    assert!(told.contains("days left"), "{told}");
    one.outside.set_full(false);
    until("it is renewed", 20 * PATIENCE, async || {
        mine.served(&agent).leaf.serial != served.leaf.serial
    })
    .await;
    assert_eq!(count(&agent, "one"), 2, "the one that was kept");
    assert_eq!(warnings(&agent).await, "");
}

#[tokio::test(start_paused = true)]
async fn files_that_somebody_replaced_or_removed_are_left_alone() {
    let mut world = World::of(5, Profile::Message);
    let one = world.machine("one");
    let agent = found(&one).await;
    let wish = wish("one");
    issue(&one, &agent, &wish).await;
    let place = kept::place(&wish);
    one.outside.tamper(&place, files::KEY, b"mine");
    let before = one.outside.files(&place);
    one.clock.jump(64 * DAY_MS);
    until("it is told", PATIENCE, async || {
        warnings(&agent).await.contains("not a pair of this mesh")
    })
    .await;
    assert_eq!(one.outside.files(&place), before);
    one.outside.remove(&place);
    until("it is told otherwise", PATIENCE, async || {
        warnings(&agent).await.contains("are gone")
    })
    .await;
    assert!(one.outside.files(&place).is_empty());
    assert_eq!(count(&agent, "one"), 1);
    let which = WhichRenewal {
        name: "one".into(),
        folder: None,
    };
    agent
        .control()
        .ask(RenewalRmRequest(which.clone()))
        .await
        .unwrap();
    // The revocation list that ended as the clock jumped is signed anew, too.
    until("nothing is left to be told", PATIENCE, async || {
        warnings(&agent).await.is_empty()
    })
    .await;
    assert!(agent.control().ask(RenewalRmRequest(which)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_command_that_fails_is_run_again_also_after_a_restart() {
    let mut world = World::of(6, Profile::Message);
    let mut one = world.machine("one");
    let agent = found(&one).await;
    let mut wish = wish("one");
    wish.exec_now = true;
    one.outside.set_command_status(1);
    issue(&one, &agent, &wish).await;
    until("it is told at once", PATIENCE, async || {
        warnings(&agent).await.contains("it ended with 1")
    })
    .await;
    until("it is run again", PATIENCE, async || {
        one.outside.commands().len() > 3
    })
    .await;
    drop(agent);
    one.crash().await;
    one.outside.set_command_status(0);
    let agent = start(&one).await;
    until("it went well", PATIENCE, async || {
        !row(&agent).await.exec_pending
    })
    .await;
    assert_eq!(warnings(&agent).await, "");
    let runs = one.outside.commands().len();
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert_eq!(one.outside.commands().len(), runs);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_certificate_is_replaced_only_when_somebody_asks() {
    let mut world = World::of(7, Profile::Message);
    let one = world.machine("one");
    let agent = found(&one).await;
    let wish = wish("one");
    let mine = Mine::new(&one, &wish);
    issue(&one, &agent, &wish).await;
    let served = mine.served(&agent);
    let serial = served.leaf.serial;
    ask(&agent, &Content::Revoke(serial)).await.unwrap();
    until("it is told", PATIENCE, async || {
        warnings(&agent).await.contains("--new-key")
    })
    .await;
    one.clock.jump(64 * DAY_MS);
    tokio::time::sleep(2 * PATIENCE).await;
    assert_eq!(mine.served(&agent).leaf.serial, serial);
    let now = |new_key| RenewNowRequest {
        which: WhichRenewal {
            name: "one".into(),
            folder: None,
        },
        new_key,
    };
    let refused = agent.control().ask(now(false)).await.unwrap_err();
    assert!(refused.message.contains("revoked"), "{refused}");
    agent.control().ask(now(true)).await.unwrap();
    let renewed = mine.served(&agent);
    assert_ne!(renewed.key.spki(), served.key.spki());
    assert_eq!(warnings(&agent).await, "");
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_made_at_each_renewal_where_that_is_wished() {
    let mut world = World::of(8, Profile::Message);
    let one = world.machine("one");
    let agent = found(&one).await;
    let mut wish = wish("one");
    wish.new_key = true;
    let mine = Mine::new(&one, &wish);
    issue(&one, &agent, &wish).await;
    let served = mine.served(&agent);
    // The certificate for the new key is had and can't be written at first.
    one.outside.set_full(true);
    one.clock.jump(64 * DAY_MS);
    until("it failed", 20 * PATIENCE, async || {
        row(&agent).await.failures >= 3
    })
    .await;
    one.outside.set_full(false);
    until("it is renewed", 20 * PATIENCE, async || {
        mine.served(&agent).key.spki() != served.key.spki()
    })
    .await;
    assert_eq!(count(&agent, "one"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_an_issuer_that_has_a_successor_is_renewed_early_and_once() {
    let mut world = World::of(9, Profile::Message);
    let one = world.machine("one");
    let (agent, root) = found_with_root(&one).await;
    let wish = wish("one");
    let mine = Mine::new(&one, &wish);
    issue(&one, &agent, &wish).await;
    let served = mine.served(&agent);
    one.clock.jump(DAY_MS);
    // So that the ledger's time is that of the clock.
    ask(&agent, &Content::Renew).await.unwrap();
    until("the view has it", PATIENCE, async || {
        let stamp_ms = agent.view().borrow().ledger.stamp_ms;
        stamp_ms >= START_MS + DAY_MS as u64
    })
    .await;
    promote(&agent, &root, &one.host).await.unwrap();
    one.clock.jump(4 * DAY_MS);
    ask(&agent, &Content::Renew).await.unwrap();
    until("it hangs from the successor", PATIENCE, async || {
        mine.served(&agent).issuer.serial != served.issuer.serial
    })
    .await;
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert_eq!(one.outside.writes(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_a_ca_node_that_is_evicted_is_renewed_early() {
    let mut world = World::of(10, Profile::Message);
    let machines = ["one", "two", "three"].map(|name| world.machine(name));
    let (first, root) = found_with_root(&machines[0]).await;
    let second = join_as_admin(&machines[1], "one", &first).await;
    let third = join(&machines[2], "one", &first).await;
    let wish = wish("three");
    let mine = Mine::new(&machines[2], &wish);
    issue(&machines[2], &third, &wish).await;
    let served = mine.served(&third);
    for machine in &machines[1..] {
        promote(&first, &root, &machine.host).await.unwrap();
    }
    until("a roster of three", PATIENCE, async || {
        second.view().borrow().ledger.roster.len() == 3
    })
    .await;
    let issuer = served.issuer.serial;
    let state = third.view().borrow().ledger.clone();
    let node = state.issuers.get(&issuer).expect("it is listed").node;
    let message = Evict::root_message(&root.mesh(), &node);
    let request = EvictRequest {
        node: "one".parse().unwrap(),
        root: Some(Der(root.sign(&message).unwrap())),
    };
    second.control().ask(request).await.unwrap();
    until("it hangs from another", 2 * PATIENCE, async || {
        mine.served(&third).issuer.serial != issuer
    })
    .await;
    let renewed = mine.served(&third).leaf.serial;
    let state = third.view().borrow().ledger.clone();
    let issued = state.certificates.get(&renewed).expect("it is listed");
    assert!(!state.is_revoked(&renewed, issued));
}

#[tokio::test(start_paused = true)]
async fn requests_for_one_key_at_the_same_time_are_answered_with_a_certificate_each() {
    let mut world = World::of(11, Profile::Message);
    let one = world.machine("one");
    let agent = found(&one).await;
    let key = one.host.keys.generate_p256();
    let names = BTreeSet::from([format!("one.{DOMAIN}")]);
    let csr = csr::make(&key, &names, &BTreeSet::new()).unwrap();
    let request = || CertRequest {
        names: names.iter().cloned().collect(),
        csr: Der(csr.clone()),
        days: 90,
    };
    let control = agent.control();
    let (first, second) = tokio::join!(control.ask(request()), control.ask(request()));
    assert_ne!(first.unwrap().serial, second.unwrap().serial);
    assert_eq!(count(&agent, "one"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_the_agent_may_not_write_into_is_refused_before_anything_is_issued() {
    let mut world = World::of(12, Profile::Message);
    let one = world.machine("one");
    let agent = found(&one).await;
    let wish = wish("one");
    let check = |inode| RenewalCheckRequest {
        folder: wish.folder.clone(),
        stem: wish.stem.clone(),
        seen: FileIdentity { device: 1, inode },
    };
    let checked = agent.control().ask(check(1)).await.unwrap();
    assert_eq!(checked.earlier, None);
    one.outside.set_read_only(true);
    let refused = agent.control().ask(check(1)).await.unwrap_err().to_string();
    assert!(refused.contains("must be able to write there"), "{refused}");
    one.outside.set_read_only(false);
    let refused = agent.control().ask(check(2)).await.unwrap_err().to_string();
    assert!(refused.contains("there is another one"), "{refused}");
    issue(&one, &agent, &wish).await;
    let checked = agent.control().ask(check(1)).await.unwrap();
    assert_eq!(checked.earlier, Some(wish));
}

#[tokio::test(start_paused = true)]
async fn of_files_that_were_never_seen_no_end_is_told() {
    let mut world = World::of(13, Profile::Message);
    let one = world.machine("one");
    let agent = found(&one).await;
    let wish = wish("nowhere");
    let row = agent.control().ask(RenewalAddRequest(wish)).await.unwrap();
    assert!(row.last_error.is_some());
    let told = warnings(&agent).await;
    assert!(told.contains("can't be renewed"), "{told}");
    assert!(!told.contains("expired"), "{told}");
}
