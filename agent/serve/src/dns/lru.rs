//! A map that knows which of its entries was used longest ago.

use std::collections::HashMap;

/// Values by name. What was used longest ago is found without a search, and nothing
/// is allocated to look a value up.
#[derive(Debug)]
pub(super) struct Lru<V> {
    /// Looked up alone, never gone through: its order shows nowhere.
    places: HashMap<Box<[u8]>, usize>,
    slots: Vec<LruSlot<V>>,
    free: Vec<usize>,
    /// Used last, and longest ago.
    ends: Neighbours,
}

#[derive(Debug)]
struct LruSlot<V> {
    entry: Option<(Box<[u8]>, V)>,
    link: Neighbours,
}

/// Neighbours in the order of use.
#[derive(Clone, Copy, Debug, Default)]
struct Neighbours {
    /// Used later; of the ends, the one used last.
    newer: Option<usize>,
    /// Used earlier; of the ends, the one used longest ago.
    older: Option<usize>,
}

impl<V> Default for Lru<V> {
    fn default() -> Self {
        Self {
            places: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            ends: Neighbours::default(),
        }
    }
}

impl<V> Lru<V> {
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// A value, which counts as used by that.
    pub fn get(&mut self, key: &[u8]) -> Option<&mut V> {
        let at = *self.places.get(key)?;
        if self.ends.newer != Some(at) {
            self.unlink(at);
            self.link(at);
        }
        self.peek_at(at)
    }

    /// A value, without use.
    pub fn peek(&mut self, key: &[u8]) -> Option<&mut V> {
        let at = *self.places.get(key)?;
        self.peek_at(at)
    }

    /// Puts a value in; gives the one that was there.
    pub fn insert(&mut self, key: &[u8], value: V) -> Option<V> {
        let before = self.remove(key);
        let entry = Some((Box::from(key), value));
        let link = Neighbours::default();
        let at = match self.free.pop() {
            Some(at) => {
                if let Some(slot) = self.slots.get_mut(at) {
                    *slot = LruSlot { entry, link };
                }
                at
            }
            None => {
                self.slots.push(LruSlot { entry, link });
                self.slots.len() - 1
            }
        };
        self.places.insert(key.into(), at);
        self.link(at);
        before
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        let at = self.places.remove(key)?;
        self.unlink(at);
        self.free.push(at);
        let (_, value) = self.slots.get_mut(at)?.entry.take()?;
        Some(value)
    }

    /// Takes out what was used longest ago.
    pub fn remove_oldest(&mut self) -> Option<V> {
        let (key, _) = self.slots.get(self.ends.older?)?.entry.as_ref()?;
        let key = key.clone();
        self.remove(&key)
    }

    /// All values, in no order that means anything.
    pub fn values(&mut self) -> impl Iterator<Item = (&[u8], &mut V)> {
        let entries = self.slots.iter_mut();
        entries.filter_map(|slot| slot.entry.as_mut().map(|(key, value)| (&**key, value)))
    }

    fn peek_at(&mut self, at: usize) -> Option<&mut V> {
        let slot = self.slots.get_mut(at)?;
        slot.entry.as_mut().map(|(_, value)| value)
    }

    /// Makes a slot the one used last.
    fn link(&mut self, at: usize) {
        let before = self.ends.newer.replace(at);
        match before.and_then(|before| self.slots.get_mut(before)) {
            Some(slot) => slot.link.newer = Some(at),
            None => self.ends.older = Some(at),
        }
        if let Some(slot) = self.slots.get_mut(at) {
            slot.link = Neighbours {
                newer: None,
                older: before,
            };
        }
    }

    fn unlink(&mut self, at: usize) {
        let Some(Neighbours { newer, older }) = self.slots.get(at).map(|slot| slot.link) else {
            return;
        };
        match newer.and_then(|newer| self.slots.get_mut(newer)) {
            Some(slot) => slot.link.older = older,
            None => self.ends.newer = older,
        }
        match older.and_then(|older| self.slots.get_mut(older)) {
            Some(slot) => slot.link.newer = newer,
            None => self.ends.older = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut lru = Lru::default();
        for n in 0..5u8 {
            assert_eq!(lru.insert(&[n], n), None);
        }
        assert_eq!(lru.get(&[0]), Some(&mut 0));
        assert_eq!(lru.peek(&[1]), Some(&mut 1));
        assert_eq!(lru.insert(&[2], 22), Some(2));
        assert_eq!(lru.remove(&[4]), Some(4));
        assert_eq!(lru.remove(&[4]), None);
        assert_eq!(lru.insert(&[9], 9), None);
        let order: Vec<u8> = std::iter::from_fn(|| lru.remove_oldest()).collect();
        assert_eq!(order, [1, 3, 0, 22, 9]);
        assert_eq!(lru.len(), 0);
        assert_eq!(lru.insert(&[1], 1), None);
        assert_eq!(lru.get(&[1]), Some(&mut 1));
        assert_eq!(lru.slots.len(), 5, "places are taken again");
    }

    #[test]
    fn it_agrees_with_a_list() {
        let mut lru = Lru::default();
        let mut list: Vec<(u8, u32)> = Vec::new();
        let mut random = 1u32;
        for step in 0..20_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = (random >> 16) as u8 % 16;
            let at = list.iter().position(|(k, _)| *k == key);
            let before = at.map(|at| list.remove(at));
            match random >> 28 {
                0..6 => {
                    list.push((key, step));
                    assert_eq!(lru.insert(&[key], step), before.map(|(_, v)| v));
                }
                6..10 => assert_eq!(lru.remove(&[key]), before.map(|(_, v)| v)),
                _ => {
                    list.extend(before);
                    assert_eq!(lru.get(&[key]).copied(), before.map(|(_, v)| v));
                }
            }
            if random >> 24 & 0xf == 0 && !list.is_empty() {
                assert_eq!(lru.remove_oldest(), Some(list.remove(0).1));
            }
            assert_eq!(lru.len(), list.len());
        }
    }
}
