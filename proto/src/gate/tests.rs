//! The attacks that work against plain chitchat, one by one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::limits::{
    GOSSIP_BLOCK_BYTES, GOSSIP_BLOCKS, GOSSIP_DELTA_NODES, GOSSIP_DIGEST_BYTES, GOSSIP_HEAD_BYTES,
    GOSSIP_MESSAGE_BYTES,
};

const CLUSTER: &str = "home";

/// A table of heads. A text is a head when it spells out what it is about:
/// that stands for the signature.
#[derive(Debug, Default, Clone)]
struct Table {
    held: BTreeMap<Name, (GossipId, u64)>,
}

impl Table {
    fn of(ids: &[(&GossipId, u64)]) -> Self {
        let mut table = Self::default();
        for (id, version) in ids {
            table.take(id, *version);
        }
        table
    }

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
        head.text.trim_end() == sealed(id, head.version) && !outdated
    }
}

fn sealed(id: &GossipId, version: u64) -> String {
    format!("{} {} {} {version}", id.node, id.generation, id.address)
}

fn id(name: &str, generation: u64) -> GossipId {
    let last = name.bytes().fold(0u16, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    GossipId {
        node: Name::new(name).unwrap(),
        generation,
        address: (
            std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last),
            51819,
        )
            .into(),
    }
}

fn me() -> GossipId {
    id("me", 1)
}

fn known(id: &GossipId, version: u64) -> Known {
    Known {
        id: *id,
        heartbeat: u64::MAX,
        version,
    }
}

fn offer(id: &GossipId, version: u64) -> Offer {
    Offer {
        id: *id,
        from: 0,
        head: Some(Value {
            version,
            text: sealed(id, version),
        }),
    }
}

fn syn(digest: Vec<Known>) -> Vec<u8> {
    let cluster = CLUSTER.to_owned();
    Message::Syn { cluster, digest }.encode()
}

fn ack(delta: Vec<Offer>) -> Vec<u8> {
    Message::Ack { delta }.encode()
}

/// `message` with this delta in place of an empty one, in full blocks that
/// `pack` has seen to.
fn with_delta(mut message: Vec<u8>, plain: &[u8], tag: u8, pack: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    assert_eq!(message.pop(), Some(0));
    for block in plain.chunks(GOSSIP_BLOCK_BYTES) {
        let block = pack(block);
        message.push(tag);
        message.extend((block.len() as u16).to_le_bytes());
        message.extend(block);
    }
    message.push(0);
    message
}

/// An `Ack` whose delta has this plaintext.
fn ack_of(plain: &[u8]) -> Vec<u8> {
    with_delta(ack(vec![]), plain, 2, <[u8]>::to_vec)
}

/// `message` with this delta in place of an empty one, compressed as chitchat
/// does.
fn zipped(message: Vec<u8>, plain: &[u8]) -> Vec<u8> {
    with_delta(message, plain, 1, |block| {
        zstd::bulk::compress(block, 0).unwrap()
    })
}

/// The plaintext of the delta of a short `Ack`.
fn plain_of(delta: Vec<Offer>) -> Vec<u8> {
    let bytes = ack(delta);
    bytes[7..bytes.len() - 1].to_vec()
}

fn incoming(message: &[u8]) -> Incoming {
    read(message, CLUSTER, &me()).expect("the message as a whole is in order")
}

fn pass(message: &[u8], table: &Table) -> Filtered {
    incoming(message).filter(table)
}

/// What the heads that a message brings are said to be.
fn brought(message: &[u8]) -> Vec<(GossipId, u64)> {
    let incoming = incoming(message);
    let heads = incoming.heads();
    heads.map(|(id, head)| (*id, head.version)).collect()
}

fn refusal(message: &[u8]) -> GateError {
    read(message, CLUSTER, &me()).expect_err("refused")
}

fn digest_of(filtered: &Filtered) -> Vec<Known> {
    match Message::parse(&filtered.bytes).unwrap() {
        Message::Syn { digest, .. } | Message::SynAck { digest, .. } => digest,
        other => panic!("no digest in {other:?}"),
    }
}

fn delta_of(filtered: &Filtered) -> Vec<Offer> {
    match Message::parse(&filtered.bytes).unwrap() {
        Message::SynAck { delta, .. } | Message::Ack { delta } => delta,
        other => panic!("no delta in {other:?}"),
    }
}

