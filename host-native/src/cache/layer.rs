//! The cache of one layer.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use lazystar_core::layer::Presence;
use lazystar_core::toc::ChunkIndex;
use lazystar_core::verify::{VerifiedChunk, verify};
use lazystar_core::{Digest, Toc};
use rustix::fs::{FallocateFlags, FlockOperation};

use super::Cache;
use super::bits::SharedBits;
use super::overflow::Overflow;
use super::quota::{Ages, Quota};

/// The unit in which file systems free room.
const BLOCK: u64 = 4096;

/// The cache of one layer: its flat space as far as it was fetched.
#[derive(Debug)]
pub struct LayerCache {
    toc: Arc<Toc>,
    data: File,
    present: SharedBits,
    suspect: Option<SharedBits>,
    /// Chunks are stored by many at once, and taken away by one alone.
    storing: RwLock<()>,
    ages: Option<Ages>,
    pinned: AtomicBool,
    cache: Cache,
    overflow: Arc<Overflow>,
}

impl LayerCache {
    pub(super) fn open(
        dir: &Path,
        toc: Arc<Toc>,
        cache: Cache,
        overflow: Arc<Overflow>,
    ) -> io::Result<Self> {
        let data = open_file(&dir.join("data"))?;
        // Nobody takes anything away behind the back of whoever has this lock.
        rustix::fs::flock(&data, FlockOperation::LockShared)?;
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
        let ages = cache.quota().map(|quota| quota.ages(chunks));
        let (storing, pinned) = (RwLock::new(()), AtomicBool::new(false));
        Ok(Self { toc, data, present: bits, suspect, storing, ages, pinned, cache, overflow })
    }

    /// Whether all of a range of the flat space can be read.
    #[must_use]
    pub fn is_present(&self, flat: Range<u64>) -> bool {
        self.toc.chunks_in(flat).all(|index| self.has_or_hole(ChunkIndex(index)))
    }

