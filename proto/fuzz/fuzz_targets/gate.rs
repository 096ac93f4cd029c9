//! Whatever a peer sends: the gate doesn't panic, keeps its caps, and what left
//! it passes it again unchanged.

#![no_main]

use std::{collections::BTreeMap, net::Ipv6Addr};

use innermesh_proto::{
    gate::{Admission, Drops, GossipId, Message, Name, filter, unwrap},
    limits::{GOSSIP_DELTA_NODES, GOSSIP_MESSAGE_BYTES},
};
use libfuzzer_sys::fuzz_target;

const CLUSTER: &str = "a mesh";

/// Every text of even length is a head.
#[derive(Default)]
struct Table {
    held: BTreeMap<Name, (GossipId, u64)>,
    judged: usize,
}

impl Table {
    fn take(&mut self, id: &GossipId, version: u64) {
        let held = self.held.entry(id.node).or_insert((*id, 0));
        if (held.0.generation, held.1) < (id.generation, version) {
            *held = (*id, version);
        }
    }
}

impl Admission for Table {
    fn verified(&self, id: &GossipId) -> Option<u64> {
        let (held, version) = self.held.get(&id.node)?;
        (held == id).then_some(*version)
    }

    fn judge(&mut self, id: &GossipId, _version: u64, text: &str) -> bool {
        self.judged += 1;
        let outdated = self.held.get(&id.node).is_some_and(|(held, _)| {
            held.generation > id.generation || held.generation == id.generation && held != id
        });
        text.len() % 2 == 0 && !outdated
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
    let Ok(first) = filter(bytes, CLUSTER, &me, &mut table) else {
        return;
    };
    assert!(table.judged <= GOSSIP_DELTA_NODES);
    assert!(first.bytes.len() <= GOSSIP_MESSAGE_BYTES);
    for (id, head) in &first.heads {
        table.take(id, head.version);
    }
    let second = filter(&first.bytes, CLUSTER, &me, &mut table).expect("it left the gate");
    assert_eq!(second.bytes, first.bytes);
    assert_eq!(second.drops, Drops::default());
});
