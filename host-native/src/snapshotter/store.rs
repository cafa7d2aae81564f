//! What the snapshotter knows of its snapshots, in a transactional store.
//!
//! A snapshot is a record under its key; each change is one transaction that is on the disk when
//! the call returns. Nothing here touches directories or mounts.

use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

use redb::{
    Database, MultimapTableDefinition, ReadableDatabase, ReadableMultimapTable, ReadableTable,
    ReadableTableMetadata, TableDefinition,
};
use serde::Deserialize;

use super::record::{Chain, Fallback, Kind, Labels, Record, Result, SnapshotError, now};
use crate::lock::lock;

/// Key to record, as JSON, which keeps unknown fields readable for whoever has to look.
const SNAPSHOTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshots");
/// Parent to children.
const CHILDREN: MultimapTableDefinition<'_, &str, &str> = MultimapTableDefinition::new("children");
/// Names that were asked for lazily, to why they are not lazy, as JSON.
const FALLBACKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("fallbacks");
/// How many of those are kept, at least; the oldest go first.
const KEPT_FALLBACKS: usize = 1000;
/// The last id given out, under the empty key.
const LAST_ID: TableDefinition<'_, (), u64> = TableDefinition::new("last-id");
/// How many ids are noted as given out by one write to the disk.
const IDS_AT_ONCE: u64 = 64;
/// Parents that a snapshot may have. overlayfs takes 500 layers.
const MAX_DEPTH: usize = 1000;

/// The store.
#[derive(Debug)]
pub struct Store {
    database: Database,
    /// Numbers that are noted as given out, and are not yet.
    ids: Mutex<Range<u64>>,
}

impl Store {
    /// Opens the store in `file`, or makes it.
    ///
    /// # Errors
    /// When the file cannot be used, is damaged, or another process has it open.
    pub fn open(file: &Path) -> Result<Self> {
        let database = Database::create(file).map_err(redb::Error::from)?;
        let store = Self { database, ids: Mutex::new(0..0) };
        // Opening the tables makes them, and readers need all of them.
        store.write(|_| Ok(()))?;
        Ok(store)
    }

