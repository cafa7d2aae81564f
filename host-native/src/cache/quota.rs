//! A limit to what layers take on the disk.
//!
//! Layers that nobody has open go first, the least recently used ones before others; then chunks of
//! open layers, those first that were not read for the longest time. What the kernel has in memory it
//! reads without asking, so that "read" means read from the cache file.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rustix::fs::FlockOperation;

use super::{Cache, LayerCache};
use crate::lock::lock;

/// Between two looks at the disk this share of the limit may be written.
const LOOK_SHARE: u64 = 64;
/// Ages are counted in this share of the limit.
const AGE_SHARE: u64 = 128;
/// How much room is made at once, as a share of the limit.
const ROOM_SHARE: u64 = 20;

/// The limit, and what has happened since it was last looked at.
#[derive(Debug)]
pub struct Quota {
    limit: u64,
    /// Bytes that were written, ever, those under way included.
    written: AtomicU64,
    /// Bytes that are being written, and may not show on the disk yet.
    under_way: AtomicU64,
    looked_at: Mutex<u64>,
}

impl Quota {
    /// At most `limit` bytes, and 5 % more while room is being made.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        let (written, under_way) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { limit: limit.max(1), written, under_way, looked_at: Mutex::new(0) }
    }

    /// Makes room for bytes that are going to be written, if there is none; what is returned is kept
    /// until they are.
    pub(super) fn reserve(&self, cache: &Cache, bytes: u64) -> Reserved<'_> {
        let reserved = Reserved { quota: self, bytes };
        self.under_way.fetch_add(bytes, Ordering::Relaxed);
        let written = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Whoever writes waits for the room that it takes.
        let mut looked_at = lock(&self.looked_at);
        if *looked_at == 0 || written.saturating_sub(*looked_at) >= self.limit / LOOK_SHARE {
            *looked_at = written;
            self.make_room(cache);
        }
        drop(looked_at);
        reserved
    }

    pub(super) fn ages(&self, chunks: usize) -> Ages {
        Ages((0..chunks).map(|_| AtomicU16::new(self.now())).collect())
    }

    fn now(&self) -> u16 {
        let age = self.written.load(Ordering::Relaxed) / (self.limit / AGE_SHARE).max(1);
        (age % (1 << 16)) as u16
    }

    fn make_room(&self, cache: &Cache) {
        let layers = cache.0.dir.join("layers");
        let total = disk_bytes(&layers) + self.under_way.load(Ordering::Relaxed);
        if total <= self.limit {
            return;
        }
        let mut left = total - (self.limit - self.limit / ROOM_SHARE);
        let open = cache.open_layers();
        for (_, dir) in unused(&layers, &|dir| open.contains_key(dir)) {
            if left == 0 {
                return;
            }
            let bytes = layer_bytes(&dir);
            if remove_unused(&dir) {
                tracing::info!(dir = %dir.display(), bytes, "removed from the cache");
                left = left.saturating_sub(bytes);
            }
        }
        self.take_oldest(open.into_values().collect(), left);
    }

    fn take_oldest(&self, layers: Vec<Arc<LayerCache>>, mut left: u64) {
        let mut chunks: Vec<_> = (0..)
            .zip(&layers)
            .flat_map(|(layer, cache)| {
                let removable = cache.removable(self).into_iter();
                removable.map(move |(age, index, bytes)| (age, layer, index, bytes))
            })
            .collect();
        chunks.sort_unstable_by_key(|(age, layer, index, _)| (u16::MAX - age, *layer, *index));
        let mut taken = vec![Vec::new(); layers.len()];
        for (_, layer, index, bytes) in chunks {
            if left == 0 {
                break;
            }
            taken[layer].push(index);
            left = left.saturating_sub(bytes);
        }
        for (layer, taken) in layers.iter().zip(taken).filter(|(_, taken)| !taken.is_empty()) {
            match layer.take_away(&taken) {
                Ok(true) => {}
                Ok(false) => {
                    tracing::debug!("another process uses a layer, nothing is taken from it")
                }
                Err(error) => tracing::warn!(%error, "cannot free a part of the cache"),
            }
        }
    }
}

/// Room for bytes that are being written.
#[derive(Debug)]
pub(super) struct Reserved<'a> {
    quota: &'a Quota,
    bytes: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.quota.under_way.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// When the chunks of a layer were last read.
#[derive(Debug)]
pub(super) struct Ages(Box<[AtomicU16]>);

impl Ages {
    pub(super) fn touch(&self, chunk: u32, quota: &Quota) {
        if let Some(age) = self.0.get(chunk as usize) {
            age.store(quota.now(), Ordering::Relaxed);
        }
    }

    pub(super) fn age(&self, chunk: u32, quota: &Quota) -> u16 {
        let last = self.0.get(chunk as usize).map_or(0, |age| age.load(Ordering::Relaxed));
        quota.now().wrapping_sub(last)
    }
}

/// What all layers below a directory take on the disk.
pub(super) fn disk_bytes(layers: &Path) -> u64 {
    fs::read_dir(layers).into_iter().flatten().flatten().map(|it| layer_bytes(&it.path())).sum()
}

fn layer_bytes(dir: &Path) -> u64 {
    fs::metadata(dir.join("data")).map_or(0, |it| it.blocks() * 512)
}

/// The directories of layers that this process does not use, the least recently used first.
fn unused(layers: &Path, used: &dyn Fn(&Path) -> bool) -> Vec<(SystemTime, PathBuf)> {
    let dirs = fs::read_dir(layers).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut unused: Vec<_> = dirs
        .filter(|dir| !used(dir))
        .filter_map(|dir| Some((fs::metadata(dir.join("data")).ok()?.modified().ok()?, dir)))
        .collect();
    unused.sort();
    unused
}

/// Removes a layer, unless some process has it open.
fn remove_unused(dir: &Path) -> bool {
    let Ok(data) = File::open(dir.join("data")) else { return false };
    let alone = rustix::fs::flock(&data, FlockOperation::NonBlockingLockExclusive).is_ok();
    alone && fs::remove_dir_all(dir).is_ok()
}
