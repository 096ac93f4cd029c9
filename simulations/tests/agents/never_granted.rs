//! What can never come to pass is refused at once, and doesn't wait.

use std::time::Duration;

use innermesh_agent::{
    control::{
        node::StatusRequest,
        services::{ServiceAddRequest, ServiceListRequest},
    },
    node::Agent,
    services::Spec,
};
use simulations::{
    World,
    mesh::{found, join, until},
    schedule::Profile,
};

const PATIENCE: Duration = Duration::from_secs(60);

async fn refusal(agent: &Agent, spec: Spec) -> String {
    let asked = agent.control().ask(ServiceAddRequest(spec)).await;
    asked.expect_err("a refusal").to_string()
}

fn spec(name: &str) -> Spec {
    Spec::new(name.parse().unwrap(), 80)
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_gets_its_name_is_refused_and_none_is_left_behind() {
    let mut world = World::of(1, Profile::Message);
    let [one, two] = ["one", "two"].map(|name| world.machine(name));
    let first = found(&one).await;
    let second = join(&two, "one", &first).await;
    for name in ["one", "two"] {
        let told = refusal(&second, spec(name)).await;
        assert!(told.contains("is the name of a node"), "{told}");
    }
    let mut elsewhere = spec("web");
    let status = second.control().ask(StatusRequest {}).await.unwrap();
    let other = status.nodes.iter().find(|node| node.name == "one").unwrap();
    elsewhere.address = other.addresses.first().copied();
    let told = refusal(&second, elsewhere).await;
    assert!(told.contains("not an address of this node"), "{told}");

    // Taken by another's service it waits: its owner may share it.
    let add = ServiceAddRequest(spec("wiki"));
    first.control().ask(add.clone()).await.unwrap();
    until("the other to know", PATIENCE, async || {
        let view = second.view().borrow().clone();
        view.ledger.names.contains_key(&"wiki".parse().unwrap())
    })
    .await;
    let mut shared = spec("wiki");
    shared.share = ["one".parse().unwrap()].into();
    let told = refusal(&second, shared).await;
    assert!(told.contains("belongs to one"), "{told}");
    let status = second.control().ask(StatusRequest {}).await.unwrap();
    assert!(status.pending.is_empty(), "{:?}", status.pending);
    let rows = second.control().ask(ServiceListRequest {}).await.unwrap();
    assert!(rows.iter().all(|row| row.node != "two"), "{rows:?}");
    let added = second.control().ask(add).await.unwrap();
    assert!(added.reason.is_some_and(|why| why.contains("share")));
}
