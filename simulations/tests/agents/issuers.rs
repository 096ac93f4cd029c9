//! What a CA node signs with: the issuer in force whose key it holds, its
//! successor in time, and how a node without one gets the next.

use std::{sync::Arc, time::Duration};

use innermesh_agent::{
    ca::{Root, recovery},
    enroll::{self, InitOptions},
    host::{Disk, key_files as keys, keys::NodeKey, state_folder::RECOVERY},
    ledger::{Ledger, ProposeError},
};
use innermesh_proto::{
    certificate::Serial,
    ledger::{Author, Content, Outcome, Request, RequestId, request::Promote},
};
use simulations::{Machine, World, mesh::DOMAIN, world::START_MS};

const DAY_MS: u64 = 86_400_000;

struct Ca {
    machine: Machine,
    key: Arc<dyn NodeKey>,
    root: Root,
    ledger: Ledger,
    requests: u8,
}

impl Ca {
    async fn new(seed: u64) -> Self {
        let machine = World::new(seed).machine("one");
        let options = InitOptions {
            domain: DOMAIN.parse().unwrap(),
            name: "one".parse().unwrap(),
            ipv4: None,
            interface: "im0".into(),
            rules: machine.rules,
        };
        let report = enroll::init(&machine.host, options).await.unwrap();
        let sealed = machine.disk.read(RECOVERY.as_ref()).await.unwrap().unwrap();
        let sealed = String::from_utf8(sealed).unwrap();
        let root = recovery::open(&sealed, &report.passphrase, &*machine.host.keys).unwrap();
        let key = keys::require_identity(&machine.host).await.unwrap();
        let ledger = Ledger::open(&machine.host, key.clone()).await.unwrap();
        Self {
            machine,
            key,
            root,
            ledger,
            requests: 0,
        }
    }

    async fn ask(&mut self, content: &Content) -> Outcome {
        loop {
            self.requests += 1;
            let request = Request::seal(
                &*self.key,
                self.ledger.state().mesh,
                RequestId([self.requests; 16]),
                Author::Node(self.key.public().node_id()),
                self.machine.host.clock.wall_ms() + 300_000,
                content,
            );
            match self.ledger.propose(request).await {
                // No faster than one author may.
                Err(ProposeError::Spent(wait)) => tokio::time::sleep(wait).await,
                decided => return decided.unwrap(),
            }
        }
    }

    /// Issuers for these keys, each from its time on.
    async fn promote(&mut self, issuers: &[(&[u8], u64)]) -> Outcome {
        let host = &self.machine.host;
        let signed = issuers.iter().map(|(spki, begin_ms)| {
            let der = self.root.issuer(spki, *begin_ms, &*host.keys);
            der.unwrap()
        });
        let content = Content::Promote(Promote {
            node: self.key.public().node_id(),
            issuers: signed.collect(),
        });
        self.ask(&content).await
    }

    /// Renews the membership, and tells which issuer signed it.
    async fn signs_with(&mut self) -> Result<Serial, String> {
        match self.ask(&Content::Renew).await {
            Outcome::Refused(refusal) => return Err(refusal.to_string()),
            Outcome::Done(_) | Outcome::Waiting(_) => {}
        }
        let state = self.ledger.state();
        let member = &state.members[&self.key.public().node_id()];
        Ok(state.certificates[&member.certificate.unwrap()].issuer)
    }

    /// Lets the days pass until this one after the start, renewing in time.
    async fn until_day(&mut self, day: u64) {
        let clock = self.machine.host.clock.clone();
        let end_ms = START_MS + day * DAY_MS;
        while clock.wall_ms() < end_ms {
            let step_ms = (end_ms - clock.wall_ms()).min(100 * DAY_MS);
            self.machine.clock.jump(step_ms.try_into().unwrap());
            let _ = self.signs_with().await;
        }
    }

    fn issuer_of_key(&self, spki: &[u8]) -> Serial {
        let state = self.ledger.state();
        let mut issuers = state.issuers.values();
        let found = issuers.find(|issuer| issuer.certificate.spki == spki);
        found.unwrap().certificate.serial
    }
}

