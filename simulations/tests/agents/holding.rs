//! One admin's machine in wrong hands stops a few machines by its holds, and no
//! more.

use std::{net::SocketAddr, time::Duration};

use innermesh_proto::limits;
use simulations::{
    World,
    byzantine::{Byzantine, Lie},
    mesh::{found, have_met, join, join_as_admin},
    world::PORT,
};

#[tokio::test(start_paused = true)]
async fn an_admin_that_holds_everybody_holds_three_and_who_is_none_holds_nobody() {
    let mut world = World::new(1);
    let [one, mut thief, mut plain] = ["one", "thief", "plain"].map(|name| world.machine(name));
    let first = found(&one).await;
    let admin = join_as_admin(&thief, "one", &first).await;
    let member = join(&plain, "one", &first).await;
    let mut others = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        let machine = world.machine(name);
        others.push((join(&machine, "one", &first).await, machine));
    }
    let all = others.iter().map(|(agent, _)| agent);
    let all: Vec<_> = all.chain([&first, &admin, &member]).collect();
    have_met(&all).await;
    thief.crash().await;
    plain.crash().await;
    let held = || first.view().borrow().held.len();
    let to = SocketAddr::new(one.address, PORT);

    let mut liar = Byzantine::new(&plain, &member).await;
    for _ in 0..10 {
        assert!(liar.tell(to, Lie::HoldsOnAll).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(held(), 0, "a member that is no admin");
    }
    let mut liar = Byzantine::new(&thief, &admin).await;
    let mut most = 0;
    for _ in 0..10 {
        assert!(liar.tell(to, Lie::HoldsOnAll).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
        most = most.max(held());
    }
    assert_eq!(most, limits::HOLDS);
    // Neither who decides nor another admin is among them, and who isn't goes on.
    let view = first.view().borrow().clone();
    assert!(!view.held.contains_key(&view.me));
    let free = others.iter().filter(|(agent, _)| {
        let node = agent.view().borrow().me;
        !view.held.contains_key(&node)
    });
    assert!(free.count() >= others.len() - limits::HOLDS);
}
