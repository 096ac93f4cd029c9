use innermesh_proto::{
    crypto::{Sealed, Signature},
    head::{Head, Offer},
    id::MeshId,
    ledger::Position,
};

use super::{super::own::own_body, *};

/// A lease, and the time between two renewals.
const LEASE_MS: u32 = 4500;
const RENEWAL: u64 = 1500;
const STEP: u64 = 10;

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// One of two nodes with all that gossip holds there.
struct End {
    id: NodeId,
    generation: u64,
    seq: u64,
    links: Neighbours,
    table: HeadTable,
    renewed: u64,
    /// An older build: its heads have no word of links.
    is_old: bool,
    /// A build that knows whole beats only.
    reads_whole: bool,
    /// It does nothing any more, and its transport goes on.
    hangs: bool,
    /// How many packets it sent, and how often the other's transport acknowledged one.
    sent: usize,
    acks: u64,
}

impl End {
    fn new(id: u8, generation: u64, now: u64) -> Self {
        let me = NodeId([id; 16]);
        let settings = Settings {
            me,
            mesh: MeshId([7; 32]),
            generation,
            behind_nat: false,
        };
        let links = Neighbours::new(settings, at(now));
        let mut inner = links.lock();
        for member in [1, 2, 3].map(|id| NodeId([id; 16])) {
            inner.links.handle_member(at(now), member, None);
            inner.members.insert(member, None);
        }
        inner.is_in_use = true;
        drop(inner);
        for peer in [1, 2, 3].map(|id| NodeId([id; 16])) {
            links.connected(peer, at(now));
        }
        Self {
            id: me,
            generation,
            seq: 0,
            links,
            table: HeadTable::default(),
            renewed: now,
            is_old: false,
            reads_whole: false,
            hangs: false,
            sent: 0,
            acks: 0,
        }
    }

    fn sign(&mut self, now: u64) -> (Head, Vec<u8>) {
        self.seq += 1;
        let named = self.links.named();
        let links = (!self.is_old).then(|| named.clone());
        let body = own_body(Default::default(), links, None);
        let head = Head {
            node: self.id,
            generation: self.generation,
            seq: self.seq,
            lease_ms: LEASE_MS,
            body: body.hash,
            body_len: body.bytes.len() as u32,
            position: Position {
                index: 0,
                hash: Hash::default(),
            },
            clock_ms: 0,
        };
        self.renewed = now;
        self.links.signed(head.order(), &named, at(now));
        (head, body.bytes.clone())
    }

    fn take(&mut self, (head, body): (Head, Vec<u8>), now: u64) {
        let node = head.node;
        let sealed = Sealed {
            bytes: body.clone(),
            signature: Signature::from_bytes(&[0; 64]),
        };
        let was_live = self.table.get(&node).is_some();
        if self.table.offer(head, sealed, Some(at(now)), was_live) != Offer::Old {
            self.table.put_body(&node, body, at(now));
            let known = self.table.get(&node).unwrap();
            self.links.note(node, known, at(now));
        }
    }

    fn sees(&self, other: &Self, now: u64) -> bool {
        let known = self.table.get(&other.id).unwrap();
        let now = at(now);
        self.links.judge(&other.id, known, (now, now)).live
    }
}

/// Runs two nodes; nothing passes between them while it `is_cut`.
fn run(ends: &mut [End; 2], from: u64, to: u64, is_cut: bool, each: impl Fn(&[End; 2], u64)) {
    for now in (from..to).step_by(STEP as usize) {
        for n in 0..2 {
            let (one, other) = ends.split_at_mut(1);
            let (me, other) = if n == 0 {
                (&mut one[0], &mut other[0])
            } else {
                (&mut other[0], &mut one[0])
            };
            if me.hangs {
                continue;
            }
            for (peer, before) in me.links.asked() {
                if peer == other.id && me.acks > before {
                    me.links.acknowledged(&peer, at(now));
                }
            }
            let turn = me.links.turn(Place::default(), now, at(now));
            let renews = me.is_old || me.links.keeps_leases(at(now)) || me.links.is_unlinked();
            let is_due = renews && now >= me.renewed + RENEWAL;
            let publishes = turn
                .effects
                .iter()
                .any(|it| matches!(it, Effect::Publish(_)));
            for effect in turn.effects {
                if let Effect::Send(to, beat) = effect
                    && to == other.id
                    && !is_cut
                    && !me.is_old
                {
                    let Some(packet) = me.links.packet(to, &beat, me.acks, at(now)) else {
                        continue;
                    };
                    me.sent += 1;
                    me.acks += 1;
                    if other.hangs || other.reads_whole && packet.len() < 40 {
                        continue;
                    }
                    let taken = other.links.take_packet(me.id, &packet, |_| true, at(now));
                    assert!(taken.is_some());
                }
            }
            if is_due || publishes {
                let signed = me.sign(now);
                if !is_cut {
                    other.take(signed, now);
                }
            }
        }
        each(ends, now);
    }
}