    /// Reads from the flat space, if all of the range is present.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self, flat: u64, out: &mut [u8]) -> io::Result<bool> {
        let range = flat..flat + out.len() as u64;
        let removals = self.present.removals();
        if !self.toc.chunks_in(range.clone()).all(|index| self.on_disk(ChunkIndex(index))) {
            return self.read_with_overflow(range, out);
        }
        self.data.read_exact_at(out, flat)?;
        if let (Some(ages), Some(quota)) = (&self.ages, self.cache.quota()) {
            self.toc.chunks_in(range).for_each(|index| ages.touch(index, quota));
        }
        // What was taken away while it was read may have been read as zeros.
        Ok(self.present.removals() == removals)
    }

    /// Keeps a chunk and marks it present. One that the disk has no room for is held in memory for a
    /// while.
    pub fn store(&self, chunk: &VerifiedChunk<'_>) {
        let index = chunk.index().0;
        if self.present.get(index) {
            return;
        }
        let quota = self.cache.quota();
        let reserved = quota.map(|quota| quota.reserve(&self.cache, chunk.bytes().len() as u64));
        match self.write(chunk) {
            Ok(()) => self.overflow.disk_works(),
            Err(error) => return self.overflow.hold(self.key(index), chunk.bytes(), &error),
        }
        if let (Some(ages), Some(quota)) = (&self.ages, quota) {
            ages.touch(index, quota);
        }
        drop(reserved);
    }

    /// Whether what was read may be taken away for what was read later.
    #[must_use]
    pub fn has_limit(&self) -> bool {
        self.ages.is_some()
    }

    /// Whether the quota leaves this layer alone.
    pub fn pin(&self, pinned: bool) {
        self.pinned.store(pinned, Ordering::Relaxed);
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
        let _storing = self.storing.read().unwrap_or_else(PoisonError::into_inner);
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

    /// The chunks that the quota may take away, with their ages and lengths.
    pub(super) fn removable(&self, quota: &Quota) -> Vec<(u16, u32, u64)> {
        let Some(ages) = self.ages.as_ref().filter(|_| !self.pinned.load(Ordering::Relaxed)) else {
            return Vec::new();
        };
        let chunks = (0..).zip(self.toc.chunks());
        let kept = chunks.filter(|(index, chunk)| self.present.get(*index) && !chunk.is_hole());
        kept.map(|(index, chunk)| (ages.age(index, quota), index, u64::from(chunk.len))).collect()
    }

    /// Takes chunks away, unless another process uses the layer too; returns whether it did.
    ///
    /// # Errors
    /// When the file system cannot free a part of a file.
    pub(super) fn take_away(&self, chunks: &[u32]) -> io::Result<bool> {
        let _alone = self.storing.write().unwrap_or_else(PoisonError::into_inner);
        if rustix::fs::flock(&self.data, FlockOperation::NonBlockingLockExclusive).is_err() {
            // The attempt may have given up the lock that was there.
            rustix::fs::flock(&self.data, FlockOperation::LockShared)?;
            return Ok(false);
        }
        chunks.iter().for_each(|index| self.present.unset(*index));
        self.present.count_removal();
        let mut done = Ok(true);
        for chunk in chunks.iter().filter_map(|index| self.toc.chunk(ChunkIndex(*index))) {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let range = self.blocks(chunk.flat_range());
            if let Err(error) =
                rustix::fs::fallocate(&self.data, hole, range.start, range.end - range.start)
            {
                done = Err(error.into());
            }
        }
        rustix::fs::flock(&self.data, FlockOperation::LockShared)?;
        done
    }

    /// A range and what is beside it in its first and last block, where nothing there is present:
    /// only whole blocks are freed.
    fn blocks(&self, range: Range<u64>) -> Range<u64> {
        let start = range.start - range.start % BLOCK;
        let end = range.end.next_multiple_of(BLOCK);
        let is_empty = |part: Range<u64>| self.toc.chunks_in(part).all(|it| !self.present.get(it));
        let start = if is_empty(start..range.start) { start } else { range.start };
        start..if is_empty(range.end..end) { end } else { range.end }
    }

    fn write(&self, chunk: &VerifiedChunk<'_>) -> io::Result<()> {
        let _storing = self.storing.read().unwrap_or_else(PoisonError::into_inner);
        self.data.write_all_at(chunk.bytes(), chunk.flat())?;
        self.present.set(chunk.index().0);
        Ok(())
    }

    fn read_with_overflow(&self, range: Range<u64>, out: &mut [u8]) -> io::Result<bool> {
        if self.overflow.is_empty() {
            return Ok(false);
        }
        let removals = self.present.removals();
        out.fill(0);
        for index in self.toc.chunks_in(range.clone()) {
            let Some(chunk) = self.toc.chunk(ChunkIndex(index)) else { continue };
            let part = chunk.flat.max(range.start)..chunk.flat_range().end.min(range.end);
            let within = |at: u64, base: u64| usize::try_from(at - base).unwrap_or(usize::MAX);
            let to = within(part.start, range.start)..within(part.end, range.start);
            if self.present.get(index) {
                self.data.read_exact_at(&mut out[to], part.start)?;
            } else if let Some(bytes) = self.overflow.get(self.key(index)) {
                let from = within(part.start, chunk.flat)..within(part.end, chunk.flat);
                out[to].copy_from_slice(&bytes[from]);
            } else if !chunk.is_hole() {
                return Ok(false);
            }
        }
        Ok(self.present.removals() == removals)
    }

    fn key(&self, index: u32) -> (Digest, u32) {
        (self.toc.digest(), index)
    }

    fn on_disk(&self, index: ChunkIndex) -> bool {
        self.present.get(index.0) || self.toc.chunk(index).is_none_or(|chunk| chunk.is_hole())
    }

    fn has_or_hole(&self, index: ChunkIndex) -> bool {
        self.on_disk(index) || self.overflow.has(self.key(index.0))
    }
}

impl Presence for LayerCache {
    fn has(&self, chunk: ChunkIndex) -> bool {
        self.present.get(chunk.0) || self.overflow.has(self.key(chunk.0))
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
