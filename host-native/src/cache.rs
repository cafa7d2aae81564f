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

mod bits;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lazystar_core::layer::Presence;
use lazystar_core::toc::{Assurance, ChunkIndex};
use lazystar_core::verify::{VerifiedChunk, verify};
use lazystar_core::{Digest, Toc};
use rustix::fs::FlockOperation;

use bits::SharedBits;

/// A directory that holds layers.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Uses `dir`, which is made if it is not there; only its owner may enter it.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let cache = Self { dir: dir.to_owned() };
        for part in ["layers", "tails"] {
            make_private_dir(&cache.dir.join(part))?;
        }
        Ok(cache)
    }

    /// The directory used unless another is named: `/var/lib/lazystar/cache` for root, below
    /// `$XDG_CACHE_HOME` or `~/.cache` for everybody else.
    #[must_use]
    pub fn default_dir() -> PathBuf {
        if rustix::process::geteuid().is_root() {
            return PathBuf::from("/var/lib/lazystar/cache");
        }
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
        base.unwrap_or_else(std::env::temp_dir).join("lazystar")
    }

    /// Where manifests are kept.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.dir.join("manifests")
    }

    /// The cache of one layer.
    ///
    /// # Errors
    /// When its files cannot be opened or made.
    pub fn layer(&self, toc: &Arc<Toc>) -> io::Result<LayerCache> {
        let dir = self.layer_dir(toc);
        make_private_dir(&dir)?;
        LayerCache::open(&dir, Arc::clone(toc))
    }

    fn layer_dir(&self, toc: &Toc) -> PathBuf {
        // What nobody verified must never be taken for the layer that somebody did.
        let suffix = if toc.assurance() == Assurance::Unverified { "-unverified" } else { "" };
        self.dir.join("layers").join(format!("{}{suffix}", toc.digest().hex()))
    }

    /// Removes the content of a layer. Whoever has it open goes on with it.
    ///
    /// # Errors
    /// When its files cannot be removed.
    pub fn remove(&self, toc: &Toc) -> io::Result<()> {
        match fs::remove_dir_all(self.layer_dir(toc)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The last bytes of a blob, if they were kept.
    #[must_use]
    pub fn tail(&self, blob: &Digest) -> Option<Vec<u8>> {
        fs::read(self.dir.join("tails").join(blob.hex())).ok()
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
        let path = self.dir.join("tails").join(blob.hex());
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

/// The cache of one layer: its flat space as far as it was fetched.
#[derive(Debug)]
pub struct LayerCache {
    toc: Arc<Toc>,
    data: File,
    present: SharedBits,
    suspect: Option<SharedBits>,
}

impl LayerCache {
    fn open(dir: &Path, toc: Arc<Toc>) -> io::Result<Self> {
        let data = open_file(&dir.join("data"))?;
        if data.metadata()?.len() < toc.flat_size() {
            data.set_len(toc.flat_size())?;
        }
        let present = open_file(&dir.join("present"))?;
        let suspect = dir.join("suspect");
        let chunks = toc.chunks().len();
        // Whoever comes first after a restart of the machine moves the marks; others wait.
        rustix::fs::flock(&present, FlockOperation::LockExclusive)?;
        let boot = boot_id();
        let bits = SharedBits::map(&present, chunks)?;
        if bits.boot() != boot {
            if bits.any() {
                let kept = SharedBits::map(&open_file(&suspect)?, chunks)?;
                kept.merge(&bits);
                kept.sync()?;
                bits.clear();
            }
            bits.set_boot(boot);
            bits.sync()?;
        }
        let suspect = match OpenOptions::new().read(true).write(true).open(&suspect) {
            Ok(file) => Some(SharedBits::map(&file, chunks)?),
            Err(_) => None,
        };
        rustix::fs::flock(&present, FlockOperation::Unlock)?;
        Ok(Self { toc, data, present: bits, suspect })
    }

    /// Whether all of a range of the flat space can be read.
    #[must_use]
    pub fn is_present(&self, flat: Range<u64>) -> bool {
        self.toc.chunks_in(flat).all(|index| self.has_or_hole(ChunkIndex(index)))
    }

    /// Reads from the flat space; only what [`is_present`](Self::is_present) may be asked for.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self, flat: u64, out: &mut [u8]) -> io::Result<()> {
        self.data.read_exact_at(out, flat)
    }

    /// Writes a chunk and marks it present.
    ///
    /// # Errors
    /// When it cannot be written, for instance because the disk is full.
    pub fn store(&self, chunk: &VerifiedChunk<'_>) -> io::Result<()> {
        if self.present.get(chunk.index().0) {
            return Ok(());
        }
        self.data.write_all_at(chunk.bytes(), chunk.flat())?;
        self.present.set(chunk.index().0);
        Ok(())
    }

    /// What the layer's content takes on the disk, in bytes.
    ///
    /// # Errors
    /// When the cache file cannot be looked at.
    pub fn disk_bytes(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(self.data.metadata()?.blocks() * 512)
    }

    /// Reads back those chunks of a range that were marked before the machine restarted, and
    /// marks those present that are what they should be.
    pub fn revalidate(&self, flat: Range<u64>) {
        let Some(suspect) = &self.suspect else { return };
        for index in self.toc.chunks_in(flat) {
            if self.present.get(index) || !suspect.get(index) {
                continue;
            }
            let Some(chunk) = self.toc.chunk(ChunkIndex(index)) else { continue };
            let mut bytes = vec![0; chunk.len as usize];
            let read = self.data.read_exact_at(&mut bytes, chunk.flat);
            if read.is_ok() && verify(&self.toc, ChunkIndex(index), &bytes).is_some() {
                self.present.set(index);
            } else {
                suspect.unset(index);
            }
        }
    }

    fn has_or_hole(&self, index: ChunkIndex) -> bool {
        self.present.get(index.0) || self.toc.chunk(index).is_none_or(|chunk| chunk.is_hole())
    }
}

impl Presence for LayerCache {
    fn has(&self, chunk: ChunkIndex) -> bool {
        self.present.get(chunk.0)
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// What changes with every start of the machine; all zero where the kernel does not tell, which
/// makes every mark suspect.
fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let hex: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(hex.as_chunks::<2>().0) {
        let digits = std::str::from_utf8(pair).unwrap_or("00");
        *byte = u8::from_str_radix(digits, 16).unwrap_or(0);
    }
    id
}
