//! Sets of addresses and ports as ranges, and what several of them have in common.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

/// From one to another, both within it.
pub type Range = (u128, u128);
/// Rising, without overlap.
pub type Ranges = Vec<Range>;

/// The networks of one address family.
pub fn of(nets: &BTreeSet<IpNet>, v4: bool) -> Ranges {
    let mut ranges: Ranges = nets.iter().filter_map(|net| of_net(net, v4)).collect();
    ranges.sort_unstable();
    let mut merged: Ranges = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.0 <= last.1.saturating_add(1) => last.1 = last.1.max(range.1),
            _ => merged.push(range),
        }
    }
    merged
}

fn of_net(net: &IpNet, v4: bool) -> Option<Range> {
    match net {
        IpNet::V4(net) if v4 => Some((
            u32::from(net.network()).into(),
            u32::from(net.broadcast()).into(),
        )),
        IpNet::V6(net) if !v4 => Some((net.network().into(), net.broadcast().into())),
        _ => None,
    }
}

/// All that isn't in `nets`, of both families, in as few networks as there can be.
pub fn outside(nets: &BTreeSet<IpNet>) -> BTreeSet<IpNet> {
    let mut found = BTreeSet::new();
    for v4 in [true, false] {
        let last = if v4 { u32::MAX.into() } else { u128::MAX };
        let mut next = Some(0);
        let mut gaps = Ranges::new();
        for (first, end) in of(nets, v4) {
            if let Some(begin) = next
                && begin < first
            {
                gaps.push((begin, first - 1));
            }
            next = (end < last).then(|| end + 1);
        }
        gaps.extend(next.map(|begin| (begin, last)));
        for (first, end) in gaps {
            match (address(first, v4), address(end, v4)) {
                (IpAddr::V4(first), IpAddr::V4(end)) => {
                    found.extend(Ipv4Subnets::new(first, end, 0).map(IpNet::V4));
                }
                (IpAddr::V6(first), IpAddr::V6(end)) => {
                    found.extend(Ipv6Subnets::new(first, end, 0).map(IpNet::V6));
                }
                _ => {}
            }
        }
    }
    found
}

/// Disjoint ranges, rising, each with the keys of all the ranges that it lies in.
pub fn atoms<'r, K: Ord + Copy + 'r>(
    all: impl Iterator<Item = (K, &'r Ranges)>,
) -> Vec<(Range, Vec<K>)> {
    // Where each begins, and behind which number each ends.
    let mut turns: Vec<(u128, K, bool)> = Vec::new();
    for (key, ranges) in all {
        for (first, last) in ranges.iter().filter(|(first, last)| first <= last) {
            turns.push((*first, key, true));
            turns.extend(last.checked_add(1).map(|next| (next, key, false)));
        }
    }
    turns.sort_unstable();
    let mut open: BTreeMap<K, usize> = BTreeMap::new();
    let mut found = Vec::new();
    let mut turns = turns.into_iter().peekable();
    while let Some((first, key, begins)) = turns.next() {
        let count = open.entry(key).or_default();
        if begins {
            *count += 1;
        } else {
            *count -= 1;
        }
        if *count == 0 {
            open.remove(&key);
        }
        let next = turns.peek().map(|(at, ..)| *at);
        if next != Some(first) && !open.is_empty() {
            let last = next.map_or(u128::MAX, |next| next - 1);
            found.push(((first, last), open.keys().copied().collect()));
        }
    }
    found
}

/// A number as the address that it is.
pub fn address(number: u128, v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if v4 => IpAddr::V4(Ipv4Addr::from(number)),
        _ => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbouring_networks_are_one_range() {
        let nets = ["10.0.0.0/25", "10.0.0.128/25", "10.0.1.5/32", "fd00::/64"];
        let nets = nets.map(|net| net.parse().unwrap()).into();
        let base = u128::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)));
        assert_eq!(
            of(&nets, true),
            [(base, base + 255), (base + 261, base + 261)]
        );
        assert_eq!(of(&nets, false).len(), 1);
    }

    #[test]
    fn outside_of_networks_is_what_none_of_them_has() {
        let nets = |all: &[&str]| -> BTreeSet<IpNet> {
            all.iter().map(|net| net.parse().unwrap()).collect()
        };
        assert_eq!(outside(&nets(&["::/0"])), nets(&["0.0.0.0/0"]));
        assert_eq!(
            outside(&nets(&["0.0.0.0/1", "192.0.0.0/2", "::/1", "8000::/1"])),
            nets(&["128.0.0.0/2"])
        );
        let some = nets(&["10.77.0.0/16", "192.168.5.0/24", "fd77:77:77::/48"]);
        let rest = outside(&some);
        for net in &some {
            assert!(
                !rest
                    .iter()
                    .any(|other| other.contains(net) || net.contains(other))
            );
        }
        let whole = some.union(&rest).copied().collect();
        assert_eq!(of(&whole, true), [(0, u32::MAX.into())]);
        assert_eq!(of(&whole, false), [(0, u128::MAX)]);
    }

    #[test]
    fn the_last_number_of_all_is_in_its_range() {
        let whole: Ranges = vec![(5, u128::MAX)];
        let one: Ranges = vec![(u128::MAX, u128::MAX)];
        let found = atoms([(1, &whole), (2, &one)].into_iter());
        let expected = [
            ((5, u128::MAX - 1), vec![1]),
            ((u128::MAX, u128::MAX), vec![1, 2]),
        ];
        assert_eq!(found, expected);
    }

    proptest! {
        #[test]
        fn atoms_are_disjoint_and_say_of_each_number_what_the_ranges_say(
            sets in prop::collection::vec(prop::collection::vec((0u128..60, 0u128..9), 0..5), 0..6),
        ) {
            let sets: Vec<Ranges> = sets
                .into_iter()
                .map(|ranges| ranges.into_iter().map(|(first, more)| (first, first + more)).collect())
                .collect();
            let found = atoms(sets.iter().enumerate());
            for pair in found.windows(2) {
                prop_assert!(pair[0].0.1 < pair[1].0.0);
            }
            for number in 0..80 {
                let within = |range: &Range| (range.0..=range.1).contains(&number);
                let expected: Vec<usize> = (0..sets.len())
                    .filter(|set| sets[*set].iter().any(within))
                    .collect();
                let atom = found.iter().find(|(range, _)| within(range));
                let keys = atom.map(|(_, keys)| keys.clone()).unwrap_or_default();
                prop_assert_eq!(keys, expected);
            }
        }
    }
}
