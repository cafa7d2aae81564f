//! Snapshots: records in the store, directories below the root, lazy layers mounted on them.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream;

use super::End;
use super::dirs::{Directories, Place};
use super::labels::{LayerSource, REMOTE, REMOTE_VALUE, TARGET, name_layer};
use super::lazy::{LazyLayer, LazyLayers};
use super::lookup::Lookup;
use super::mount_process::protocol::ShownLayer;
use super::record::{Chain, Fallback, Kind, Labels, Record, Result, SnapshotError, Usage, now};
use super::store::Store;
use super::{mounts, usage};
use crate::metrics::{self, Reason, count_fallback};
use crate::mount::overlay;
use crate::proto::types::Mount;

/// Lazy layers that are mounted again at the same time.
const RESTORED_AT_ONCE: usize = 64;

/// A snapshotter.
#[derive(Debug)]
pub struct Snapshotter {
    dirs: Arc<Directories>,
    store: Store,
    lazy: Arc<LazyLayers>,
    lookup: Option<Lookup>,
    user_xattrs: bool,
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
        let lazy = Arc::new(lazy);
        let dirs = Arc::new(Directories::open(root.join("snapshots"), Arc::clone(&lazy))?);
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
                dirs.path().display()
            )
        })?;
        Ok(Self { dirs, store, lazy, lookup: None, user_xattrs })
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
        let dir = self.dirs.path();
        dir.parent().unwrap_or(dir)
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
        Ok(mounts::of(self.dirs.path(), &chain, self.user_xattrs))
    }

    /// Commits an active snapshot under a name; a snapshot without a parent may be given one.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn commit(&self, key: &str, name: &str, parent: &str, labels: Labels) -> Result<()> {
        check_name(name)?;
        let record = self.store.get(key)?;
        let usage = usage::scan(&self.dirs.fs(record.id))?;
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
        let dir = self.dirs.fs(record.id);
        blocking(move || usage::scan(&dir)).await
    }

    /// Takes away the directories of snapshots that were removed.
    ///
    /// # Errors
    /// When the directory of all of them cannot be read; what goes wrong with one is logged.
    pub fn cleanup(&self) -> Result<()> {
        self.dirs.clean_up(|known| {
            self.store.walk(|_, record| {
                known.insert(record.id);
            })
        })
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
        let (source, labels) = parsed.map_err(|why| {
            count_fallback(Reason::NoLabels);
            anyhow::Error::msg(why)
        })?;
        let place = self.new_place(Kind::Committed, parent).await?;
        let (number, dir) = (place.number()?, self.dirs.fs(place.id));
        let source = self.lazy.mount(&LazyLayer { number, dir, source }).await?;
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
        Ok(mounts::of(self.dirs.path(), &chain, self.user_xattrs))
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
        self.dirs.make_again(&layer.dir)?;
        self.lazy.mount(layer).await.map(|_| ())
    }

    /// A snapshot as a lazy layer, if it is one.
    fn lazy_layer(&self, record: &Record) -> Option<LazyLayer> {
        let source = record.source.clone()?;
        let number = u32::try_from(record.id).ok()?;
        Some(LazyLayer { number, dir: self.dirs.fs(record.id), source })
    }

    async fn new_place(self: &Arc<Self>, kind: Kind, parent: &str) -> Result<Place> {
        let (this, parent) = (Arc::clone(self), parent.to_owned());
        // The directory of the parent may have to be asked for of the mount process.
        blocking(move || {
            let below = if kind == Kind::Active && !parent.is_empty() {
                Some(this.store.get(&parent)?.id)
            } else {
                None
            };
            this.dirs.make(this.store.next_id()?, kind == Kind::Active, below)
        })
        .await
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
