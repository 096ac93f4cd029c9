//! What the ledger costs when it is large. Not run by itself; with
//! `cargo test --release -p innermesh-proto --test ledger measure -- --ignored --nocapture`.

#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use innermesh_proto::{
    certificate::Serial,
    codec,
    ledger::{Content, Entry, Outcome, State},
};

use crate::mesh::{KEYS, Mesh, id, key, label};

const MEMBERS: u32 = 1_000;
const CERTIFICATES: u32 = 100_000;
const ROUNDS: u32 = 200;

/// A mesh whose ledger lists so many members and certificates.
fn large() -> Mesh {
    let mut mesh = Mesh::new();
    mesh.admit(&*key(1), "one");
    let mut state = mesh.state().clone();
    let member = state.members[&id(&*key(1))].clone();
    for number in 0..MEMBERS {
        let mut node = id(&*key(1));
        node.0[..4].copy_from_slice(&number.to_be_bytes());
        state.members.insert(node, member.clone());
    }
    let mut issued = state.certificates[&member.certificate.unwrap()].clone();
    issued.der = Box::default();
    for number in 0..CERTIFICATES {
        let mut serial = [7; 16];
        serial[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
        state.certificates.insert(Serial(serial), issued.clone());
    }
    *mesh.states.last_mut().unwrap() = state;
    mesh
}

/// Kibibytes of memory that this process holds.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn each(start: Instant) -> Duration {
    start.elapsed() / ROUNDS
}

#[test]
#[ignore = "a measurement"]
fn a_large_ledger_is_cheap_to_clone_and_to_change() {
    let before = resident();
    let mut mesh = large();
    println!("resident: {} KiB more", resident() - before);

    let start = Instant::now();
    let clones: Vec<State> = (0..ROUNDS).map(|_| mesh.state().clone()).collect();
    println!("clone: {:?}", each(start));
    drop(clones);

    let founder = mesh.founder.clone();
    let requests: Vec<_> = (0..ROUNDS)
        .map(|n| mesh.request(&*founder, &Content::Claim(label(&format!("n{n}")))))
        .collect();
    let start = Instant::now();
    let mut draft = mesh.state().draft(mesh.now_ms);
    for request in requests {
        let entry = Entry {
            request,
            attachment: Vec::new(),
        };
        assert!(matches!(draft.add(entry, &KEYS), Outcome::Done(_)));
    }
    println!("entry of a batch, signature and all: {:?}", each(start));

    let start = Instant::now();
    for _ in 0..ROUNDS {
        let mut state = mesh.state().clone();
        let (serial, issued) = state.certificates.iter().next().unwrap();
        let (mut serial, issued) = (*serial, issued.clone());
        serial.0[15] ^= 1;
        state.certificates.insert(serial, issued);
    }
    println!("clone and one certificate more: {:?}", each(start));

    let start = Instant::now();
    let bytes = codec::encode(mesh.state()).len();
    println!("encoding: {bytes} bytes in {:?}", start.elapsed());
    let start = Instant::now();
    let _ = codec::hash(mesh.state());
    println!("hash: {:?}", start.elapsed());
}
