//! What is kept on the disk, and what becomes of it.

use super::*;
use innermesh_proto::limits;

use crate::acme::order::{Identifier, Order, Status};

#[tokio::test]
async fn an_account_that_makes_room_leaves_no_file() {
    let server = server().await;
    for _ in 0..limits::ACME_ACCOUNTS_PER_OWNER + 3 {
        server.with_account().await;
    }
    let kept = limits::ACME_ACCOUNTS_PER_OWNER;
    assert_eq!(server.acme.store().accounts.len(), kept);
    let disk = &server.acme.host.disk;
    let files = disk.list(account_store::FOLDER.as_ref()).await.unwrap();
    assert_eq!(files.len(), kept);
}

/// One that nobody has shown anything for, with as many names as it may have.
fn large_order(now_ms: u64) -> Order {
    let names = 0..limits::CERTIFICATE_NAMES;
    let names = names.map(|n| Identifier::Dns(format!("{n}{}.lab.internal", "x".repeat(40))));
    Order::new(names.collect(), 90, now_ms, || "t".repeat(22))
}

#[tokio::test]
async fn accounts_without_a_certificate_give_way_and_those_of_the_greediest_user_first() {
    let server = server().await;
    let own = server.with_account().await.account.unwrap();
    let own = own.rsplit('/').next().unwrap().to_owned();
    {
        let mut store = server.acme.store();
        let account = store.accounts.get_mut(&own).unwrap();
        account.user = Some(33);
        account.created_ms = 0;
    }
    let attackers = [Some(1000), Some(1001), Some(1002)];
    for n in 0..limits::ACME_ACCOUNTS + 40 {
        let made = server.with_account().await.account.unwrap();
        let mut store = server.acme.store();
        let account = store
            .accounts
            .get_mut(made.rsplit('/').next().unwrap())
            .unwrap();
        account.user = attackers[n % attackers.len()];
        // An order that is never finished doesn't keep it.
        account.orders.insert("1".into(), large_order(0));
    }
    let store = server.acme.store();
    assert!(store.accounts.len() <= limits::ACME_ACCOUNTS);
    assert!(
        store.accounts.contains_key(&own),
        "the honest user's is kept"
    );
}

#[tokio::test]
async fn orders_are_bounded_in_bytes_for_each_account_and_in_all() {
    let server = server().await;
    let mut accounts = Vec::new();
    for user in 0..8 {
        let made = server.with_account().await.account.unwrap();
        let id = made.rsplit('/').next().unwrap().to_owned();
        server.acme.store().accounts.get_mut(&id).unwrap().user = Some(user % 2);
        accounts.push(id);
    }
    let mut store = server.acme.store();
    for now_ms in 0..100 {
        for account in &accounts {
            let order = large_order(now_ms);
            if store.room_for_order(account, order.bytes()).is_some() {
                let account = store.accounts.get_mut(account).unwrap();
                account.orders.insert(now_ms.to_string(), order);
            }
        }
    }
    let sizes = store.accounts.values().map(account_store::Account::bytes);
    assert!(
        sizes
            .clone()
            .all(|bytes| bytes <= limits::ACME_BYTES_PER_ACCOUNT)
    );
    assert!(sizes.sum::<usize>() <= limits::ACME_BYTES);
    let order = large_order(0);
    assert!(serde_json::to_vec(&order).unwrap().len() <= order.bytes());
    // A third user's order takes the place of one of theirs.
    let account = store.accounts.get_mut(&accounts[0]).unwrap();
    account.user = Some(7);
    account.orders.clear();
    assert!(store.room_for_order(&accounts[0], order.bytes()).is_some());
}

#[tokio::test]
async fn what_was_under_way_at_a_restart_can_be_asked_for_again() {
    let server = server().await;
    let client = server.with_account().await;
    let issued = client.ready_order("photos.lab.internal").await;
    let shown = client.order("films.lab.internal").await;
    let account = client.account.as_ref().unwrap();
    let account = account.rsplit('/').next().unwrap();
    let id = |order: &str| order.rsplit('/').next().unwrap().to_owned();
    {
        let mut store = server.acme.store();
        store.order_mut(account, &id(&issued)).unwrap().status = Status::Processing;
        let shown = store.order_mut(account, &id(&shown)).unwrap();
        shown.authorizations[0].challenges[0].status = Status::Processing;
    }
    server.acme.save(account).await.unwrap();
    let again = Acme::open(&server.acme.host, server.mesh.clone(), PORT)
        .await
        .unwrap();
    let store = again.store();
    assert_eq!(
        store.order(account, &id(&issued)).unwrap().status,
        Status::Ready
    );
    let shown = store.order(account, &id(&shown)).unwrap();
    assert_eq!(
        shown.authorizations[0].challenges[0].status,
        Status::Pending
    );
}