#[test]
fn a_block_that_unfolds_beyond_its_cap_is_refused() {
    let of = |tag: u8, block: &[u8]| {
        let mut message = ack(vec![]);
        message.pop();
        message.push(tag);
        message.extend((block.len() as u16).to_le_bytes());
        message.extend(block);
        message.push(0);
        message
    };
    let plain = vec![0; GOSSIP_BLOCK_BYTES + 1];
    let frame = zstd::bulk::compress(&plain, 0).unwrap();
    assert_eq!(refusal(&of(1, &frame)), GateError::Zstd);
    assert_eq!(refusal(&of(2, &plain)), GateError::LongBlock);
}

#[test]
fn a_full_compressed_block_and_a_head_across_two_are_accepted() {
    let delta: Vec<_> = (0..20)
        .map(|n| {
            let mut offer = offer(&id(&format!("a{n}"), 1), 1);
            offer.head.as_mut().unwrap().text += &" ".repeat(GOSSIP_HEAD_BYTES - 50);
            offer
        })
        .collect();
    let plain = plain_of_all(&delta);
    assert!(plain.len() > GOSSIP_BLOCK_BYTES);
    let message = zipped(ack(vec![]), &plain);
    let filtered = pass(&message, &Table::default());
    assert_eq!(delta_of(&filtered), delta);
    assert_eq!(filtered.drops, Drops::default());
}

fn plain_of_all(delta: &[Offer]) -> Vec<u8> {
    delta
        .iter()
        .flat_map(|offer| plain_of(vec![offer.clone()]))
        .collect()
}

#[test]
fn more_blocks_than_a_delta_has_are_refused() {
    let of = |blocks: usize| {
        let mut message = ack(vec![]);
        message.pop();
        message.extend([2, 0, 0].repeat(blocks));
        message.push(0);
        message
    };
    assert_eq!(refusal(&of(GOSSIP_BLOCKS + 1)), GateError::ManyBlocks);
    pass(&of(GOSSIP_BLOCKS), &Table::default());
}

#[test]
fn a_message_beyond_its_cap_is_refused_unread() {
    let message = vec![0; GOSSIP_MESSAGE_BYTES + 1];
    assert_eq!(refusal(&message), GateError::Oversized(message.len()));
}

#[test]
fn setting_a_version_without_a_head_is_refused() {
    let mut plain = plain_of(vec![offer(&id("a", 1), 5)]);
    plain.push(2);
    plain.extend(3u64.to_le_bytes());
    assert_eq!(refusal(&ack_of(&plain)), GateError::SetMaxVersion);
}

#[test]
fn a_second_key_a_foreign_key_and_any_status_but_set_are_refused() {
    let one = plain_of(vec![offer(&id("a", 1), 5)]);
    let node = plain_of(vec![Offer {
        head: None,
        ..offer(&id("a", 1), 5)
    }]);
    let mut second = one.clone();
    second.extend(&one[node.len()..]);
    assert_eq!(refusal(&ack_of(&second)), GateError::SecondKey);

    for status in 1..=255 {
        let mut plain = one.clone();
        *plain.last_mut().unwrap() = status;
        assert_eq!(refusal(&ack_of(&plain)), GateError::Status(status));
    }

    let mut foreign = one;
    // Operation, length of the key, its first letter.
    foreign[node.len() + 3] = b'H';
    assert_eq!(refusal(&ack_of(&foreign)), GateError::Key);
}

#[test]
fn a_node_that_occurs_twice_in_a_delta_is_refused() {
    let a = id("a", 1);
    assert_eq!(
        refusal(&ack(vec![offer(&a, 5), offer(&a, 4)])),
        GateError::Repeated
    );
}

#[test]
fn a_version_of_zero_or_one_that_we_are_said_to_have_is_refused() {
    let a = id("a", 1);
    assert_eq!(refusal(&ack(vec![offer(&a, 0)])), GateError::StaleOffer);
    let mut stale = offer(&a, 7);
    stale.from = 7;
    assert_eq!(refusal(&ack(vec![stale.clone()])), GateError::StaleOffer);
    stale.from = 6;
    assert_eq!(
        delta_of(&pass(&ack(vec![stale.clone()]), &Table::default())),
        [stale]
    );
}

