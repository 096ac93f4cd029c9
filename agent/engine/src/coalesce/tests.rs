use proptest::prelude::*;

use super::*;
use crate::split::tests::{cut, packet_at, packet_of};

#[derive(Default)]
struct Frames {
    all: Vec<Vec<u8>>,
    is_plain: bool,
}

impl Inside for Frames {
    fn deliver(&mut self, parts: &[IoSlice<'_>]) {
        self.all
            .push(parts.iter().flat_map(|part| part.to_vec()).collect());
    }

    fn joins_tcp(&self) -> bool {
        !self.is_plain
    }

    fn joins_udp(&self) -> bool {
        !self.is_plain
    }
}

fn join(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut inside = Frames::default();
    let mut coalescer = Coalescer::new();
    for bytes in packets {
        let room = coalescer.room(bytes.len(), &mut inside);
        room[..bytes.len()].copy_from_slice(bytes);
        coalescer.push(&Packet::parse(bytes).unwrap(), &inside);
    }
    coalescer.flush(&mut inside);
    inside.all
}

/// What the kernel makes of the frames again.
fn cut_again(frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let cut_one = |mut frame: Vec<u8>| cut(&mut frame).unwrap();
    frames.into_iter().flat_map(cut_one).collect()
}

fn stream(is_ipv6: bool, lengths: &[usize]) -> Vec<Vec<u8>> {
    let mut sequence = 5000;
    let mut packets = Vec::new();
    for (n, length) in lengths.iter().enumerate() {
        let payload = vec![u8::try_from(n).unwrap(); *length];
        let mut packet = packet_at(is_ipv6, TCP, ACK, sequence, &payload);
        if !is_ipv6 {
            // Numbered as the kernel numbers what it cuts.
            packet[5] = u8::try_from(7 + n).unwrap();
            packet[10..12].copy_from_slice(&[0, 0]);
            let sum = checksum::finish(checksum::add(0, &packet[..20]));
            packet[10..12].copy_from_slice(&sum);
        }
        packets.push(packet);
        sequence += u32::try_from(*length).unwrap();
    }
    packets
}

#[test]
fn segments_that_follow_each_other_are_one_frame_and_come_apart_the_same() {
    for is_ipv6 in [false, true] {
        let packets = stream(is_ipv6, &[1228, 1228, 1228, 90]);
        let frames = join(&packets);
        assert_eq!(frames.len(), 1);
        assert_eq!(cut_again(frames), packets);
    }
}

#[test]
fn what_does_not_follow_ends_the_frame_and_is_not_overtaken() {
    let packets = stream(true, &[100, 100, 100, 100]);
    let mut gap = packets.clone();
    gap.remove(1);
    assert_eq!(join(&gap).len(), 2);
    let swapped: Vec<Vec<u8>> = [0, 2, 1, 3].map(|n| packets[n].clone()).to_vec();
    assert_eq!(cut_again(join(&swapped)), swapped);
    let longer = stream(true, &[100, 200, 200]);
    let frames = join(&longer);
    assert_eq!(frames.len(), 2);
    assert_eq!(cut_again(frames), longer);
}

#[test]
fn only_plain_data_that_are_whole_are_joined() {
    for flags in [0x11, 0x12, 0x14, 0x30, 0x50, 0x90] {
        let mut packets = stream(true, &[100]);
        packets.push(packet_at(true, TCP, flags, 5100, &[1; 100]));
        assert_eq!(join(&packets).len(), 2, "{flags:x}");
    }
    let mut broken = stream(true, &[100, 100]);
    broken[1][90] ^= 1;
    assert_eq!(join(&broken).len(), 2);
    let mut other_window = stream(true, &[100, 100]);
    other_window[1][54] ^= 1;
    assert_eq!(join(&other_window).len(), 2);
}

#[test]
fn data_to_be_pushed_end_the_frame() {
    let mut packets = stream(true, &[100]);
    packets.push(packet_at(true, TCP, ACK | PSH, 5100, &[1; 100]));
    packets.push(packet_at(true, TCP, ACK, 5200, &[2; 100]));
    let frames = join(&packets);
    assert_eq!(frames.len(), 2);
    assert_eq!(cut_again(frames), packets);
}

#[test]
fn flows_that_mix_are_joined_each_by_itself() {
    let one = stream(true, &[100; 4]);
    let other = stream(false, &[200; 4]);
    let mixed: Vec<Vec<u8>> = one
        .iter()
        .zip(&other)
        .flat_map(|(a, b)| [a.clone(), b.clone()])
        .collect();
    let frames = join(&mixed);
    assert_eq!(frames.len(), 2);
    assert_eq!(cut_again(frames), [one, other].concat());
}

#[test]
fn datagrams_of_one_length_are_joined_and_the_shorter_one_is_the_last() {
    for is_ipv6 in [false, true] {
        let of = |length| packet_of(is_ipv6, UDP, 0, &vec![9; length]);
        let packets: Vec<Vec<u8>> = [500, 500, 60, 60, 500].map(of).to_vec();
        let frames = join(&packets);
        assert_eq!(frames.len(), 3);
        let lengths: Vec<usize> = cut_again(frames).iter().map(Vec::len).collect();
        assert_eq!(lengths, packets.iter().map(Vec::len).collect::<Vec<_>>());
    }
}

#[test]
fn a_device_without_offloads_gets_packets_as_they_are() {
    let packets = stream(true, &[100; 4]);
    let mut inside = Frames {
        is_plain: true,
        ..Frames::default()
    };
    let mut coalescer = Coalescer::new();
    for bytes in &packets {
        coalescer.room(bytes.len(), &mut inside)[..bytes.len()].copy_from_slice(bytes);
        coalescer.push(&Packet::parse(bytes).unwrap(), &inside);
    }
    coalescer.flush(&mut inside);
    assert_eq!(cut_again(inside.all), packets);
}

proptest! {
    #[test]
    fn a_stream_of_any_lengths_comes_apart_as_it_was(
        is_ipv6 in any::<bool>(),
        lengths in proptest::collection::vec(1usize..1400, 1..120),
    ) {
        let packets = stream(is_ipv6, &lengths);
        let payload = |packets: &[Vec<u8>]| -> Vec<u8> {
            let headers = if is_ipv6 { 72 } else { 52 };
            packets.iter().flat_map(|p| p[headers..].to_vec()).collect()
        };
        let again = cut_again(join(&packets));
        prop_assert_eq!(payload(&again), payload(&packets));
    }

    #[test]
    fn no_packet_makes_it_panic(
        packets in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 20..200), 1..20),
    ) {
        let whole: Vec<Vec<u8>> = packets
            .into_iter()
            .filter_map(|mut bytes| {
                let is_ipv6 = bytes[1] & 1 == 1;
                bytes[0] = if is_ipv6 { 0x60 } else { 0x45 };
                let length = bytes.len();
                let field = if is_ipv6 { 4 } else { 2 };
                let length = if is_ipv6 { length.checked_sub(40)? } else { length };
                bytes[field..field + 2]
                    .copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
                Packet::parse(&bytes).map(|_| bytes)
            })
            .collect();
        prop_assert_eq!(join(&whole).is_empty(), whole.is_empty());
    }
}
