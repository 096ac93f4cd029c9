//! An ordered map that is cheap to clone: clones share what neither changed,
//! so that a state and its successor differ by the paths to what is new.
//!
//! It is encoded as a sorted map is, and read back only in that order: equal
//! maps are equal bytes, whatever their histories.

use std::{
    borrow::Borrow,
    fmt,
    marker::PhantomData,
    ops::{Index, RangeBounds},
};

use rpds::RedBlackTreeMapSync;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor},
};

/// See the module.
pub struct Map<K: Ord, V>(RedBlackTreeMapSync<K, V>);

impl<K: Ord, V> Map<K, V> {
    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key)
    }

    /// Whether there is a value for a key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.size()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, by rising key.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + ExactSizeIterator {
        self.0.iter()
    }

    /// The keys, rising.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.0.keys()
    }

    /// The values, by rising key.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.0.values()
    }

    /// Those whose keys lie in `range`, by rising key.
    pub fn range<Q, R>(&self, range: R) -> impl DoubleEndedIterator<Item = (&K, &V)>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
        R: RangeBounds<Q>,
    {
        self.0.range(range)
    }
}

impl<K: Ord + Clone, V: Clone> Map<K, V> {
    /// The value of a key, to change it.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.0.get_mut(key)
    }

    /// Sets the value of a key.
    pub fn insert(&mut self, key: K, value: V) {
        self.0.insert_mut(key, value);
    }

    /// Takes a key out; false when it wasn't there.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.remove_mut(key)
    }

    /// Keeps those for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        let gone: Vec<K> = self
            .iter()
            .filter(|(key, value)| !keep(key, value))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.0.remove_mut(&key);
        }
    }
}

impl<K: Ord, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Ord, V> Default for Map<K, V> {
    fn default() -> Self {
        Self(RedBlackTreeMapSync::new_sync())
    }
}

impl<K: Ord, V: PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0) || self.0 == other.0
    }
}

impl<K: Ord, V: Eq> Eq for Map<K, V> {}

impl<K: Ord + fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Borrow<Q>, Q: Ord + ?Sized, V> Index<&Q> for Map<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("the key is in the map")
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut map = Self::default();
        for (key, value) in pairs {
            map.insert(key, value);
        }
        map
    }
}

impl<K: Ord + Clone, V: Clone, const N: usize> From<[(K, V); N]> for Map<K, V> {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<'m, K: Ord, V> IntoIterator for &'m Map<K, V> {
    type Item = (&'m K, &'m V);
    type IntoIter = Box<dyn Iterator<Item = (&'m K, &'m V)> + 'm>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.0.iter())
    }
}

impl<K: Ord + Serialize, V: Serialize> Serialize for Map<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, K, V> Deserialize<'de> for Map<K, V>
where
    K: Ord + Clone + Deserialize<'de>,
    V: Clone + Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Rising(PhantomData))
    }
}

struct Rising<K, V>(PhantomData<(K, V)>);

impl<'de, K, V> Visitor<'de> for Rising<K, V>
where
    K: Ord + Clone + Deserialize<'de>,
    V: Clone + Deserialize<'de>,
{
    type Value = Map<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map with rising keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
        // Nothing is allocated for what the length only promises.
        let mut map = Map::default();
        let mut last: Option<K> = None;
        while let Some((key, value)) = pairs.next_entry::<K, V>()? {
            if last.as_ref().is_some_and(|last| *last >= key) {
                return Err(A::Error::custom("keys out of order"));
            }
            last = Some(key.clone());
            map.insert(key, value);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::codec;

    #[test]
    fn keys_out_of_order_or_twice_are_no_map() {
        for keys in [vec![(2u8, 0u8), (1, 0)], vec![(1, 0), (1, 0)]] {
            assert!(codec::decode::<Map<u8, u8>>(&codec::encode(&keys), 100).is_err());
        }
        let rising = codec::encode(&vec![(1u8, 5u8), (2, 6)]);
        let map: Map<u8, u8> = codec::decode(&rising, 100).unwrap();
        assert_eq!(map, Map::from([(2, 6), (1, 5)]));
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_map_and_its_clones_are_left_alone(
            steps in prop::collection::vec((any::<bool>(), 0..40u8, any::<u16>()), 0..200),
        ) {
            let mut map = Map::default();
            let mut model = BTreeMap::new();
            let mut before = (map.clone(), model.clone());
            for (number, (insert, key, value)) in steps.into_iter().enumerate() {
                if insert {
                    map.insert(key, value);
                    model.insert(key, value);
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key).is_some());
                }
                if number % 20 == 0 {
                    map.retain(|key, _| key % 7 != 0);
                    model.retain(|key, _| key % 7 != 0);
                    prop_assert_eq!(codec::encode(&before.0), codec::encode(&before.1));
                    before = (map.clone(), model.clone());
                }
                if let Some(value) = map.get_mut(&3) {
                    *value = 9;
                    model.insert(3, 9);
                }
            }
            prop_assert_eq!(codec::encode(&map), codec::encode(&model));
            let read: Map<u8, u16> = codec::decode(&codec::encode(&map), 4096).unwrap();
            prop_assert_eq!(&read, &map);
            prop_assert!(map.range(10..).map(|(key, _)| key).eq(model.range(10..).map(|(key, _)| key)));
        }
    }
}