fn pair() -> [End; 2] {
    [End::new(1, 1, 0), End::new(2, 1, 0)]
}

fn is_up(ends: &[End; 2]) -> bool {
    let other = &ends[1].id;
    ends[0].links.lock().links.up().any(|peer| peer == other)
}

#[test]
fn a_node_that_falls_silent_is_dead_by_its_links_before_its_lease_is_over() {
    let mut ends = pair();
    run(&mut ends, 0, 10_000, false, |_, _| {});
    assert!(is_up(&ends) && ends[0].sees(&ends[1], 10_000));
    assert!(ends[0].links.by_lease().is_empty());
    // The newest head may be as new as the newest packet.
    let head = ends[1].sign(10_000);
    ends[0].take(head, 10_000);
    run(&mut ends, 10_000, 12_000, true, |ends, now| {
        assert!(ends[0].sees(&ends[1], now), "at {now}");
    });
    run(&mut ends, 12_000, 13_500, true, |_, _| {});
    let known = ends[0].table.get(&ends[1].id).unwrap();
    assert!(known.is_live(at(13_500)));
    assert!(!ends[0].sees(&ends[1], 13_500));
}

#[test]
fn ends_that_know_all_of_each_other_beat_and_dont_answer() {
    let mut ends = pair();
    run(&mut ends, 0, 10_000, false, |_, _| {});
    let before = ends.each_ref().map(|end| end.sent);
    run(&mut ends, 10_000, 70_000, false, |ends, now| {
        assert!(is_up(ends) && ends[0].sees(&ends[1], now), "at {now}");
    });
    for (end, before) in ends.iter().zip(before) {
        let sent = end.sent - before;
        assert!(
            (44..=46).contains(&sent),
            "a beat each 1,334 ms, not {sent}"
        );
    }
}

#[test]
fn who_hangs_is_dead_although_its_transport_goes_on() {
    let mut ends = pair();
    run(&mut ends, 0, 10_000, false, |_, _| {});
    ends[1].hangs = true;
    run(&mut ends, 10_000, 14_100, false, |_, _| {});
    assert!(!is_up(&ends) && !ends[0].sees(&ends[1], 14_100));
}

/// Its probes are answered whole.
#[test]
fn who_misses_all_packets_that_repeat_keeps_its_link() {
    let mut ends = pair();
    ends[1].reads_whole = true;
    run(&mut ends, 0, 3000, false, |_, _| {});
    run(&mut ends, 3000, 60_000, false, |ends, now| {
        assert!(ends[1].links.lock().links.up().count() == 1, "at {now}");
        assert!(is_up(ends), "at {now}");
    });
}

#[test]
fn a_node_of_an_older_build_is_judged_by_its_lease() {
    let mut ends = pair();
    ends[1].is_old = true;
    run(&mut ends, 0, 10_000, false, |ends, now| {
        assert!(now < RENEWAL || ends[0].sees(&ends[1], now), "at {now}");
    });
    assert!(!is_up(&ends));
    assert!(ends[0].links.by_lease().contains(&ends[1].id));
    run(&mut ends, 10_000, 13_000, true, |_, _| {});
    assert!(ends[0].sees(&ends[1], 13_000));
    run(&mut ends, 13_000, 15_000, true, |_, _| {});
    assert!(!ends[0].sees(&ends[1], 15_000));
}

#[test]
fn a_node_with_links_renews_nothing_and_stays_live() {
    let mut ends = pair();
    run(&mut ends, 0, 10_000, false, |_, _| {});
    let before = ends.each_ref().map(|end| end.seq);
    run(&mut ends, 10_000, 60_000, false, |ends, now| {
        assert!(ends[0].sees(&ends[1], now), "at {now}");
    });
    assert_eq!(ends.each_ref().map(|end| end.seq), before);
    let known = ends[0].table.get(&ends[1].id).unwrap();
    assert!(!known.is_live(at(60_000)), "its lease is over");
}

