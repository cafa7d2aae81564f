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

use anyhow::Context;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream;

use super::End;
use super::labels::{LayerSource, REMOTE, REMOTE_VALUE, TARGET, name_layer};
use super::lazy::{LazyLayer, LazyLayers};
use super::lookup::Lookup;
use super::mount_process::protocol::ShownLayer;
use super::store::{
    Chain, Fallback, Kind, Labels, Record, Result, SnapshotError, Store, Usage, now,
};
use super::{mounts, usage};
use crate::metrics::{self, Reason, count_fallback};
use crate::mount::overlay;
use crate::proto::types::Mount;

/// Lazy layers that are mounted again at the same time.
const RESTORED_AT_ONCE: usize = 64;

/// A snapshotter.
#[derive(Debug)]
pub struct Snapshotter {
    dir: PathBuf,
    store: Store,
    lazy: Arc<LazyLayers>,
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
    pub fn open(root: &Path, lazy: LazyLayers, user_xattrs: bool) -> anyhow::Result<Self> {
        let dir = root.join("snapshots");
        make_dir(&dir, 0o700, true)?;
        overlay::probe(root, user_xattrs).with_context(|| {
            format!(
                "containers cannot write to files below {}: choose another directory with --root, one that is not itself on overlayfs or a network file system",
                root.display()
            )
        })?;
        let file = root.join("snapshots.redb");
        let store = Store::open(&file).with_context(|| {
            format!(
                "cannot use {}; when it is damaged, move it away together with {}, and pull the images again",
                file.display(),
                dir.display()
            )
        })?;
        let lazy = Arc::new(lazy);
        Ok(Self { dir, store, lazy, lookup: None, user_xattrs, pending: Mutex::default() })
    }

    /// Lets it look for the layers of clients that do not say which they are.
    #[must_use]
    pub fn with_lookup(self, lookup: Option<Lookup>) -> Self {
        Self { lookup, ..self }
    }

