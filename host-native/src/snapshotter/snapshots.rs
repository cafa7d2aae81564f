//! Snapshots: records in the store, directories below the root, lazy layers mounted on them.
//!
//! `ROOT/snapshots/ID/fs` is what a snapshot adds: an upper directory, or the mount of a lazy
//! layer; `ID/work` is overlayfs's. A directory without a record is rubbish that
//! [`cleanup`](Snapshotter::cleanup) takes away, so that whatever kills the process leaves nothing
//! half-made behind.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lazystar_core::Digest;

use super::labels::{LayerSource, REMOTE, REMOTE_VALUE, TARGET, name_layer};
use super::lazy::LazyLayers;
use super::lookup::Lookup;
use super::store::{Chain, Kind, Labels, Record, Result, SnapshotError, Store, Usage, now};
use super::{mounts, usage};
use crate::proto::types::Mount;

/// A snapshotter.
#[derive(Debug)]
pub struct Snapshotter {
    dir: PathBuf,
    store: Store,
    lazy: LazyLayers,
    lookup: Option<Lookup>,
    user_xattrs: bool,
    /// Directories that have no record yet.
    pending: Mutex<HashSet<u64>>,
}

/// What came of a call to [`Snapshotter::prepare`].
#[derive(Debug)]
pub enum Prepared {
    /// The snapshot asked for by [`TARGET`] is there, as a lazy one.
    Lazy,
    /// An active snapshot, to be mounted so.
    Active(Vec<Mount>),
}

impl Snapshotter {
    /// A snapshotter that keeps everything below `root`.
    ///
    /// # Errors
    /// When the directory cannot be used, or another process uses it.
    pub fn open(root: &Path, lazy: LazyLayers, user_xattrs: bool) -> Result<Self> {
        let dir = root.join("snapshots");
        make_dir(&dir, 0o700, true)?;
        let store = Store::open(&root.join("snapshots.redb"))?;
        Ok(Self { dir, store, lazy, lookup: None, user_xattrs, pending: Mutex::default() })
    }

    /// Lets it look for the layers of clients that do not say which they are.
    #[must_use]
    pub fn with_lookup(self, lookup: Option<Lookup>) -> Self {
        Self { lookup, ..self }
    }

