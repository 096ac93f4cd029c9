//! What is made of Docker's words in whatever order they come, and the watch against a
//! Docker of its own making.

mod fake;

use std::{collections::BTreeMap, time::Duration};

use innermesh_control::spec::Spec;
use innermesh_proto::{limits, name::Label};
use tokio::time::timeout;

use self::fake::Fake;
use super::{
    ContainerService, Unwell,
    answer::{ContainerId, Event, event, inspected, listed},
    tracker::{Looked, Outcome, Tracker},
    watch::DockerWatch,
};
use crate::services::{Origin, Registry, tests::World};

fn id(number: u16) -> String {
    format!("{number:064x}")
}

fn container(number: u16) -> ContainerId {
    let list = format!(r#"[{{"Id": "{}"}}]"#, id(number));
    listed(list.as_bytes()).unwrap().remove(0)
}

/// A running container on the host's network, with the port 8000 and its number.
fn inspection(number: u16, name: &str) -> serde_json::Value {
    serde_json::json!({
        "Id": id(number), "Name": format!("/box-{number}"), "Image": format!("sha256:{}", id(1)),
        "State": { "Running": true, "StartedAt": format!("2026-11-29T20:00:{:02}Z", number % 60) },
        "Config": { "Labels": {
            "innermesh.name": name, "innermesh.port": (8000 + number).to_string(),
        } },
        "HostConfig": { "NetworkMode": "host" },
        "NetworkSettings": { "Ports": {} },
    })
}

fn seen(number: u16, name: &str) -> Outcome {
    let text = inspection(number, name).to_string();
    Outcome::Seen(Box::new(Looked {
        container: inspected(text.as_bytes()).unwrap(),
        image: BTreeMap::new(),
    }))
}

fn heard(number: u16, action: &str) -> Event {
    let line = format!(
        r#"{{"Type": "container", "Action": "{action}", "Actor": {{"ID": "{}"}}}}"#,
        id(number)
    );
    event(line.as_bytes()).unwrap().unwrap()
}

fn ports(services: &BTreeMap<Label, ContainerService>) -> Vec<(String, u16)> {
    let all = services.values();
    all.map(|it| (it.spec.name.to_string(), it.spec.port))
        .collect()
}

impl Tracker {
    fn ports(&self) -> Vec<(String, u16)> {
        ports(&self.containers(&[], true).services)
    }

    /// Inspects all that is due: containers are named by their numbers.
    fn inspect(&mut self, numbers: &[u16]) {
        let mut asked = Vec::new();
        while let Some((id, ticket)) = self.next() {
            let number = *numbers.iter().find(|it| container(**it) == id).unwrap();
            self.inspected(&id, ticket, seen(number, &format!("s{number}")));
            asked.push(number);
        }
        asked.sort_unstable();
        assert_eq!(asked, numbers);
    }
}

fn s(number: u16) -> (String, u16) {
    (format!("s{number}"), 8000 + number)
}

#[test]
fn what_ended_while_it_was_inspected_is_gone() {
    let mut tracker = Tracker::default();
    tracker.event(heard(1, "start"));
    let (id, ticket) = tracker.next().unwrap();
    tracker.event(heard(1, "die"));
    tracker.inspected(&id, ticket, seen(1, "s1"));
    assert!(tracker.ports().is_empty() && !tracker.is_busy());
    // Nor does the old inspection count for the one that was started since.
    tracker.event(heard(1, "start"));
    tracker.inspected(&id, ticket, seen(1, "old"));
    assert!(tracker.ports().is_empty());
    tracker.inspect(&[1]);
    assert_eq!(tracker.ports(), [s(1)]);
}

#[test]
fn what_changed_while_it_was_inspected_is_inspected_again() {
    let mut tracker = Tracker::default();
    tracker.event(heard(1, "start"));
    let (id, ticket) = tracker.next().unwrap();
    tracker.event(heard(1, "health_status: healthy"));
    assert!(tracker.next().is_none(), "one at a time");
    tracker.inspected(&id, ticket, seen(1, "old"));
    tracker.inspect(&[1]);
    assert_eq!(tracker.ports(), [s(1)]);
}

#[test]
fn a_list_says_nothing_of_what_began_or_ended_while_it_was_made() {
    let mut tracker = Tracker::default();
    tracker.listing();
    tracker.listed([1, 2].map(container).into());
    tracker.inspect(&[1, 2]);
    tracker.listing();
    tracker.event(heard(3, "start"));
    tracker.inspect(&[3]);
    tracker.event(heard(1, "die"));
    tracker.listed(vec![container(2)]);
    tracker.inspect(&[2]);
    assert_eq!(tracker.ports(), [s(2), s(3)]);
    // What is in no list is gone, also where that was never heard.
    tracker.listing();
    tracker.listed(vec![container(3)]);
    tracker.inspect(&[3]);
    assert_eq!(tracker.ports(), [s(3)]);
}

#[test]
fn an_inspection_without_an_answer_leaves_what_was_seen() {
    let mut tracker = Tracker::default();
    tracker.event(heard(1, "start"));
    tracker.inspect(&[1]);
    tracker.event(heard(1, "rename"));
    let (id, ticket) = tracker.next().unwrap();
    tracker.inspected(&id, ticket, Outcome::NoAnswer);
    assert_eq!(tracker.ports(), [s(1)]);
    tracker.event(heard(1, "rename"));
    let _ = tracker.next().unwrap();
    tracker.interrupted();
    tracker.inspect(&[1]);
    tracker.event(heard(1, "rename"));
    let (id, ticket) = tracker.next().unwrap();
    tracker.inspected(&id, ticket, Outcome::Unusable("it is too long".into()));
    let told = tracker.containers(&[], true);
    assert!(told.services.is_empty());
    assert!(
        told.findings[0].text.contains("too long"),
        "{:?}",
        told.findings
    );
    tracker.event(heard(1, "start"));
    let (id, ticket) = tracker.next().unwrap();
    tracker.inspected(&id, ticket, Outcome::Absent);
    assert_eq!(tracker.containers(&[], true).findings, []);
}

#[test]
fn the_container_that_started_first_keeps_the_name() {
    let mut tracker = Tracker::default();
    tracker.listing();
    tracker.listed([7, 3, 5].map(container).into());
    while let Some((id, ticket)) = tracker.next() {
        let number = [3, 5, 7].into_iter().find(|it| container(*it) == id);
        tracker.inspected(&id, ticket, seen(number.unwrap(), "web"));
    }
    let told = tracker.containers(&[], true);
    assert_eq!(ports(&told.services), [("web".to_owned(), 8003)]);
    assert_eq!(told.findings.len(), 2);
    assert!(
        told.findings[0]
            .text
            .contains("the container box-3 is web already")
    );
    tracker.event(heard(3, "die"));
    assert_eq!(tracker.ports(), [("web".to_owned(), 8005)]);
}

#[test]
fn only_so_many_containers_count_and_only_some_findings_are_told() {
    let mut tracker = Tracker::default();
    let most = u16::try_from(limits::DOCKER_CONTAINERS).unwrap();
    tracker.listing();
    tracker.listed((0..most + 50).map(container).collect());
    let mut count = 0;
    while let Some((id, ticket)) = tracker.next() {
        tracker.inspected(&id, ticket, seen(1, "wpad"));
        count += 1;
    }
    assert_eq!(count, most);
    let told = tracker.containers(&[], true);
    assert_eq!(told.findings.len(), 11);
    let more = usize::from(most) - 10 + 50;
    let last = told.findings.last().unwrap();
    assert!(last.text.contains(&format!("{more} more")), "{last:?}");
    // Whatever comes, no more is kept.
    for number in 0..2 * most {
        tracker.event(heard(number, "start"));
    }
    tracker.listed(Vec::new());
    while let Some((id, ticket)) = tracker.next() {
        tracker.inspected(&id, ticket, Outcome::Absent);
    }
    assert!(!tracker.is_busy());
}

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(3600);

struct Watching {
    world: World,
    docker: Fake,
    registry: Registry,
}

impl Watching {
    async fn start() -> Self {
        let world = World::new();
        let registry = world.registry().await;
        let docker = Fake::default();
        docker.up(&world);
        let watch = DockerWatch::new(&world.host(), "/docker.sock".into(), registry.clone());
        tokio::spawn(watch.run());
        let this = Self {
            world,
            docker,
            registry,
        };
        this.docker.followed().await;
        this
    }

    async fn until(&self, what: &str, met: impl Fn(&BTreeMap<Label, bool>) -> bool) {
        let mut announced = self.registry.subscribe();
        let is_met = announced.wait_for(|now| {
            let healthy = now.iter().map(|(name, it)| (name.clone(), it.healthy));
            met(&healthy.collect())
        });
        let met = timeout(PATIENCE, is_met).await;
        let _ = met.unwrap_or_else(|_| panic!("{what}: {:?}", self.registry.list()));
    }

    async fn until_names(&self, names: &[&str]) {
        let wanted: Vec<Label> = names.iter().map(|name| name.parse().unwrap()).collect();
        let what = names.join(", ");
        self.until(&what, |now| now.keys().eq(&wanted)).await;
    }

    async fn until_told(&self, part: &str) {
        let told = async {
            loop {
                let found = self.registry.findings();
                if found.iter().any(|finding| finding.text.contains(part)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let told = timeout(PATIENCE, told).await;
        told.unwrap_or_else(|_| panic!("{part} in {:?}", self.registry.findings()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_is_a_service_from_its_start_to_its_end() {
    let it = Watching::start().await;
    it.docker.start(1, inspection(1, "photos"));
    it.until_names(&["photos"]).await;
    let status = it.registry.list().remove(0);
    assert_eq!((status.origin, status.spec.port), (Origin::Container, 8001));
    it.docker.start(2, inspection(2, "wiki"));
    it.until_names(&["photos", "wiki"]).await;
    it.docker.end(1);
    it.until_names(&["wiki"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_runs_already_is_there_before_the_agent_announces_anything() {
    let world = World::new();
    let registry = world.registry().await;
    let docker = Fake::default();
    docker.start(1, inspection(1, "photos"));
    docker.up(&world);
    let mut watch = DockerWatch::new(&world.host(), "/docker.sock".into(), registry.clone());
    watch.look_first().await;
    assert_eq!(registry.instances().len(), 1);
    // One that hangs keeps no agent from its start.
    docker.hang(true);
    let began = tokio::time::Instant::now();
    watch.look_first().await;
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(
        registry.instances().len(),
        1,
        "it stays as it was last seen"
    );
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_docker_loses_nothing_and_leaves_nothing() {
    let it = Watching::start().await;
    it.docker.start(1, inspection(1, "photos"));
    it.docker.start(2, inspection(2, "wiki"));
    it.until_names(&["photos", "wiki"]).await;
    it.docker.down(&it.world);
    it.until_told("Docker doesn't tell by /docker.sock").await;
    assert_eq!(it.registry.instances().len(), 2, "they may run still");
    it.docker.remove(1);
    it.docker.add(3, inspection(3, "mail"));
    it.docker.up(&it.world);
    it.until_names(&["mail", "wiki"]).await;
    it.docker.followed().await;
    assert_eq!(it.registry.findings(), []);
}

#[tokio::test(start_paused = true)]
async fn events_that_docker_dropped_are_made_up_for() {
    let it = Watching::start().await;
    it.docker.start(1, inspection(1, "photos"));
    it.until_names(&["photos"]).await;
    it.docker.remove(1);
    it.docker.add(2, inspection(2, "wiki"));
    it.until_names(&["wiki"]).await;
}

#[tokio::test(start_paused = true)]
async fn while_docker_is_away_for_long_its_services_count_as_unhealthy_but_for_a_check() {
    let it = Watching::start().await;
    it.docker.start(1, inspection(1, "photos"));
    let mut checked = inspection(2, "wiki");
    checked["Config"]["Labels"]["innermesh.check"] = "tcp".into();
    it.docker.start(2, checked);
    it.until_names(&["photos", "wiki"]).await;
    it.docker.down(&it.world);
    it.until("photos unhealthy", |now| {
        now.values().all(|healthy| !healthy)
    })
    .await;
    let [photos, wiki] = it.registry.list().try_into().unwrap();
    let why = Unwell::Unknown.to_string();
    assert_eq!(photos.last_error, Some(why));
    // No checks run here: it waits for its first one.
    assert_eq!(wiki.last_error, None);
    it.docker.up(&it.world);
    it.until("photos healthy", |now| now.values().any(|healthy| *healthy))
        .await;
}

#[tokio::test(start_paused = true)]
async fn docker_s_health_counts_and_no_check_runs_beside_it() {
    let it = Watching::start().await;
    let with = |status: &str| {
        let mut it = inspection(1, "photos");
        it["State"]["Health"] = serde_json::json!({ "Status": status });
        it["Config"]["Labels"]["innermesh.check"] = "tcp".into();
        it
    };
    it.docker.start(1, with("starting"));
    it.until_names(&["photos"]).await;
    assert!(it.registry.unchecked().is_empty());
    let error = it.registry.list().remove(0).last_error.unwrap();
    assert_eq!(error, Unwell::Starting.to_string());
    for (status, healthy) in [("healthy", true), ("unhealthy", false), ("healthy", true)] {
        it.docker.change(1, with(status), "health_status");
        it.until(status, |now| now.values().all(|it| *it == healthy))
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_person_described_stands_before_a_label() {
    let it = Watching::start().await;
    let web = || Spec::new("web".parse().unwrap(), 443);
    let origin = || it.registry.list().remove(0).origin;
    it.registry.add(web()).await.unwrap();
    it.docker.start(1, inspection(1, "web"));
    it.until_told("that a person described").await;
    assert_eq!(origin(), Origin::Added);
    it.registry.configure(vec![web()]).await.unwrap();
    assert_eq!(origin(), Origin::Configured);
    // Once that is gone, the label counts, until it is described again.
    it.registry.configure(Vec::new()).await.unwrap();
    let _ = it.registry.rm(&"web".parse().unwrap()).await;
    assert_eq!(origin(), Origin::Container);
    assert_eq!(it.registry.findings(), []);
    let refused = it.registry.rm(&"web".parse().unwrap()).await.unwrap_err();
    assert!(refused.to_string().contains("labels of a container"));
    it.registry.add(web()).await.unwrap();
    assert_eq!(origin(), Origin::Added);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_starts_again_and_again_changes_the_announcement_only_so_often() {
    let it = Watching::start().await;
    let mut announced = it.registry.subscribe();
    let began = tokio::time::Instant::now();
    let mut changes = 0_u64;
    while began.elapsed() < Duration::from_secs(600) {
        it.docker.start(1, inspection(1, "web"));
        tokio::time::sleep(Duration::from_millis(50)).await;
        it.docker.end(1);
        tokio::time::sleep(Duration::from_millis(50)).await;
        if announced.has_changed().unwrap() {
            announced.mark_unchanged();
            changes += 1;
        }
    }
    let most = 60 + 600;
    assert!((most / 2..=most).contains(&changes), "{changes}");
    it.until_names(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_is_not_docker_s_and_answers_without_end_are_told() {
    let it = Watching::start().await;
    it.docker.start(1, inspection(1, "photos"));
    it.until_names(&["photos"]).await;
    it.docker.flood(true);
    it.docker.drop_connections();
    it.until_told("longer than").await;
    assert_eq!(it.registry.instances().len(), 1);
}
