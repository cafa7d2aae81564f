//! What was put in last, as much as there is room for.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Values by their keys. The oldest make room for the newest.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    kept: HashMap<K, (V, u64)>,
    /// The oldest first.
    order: VecDeque<K>,
    weight: u64,
    most: u64,
}

impl<K: Copy + Eq + Hash, V: Clone> Recent<K, V> {
    /// Room for values that weigh `most` together; for one whatever it weighs.
    pub(super) fn new(most: u64) -> Self {
        Self { kept: HashMap::new(), order: VecDeque::new(), weight: 0, most }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.kept.get(key).map(|(value, _)| value.clone())
    }

    pub(super) fn put(&mut self, key: K, value: V, weight: u64) {
        match self.kept.insert(key, (value, weight)) {
            Some((_, before)) => self.weight -= before,
            None => self.order.push_back(key),
        }
        self.weight += weight;
        while self.weight > self.most && self.order.len() > 1 {
            let oldest = self.order.pop_front().and_then(|key| self.kept.remove(&key));
            self.weight -= oldest.map_or(0, |(_, weight)| weight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room() {
        let mut recent = Recent::new(10);
        for key in 0..5 {
            recent.put(key, key * 10, 3);
        }
        assert_eq!([1, 2, 3, 4].map(|key| recent.get(&key)), [None, Some(20), Some(30), Some(40)]);
        recent.put(3, 31, 4);
        assert_eq!([2, 3, 4].map(|key| recent.get(&key)), [Some(20), Some(31), Some(40)]);
        recent.put(9, 90, 100);
        assert_eq!([4, 9].map(|key| recent.get(&key)), [None, Some(90)]);
    }
}