#[test]
fn a_head_without_a_node_and_a_node_without_a_head_are_refused() {
    let one = plain_of(vec![offer(&id("a", 1), 5)]);
    let bare = Offer {
        head: None,
        ..offer(&id("a", 1), 5)
    };
    let node = plain_of(vec![bare.clone()]).len();
    assert_eq!(refusal(&ack_of(&one[node..])), GateError::HeadWithoutNode);
    assert_eq!(
        refusal(&ack(vec![bare, offer(&id("b", 1), 5)])),
        GateError::NodeWithoutHead
    );
}

#[test]
fn a_last_node_whose_head_the_senders_size_limit_cut_off_is_only_left_out() {
    let bare = Offer {
        head: None,
        ..offer(&id("b", 1), 5)
    };
    let first = offer(&id("a", 1), 5);
    let filtered = pass(&ack(vec![first.clone(), bare]), &Table::default());
    assert_eq!(delta_of(&filtered), [first]);
    assert_eq!(filtered.drops, Drops::default());
}

#[test]
fn a_digest_out_of_order_or_with_a_node_twice_is_refused() {
    let (a, b) = (known(&id("a", 1), 1), known(&id("b", 1), 1));
    let refused = |digest| assert_eq!(refusal(&syn(digest)), GateError::DigestOrder);
    refused(vec![b, a]);
    refused(vec![a, a]);
    refused(vec![known(&id("a", 2), 1), a]);
}

#[test]
fn bytes_after_the_message_are_refused() {
    let delta = vec![offer(&id("a", 1), 1)];
    let digest = vec![known(&id("a", 1), 1)];
    for mut message in [
        syn(digest.clone()),
        Message::SynAck {
            digest,
            delta: delta.clone(),
        }
        .encode(),
        ack(delta),
        Message::BadCluster.encode(),
    ] {
        message.push(0);
        assert_eq!(refusal(&message), GateError::Trailing(1));
    }
}

#[test]
fn a_message_cut_off_anywhere_is_refused() {
    let message = Message::SynAck {
        digest: vec![known(&id("a", 1), 1)],
        delta: vec![offer(&id("a", 1), 1)],
    }
    .encode();
    for len in 0..message.len() {
        assert_eq!(refusal(&message[..len]), GateError::Short);
    }
}

#[test]
fn a_delta_about_this_node_goes_no_further_but_its_heads_are_given_to_the_caller() {
    let a = offer(&id("a", 1), 3);
    let earlier = id("me", 0);
    let message = ack(vec![
        offer(&me(), u64::MAX),
        a.clone(),
        offer(&earlier, 9),
        offer(&id("me", 7), 1),
    ]);
    let filtered = pass(&message, &Table::default());
    assert_eq!(delta_of(&filtered), [a]);
    assert_eq!(filtered.drops.own, 3);
    let brought = brought(&message);
    assert_eq!(brought.len(), 4);
    assert!(brought.contains(&(earlier, 9)));
}

#[test]
fn a_claimed_garbage_collection_is_refused_in_digest_and_delta() {
    let a = id("a", 1);
    let mut digest = syn(vec![known(&a, 1)]);
    // The last but one of three numbers, before the cluster's text.
    let last_gc = digest.len() - 2 - CLUSTER.len() - 16;
    digest[last_gc] = 1;
    assert_eq!(refusal(&digest), GateError::Collected);

    let bare = Offer {
        head: None,
        ..offer(&a, 5)
    };
    let mut plain = plain_of(vec![bare]);
    let last_gc = plain.len() - 16;
    plain[last_gc + 7] = 0x80;
    assert_eq!(refusal(&ack_of(&plain)), GateError::Collected);
}

#[test]
fn an_id_enters_only_behind_a_verified_head() {
    let (a, b) = (id("a", 1), id("b", 1));
    let message = syn(vec![known(&a, 8), known(&b, 9)]);
    let filtered = pass(&message, &Table::of(&[(&b, 4)]));
    let digest = digest_of(&filtered);
    assert_eq!(digest.len(), 1);
    assert_eq!((&digest[0].id, digest[0].version), (&b, 9));
    assert_eq!(filtered.drops.unknown, 1);
}

