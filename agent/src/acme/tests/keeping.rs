//! What is kept on the disk, and what becomes of it.

use super::*;
use crate::acme::order::Status;

#[tokio::test]
async fn an_account_that_makes_room_leaves_no_file() {
    let server = server().await;
    for _ in 0..book::ACCOUNTS + 3 {
        server.with_account().await;
    }
    assert_eq!(server.acme.book().accounts.len(), book::ACCOUNTS);
    let disk = &server.acme.host.disk;
    let files = disk.list(book::FOLDER.as_ref()).await.unwrap();
    assert_eq!(files.len(), book::ACCOUNTS);
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
        let mut book = server.acme.book();
        book.order_mut(account, &id(&issued)).unwrap().status = Status::Processing;
        let shown = book.order_mut(account, &id(&shown)).unwrap();
        shown.authorizations[0].challenges[0].status = Status::Processing;
    }
    server.acme.save(account).await.unwrap();
    let again = Acme::open(&server.acme.host, server.mesh.clone(), PORT)
        .await
        .unwrap();
    let book = again.book();
    assert_eq!(
        book.order(account, &id(&issued)).unwrap().status,
        Status::Ready
    );
    let shown = book.order(account, &id(&shown)).unwrap();
    assert_eq!(
        shown.authorizations[0].challenges[0].status,
        Status::Pending
    );
}
