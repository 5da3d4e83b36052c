//! Holds the parts that were used last, within a bound.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Values by number; where they take more than the bound, those not used for the longest time go.
#[derive(Debug)]
pub(crate) struct Shelf<T> {
    limit_bytes: usize,
    held: Mutex<Held<T>>,
}

#[derive(Debug)]
struct Held<T> {
    /// Value, length and last use of each.
    values: BTreeMap<usize, (Arc<T>, usize, u64)>,
    n_uses: u64,
    bytes: usize,
}

impl<T> Shelf<T> {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        let held = Held { values: BTreeMap::new(), n_uses: 0, bytes: 0 };
        Self { limit_bytes, held: Mutex::new(held) }
    }

    pub(crate) fn get(&self, number: usize) -> Option<Arc<T>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.n_uses += 1;
        let now = held.n_uses;
        let (value, _, last_use) = held.values.get_mut(&number)?;
        *last_use = now;
        Some(Arc::clone(value))
    }

    /// Holds a value of this length, even if its own length exceeds the bound.
    pub(crate) fn put(&self, number: usize, bytes: usize, value: T) -> Arc<T> {
        let value = Arc::new(value);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.n_uses += 1;
        let entry = (Arc::clone(&value), bytes, held.n_uses);
        let before = held.values.insert(number, entry).map_or(0, |(_, bytes, _)| bytes);
        held.bytes = held.bytes - before + bytes;
        while held.bytes > self.limit_bytes && held.values.len() > 1 {
            let oldest = held.values.iter().min_by_key(|(_, (_, _, last_use))| *last_use);
            let Some(number) = oldest.map(|(number, _)| *number) else { break };
            held.bytes -= held.values.remove(&number).map_or(0, |(_, bytes, _)| bytes);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let shelf = Shelf::new(10);
        for number in 0..3 {
            shelf.put(number, 3, number * 10);
        }
        assert_eq!(shelf.get(0).as_deref(), Some(&0));
        shelf.put(3, 4, 30);
        assert_eq!([0, 1, 2, 3].map(|n| shelf.get(n).is_some()), [true, false, true, true]);
        shelf.put(3, 1, 31);
        assert_eq!(shelf.get(3).as_deref(), Some(&31));
        shelf.put(4, 3, 40);
        assert_eq!([0, 2, 3, 4].map(|n| shelf.get(n).is_some()), [true, true, true, true]);
        shelf.put(5, 11, 50);
        assert_eq!(
            [0, 2, 3, 4, 5].map(|n| shelf.get(n).is_some()),
            [false, false, false, false, true]
        );
    }
}
