//! A map that never grows beyond its bound: the entry that was used longest ago makes room. It knows which entries
//! changed, so that each is one row to write.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry<T> {
    used_at: Timestamp,
    value: T,
}

/// Entries by name, at most `capacity` of them.
#[derive(Clone, Debug)]
pub struct Bounded<T> {
    capacity: usize,
    entries: BTreeMap<String, Entry<T>>,
    changed: BTreeSet<String>,
}

/// One entry's new text. `None`: the entry is gone.
pub type Changed = (String, Option<String>);

impl<T: Default + Serialize + DeserializeOwned> Bounded<T> {
    /// An empty map.
    pub const fn new(capacity: usize) -> Self {
        Self { capacity, entries: BTreeMap::new(), changed: BTreeSet::new() }
    }

    /// The entry of this name, made if there is none.
    pub fn entry(&mut self, name: &str, now: Timestamp) -> &mut T {
        if !self.entries.contains_key(name) && self.entries.len() >= self.capacity {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used_at);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.remove(&oldest);
            }
        }
        self.changed.insert(name.to_owned());
        let fresh = || Entry { used_at: now, value: T::default() };
        let entry = self.entries.entry(name.to_owned()).or_insert_with(fresh);
        entry.used_at = entry.used_at.max(now);
        &mut entry.value
    }

    /// The entry of this name.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.entries.get(name).map(|entry| &entry.value)
    }

    /// Every name.
    pub fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), &entry.value))
    }

    /// Drops an entry.
    pub fn remove(&mut self, name: &str) {
        if self.entries.remove(name).is_some() {
            self.changed.insert(name.to_owned());
        }
    }

    /// Takes an entry as it was written.
    pub fn load(&mut self, name: &str, text: &str) -> Result<(), serde_json::Error> {
        self.entries.insert(name.to_owned(), serde_json::from_str(text)?);
        Ok(())
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Result<Vec<Changed>, serde_json::Error> {
        let changed = std::mem::take(&mut self.changed);
        let text = |name: String| {
            let text = self.entries.get(&name).map(serde_json::to_string).transpose()?;
            Ok((name, text))
        };
        changed.into_iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_used_longest_ago_makes_room() {
        let mut map = Bounded::<u32>::new(2);
        for (name, ms) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
            *map.entry(name, Timestamp::from_ms(ms)) += 1;
        }
        assert_eq!(map.names(), ["a", "c"]);
        let changes = map.take_changes().unwrap();
        assert!(changes.contains(&("b".to_owned(), None)));
        assert_eq!(map.take_changes().unwrap(), []);
        let mut loaded = Bounded::<u32>::new(2);
        for (name, text) in &changes {
            if let Some(text) = text {
                loaded.load(name, text).unwrap();
            }
        }
        assert_eq!((loaded.get("a"), loaded.get("b"), loaded.get("c")), (Some(&2), None, Some(&1)));
    }
}