    /// A number for a new snapshot's directory.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn next_id(&self) -> Result<u64> {
        let mut ids = lock(&self.ids);
        if let Some(id) = ids.next() {
            return Ok(id);
        }
        *ids = self.write(|tables| {
            let last = tables.last_id.get(()).map_err(broken)?.map_or(0, |last| last.value());
            tables.last_id.insert((), last + IDS_AT_ONCE).map_err(broken)?;
            Ok(last + 1..last + 1 + IDS_AT_ONCE)
        })?;
        Ok(ids.next().unwrap_or_default())
    }

    /// Adds a snapshot.
    ///
    /// # Errors
    /// When the key is taken, or the parent is not there or not committed.
    pub fn add(&self, key: &str, record: &Record) -> Result<()> {
        self.write(|tables| {
            tables.check_parent(&record.parent)?;
            tables.insert_new(key, record)?;
            if record.source.is_some() {
                tables.fallbacks.remove(key).map_err(broken)?;
            }
            Ok(())
        })
    }

    /// Notes why a snapshot that was asked for lazily is not lazy.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn note_fallback(&self, name: &str, fallback: &Fallback) -> Result<()> {
        let damaged = |cause| SnapshotError::Damaged { key: name.to_owned(), cause };
        let bytes = serde_json::to_vec(fallback).map_err(damaged)?;
        self.write(|tables| {
            let count = tables.fallbacks.len().map_err(broken)?;
            if count >= 2 * KEPT_FALLBACKS as u64 {
                tables.drop_old_fallbacks()?;
            }
            tables.fallbacks.insert(name, &*bytes).map_err(broken)?;
            Ok(())
        })
    }

    /// What is known of snapshots that are not lazy, by their names.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn fallbacks(&self) -> Result<Vec<(String, Fallback)>> {
        let read = self.database.begin_read().map_err(broken)?;
        let table = read.open_table(FALLBACKS).map_err(broken)?;
        let entries = table.iter().map_err(broken)?.map(|entry| {
            let (name, value) = entry.map_err(broken)?;
            Ok((name.value().to_owned(), parse(name.value(), value.value())?))
        });
        entries.collect()
    }

    /// Replaces an active snapshot by a committed one of another name, with `change` made to it.
    ///
    /// # Errors
    /// When there is no such active snapshot, or the name is taken.
    pub fn commit(
        &self,
        key: &str,
        name: &str,
        change: impl FnOnce(&mut Record) -> Result<()>,
    ) -> Result<()> {
        self.write(|tables| {
            let mut record = tables.get(key)?;
            if record.kind != Kind::Active {
                return Err(SnapshotError::FailedPrecondition(format!(
                    "snapshot {key:?} is not active, so it cannot be committed"
                )));
            }
            tables.remove(key, &record)?;
            change(&mut record)?;
            tables.check_parent(&record.parent)?;
            tables.insert_new(name, &record)
        })
    }

    /// Forgets a snapshot and returns what it was.
    ///
    /// # Errors
    /// When there is none, or it is the parent of another.
    pub fn remove(&self, key: &str) -> Result<Record> {
        self.write(|tables| {
            let record = tables.get(key)?;
            let mut children = tables.children.get(key).map_err(broken)?;
            if let Some(child) = children.next().transpose().map_err(broken)? {
                return Err(SnapshotError::FailedPrecondition(format!(
                    "cannot remove snapshot {key:?}: it has the child {:?}",
                    child.value()
                )));
            }
            drop(children);
            tables.remove(key, &record)?;
            Ok(record)
        })
    }

    /// Changes the labels of a snapshot and returns its record.
    ///
    /// # Errors
    /// When there is none.
    pub fn relabel(&self, key: &str, change: impl FnOnce(&mut Labels)) -> Result<Record> {
        self.write(|tables| {
            let mut record = tables.get(key)?;
            change(&mut record.labels);
            record.labels.retain(|_, value| !value.is_empty());
            record.updated = now();
            tables.put(key, &record)?;
            Ok(record)
        })
    }

    /// The record of a snapshot.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, key: &str) -> Result<Record> {
        let read = self.database.begin_read().map_err(broken)?;
        let table = read.open_table(SNAPSHOTS).map_err(broken)?;
        let found = table.get(key).map_err(broken)?;
        found.map_or_else(
            || Err(SnapshotError::NotFound(key.to_owned())),
            |it| parse(key, it.value()),
        )
    }

    /// A snapshot and all below it, from one moment.
    ///
    /// # Errors
    /// When it, or one below it, is not there.
    pub fn chain(&self, key: &str) -> Result<Chain> {
        let read = self.database.begin_read().map_err(broken)?;
        let table = read.open_table(SNAPSHOTS).map_err(broken)?;
        let mut chain = Chain::new();
        let mut key = key.to_owned();
        loop {
            let Some(found) = table.get(&*key).map_err(broken)? else {
                return Err(SnapshotError::NotFound(key));
            };
            let record: Record = parse(&key, found.value())?;
            let parent = record.parent.clone();
            chain.push((key, record));
            if parent.is_empty() {
                return Ok(chain);
            }
            if chain.len() > MAX_DEPTH {
                return Err(SnapshotError::FailedPrecondition(format!(
                    "more than {MAX_DEPTH} snapshots below one another"
                )));
            }
            key = parent;
        }
    }

    /// Calls `each` with every snapshot, from one moment.
    ///
    /// # Errors
    /// When a record is not readable.
    pub fn walk(&self, mut each: impl FnMut(&str, Record)) -> Result<()> {
        let read = self.database.begin_read().map_err(broken)?;
        let table = read.open_table(SNAPSHOTS).map_err(broken)?;
        for entry in table.iter().map_err(broken)? {
            let (key, value) = entry.map_err(broken)?;
            each(key.value(), parse(key.value(), value.value())?);
        }
        Ok(())
    }

    fn write<T>(&self, work: impl FnOnce(&mut Tables<'_>) -> Result<T>) -> Result<T> {
        let transaction = self.database.begin_write().map_err(broken)?;
        let result = {
            let mut tables = Tables {
                snapshots: transaction.open_table(SNAPSHOTS).map_err(broken)?,
                children: transaction.open_multimap_table(CHILDREN).map_err(broken)?,
                fallbacks: transaction.open_table(FALLBACKS).map_err(broken)?,
                last_id: transaction.open_table(LAST_ID).map_err(broken)?,
            };
            work(&mut tables)
        };
        // Dropped without a commit, a transaction leaves nothing behind.
        let result = result?;
        transaction.commit().map_err(broken)?;
        Ok(result)
    }
}

struct Tables<'a> {
    snapshots: redb::Table<'a, &'static str, &'static [u8]>,
    children: redb::MultimapTable<'a, &'static str, &'static str>,
    fallbacks: redb::Table<'a, &'static str, &'static [u8]>,
    last_id: redb::Table<'a, (), u64>,
}

