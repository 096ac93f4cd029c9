//! What a person is to know at once stands in the warnings of `status`.

use std::time::Duration;

use innermesh_agent::{control::node::StatusRequest, node::Agent};
use simulations::{
    World,
    mesh::{meet, start, until},
};

const PATIENCE: Duration = Duration::from_secs(180);
const DAY_MS: i64 = 86_400_000;

async fn warns(agent: &Agent, phrase: &str) -> bool {
    let status = agent.control().ask(StatusRequest {}).await.unwrap();
    status.warnings.iter().any(|text| text.contains(phrase))
}

async fn met(one: &Agent, two: &Agent) {
    until("they have met", PATIENCE, async || {
        let own = two.own_head().map(|head| head.generation);
        let heard = one.heads().first().map(|(head, _)| head.generation);
        own == heard && two.heads().len() == 1
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_is_told_with_its_reason_until_one_succeeds() {
    let mut world = World::new(1);
    let ([mut one, two], [_first, second]) = meet(&mut world, ["one", "two"]).await;
    assert!(!warns(&second, "could not be renewed").await);
    one.crash().await;
    // Half of the membership's 90 days are over by this machine's clock.
    for machine in [&one, &two] {
        machine.clock.jump(50 * DAY_MS);
    }
    until("the failure to be told", PATIENCE, async || {
        warns(&second, "could not be renewed: no CA node can be reached").await
    })
    .await;
    let first = start(&one).await;
    until("the warning to go", PATIENCE * 4, async || {
        !warns(&second, "could not be renewed").await
    })
    .await;
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_restored_from_a_snapshot_is_told_so() {
    let mut world = World::new(1);
    let ([_one, mut two], [first, _second]) = meet(&mut world, ["one", "two"]).await;
    two.disk.snapshot();
    for _ in 0..3 {
        two.crash().await;
        let again = start(&two).await;
        met(&first, &again).await;
        assert!(!warns(&again, "restored").await);
    }
    two.crash().await;
    assert!(two.disk.restore());
    let again = start(&two).await;
    until("it to be told", PATIENCE, async || {
        warns(&again, "as after a restored snapshot").await
    })
    .await;
    assert!(!warns(&again, "two machines use the key").await);
    // A start later it is over.
    two.crash().await;
    let again = start(&two).await;
    met(&first, &again).await;
    assert!(!warns(&again, "restored").await);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_runs_beside_its_original_is_told() {
    let mut world = World::new(1);
    let ([_one, two], [_first, second]) = meet(&mut world, ["one", "two"]).await;
    let copy = world.machine("copy");
    copy.disk.copy_of(&two.disk);
    let third = start(&copy).await;
    until("the copy to be told", PATIENCE, async || {
        let phrase = "two machines use the key of two";
        warns(&second, phrase).await || warns(&third, phrase).await
    })
    .await;
}
