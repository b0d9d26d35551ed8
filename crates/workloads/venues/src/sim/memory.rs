//! What has been drawn is remembered for a while.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is remembered under a key, or else made now. It is made outside the lock: another thread may do
/// the same, with the same result.
pub(super) fn recall<V: Clone>(
    memory: &Mutex<Recent<V>>,
    key: Key,
    make: impl FnOnce() -> Option<V>,
) -> Option<V> {
    if let Some(found) = lock(memory).get(&key) {
        return Some(found);
    }
    let fresh = make()?;
    lock(memory).put(key, fresh.clone());
    Some(fresh)
}

/// A symbol, and a day, an hour or a time.
pub(super) type Key = (usize, i64);

/// A map that forgets what was not used for longest.
#[derive(Debug)]
pub(super) struct Recent<V> {
    room: usize,
    used: u64,
    entries: HashMap<Key, (V, u64)>,
}

impl<V: Clone> Recent<V> {
    pub(super) fn new(room: usize) -> Self {
        Self { room, used: 0, entries: HashMap::with_capacity(room + 1) }
    }

    pub(super) fn get(&mut self, key: &Key) -> Option<V> {
        self.used += 1;
        let (value, used) = self.entries.get_mut(key)?;
        *used = self.used;
        Some(value.clone())
    }

    /// Forgets a quarter at a time, so that looking for the oldest costs little on average.
    pub(super) fn put(&mut self, key: Key, value: V) {
        self.used += 1;
        self.entries.insert(key, (value, self.used));
        if self.entries.len() > self.room {
            let mut ages: Vec<u64> = self.entries.values().map(|(_, used)| *used).collect();
            let (_, oldest_kept, _) = ages.select_nth_unstable(self.room / 4);
            let kept = *oldest_kept;
            self.entries.retain(|_, (_, used)| *used >= kept);
        }
    }
}
