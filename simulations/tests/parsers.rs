//! The seeds of the fuzz targets, and what is near them, run as ordinary tests.

#![allow(
    clippy::disallowed_methods,
    reason = "the seeds are files of this repository"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use innermesh_agent::host::Disk;
use innermesh_proto::{
    codec,
    crypto::Sealed,
    message::{Propose, Push, PushedHead},
    rpc::{RequestFrame, method},
};
use simulations::{
    World,
    mesh::{found, invite, join, resolve, until},
    parsers,
    random::Random,
};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}

#[test]
fn the_seeds_and_what_is_near_them_are_read_without_harm() {
    for (target, read) in parsers::ALL {
        let mut seeds = 0;
        for entry in fs::read_dir(corpus(target)).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            seeds += 1;
            read(&bytes);
            let mut random = Random::named(1, target);
            for _ in 0..300 {
                let at = random.below(bytes.len() as u64) as usize;
                read(&bytes[..at]);
                let mut other = bytes.clone();
                other[at] ^= 1 << random.below(8);
                read(&other);
                // A length that is claimed and isn't there.
                other[at] = 253 + random.below(3) as u8;
                read(&other);
                other.push(0);
                read(&other);
            }
        }
        assert!(seeds > 0, "{target} has no seeds");
        read(b"");
    }
}

#[tokio::test(start_paused = true)]
#[ignore = "writes the seeds of the fuzz targets anew"]
async fn the_seeds_are_written_from_a_small_mesh() {
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let folder = corpus(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
    };
    let mut world = World::new(1);
    let (one, two) = (world.machine("one"), world.machine("two"));
    let first = found(&one).await;
    let second = join(&two, "one", &first).await;
    until("they have met", Duration::from_secs(10), async || {
        !resolve(&first, "two").await.is_empty() && first.heads().len() == 1
    })
    .await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    put("token", "one-use", invite(&first).await.unwrap().as_bytes());
    let (_, head) = first.heads().remove(0);
    put("head", "sealed", &codec::encode(&head));
    let body = second.view().borrow().nodes[&second.view().borrow().me]
        .announcement
        .encode();
    put("head", "body", &body);
    let push = Push {
        heads: vec![PushedHead {
            head: head.clone(),
            body: Some(body),
        }],
    };
    let frame = RequestFrame::new(method::PUSH, 0, None, codec::encode(&push));
    put("rpc", "push", &frame.encode());
    let propose = codec::encode(&Propose { request: head });
    put("rpc", "propose", &propose);
    second.stop().await;
    for file in [
        "ledger",
        "peers.a",
        "peers.b",
        "generation.a",
        "generation.b",
    ] {
        if let Some(bytes) = two.disk.read(Path::new(file)).await.unwrap() {
            put("state", file, &bytes);
        }
    }
    let ledger = two.disk.read(Path::new("ledger")).await.unwrap().unwrap();
    let loaded = innermesh_agent::ledger::file::parse(ledger).unwrap();
    put("ledger", "genesis", &codec::encode(&loaded.genesis));
    for (number, batch) in loaded.batches.iter().enumerate() {
        put("ledger", &format!("batch-{number}"), &codec::encode(batch));
        for (entry, sealed) in requests(batch).iter().enumerate() {
            put(
                "ledger",
                &format!("request-{number}-{entry}"),
                &codec::encode(sealed),
            );
        }
    }
    let config = "listen = [\"[::]:51819\"]\n\n[log]\nformat = \"json\"\n";
    put("config", "short", config.as_bytes());
    put("config", "service", b"port = 443\nprotocol = \"tcp\"\n");
}

fn requests(batch: &innermesh_proto::ledger::Batch) -> Vec<Sealed> {
    let entries = batch.entries.iter();
    entries.map(|entry| entry.request.clone()).collect()
}
