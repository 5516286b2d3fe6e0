//! A bounded map of id sets that expire.
//!
//! Reads no clock: the time comes as an argument. The invariant: never more ids than allowed; the
//! sets put in first go first.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

pub(super) struct Expiring<K> {
    sets: HashMap<K, Kept>,
    /// Every put, oldest first; those replaced or forgotten meanwhile are stale.
    puts: VecDeque<(K, u64)>,
    ids: usize,
    next_put: u64,
    ttl_us: u64,
    most_ids: usize,
}

struct Kept {
    ids: Arc<[Uuid]>,
    put: u64,
    until_us: u64,
}

impl<K: Copy + Eq + Hash> Expiring<K> {
    /// Keeps each set for `ttl` and at most `most_ids` ids in all.
    pub(super) fn new(ttl: Duration, most_ids: usize) -> Self {
        let ttl_us = ttl.as_micros() as u64;
        Self { sets: HashMap::new(), puts: VecDeque::new(), ids: 0, next_put: 0, ttl_us, most_ids }
    }

    pub(super) fn get(&mut self, key: &K, now_us: u64) -> Option<Arc<[Uuid]>> {
        let kept = self.sets.get(key)?;
        if kept.until_us <= now_us {
            self.forget(key);
            return None;
        }
        Some(Arc::clone(&kept.ids))
    }

    /// Remembers a set; an empty one is forgotten, as Redis does.
    pub(super) fn put(&mut self, key: K, ids: Arc<[Uuid]>, now_us: u64) {
        self.forget(&key);
        if ids.is_empty() || ids.len() > self.most_ids {
            return;
        }
        self.next_put += 1;
        self.ids += ids.len();
        self.puts.push_back((key, self.next_put));
        self.sets.insert(key, Kept { ids, put: self.next_put, until_us: now_us + self.ttl_us });
        while self.ids > self.most_ids || self.puts.len() > self.most_ids {
            let Some((oldest, put)) = self.puts.pop_front() else { return };
            if self.sets.get(&oldest).is_some_and(|kept| kept.put == put) {
                self.forget(&oldest);
            }
        }
    }

    pub(super) fn forget(&mut self, key: &K) {
        if let Some(kept) = self.sets.remove(key) {
            self.ids -= kept.ids.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_micros(100);

    fn ids(count: usize) -> Arc<[Uuid]> {
        vec![Uuid::nil(); count].into()
    }

    #[test]
    fn sets_expire_and_are_forgotten() {
        let mut map = Expiring::new(TTL, 10);
        map.put('a', ids(2), 0);
        map.put('b', ids(3), 50);
        assert_eq!(map.get(&'a', 99), Some(ids(2)));
        assert_eq!((map.get(&'a', 100), map.get(&'b', 100)), (None, Some(ids(3))));
        map.forget(&'b');
        assert_eq!((map.get(&'b', 60), map.ids), (None, 0));
    }

    #[test]
    fn the_oldest_make_room() {
        let mut map = Expiring::new(TTL, 10);
        for key in 0..20 {
            map.put(key, ids(2), 0);
            assert!(map.ids <= 10);
        }
        assert_eq!((map.get(&14, 0), map.get(&15, 0)), (None, Some(ids(2))));
        for _ in 0..100 {
            map.put(15, ids(2), 0);
        }
        assert!(map.puts.len() <= 10 && map.get(&15, 0).is_some());
    }
}