#[tokio::test(start_paused = true)]
async fn a_successor_signs_as_soon_as_it_is_in_force_and_not_before() {
    let mut ca = Ca::new(1).await;
    let first = ca.signs_with().await.unwrap();
    let keys = ca.ledger.issuer_keys().await.unwrap();
    assert_eq!(keys.held, [first]);
    let next = keys.offered[0].clone();
    let outcome = ca.promote(&[(&next, START_MS + 640 * DAY_MS)]).await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    assert_eq!(ca.signs_with().await.unwrap(), first);

    // The first is in force still.
    ca.until_day(700).await;
    assert_eq!(ca.signs_with().await.unwrap(), ca.issuer_of_key(&next));

    // And after a restart.
    drop(ca.ledger);
    ca.machine.crash().await;
    ca.ledger = Ledger::open(&ca.machine.host, ca.key.clone())
        .await
        .unwrap();
    assert_eq!(ca.signs_with().await.unwrap(), ca.issuer_of_key(&next));
}

#[tokio::test(start_paused = true)]
async fn an_issuer_whose_key_is_not_here_is_not_used() {
    let mut ca = Ca::new(2).await;
    let first = ca.signs_with().await.unwrap();
    let elsewhere = ca.machine.host.keys.generate_p256().spki();
    let outcome = ca.promote(&[(&elsewhere, START_MS + DAY_MS / 48)]).await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    ca.machine.clock.jump(3_600_000);
    assert_eq!(ca.signs_with().await.unwrap(), first);
    assert_eq!(ca.ledger.issuer_keys().await.unwrap().held, [first]);
}

#[tokio::test(start_paused = true)]
async fn the_only_ca_node_is_renewed_though_its_issuer_has_ended() {
    let mut ca = Ca::new(3).await;
    ca.until_day(800).await;
    let refused = ca.signs_with().await.unwrap_err();
    assert!(refused.contains("agent ca promote"), "{refused}");
    let keys = ca.ledger.issuer_keys().await.unwrap();
    let now_ms = START_MS + 800 * DAY_MS;
    let outcome = ca.promote(&[(&keys.offered[0], now_ms)]).await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    let renewed = ca.issuer_of_key(&keys.offered[0]);
    assert_eq!(ca.signs_with().await.unwrap(), renewed);
}

#[tokio::test(start_paused = true)]
async fn the_only_ca_node_that_lost_its_key_is_renewed() {
    let mut ca = Ca::new(4).await;
    drop(ca.ledger);
    ca.machine.crash().await;
    ca.machine.disk.remove("issuer.key".as_ref()).await.unwrap();
    ca.ledger = Ledger::open(&ca.machine.host, ca.key.clone())
        .await
        .unwrap();
    assert!(ca.signs_with().await.is_err());
    let keys = ca.ledger.issuer_keys().await.unwrap();
    assert!(keys.held.is_empty(), "{keys:?}");
    let outcome = ca.promote(&[(&keys.offered[0], START_MS)]).await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    let renewed = ca.issuer_of_key(&keys.offered[0]);
    assert_eq!(ca.signs_with().await.unwrap(), renewed);
}

#[tokio::test(start_paused = true)]
async fn offered_keys_stay_the_same_until_they_are_in_use_and_are_never_lost() {
    let mut ca = Ca::new(5).await;
    let before = ca.ledger.issuer_keys().await.unwrap();
    assert_eq!(before.offered.len(), 2);
    assert_eq!(before, ca.ledger.issuer_keys().await.unwrap());
    // As many as fit beside the first.
    for round in 0..7 {
        let spki = ca.ledger.issuer_keys().await.unwrap().offered[0].clone();
        let begin_ms = START_MS + round * DAY_MS;
        let outcome = ca.promote(&[(&spki, begin_ms)]).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        let after = ca.ledger.issuer_keys().await.unwrap();
        assert!(!after.offered.contains(&spki));
        assert_eq!(after.offered[1], before.offered[1]);
        assert_eq!(after.held.len() as u64, round + 2);
    }
    drop(ca.ledger);
    ca.machine.crash().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    ca.ledger = Ledger::open(&ca.machine.host, ca.key.clone())
        .await
        .unwrap();
    assert_eq!(ca.ledger.issuer_keys().await.unwrap().held.len(), 8);
}
