//! The verified cache: what was fetched once is not fetched again.
//!
//! ```text
//! <dir>/layers/<TOC digest>/data      the layer's flat space, a sparse file
//!                          /present   which of its chunks are there (see `bits`)
//!                          /suspect   which were there before the machine restarted
//! <dir>/tails/<blob digest>           footer and compressed TOC, as they were fetched
//! ```
//!
//! A chunk is written after its digest was checked, and marked present after it was written, so a
//! killed process leaves nothing unverified that is believed. A crash of the machine may keep the
//! mark and lose the data: marks made before the last boot count for nothing until the chunk was
//! read back and hashed again. Several processes may use one cache; what they write is the same.
//! A [`Quota`] takes away what was used least recently; what the disk has no room for is held in
//! memory for whoever waits for it.

mod bits;
mod layer;
mod overflow;
mod quota;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use lazystar_core::toc::Assurance;
use lazystar_core::{Digest, Toc};

use crate::lock::lock;
use crate::user_dirs;
pub use layer::LayerCache;
use overflow::Overflow;
pub use quota::Quota;

/// A directory that holds layers. Clones are the same cache.
#[derive(Clone, Debug)]
pub struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    quota: Option<Quota>,
    overflow: Arc<Overflow>,
    /// Layers that this process has open, by their directories.
    open: Mutex<HashMap<PathBuf, Weak<LayerCache>>>,
}

impl Cache {
    /// Uses `dir`, which is made if it is not there; only its owner may enter it.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        Self::limited(dir, None)
    }

    /// The same, with a quota for what layers take on the disk.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn limited(dir: &Path, quota: Option<Quota>) -> io::Result<Self> {
        for part in ["layers", "tails"] {
            make_private_dir(&dir.join(part))?;
        }
        let (overflow, open) = (Arc::default(), Mutex::default());
        Ok(Self(Arc::new(Inner { dir: dir.to_owned(), quota, overflow, open })))
    }

    /// The directory used unless another is named: `/var/lib/lazystar/cache` for root, below
    /// `$XDG_CACHE_HOME` or `~/.cache` for everybody else, root of a user namespace included.
    #[must_use]
    pub fn default_dir() -> PathBuf {
        if user_dirs::is_root() {
            return PathBuf::from("/var/lib/lazystar/cache");
        }
        let base = user_dirs::of_user("XDG_CACHE_HOME", Some(".cache"));
        base.unwrap_or_else(std::env::temp_dir).join("lazystar")
    }

    /// Where whole blobs are kept for as long as they are needed.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.0.dir.join("spool")
    }

    /// Where manifests are kept.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.0.dir.join("manifests")
    }

    /// The cache of one layer; there is one for all who use it.
    ///
    /// # Errors
    /// When its files cannot be opened or made.
    pub fn layer(&self, toc: &Arc<Toc>) -> io::Result<Arc<LayerCache>> {
        let dir = self.layer_dir(toc);
        let mut open = self.lock_open();
        if let Some(known) = open.get(&dir).and_then(Weak::upgrade) {
            return Ok(known);
        }
        make_private_dir(&dir)?;
        let overflow = Arc::clone(&self.0.overflow);
        let layer = LayerCache::open(&dir, Arc::clone(toc), self.clone(), overflow)?;
        let layer = Arc::new(layer);
        open.retain(|_, layer| layer.strong_count() > 0);
        open.insert(dir, Arc::downgrade(&layer));
        Ok(layer)
    }

    /// What all layers take on the disk, in bytes.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        quota::disk_bytes(&self.0.dir.join("layers"))
    }

    /// The quota, if there is one.
    fn quota(&self) -> Option<&Quota> {
        self.0.quota.as_ref()
    }

    /// The layers that this process has open, and their directories.
    fn open_layers(&self) -> HashMap<PathBuf, Arc<LayerCache>> {
        let open = self.lock_open();
        open.iter().filter_map(|(dir, it)| Some((dir.clone(), it.upgrade()?))).collect()
    }

    fn lock_open(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Weak<LayerCache>>> {
        lock(&self.0.open)
    }

    fn layer_dir(&self, toc: &Toc) -> PathBuf {
        // What nobody verified must never be taken for the layer that somebody did.
        let suffix = if toc.assurance() == Assurance::Unverified { "-unverified" } else { "" };
        self.0.dir.join("layers").join(format!("{}{suffix}", toc.digest().hex()))
    }

    /// Removes the content of a layer. Whoever has it open goes on with it.
    ///
    /// # Errors
    /// When its files cannot be removed.
    pub fn remove(&self, toc: &Toc) -> io::Result<()> {
        let dir = self.layer_dir(toc);
        self.lock_open().remove(&dir);
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The last bytes of a blob, if they were kept.
    #[must_use]
    pub fn tail(&self, blob: &Digest) -> Option<Vec<u8>> {
        fs::read(self.0.dir.join("tails").join(blob.hex())).ok()
    }

    /// Keeps the last bytes of a blob no longer.
    pub fn forget_tail(&self, blob: &Digest) {
        // What is not there need not go.
        let _ = fs::remove_file(self.0.dir.join("tails").join(blob.hex()));
    }

    /// Keeps the last bytes of a blob, given in pieces. They are checked like fetched ones when
    /// they are used.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep_tail<'a>(
        &self,
        blob: &Digest,
        pieces: impl Iterator<Item = &'a Bytes>,
    ) -> io::Result<()> {
        let path = self.0.dir.join("tails").join(blob.hex());
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut file = File::create(&temporary)?;
        for piece in pieces {
            file.write_all(piece)?;
        }
        fs::rename(&temporary, &path)
    }
}

fn make_private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