#[test]
fn a_head_admits_its_id_within_the_message_that_brings_it() {
    let a = id("a", 1);
    let message = Message::SynAck {
        digest: vec![known(&a, 8), known(&id("b", 1), 1)],
        delta: vec![offer(&a, 8)],
    };
    let message = message.encode();
    let digest = digest_of(&pass(&message, &Table::default()));
    assert_eq!(digest.len(), 1);
    assert_eq!((&digest[0].id, digest[0].heartbeat), (&a, 8));
    assert_eq!(brought(&message), [(a, 8)]);
}

#[test]
fn one_bad_head_holds_up_no_other() {
    let good = [offer(&id("a", 1), 3), offer(&id("c", 1), 3)];
    let mut forged = offer(&id("b", 1), 3);
    forged.head.as_mut().unwrap().text.push('!');
    let mut endless = offer(&id("d", 1), 3);
    endless.head.as_mut().unwrap().text += &" ".repeat(GOSSIP_HEAD_BYTES);
    let message = ack(vec![
        good[0].clone(),
        forged,
        endless.clone(),
        good[1].clone(),
    ]);
    let filtered = pass(&message, &Table::default());
    assert_eq!(delta_of(&filtered), good);
    assert_eq!(filtered.drops.refused, 2);
    assert!(
        !brought(&message).contains(&(endless.id, 3)),
        "too long to be worth a look"
    );
}

#[test]
fn a_head_offered_for_another_id_or_version_than_it_was_signed_for_stays_out() {
    let a = id("a", 1);
    let mut lifted = offer(&id("a", 2), 3);
    lifted.head = offer(&a, 3).head;
    let mut raised = offer(&a, 3);
    raised.head.as_mut().unwrap().version = u64::MAX;
    let filtered = pass(&ack(vec![lifted, raised]), &Table::default());
    assert_eq!(filtered.drops.refused, 2);
    assert!(delta_of(&filtered).is_empty());
}

#[test]
fn only_the_newest_generation_of_a_node_passes() {
    let (old, new) = (id("a", 1), id("a", 2));
    let message = Message::SynAck {
        digest: vec![known(&old, 9), known(&new, 2)],
        delta: vec![offer(&new, 2), offer(&old, 9)],
    }
    .encode();
    for table in [
        Table::default(),
        Table::of(&[(&old, 9)]),
        Table::of(&[(&new, 2)]),
    ] {
        let filtered = pass(&message, &table);
        assert_eq!(delta_of(&filtered), [offer(&new, 2)]);
        let ids: Vec<_> = digest_of(&filtered).into_iter().map(|k| k.id).collect();
        assert_eq!(ids, std::slice::from_ref(&new));
        assert_eq!(filtered.drops.unknown, 1);
    }
}

#[test]
fn an_owner_gets_one_id_out_of_a_message_however_many_it_signed() {
    let delta: Vec<_> = (1..=100)
        .map(|port| {
            let mut a = id("a", 1);
            a.address.set_port(port);
            offer(&a, 1)
        })
        .collect();
    let filtered = pass(&ack(delta.clone()), &Table::default());
    assert_eq!(delta_of(&filtered), delta[..1]);
    assert_eq!(filtered.drops.superseded, 99);
    // The one that is held is the one that stays.
    let held = &delta[41].id;
    let filtered = pass(&ack(delta.clone()), &Table::of(&[(held, 1)]));
    assert_eq!(delta_of(&filtered), delta[41..42]);
}

#[test]
fn a_heartbeat_is_replaced_by_the_version_that_the_owner_signed() {
    let a = id("a", 1);
    for heartbeat in [0, 1, u64::MAX] {
        let mut entry = known(&a, 3);
        entry.heartbeat = heartbeat;
        let filtered = pass(&syn(vec![entry]), &Table::of(&[(&a, 4)]));
        assert_eq!(digest_of(&filtered)[0].heartbeat, 4);
    }
}

#[test]
fn our_own_entry_passes_and_those_of_our_earlier_lives_do_not() {
    let digest = vec![
        known(&id("me", 0), 9),
        known(&me(), 5),
        known(&id("me", 2), 1),
    ];
    let filtered = pass(&syn(digest), &Table::of(&[(&id("me", 2), 1)]));
    let digest = digest_of(&filtered);
    assert_eq!(digest.len(), 1);
    assert_eq!((&digest[0].id, digest[0].heartbeat), (&me(), 0));
    assert_eq!(filtered.drops.unknown, 2);
}

