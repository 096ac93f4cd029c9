//! The digest of a head table: equal where two nodes hold the same heads of the same
//! members. It is a sum, so that one head changes it by one step, in buckets, so that a
//! repair looks only at those that differ.

use crate::{
    crypto::Hash,
    id::{MeshId, NodeId},
};

use super::Order;

/// Buckets of a table.
pub const BUCKETS: usize = 64;

/// See the module. Only heads of members may be put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDigest {
    mesh: MeshId,
    buckets: [u128; BUCKETS],
}

impl TableDigest {
    pub fn new(mesh: MeshId) -> Self {
        Self {
            mesh,
            buckets: [0; BUCKETS],
        }
    }

    /// A node's head is `after` now, and was `before`; `None` for no head.
    pub fn replace(&mut self, node: &NodeId, before: Option<Order>, after: Option<Order>) {
        let bucket = &mut self.buckets[bucket_of(&self.mesh, node)];
        if let Some(before) = before {
            *bucket = bucket.wrapping_sub(term(node, before));
        }
        if let Some(after) = after {
            *bucket = bucket.wrapping_add(term(node, after));
        }
    }

    /// Of the whole table. Two tables with the same one differ only by a collision of
    /// 128 bits, which nobody can look for with one head of its own at a time; and the
    /// next head ends it.
    pub fn total(&self) -> [u8; 16] {
        let sum = self.buckets.iter().fold(0u128, |sum, bucket| {
            // A sum that is turned: heads can't be moved between buckets unseen.
            sum.rotate_left(1).wrapping_add(*bucket)
        });
        sum.to_le_bytes()
    }

    /// In which bucket a node's head is.
    pub fn bucket_of(&self, node: &NodeId) -> usize {
        bucket_of(&self.mesh, node)
    }

    /// Of each bucket.
    pub fn buckets(&self) -> [[u8; 16]; BUCKETS] {
        self.buckets.map(u128::to_le_bytes)
    }

    /// Which buckets differ from a peer's: bit `n` for bucket `n`.
    pub fn differing(&self, theirs: &[[u8; 16]; BUCKETS]) -> u64 {
        let own = self.buckets().into_iter().zip(theirs).enumerate();
        own.filter(|(_, (own, theirs))| own != *theirs)
            .fold(0, |bits, (n, _)| bits | 1 << n)
    }
}

/// In which bucket a node's head is.
fn bucket_of(mesh: &MeshId, node: &NodeId) -> usize {
    let hash = Hash::of(&[&b"bucket"[..], &mesh.0, &node.0].concat());
    usize::from(hash.0[0]) % BUCKETS
}

/// What a head adds. The generation is a part of it: a node that starts again counts its
/// heads from the beginning.
fn term(node: &NodeId, (generation, seq): Order) -> u128 {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&node.0);
    bytes[16..24].copy_from_slice(&generation.to_le_bytes());
    bytes[24..].copy_from_slice(&seq.to_le_bytes());
    let hash = Hash::of(&bytes).0;
    let (first, _) = hash.split_at(16);
    u128::from_le_bytes(first.try_into().expect("16 of 32 bytes"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const MESH: MeshId = MeshId([5; 32]);

    fn of(table: &BTreeMap<u8, Order>) -> TableDigest {
        let mut digest = TableDigest::new(MESH);
        for (node, order) in table {
            digest.replace(&NodeId([*node; 16]), None, Some(*order));
        }
        digest
    }

    #[test]
    fn a_node_that_started_again_and_said_as_much_differs() {
        let before = of(&[(1, (1, 5)), (2, (1, 7))].into());
        let after = of(&[(1, (2, 5)), (2, (1, 7))].into());
        assert_ne!(before.total(), after.total());
        assert_eq!(before.differing(&after.buckets()).count_ones(), 1);
    }

    #[test]
    fn heads_that_changed_places_differ() {
        let one = of(&[(1, (1, 5)), (2, (1, 7))].into());
        let other = of(&[(1, (1, 7)), (2, (1, 5))].into());
        assert_ne!(one.total(), other.total());
    }

    proptest! {
        #[test]
        fn the_way_to_a_table_leaves_no_trace(
            steps in prop::collection::vec((0..40u8, prop::option::of((0..3u64, 0..5u64))), 0..200),
        ) {
            let mut table = BTreeMap::new();
            let mut digest = TableDigest::new(MESH);
            for (node, order) in steps {
                let before = table.get(&node).copied();
                digest.replace(&NodeId([node; 16]), before, order);
                match order {
                    Some(order) => table.insert(node, order),
                    None => table.remove(&node),
                };
            }
            prop_assert_eq!(&digest, &of(&table));
            prop_assert_eq!(digest.differing(&of(&table).buckets()), 0);
        }

        #[test]
        fn buckets_show_every_difference(
            one in prop::collection::btree_map(0..60u8, (0..3u64, 0..5u64), 0..60),
            other in prop::collection::btree_map(0..60u8, (0..3u64, 0..5u64), 0..60),
        ) {
            let bits = of(&one).differing(&of(&other).buckets());
            prop_assert_eq!(of(&one).total() == of(&other).total(), one == other);
            for node in 0..60u8 {
                if one.get(&node) != other.get(&node) {
                    let bucket = bucket_of(&MESH, &NodeId([node; 16]));
                    prop_assert!(bits >> bucket & 1 == 1);
                }
            }
        }
    }
}
