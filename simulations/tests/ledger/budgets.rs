//! What one machine may have the ledger do: all that people do at once, and no
//! more than the others' disks and patience bear.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use innermesh_agent::{
    control::{members::InviteRequest, node::StatusRequest},
    enroll::{self, JoinOptions},
    ledger::client::SubmitError,
    node::Agent,
};
use innermesh_proto::ledger::{
    Content, Outcome,
    record::RecordData,
    request::{AddRecord, Certify},
};
use simulations::{
    Machine, World, clock,
    mesh::{DOMAIN, found, join},
};

const PATIENCE: Duration = Duration::from_secs(15);

/// The sites, records and services of a busy machine.
fn busy(machine: &Machine, sites: usize, records: usize, services: usize) -> Vec<Content> {
    let own = &machine.name;
    let names = |n: usize| BTreeSet::from([format!("site{n}.{own}.{DOMAIN}")]);
    let certificates = (0..sites).map(|n| {
        Content::Certify(Certify {
            spki: machine.host.keys.generate_p256().spki(),
            names: names(n),
            days: 90,
        })
    });
    let texts = (0..records).map(|n| {
        Content::AddRecord(AddRecord {
            name: format!("_acme-challenge.site{n}.{own}.{DOMAIN}")
                .parse()
                .unwrap(),
            data: RecordData::Txt(vec![vec![b'x'; 43]]),
            ttl_s: None,
            public: false,
        })
    });
    let claims = (0..services).map(|n| Content::Claim(format!("service{n}").parse().unwrap()));
    certificates.chain(texts).chain(claims).collect()
}

async fn ask_all(agent: &Agent, contents: &[Content]) -> Vec<Result<Outcome, SubmitError>> {
    let asked = contents.iter().map(|content| agent.ask(content, PATIENCE));
    join_all(asked).await
}

#[tokio::test(start_paused = true)]
async fn all_that_people_do_at_once_passes_unnoticed_and_a_machine_gone_mad_does_not() {
    let mut world = World::new(1);
    let (one, two) = (world.machine("one"), world.machine("two"));
    let first = found(&one).await;
    let second = join(&two, "one", &first).await;
    let done = ask_all(&second, &busy(&two, 120, 100, 50)).await;
    for (n, outcome) in done.iter().enumerate() {
        assert!(matches!(outcome, Ok(Outcome::Done(_))), "{n}: {outcome:?}");
    }
    assert_eq!(spenders(&first).await, Vec::<String>::new());

    let names = (0..600).map(|n| Content::Claim(format!("mad{n}").parse().unwrap()));
    let names: Vec<Content> = names.collect();
    let asking = ask_all(&second, &names);
    let other = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begun = clock::now();
        let claim = Content::Claim("mine".parse().unwrap());
        let outcome = first.ask(&claim, PATIENCE).await;
        assert!(matches!(outcome, Ok(Outcome::Done(_))), "{outcome:?}");
        clock::now() - begun
    };
    let (asked, took) = tokio::join!(asking, other);
    assert!(took < Duration::from_secs(1), "another waited for {took:?}");
    let spent = asked
        .iter()
        .filter(|answer| matches!(answer, Err(SubmitError::Spent(_))));
    assert!(spent.count() > 100, "{asked:?}");
    let told = spenders(&first).await;
    assert!(
        told.len() == 1 && told[0].starts_with("two asks too much"),
        "{told:?}"
    );
}

/// What an admin's status says of them.
async fn spenders(agent: &Agent) -> Vec<String> {
    let mut warnings = agent
        .control()
        .ask(StatusRequest {})
        .await
        .unwrap()
        .warnings;
    warnings.retain(|warning| warning.contains("asks too much"));
    warnings
}

#[tokio::test(start_paused = true)]
async fn fifty_machines_join_at_once_by_one_token() {
    let mut world = World::new(2);
    let one = world.machine("one");
    let first = found(&one).await;
    let invite = InviteRequest {
        ttl_s: 3600,
        uses: 50,
        roles: Vec::new(),
        names: Vec::new(),
        routes: Vec::new(),
        addresses: Vec::new(),
    };
    let token = first.control().ask(invite).await.unwrap().token;
    let machines: Vec<Machine> = (0..50).map(|n| world.machine(&format!("m{n}"))).collect();
    let joining = machines.iter().map(|machine| {
        let options = JoinOptions {
            seed: "one".into(),
            token: token.clone(),
            name: machine.name.parse().unwrap(),
            interface: "im0".into(),
        };
        enroll::join(&machine.host, options)
    });
    for (n, joined) in join_all(joining).await.into_iter().enumerate() {
        if let Err(error) = joined {
            panic!("{n}: {error}");
        }
    }
}