#[test]
fn a_digest_beyond_its_cap_and_a_name_longer_than_a_node_id_are_refused() {
    let entry = known(&id("00000", 1), 1).len();
    let digest = |count: usize| {
        let entries = (0..count).map(|n| known(&id(&format!("{n:05}"), 1), 1));
        entries.collect::<Vec<_>>()
    };
    let fits = (GOSSIP_DIGEST_BYTES - 2) / entry;
    assert_eq!(refusal(&syn(digest(fits + 1))), GateError::LongDigest);
    assert_eq!(
        pass(&syn(digest(fits)), &Table::default()).drops.unknown,
        fits
    );

    assert_eq!(
        refusal(&syn(vec![known(&id(&"x".repeat(14), 1), 1)])),
        GateError::LongId(14)
    );
    pass(
        &syn(vec![known(&id(&"x".repeat(13), 1), 1)]),
        &Table::default(),
    );
}

#[test]
fn a_delta_with_more_nodes_than_its_cap_costs_not_one_judgement() {
    let delta = |count: usize| {
        let offers = (0..count).map(|n| Offer {
            head: Some(Value {
                version: 1,
                text: String::new(),
            }),
            ..offer(&id(&n.to_string(), 1), 1)
        });
        plain_of_all(&offers.collect::<Vec<_>>())
    };
    assert_eq!(
        refusal(&zipped(ack(vec![]), &delta(GOSSIP_DELTA_NODES + 1))),
        GateError::ManyNodes
    );
    let filtered = pass(
        &zipped(ack(vec![]), &delta(GOSSIP_DELTA_NODES)),
        &Table::default(),
    );
    assert_eq!(filtered.drops.refused, GOSSIP_DELTA_NODES);
}

#[test]
fn what_one_message_cannot_hold_uncompressed_is_judged_now_and_gossiped_later() {
    let digest: Vec<_> = (0..300)
        .map(|n| known(&id(&format!("{n:03}"), 1), 2))
        .collect();
    let delta: Vec<_> = digest
        .iter()
        .map(|known| {
            let mut offer = offer(&known.id, 2);
            offer.head.as_mut().unwrap().text += &" ".repeat(300);
            offer
        })
        .collect();
    let message = Message::SynAck {
        digest,
        delta: vec![],
    };
    let message = zipped(message.encode(), &plain_of_all(&delta));
    let filtered = pass(&message, &Table::default());
    assert!(filtered.bytes.len() <= GOSSIP_MESSAGE_BYTES);
    assert!(filtered.bytes.len() > GOSSIP_MESSAGE_BYTES - 1000);
    assert_eq!(brought(&message).len(), 300);
    assert!(filtered.drops.deferred > 0);
    assert_eq!(delta_of(&filtered), delta[..300 - filtered.drops.deferred]);
    assert_eq!(digest_of(&filtered).len(), 300);
}

#[test]
fn another_cluster_is_an_error_and_never_an_answer() {
    let cluster = "elsewhere".to_owned();
    let message = Message::Syn {
        cluster,
        digest: vec![],
    };
    assert_eq!(refusal(&message.encode()), GateError::Cluster);
    assert_eq!(
        refusal(&Message::BadCluster.encode()),
        GateError::BadCluster
    );
}

#[test]
fn unknown_magic_version_kind_address_block_operation_and_text_are_refused() {
    let broken = |at: usize, byte: u8| {
        let mut message = syn(vec![known(&id("a", 1), 1)]);
        message[at] = byte;
        refusal(&message)
    };
    assert_eq!(broken(0, 0), GateError::Magic);
    assert_eq!(broken(2, 1), GateError::Version(1));
    assert_eq!(broken(3, 4), GateError::Kind(4));
    assert_eq!(broken(3, 255), GateError::Kind(255));
    assert_eq!(broken(8, 0xff), GateError::Text);
    assert_eq!(broken(17, 5), GateError::AddressFamily(5));

    let mut block = ack_of(&plain_of(vec![offer(&id("a", 1), 1)]));
    block[4] = 3;
    assert_eq!(refusal(&block), GateError::Block(3));
    assert_eq!(refusal(&ack_of(&[3])), GateError::Operation(3));
}