impl Tables<'_> {
    fn get(&self, key: &str) -> Result<Record> {
        let found = self.snapshots.get(key).map_err(broken)?;
        found.map_or_else(
            || Err(SnapshotError::NotFound(key.to_owned())),
            |it| parse(key, it.value()),
        )
    }

    fn put(&mut self, key: &str, record: &Record) -> Result<()> {
        let damaged = |cause| SnapshotError::Damaged { key: key.to_owned(), cause };
        let bytes = serde_json::to_vec(record).map_err(damaged)?;
        self.snapshots.insert(key, &*bytes).map_err(broken)?;
        Ok(())
    }

    fn insert_new(&mut self, key: &str, record: &Record) -> Result<()> {
        if self.snapshots.get(key).map_err(broken)?.is_some() {
            return Err(SnapshotError::AlreadyExists(key.to_owned()));
        }
        self.put(key, record)?;
        if !record.parent.is_empty() {
            self.children.insert(&*record.parent, key).map_err(broken)?;
        }
        Ok(())
    }

    fn drop_old_fallbacks(&mut self) -> Result<()> {
        let mut known = Vec::new();
        for entry in self.fallbacks.iter().map_err(broken)? {
            let (name, value) = entry.map_err(broken)?;
            let at = parse::<Fallback>(name.value(), value.value()).map_or(0, |it| it.at);
            known.push((at, name.value().to_owned()));
        }
        known.sort();
        for (_, name) in &known[..known.len().saturating_sub(KEPT_FALLBACKS)] {
            self.fallbacks.remove(&**name).map_err(broken)?;
        }
        Ok(())
    }

    fn remove(&mut self, key: &str, record: &Record) -> Result<()> {
        self.snapshots.remove(key).map_err(broken)?;
        if !record.parent.is_empty() {
            self.children.remove(&*record.parent, key).map_err(broken)?;
        }
        Ok(())
    }

    fn check_parent(&self, parent: &str) -> Result<()> {
        if !parent.is_empty() && self.get(parent)?.kind != Kind::Committed {
            return Err(SnapshotError::InvalidArgument(format!(
                "the parent {parent:?} is not a committed snapshot"
            )));
        }
        Ok(())
    }
}

fn broken(error: impl Into<redb::Error>) -> SnapshotError {
    SnapshotError::Store(error.into())
}

fn parse<T: for<'de> Deserialize<'de>>(key: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|cause| SnapshotError::Damaged { key: key.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::super::record::Usage;
    use super::*;

    fn record(id: u64, kind: Kind, parent: &str) -> Record {
        let (labels, usage) = (Labels::new(), Usage::default());
        Record {
            id,
            kind,
            parent: parent.into(),
            labels,
            created: 1,
            updated: 1,
            usage,
            source: None,
        }
    }

    #[test]
    fn keeps_what_was_committed_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("metadata.redb");
        let store = Store::open(&file).expect("a new store");
        store.add("a", &record(1, Kind::Active, "")).expect("a free key");
        store
            .commit("a", "base", |it| {
                it.kind = Kind::Committed;
                Ok(())
            })
            .expect("active");
        store.add("b", &record(2, Kind::Active, "base")).expect("a committed parent");
        assert!(matches!(store.remove("base"), Err(SnapshotError::FailedPrecondition(_))));
        // A commit that fails half-way changes nothing.
        let failed = store.commit("b", "base", |it| {
            it.kind = Kind::Committed;
            Ok(())
        });
        assert!(matches!(failed, Err(SnapshotError::AlreadyExists(_))));
        assert_eq!(store.get("b").expect("still there").kind, Kind::Active);
        assert!(matches!(
            store.add("c", &record(3, Kind::View, "b")),
            Err(SnapshotError::InvalidArgument(_))
        ));
        assert!(matches!(
            store.add("c", &record(3, Kind::View, "x")),
            Err(SnapshotError::NotFound(_))
        ));
        drop(store);
        let store = Store::open(&file).expect("the same store");
        let chain: Vec<_> =
            store.chain("b").expect("both").into_iter().map(|(key, _)| key).collect();
        assert_eq!(chain, ["b", "base"]);
        store.remove("b").expect("no child");
        store.remove("base").expect("no child left");
        assert!(store.next_id().expect("a number") < store.next_id().expect("a greater number"));
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("metadata.redb");
        let _store = Store::open(&file).expect("a new store");
        assert!(Store::open(&file).is_err());
    }
}