    /// Begins to mount again the lazy layers that were mounted when the process before this one
    /// ended, side by side; one that fails is tried again when it is needed.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn restore(self: &Arc<Self>) -> Result<()> {
        mounts::detach_below(&self.dir);
        self.store.walk(|key, record| {
            let (this, key) = (Arc::clone(self), key.to_owned());
            if record.is_lazy() {
                tokio::spawn(async move {
                    if let Err(error) = this.make_available(&key, &record).await {
                        tracing::warn!(snapshot = key, "cannot mount a layer again: {error}");
                    }
                });
            }
        })
    }

    /// Makes an active snapshot; or, when the labels ask for a remote one and the layer can be read
    /// lazily, a committed one under the name that they give.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn prepare(&self, key: &str, parent: &str, labels: Labels) -> Result<Prepared> {
        if let Some(target) = labels.get(TARGET) {
            check_name(key)?;
            match self.prepare_lazy(key, target, parent, &labels).await {
                Ok(()) => {
                    tracing::info!(key, snapshot = target, "remote-snapshot-prepared" = "true");
                    return Ok(Prepared::Lazy);
                }
                Err(error) => tracing::warn!(
                    key,
                    snapshot = target,
                    "remote-snapshot-prepared" = "false",
                    "not lazy: {error:#}"
                ),
            }
        }
        self.create(Kind::Active, key, parent, labels).await.map(Prepared::Active)
    }

    /// Makes a read-only snapshot.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn view(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.create(Kind::View, key, parent, labels).await
    }

    /// How to mount an active snapshot or a view.
    ///
    /// # Errors
    /// When there is none, or a lazy layer below it cannot be served.
    pub async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let chain = self.store.chain(key)?;
        if chain[0].1.kind == Kind::Committed {
            return Err(SnapshotError::FailedPrecondition(format!(
                "snapshot {key:?} is committed; only active ones and views can be mounted"
            )));
        }
        self.check(&chain).await?;
        Ok(mounts::of(&self.dir, &chain, self.user_xattrs))
    }

    /// Commits an active snapshot under a name; a snapshot without a parent may be given one.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn commit(&self, key: &str, name: &str, parent: &str, labels: Labels) -> Result<()> {
        check_name(name)?;
        let record = self.store.get(key)?;
        let usage = usage::scan(&self.fs(record.id))?;
        self.store.commit(key, name, |record| {
            if !parent.is_empty() && parent != record.parent {
                if !record.parent.is_empty() {
                    return Err(SnapshotError::FailedPrecondition(format!(
                        "snapshot {key:?} has the parent {:?}; it cannot be given another",
                        record.parent
                    )));
                }
                parent.clone_into(&mut record.parent);
            }
            let now = now();
            *record = Record {
                kind: Kind::Committed,
                labels: without_empty(labels),
                created: now,
                updated: now,
                usage,
                ..record.clone()
            };
            Ok(())
        })
    }

    /// Forgets a snapshot; its directory goes with the next [`cleanup`](Self::cleanup).
    ///
    /// # Errors
    /// When there is none, or it has children.
    pub fn remove(&self, key: &str) -> Result<()> {
        self.store.remove(key).map(|_| ())
    }

    /// The record of a snapshot.
    ///
    /// # Errors
    /// When there is none.
    pub fn stat(&self, key: &str) -> Result<Record> {
        self.store.get(key)
    }

    /// Changes labels.
    ///
    /// # Errors
    /// When there is no such snapshot.
    pub fn relabel(&self, key: &str, change: impl FnOnce(&mut Labels)) -> Result<Record> {
        self.store.relabel(key, change)
    }

    /// Calls `each` with every snapshot.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn walk(&self, each: impl FnMut(&str, Record)) -> Result<()> {
        self.store.walk(each)
    }

    /// The space that a snapshot takes by itself; of a lazy one, what is in the cache.
    ///
    /// # Errors
    /// When there is none, or its directory cannot be read.
    pub fn usage(&self, key: &str) -> Result<Usage> {
        let record = self.store.get(key)?;
        match record.kind {
            Kind::Committed if record.is_lazy() => {
                let (size, inodes) = self.lazy.usage(&self.fs(record.id)).unwrap_or_default();
                Ok(Usage { size, inodes })
            }
            Kind::Committed => Ok(record.usage),
            Kind::Active | Kind::View => usage::scan(&self.fs(record.id)),
        }
    }

    /// Takes away the directories of snapshots that were removed.
    ///
    /// # Errors
    /// When the directory of all of them cannot be read; what goes wrong with one is logged.
    pub fn cleanup(&self) -> Result<()> {
        let listed = fs::read_dir(&self.dir)
            .map_err(|cause| io("cannot list snapshots", &self.dir, cause))?;
        // In this order: a directory that is listed is pending, or has a record by now.
        let ids: Vec<u64> =
            listed.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let mut known = self.pending().clone();
        self.store.walk(|_, record| {
            known.insert(record.id);
        })?;
        for id in ids.into_iter().filter(|id| !known.contains(id)) {
            self.delete(id);
        }
        Ok(())
    }

    /// Unmounts all lazy layers, for an orderly end.
    pub fn close(&self) {
        self.lazy.unmount_all();
    }

    async fn prepare_lazy(
        &self,
        key: &str,
        target: &str,
        parent: &str,
        labels: &Labels,
    ) -> anyhow::Result<()> {
        check_name(target)?;
        if let Ok(known) = self.store.get(target) {
            return known.stands_for(parent, target);
        }
        let labels = match &self.lookup {
            Some(lookup) if !name_layer(labels) => lookup.complete(key, target, labels).await,
            _ => Ok(labels.clone()),
        };
        let labels = labels.map_err(anyhow::Error::msg)?;
        let source = LayerSource::parse(&labels).map_err(anyhow::Error::msg)?;
        let place = self.new_place(Kind::Committed, parent)?;
        let manifest = self.lazy.mount(&self.fs(place.id), &source).await?;
        let mut labels = without_empty(labels);
        labels.insert(REMOTE.to_owned(), REMOTE_VALUE.to_owned());
        let now = now();
        let record = Record {
            id: place.id,
            kind: Kind::Committed,
            parent: parent.to_owned(),
            labels,
            created: now,
            updated: now,
            usage: Usage::default(),
            manifest: manifest.map(|digest| digest.to_string()),
        };
        match self.store.add(target, &record) {
            Ok(()) => {
                place.keep();
                Ok(())
            }
            // Somebody else was faster.
            Err(SnapshotError::AlreadyExists(_)) => {
                self.store.get(target)?.stands_for(parent, target)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn create(
        &self,
        kind: Kind,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>> {
        check_name(key)?;
        let below = if parent.is_empty() { Chain::new() } else { self.store.chain(parent)? };
        self.check(&below).await?;
        let place = self.new_place(kind, parent)?;
        let now = now();
        let record = Record {
            id: place.id,
            kind,
            parent: parent.to_owned(),
            labels: without_empty(labels),
            created: now,
            updated: now,
            usage: Usage::default(),
            manifest: None,
        };
        self.store.add(key, &record)?;
        place.keep();
        let mut chain = vec![(key.to_owned(), record)];
        chain.extend(below);
        Ok(mounts::of(&self.dir, &chain, self.user_xattrs))
    }

    /// Sees to it that every lazy layer of a chain is mounted.
    async fn check(&self, chain: &Chain) -> Result<()> {
        for (key, record) in chain.iter().filter(|(_, record)| record.is_lazy()) {
            self.make_available(key, record).await?;
        }
        Ok(())
    }

    async fn make_available(&self, key: &str, record: &Record) -> Result<()> {
        let dir = self.fs(record.id);
        let unavailable = |why: String| {
            SnapshotError::Unavailable(format!(
                "the layer of snapshot {key:?} is unavailable: {why}"
            ))
        };
        let mut source = LayerSource::parse(&record.labels).map_err(unavailable)?;
        if let Some(Ok(manifest)) = record.manifest.as_deref().map(str::parse::<Digest>) {
            // The tag may name another image by now.
            source.reference = source.reference.with_digest(manifest);
        }
        make_dir(&dir, 0o755, true)?;
        let mounted = self.lazy.mount(&dir, &source).await;
        mounted.map_err(|error| unavailable(format!("{error:#}")))?;
        Ok(())
    }

    fn new_place(&self, kind: Kind, parent: &str) -> Result<Place<'_>> {
        let id = self.store.next_id()?;
        self.pending().insert(id);
        let place = Place { snapshotter: self, id, kept: false };
        make_dir(&self.dir.join(id.to_string()), 0o700, false)?;
        let dir = self.fs(id);
        make_dir(&dir, 0o755, false)?;
        if kind == Kind::Active {
            make_dir(&mounts::work_dir(&self.dir, id), 0o711, false)?;
            if !parent.is_empty() {
                let below = self.fs(self.store.get(parent)?.id);
                let owner =
                    fs::metadata(&below).map_err(|cause| io("cannot look at", &below, cause))?;
                std::os::unix::fs::chown(&dir, Some(owner.uid()), Some(owner.gid()))
                    .map_err(|cause| io("cannot change the owner of", &dir, cause))?;
            }
        }
        Ok(place)
    }

    fn delete(&self, id: u64) {
        let dir = self.dir.join(id.to_string());
        if let Err(error) = self.lazy.unmount(&self.fs(id)) {
            tracing::warn!(dir = %dir.display(), "cannot unmount a removed snapshot: {error:#}");
            return;
        }
        if let Err(error) = fs::remove_dir_all(&dir) {
            tracing::warn!(dir = %dir.display(), %error, "cannot remove a removed snapshot");
        }
    }

    fn fs(&self, id: u64) -> PathBuf {
        mounts::fs_dir(&self.dir, id)
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// Whether the snapshot is a lazy layer.
    #[must_use]
    pub fn is_lazy(&self) -> bool {
        self.kind == Kind::Committed && self.labels.contains_key(REMOTE)
    }

    /// Whether the snapshot can stand for one that is asked for on top of `parent`.
    fn stands_for(&self, parent: &str, name: &str) -> anyhow::Result<()> {
        anyhow::ensure!(self.kind == Kind::Committed, "{name} is there already, not committed");
        anyhow::ensure!(
            self.parent == parent,
            "{name} is there already, on top of {:?} instead of {parent:?}",
            self.parent
        );
        Ok(())
    }
}

/// The directory of a snapshot that is being made; it goes when making it fails.
struct Place<'a> {
    snapshotter: &'a Snapshotter,
    id: u64,
    kept: bool,
}

impl Place<'_> {
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.snapshotter.delete(self.id);
        }
        self.snapshotter.pending().remove(&self.id);
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(SnapshotError::InvalidArgument("a snapshot needs a name".to_owned()));
    }
    Ok(())
}

fn without_empty(mut labels: Labels) -> Labels {
    labels.retain(|_, value| !value.is_empty());
    labels
}

fn make_dir(dir: &Path, mode: u32, or_keep: bool) -> Result<()> {
    let made = fs::DirBuilder::new().mode(mode).recursive(or_keep).create(dir);
    made.map_err(|cause| io("cannot make the directory", dir, cause))
}

fn io(what: &str, path: &Path, cause: std::io::Error) -> SnapshotError {
    SnapshotError::Io { what: format!("{what} {}", path.display()), cause }
}