#[test]
fn one_head_of_an_older_build_has_leases_go_on_for_ten_minutes() {
    let mut ends = pair();
    run(&mut ends, 0, 10_000, false, |_, _| {});
    assert!(!ends[0].links.keeps_leases(at(10_000)));
    let mut old = End::new(3, 1, 10_000);
    old.is_old = true;
    let head = old.sign(10_000);
    ends[0].take(head, 10_000);
    assert!(ends[0].links.keeps_leases(at(609_999)));
    assert!(!ends[0].links.keeps_leases(at(610_000)));
}

#[test]
fn a_node_that_lost_its_links_renews_its_head_until_it_has_some() {
    let mut ends = pair();
    run(&mut ends, 0, 10_000, false, |_, _| {});
    assert!(!ends[0].links.is_unlinked());
    run(&mut ends, 10_000, 16_000, true, |_, _| {});
    assert!(ends[0].links.is_unlinked());
    run(&mut ends, 16_000, 30_000, false, |_, _| {});
    assert!(!ends[0].links.is_unlinked());
}

#[test]
fn a_node_that_starts_again_at_once_is_never_dead() {
    let mut ends = pair();
    run(&mut ends, 0, 10_000, false, |_, _| {});
    ends[1] = End::new(2, 2, 10_500);
    // As when a new connection comes up: its head first.
    let first = ends[1].sign(10_500);
    ends[0].take(first, 10_500);
    run(&mut ends, 10_500, 20_000, false, |ends, now| {
        assert!(ends[0].sees(&ends[1], now), "at {now}");
    });
    assert!(is_up(&ends) && ends[0].links.by_lease().is_empty());
}

#[test]
fn a_node_whose_links_fail_is_live_while_it_is_heard_itself() {
    let mut ends = pair();
    run(&mut ends, 0, 10_000, false, |_, _| {});
    assert!(ends[0].sees(&ends[1], 10_000));
    run(&mut ends, 10_000, 16_000, true, |_, _| {});
    assert!(!ends[0].sees(&ends[1], 16_000));
    // A head that others bring says nothing: it may be older than the silence.
    let head = ends[1].sign(16_000);
    ends[0].take(head, 16_000);
    assert!(!ends[0].sees(&ends[1], 16_000));
    assert!(ends[0].links.heard_itself(ends[1].id));
    assert!(ends[0].sees(&ends[1], 16_000));
    assert!(!ends[0].links.heard_itself(ends[1].id));
    run(&mut ends, 16_000, 22_000, true, |_, _| {});
    assert!(!ends[0].sees(&ends[1], 22_000));
}

#[test]
fn who_says_goodbye_is_gone_although_its_link_is_up() {
    let mut ends = pair();
    run(&mut ends, 0, 10_000, false, |_, _| {});
    let (mut head, body) = ends[1].sign(10_000);
    head.lease_ms = 0;
    ends[0].take((head, body), 10_000);
    assert!(is_up(&ends) && !ends[0].sees(&ends[1], 10_000));
}

#[test]
fn packets_beyond_a_peers_share_are_not_read_and_cost_no_other_peer() {
    let ends = pair();
    let beat = PacketWriter::default().write(&Beat::default(), at(0));
    let beat = beat.unwrap();
    let take = |from: u8, packet: &[u8], now| {
        let from = NodeId([from; 16]);
        let taken = ends[0].links.take_packet(from, packet, |_| true, at(now));
        taken.is_some()
    };
    let read = (0..1000).filter(|_| take(2, &beat, 0)).count();
    assert_eq!(read, limits::LINK_PACKETS as usize);
    assert!(take(3, &beat, 0));
    let later = (0..10_000).filter(|ms| take(2, &beat, *ms)).count();
    assert_eq!(later as u64, 10 * limits::LINK_PACKETS_PER_S - 1);
    for packet in [&b""[..], &[0xff; 64], &[0; limits::LINK_PACKET_BYTES + 1]] {
        assert!(!take(3, packet, 20_000));
    }
    assert!(!take(9, &beat, 20_000), "of no member");
}