    /// Takes over the lazy layers that are mounted, and begins to mount again those that should be,
    /// side by side; one that fails is tried again when it is needed.
    ///
    /// # Errors
    /// When the store cannot be read, or nothing can be mounted here.
    pub async fn begin(self: &Arc<Self>) -> anyhow::Result<()> {
        let mut known = Vec::new();
        self.store.walk(|_, record| known.extend(self.lazy_layer(&record)))?;
        let missing = self.lazy.begin(known).await?;
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let mount = async |layer: LazyLayer| {
                if let Err(error) = this.mount(&layer).await {
                    tracing::warn!(
                        snapshot = layer.number,
                        "cannot mount a layer again: {error:#}"
                    );
                }
            };
            stream::iter(missing).for_each_concurrent(RESTORED_AT_ONCE, mount).await;
        });
        Ok(())
    }

    /// Ends: lazy layers stay mounted or do not.
    pub async fn end(&self, how: End) {
        self.lazy.end(how == End::Everything).await;
    }

    /// Makes an active snapshot; or, when the labels ask for a remote one and the layer can be read
    /// lazily, a committed one under the name that they give.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn prepare(
        self: &Arc<Self>,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Prepared> {
        if let Some(target) = labels.get(TARGET) {
            check_name(key)?;
            match self.prepare_lazy(key, target, parent, &labels).await {
                Ok(()) => {
                    tracing::info!(key, snapshot = target, "remote-snapshot-prepared" = "true");
                    return Ok(Prepared::Lazy);
                }
                Err(error) => {
                    let reason = format!("{error:#}");
                    tracing::warn!(
                        key,
                        snapshot = target,
                        "remote-snapshot-prepared" = "false",
                        "not lazy: {reason}"
                    );
                    let noted = self.store.note_fallback(target, &Fallback::new(&labels, reason));
                    if let Err(error) = noted {
                        tracing::warn!("cannot keep the reason: {error}");
                    }
                }
            }
        }
        self.create(Kind::Active, key, parent, labels).await.map(Prepared::Active)
    }

    /// Makes a read-only snapshot.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn view(
        self: &Arc<Self>,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>> {
        self.create(Kind::View, key, parent, labels).await
    }

    /// The directory that everything is below.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.dir.parent().unwrap_or(&self.dir)
    }

    /// The lazy layers that are mounted.
    ///
    /// # Errors
    /// When the mount process does not answer.
    pub async fn shown(&self) -> anyhow::Result<Vec<ShownLayer>> {
        self.lazy.shown(None).await
    }

    /// The figures of daemon and mount process together, as Prometheus reads them.
    pub async fn metrics(&self) -> String {
        let of_mounts = match self.lazy.metrics().await {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!("the figures of the mount process are missing: {error:#}");
                String::new()
            }
        };
        metrics::combined(&[metrics::render(), of_mounts])
    }

    /// Why snapshots that were asked for lazily are not lazy.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn fallbacks(&self) -> Result<Vec<(String, Fallback)>> {
        self.store.fallbacks()
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
    pub async fn usage(&self, key: &str) -> Result<Usage> {
        let record = self.store.get(key)?;
        if let Some(layer) = self.lazy_layer(&record) {
            let shown = self.lazy.shown(Some(layer.number)).await;
            let shown = shown.map_err(|error| SnapshotError::Unavailable(format!("{error:#}")))?;
            return Ok(shown
                .first()
                .map_or_else(Usage::default, |it| Usage { size: it.cached, inodes: it.entries }));
        }
        if record.kind == Kind::Committed {
            return Ok(record.usage);
        }
        let dir = self.fs(record.id);
        blocking(move || usage::scan(&dir)).await
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

    async fn prepare_lazy(
        self: &Arc<Self>,
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
        let parsed = labels.and_then(|labels| Ok((LayerSource::parse(&labels)?, labels)));
        let (mut source, labels) = parsed.map_err(|why| {
            count_fallback(Reason::NoLabels);
            anyhow::Error::msg(why)
        })?;
        let place = self.new_place(Kind::Committed, parent).await?;
        let (number, dir) = (place.number()?, self.fs(place.id));
        let layer = LazyLayer { number, dir, source: source.clone() };
        if let Some(manifest) = self.lazy.mount(&layer).await? {
            // The tag may name another image when it is mounted again.
            source.reference = source.reference.with_digest(manifest);
        }
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
            source: Some(source),
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
        self: &Arc<Self>,
        kind: Kind,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>> {
        check_name(key)?;
        let below = if parent.is_empty() { Chain::new() } else { self.store.chain(parent)? };
        self.check(&below).await?;
        let place = self.new_place(kind, parent).await?;
        let now = now();
        let record = Record {
            id: place.id,
            kind,
            parent: parent.to_owned(),
            labels: without_empty(labels),
            created: now,
            updated: now,
            usage: Usage::default(),
            source: None,
        };
        self.store.add(key, &record)?;
        place.keep();
        let mut chain = vec![(key.to_owned(), record)];
        chain.extend(below);
        Ok(mounts::of(&self.dir, &chain, self.user_xattrs))
    }

    /// Sees to it that every lazy layer of a chain is mounted.
    async fn check(&self, chain: &Chain) -> Result<()> {
        let mounts = chain.iter().filter_map(|(key, record)| {
            let layer = self.lazy_layer(record)?;
            Some(async move {
                self.mount(&layer).await.map_err(|error| {
                    SnapshotError::Unavailable(format!(
                        "the layer of snapshot {key:?} is unavailable: {error:#}"
                    ))
                })
            })
        });
        try_join_all(mounts).await.map(|_| ())
    }

    async fn mount(&self, layer: &LazyLayer) -> anyhow::Result<()> {
        if self.lazy.is_mounted(layer.number) {
            return Ok(());
        }
        make_dir(&layer.dir, 0o755, true)?;
        self.lazy.mount(layer).await.map(|_| ())
    }

    /// A snapshot as a lazy layer, if it is one.
    fn lazy_layer(&self, record: &Record) -> Option<LazyLayer> {
        let source = record.source.clone()?;
        let number = u32::try_from(record.id).ok()?;
        Some(LazyLayer { number, dir: self.fs(record.id), source })
    }

    async fn new_place(self: &Arc<Self>, kind: Kind, parent: &str) -> Result<Place> {
        let (this, parent) = (Arc::clone(self), parent.to_owned());
        // The directory of the parent may have to be asked for of the mount process.
        blocking(move || this.make_place(kind, &parent)).await
    }

    fn make_place(self: &Arc<Self>, kind: Kind, parent: &str) -> Result<Place> {
        let id = self.store.next_id()?;
        self.pending().insert(id);
        let place = Place { snapshotter: Arc::clone(self), id, kept: false };
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
        // A number too great for a lazy layer is not one's.
        let unmounted =
            u32::try_from(id).map_or(Ok(()), |id| self.lazy.unmount(id, &self.fs(u64::from(id))));
        if let Err(error) = unmounted {
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
struct Place {
    snapshotter: Arc<Snapshotter>,
    id: u64,
    kept: bool,
}

impl Place {
    /// The number that a lazy layer has here.
    fn number(&self) -> anyhow::Result<u32> {
        u32::try_from(self.id).context("this snapshotter has made too many snapshots")
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            self.snapshotter.delete(self.id);
        }
        self.snapshotter.pending().remove(&self.id);
    }
}

/// Runs what waits for the disk, or for the mount process, where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(SnapshotError::died)?
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
