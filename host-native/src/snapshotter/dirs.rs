//! The directories of snapshots.
//!
//! `DIR/ID/fs` is what a snapshot adds: an upper directory, or the mount of a lazy layer; `DIR/ID/work`
//! is overlayfs's. A directory that nobody knows is rubbish, so that whatever kills the process leaves
//! nothing half-made behind.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Context;

use super::lazy::LazyLayers;
use super::mounts;
use super::record::{Result, SnapshotError};
use crate::lock::lock;

/// The directories of all snapshots.
#[derive(Debug)]
pub struct Directories {
    dir: PathBuf,
    lazy: Arc<LazyLayers>,
    /// Those that are being made, and are not known yet.
    pending: Mutex<HashSet<u64>>,
}

impl Directories {
    /// Directories in `dir`, on some of which lazy layers are mounted.
    ///
    /// # Errors
    /// When `dir` cannot be made.
    pub fn open(dir: PathBuf, lazy: Arc<LazyLayers>) -> Result<Self> {
        make_dir(&dir, 0o700, true)?;
        Ok(Self { dir, lazy, pending: Mutex::default() })
    }

    /// Where all of them are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// What snapshot `id` adds.
    #[must_use]
    pub fn fs(&self, id: u64) -> PathBuf {
        mounts::fs_dir(&self.dir, id)
    }

    /// Makes the directory of snapshot `id`; of one that is `active`, owned as that of `below` is.
    ///
    /// # Errors
    /// When it is there already, or cannot be made.
    pub fn make(self: &Arc<Self>, id: u64, active: bool, below: Option<u64>) -> Result<Place> {
        self.pending().insert(id);
        let place = Place { dirs: Arc::clone(self), id, kept: false };
        make_dir(&self.dir.join(id.to_string()), 0o700, false)?;
        let dir = self.fs(id);
        make_dir(&dir, 0o755, false)?;
        if active {
            make_dir(&mounts::work_dir(&self.dir, id), 0o711, false)?;
        }
        if let Some(below) = below.map(|below| self.fs(below)) {
            let owner =
                fs::metadata(&below).map_err(|cause| io("cannot look at", &below, cause))?;
            std::os::unix::fs::chown(&dir, Some(owner.uid()), Some(owner.gid()))
                .map_err(|cause| io("cannot change the owner of", &dir, cause))?;
        }
        Ok(place)
    }

    /// Makes the directory that a lazy layer is mounted on, if it has gone.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_again(&self, fs: &Path) -> Result<()> {
        make_dir(fs, 0o755, true)
    }

    /// Takes away all that nobody knows. `known` adds the ids of those that somebody does.
    ///
    /// # Errors
    /// When they cannot be listed, or `known` fails; what goes wrong with one is logged.
    pub fn clean_up(&self, known: impl FnOnce(&mut HashSet<u64>) -> Result<()>) -> Result<()> {
        let listed = fs::read_dir(&self.dir)
            .map_err(|cause| io("cannot list snapshots", &self.dir, cause))?;
        // In this order: a directory that is listed is pending, or known by now.
        let ids: Vec<u64> =
            listed.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let mut kept = self.pending().clone();
        known(&mut kept)?;
        ids.into_iter().filter(|id| !kept.contains(id)).for_each(|id| self.delete(id));
        Ok(())
    }

    fn delete(&self, id: u64) {
        let dir = self.dir.join(id.to_string());
        // A number too great for a lazy layer is not one's.
        let unmounted =
            u32::try_from(id).map_or(Ok(()), |number| self.lazy.unmount(number, &self.fs(id)));
        if let Err(error) = unmounted {
            tracing::warn!(dir = %dir.display(), "cannot unmount a removed snapshot: {error:#}");
            return;
        }
        if let Err(error) = fs::remove_dir_all(&dir) {
            tracing::warn!(dir = %dir.display(), %error, "cannot remove a removed snapshot");
        }
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        lock(&self.pending)
    }
}

/// The directory of a snapshot that is being made; it goes when making it fails.
#[derive(Debug)]
pub struct Place {
    dirs: Arc<Directories>,
    /// The id of the snapshot.
    pub id: u64,
    kept: bool,
}

impl Place {
    /// The number that a lazy layer has here.
    ///
    /// # Errors
    /// When there were more snapshots than lazy layers can be numbered.
    pub fn number(&self) -> anyhow::Result<u32> {
        u32::try_from(self.id).context("this snapshotter has made too many snapshots")
    }

    /// Somebody knows it now.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            self.dirs.delete(self.id);
        }
        self.dirs.pending().remove(&self.id);
    }
}

fn make_dir(dir: &Path, mode: u32, or_keep: bool) -> Result<()> {
    let made = fs::DirBuilder::new().mode(mode).recursive(or_keep).create(dir);
    made.map_err(|cause| io("cannot make the directory", dir, cause))
}

fn io(what: &str, path: &Path, cause: std::io::Error) -> SnapshotError {
    SnapshotError::Io { what: format!("{what} {}", path.display()), cause }
}