/// Messages of the shape that agents exchange, with names few enough to
/// collide.
fn any_message() -> impl Strategy<Value = Message> {
    let any_id = || {
        ("[a-d]|me", 0..3u64, 1..3u16).prop_map(|(name, generation, port)| {
            let mut id = id(&name, generation);
            id.address.set_port(port);
            id
        })
    };
    let digest = || {
        let entries = proptest::collection::btree_map(any_id(), (any::<u64>(), any::<u64>()), 0..8);
        entries.prop_map(|entries| {
            let known = |(id, (heartbeat, version))| Known {
                id,
                heartbeat,
                version,
            };
            entries.into_iter().map(known).collect::<Vec<_>>()
        })
    };
    let delta = || {
        let offers = proptest::collection::btree_map(any_id(), (1..5u64, any::<bool>()), 0..8);
        offers.prop_map(|offers| {
            let offer = |(id, (version, forged)): (GossipId, (u64, bool))| {
                let mut offer = offer(&id, version);
                if forged && let Some(head) = &mut offer.head {
                    head.text.insert(0, '?');
                }
                offer
            };
            offers.into_iter().map(offer).collect::<Vec<_>>()
        })
    };
    prop_oneof![
        digest().prop_map(|digest| Message::Syn {
            cluster: CLUSTER.to_owned(),
            digest
        }),
        (digest(), delta()).prop_map(|(digest, delta)| Message::SynAck { digest, delta }),
        delta().prop_map(|delta| Message::Ack { delta }),
    ]
}

fn any_table() -> impl Strategy<Value = Table> {
    proptest::collection::vec(("[a-d]", 0..3u64, 1..3u16, 1..5u64), 0..4).prop_map(|held| {
        let mut table = Table::default();
        for (name, generation, port, version) in held {
            let mut id = id(&name, generation);
            id.address.set_port(port);
            table.take(&id, version);
        }
        table
    })
}

/// Takes in the heads, filters, filters what came out: it must come out again,
/// with nothing more to leave out.
fn passes_twice_alike(message: &[u8], mut table: Table) -> Result<(), TestCaseError> {
    let Ok(first) = read(message, CLUSTER, &me()) else {
        return Ok(());
    };
    for (id, head) in first.heads() {
        if id.node != me().node && table.is_genuine(id, head) {
            table.take(id, head.version);
        }
    }
    let first = first.filter(&table);
    let second = read(&first.bytes, CLUSTER, &me());
    let second = second.map_err(|e| TestCaseError::fail(e.to_string()))?;
    let second = second.filter(&table);
    prop_assert_eq!(&second.bytes, &first.bytes);
    prop_assert_eq!(second.drops, Drops::default());
    Ok(())
}

proptest! {
    #[test]
    fn a_message_survives_its_encoding(message in any_message()) {
        prop_assert_eq!(Message::parse(&message.encode()), Ok(message));
    }

    #[test]
    fn what_left_the_gate_passes_it_unchanged(message in any_message(), table in any_table()) {
        passes_twice_alike(&message.encode(), table)?;
    }

    #[test]
    fn a_node_has_one_id_at_most_in_what_left_the_gate(
        message in any_message(),
        table in any_table(),
    ) {
        let filtered = pass(&message.encode(), &table);
        let ids: Vec<GossipId> = match Message::parse(&filtered.bytes).unwrap() {
            Message::Ack { delta } => delta.into_iter().map(|o| o.id).collect(),
            _ => digest_of(&filtered).into_iter().map(|k| k.id).collect(),
        };
        let nodes: std::collections::BTreeSet<_> = ids.iter().map(|id| &id.node).collect();
        prop_assert_eq!(nodes.len(), ids.len());
    }

    #[test]
    fn arbitrary_bytes_panic_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes, CLUSTER, &me());
        let _ = unwrap(&bytes);
        let mut behind_a_header = ack(vec![]);
        behind_a_header.pop();
        behind_a_header.extend(&bytes);
        passes_twice_alike(&behind_a_header, Table::default())?;
    }

    #[test]
    fn a_damaged_message_is_refused_or_passes_twice_alike(
        message in any_message(),
        table in any_table(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = message.encode();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        passes_twice_alike(&bytes, table)?;
    }
}
