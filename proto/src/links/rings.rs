//! The rings: who is whose neighbour, as everybody computes it from the ledger.
//!
//! A node's place on a ring is a hash of the mesh, the ring, its id, and the hash of the
//! ledger's batch after the one that admitted it. By the id alone, whoever makes 12,000
//! keys could have all eight places round a node among a thousand; nobody knows
//! the batch after the one that admits a key when it makes that key.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    crypto::Hash,
    id::{MeshId, NodeId},
    limits,
};

type RingPlace = (u128, NodeId);

/// See the module.
#[derive(Clone, Debug)]
pub struct Rings {
    mesh: MeshId,
    rings: [BTreeSet<RingPlace>; limits::LINK_RINGS],
    /// All members; those without a salt have no place yet.
    members: BTreeMap<NodeId, Option<[u128; limits::LINK_RINGS]>>,
}

/// What a node makes of another that its way along a ring meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is the neighbour.
    Take,
    /// The next is looked at in its stead.
    Skip,
    /// It is taken, and so is the next: it may turn out to be of no use.
    Beside,
}

/// Those that are taken beside a neighbour, each way along a ring.
const BESIDE: usize = 2;

impl Rings {
    pub fn new(mesh: MeshId) -> Self {
        Self {
            mesh,
            rings: Default::default(),
            members: BTreeMap::new(),
        }
    }

    /// Adds a member, or gives it its place. `salt` is the hash of the header of the
    /// batch after the one that admitted it; `None` while there is none: it is then on no
    /// ring, and nobody's neighbour in a mesh of more than [`limits::LINKS_ALL`].
    pub fn insert(&mut self, node: NodeId, salt: Option<&Hash>) {
        self.remove(&node);
        let mesh = &self.mesh;
        let places: Option<[u128; limits::LINK_RINGS]> =
            salt.map(|salt| std::array::from_fn(|ring| place(mesh, ring, &node, salt)));
        for (ring, place) in self.rings.iter_mut().zip(places.iter().flatten()) {
            ring.insert((*place, node));
        }
        self.members.insert(node, places);
    }

    /// Takes out who is no member any more.
    pub fn remove(&mut self, node: &NodeId) {
        let places = self.members.remove(node).flatten();
        for (ring, place) in self.rings.iter_mut().zip(places.iter().flatten()) {
            ring.remove(&(*place, *node));
        }
    }

    pub fn contains(&self, node: &NodeId) -> bool {
        self.members.contains_key(node)
    }

    pub fn members(&self) -> impl Iterator<Item = &NodeId> {
        self.members.keys()
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The neighbours of `me`: in a small mesh all that aren't skipped, else the next each
    /// way along each ring.
    pub fn neighbours(&self, me: &NodeId, fit: impl Fn(&NodeId) -> Fit) -> BTreeSet<NodeId> {
        if self.members.len() <= limits::LINKS_ALL {
            let others = self.members.keys().filter(|node| *node != me);
            return others
                .filter(|node| fit(node) != Fit::Skip)
                .copied()
                .collect();
        }
        let mut found = BTreeSet::new();
        let Some(Some(places)) = self.members.get(me) else {
            return found;
        };
        for (ring, place) in self.rings.iter().zip(places) {
            let here = (*place, *me);
            let after = ring.range(here..).chain(ring.range(..here));
            walk(after.map(|(_, node)| node), me, &fit, &mut found);
            let before = ring.range(..here).rev().chain(ring.range(here..).rev());
            walk(before.map(|(_, node)| node), me, &fit, &mut found);
        }
        found
    }
}

/// Goes along a ring until there is a neighbour.
fn walk<'a>(
    along: impl Iterator<Item = &'a NodeId>,
    me: &NodeId,
    fit: &impl Fn(&NodeId) -> Fit,
    found: &mut BTreeSet<NodeId>,
) {
    let mut beside = 0;
    for node in along.filter(|node| *node != me) {
        match fit(node) {
            Fit::Take => {
                found.insert(*node);
                return;
            }
            Fit::Beside if beside < BESIDE => {
                beside += 1;
                found.insert(*node);
            }
            Fit::Beside | Fit::Skip => {}
        }
    }
}

/// Where a node is on a ring.
fn place(mesh: &MeshId, ring: usize, node: &NodeId, salt: &Hash) -> u128 {
    let ring = [u8::try_from(ring).unwrap_or(u8::MAX)];
    let hash = Hash::of(&[&b"ring"[..], &mesh.0, &ring, &node.0, &salt.0].concat());
    let (first, _) = hash.0.split_at(16);
    u128::from_be_bytes(first.try_into().expect("16 of 32 bytes"))
}
