//! Whatever a peer sends: the gate doesn't panic, keeps its caps, and what left
//! it passes it again unchanged.

#![no_main]

use std::{collections::BTreeMap, net::Ipv6Addr};

use innermesh_proto::{
    gate::{Drops, GossipId, HeadFilter, Message, Name, Value, read, unwrap},
    limits::{GOSSIP_DELTA_NODES, GOSSIP_MESSAGE_BYTES},
};
use libfuzzer_sys::fuzz_target;

const CLUSTER: &str = "a mesh";

/// Every text of even length is a head.
#[derive(Default)]
struct Table {
    held: BTreeMap<Name, (GossipId, u64)>,
}

impl Table {
    fn take(&mut self, id: &GossipId, version: u64) {
        let held = self.held.entry(id.node).or_insert((*id, 0));
        if (held.0.generation, held.1) < (id.generation, version) {
            *held = (*id, version);
        }
    }
}

impl HeadFilter for Table {
    fn verified(&self, id: &GossipId) -> Option<u64> {
        let (held, version) = self.held.get(&id.node)?;
        (held == id).then_some(*version)
    }

    fn is_genuine(&self, id: &GossipId, head: &Value) -> bool {
        let outdated = self.held.get(&id.node).is_some_and(|(held, _)| {
            held.generation > id.generation || held.generation == id.generation && held != id
        });
        head.text.len() % 2 == 0 && !outdated
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(plain) = unwrap(bytes) {
        assert!(plain.len() <= GOSSIP_MESSAGE_BYTES);
    }
    if let Ok(message) = Message::parse(bytes) {
        assert_eq!(Message::parse(&message.encode()).as_ref(), Ok(&message));
    }
    let me = GossipId {
        node: Name::new("me").expect("it is short"),
        generation: 1,
        address: (Ipv6Addr::LOCALHOST, 51819).into(),
    };
    let mut table = Table::default();
    let Ok(first) = read(bytes, CLUSTER, &me) else {
        return;
    };
    assert!(first.heads().count() <= GOSSIP_DELTA_NODES);
    for (id, head) in first.heads() {
        if id.node != me.node && table.is_genuine(id, head) {
            table.take(id, head.version);
        }
    }
    let first = first.filter(&table);
    assert!(first.bytes.len() <= GOSSIP_MESSAGE_BYTES);
    let second = read(&first.bytes, CLUSTER, &me).expect("it left the gate");
    let second = second.filter(&table);
    assert_eq!(second.bytes, first.bytes);
    assert_eq!(second.drops, Drops::default());
});
