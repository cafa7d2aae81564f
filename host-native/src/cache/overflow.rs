//! Chunks that the disk has no room for.
//!
//! Whoever waits for a chunk gets it even when it cannot be kept. Then it is fetched again.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use lazystar_core::Digest;

use crate::lock::lock;

/// What is held at most, in bytes; one chunk is held whatever it takes.
const MAX_BYTES: usize = 64 << 20;

/// A chunk: the digest of the layer's TOC, and its number in it.
type Key = (Digest, u32);

/// The chunks of all layers of a cache.
#[derive(Debug, Default)]
pub(super) struct Overflow {
    held: Mutex<Held>,
    any: AtomicBool,
    warned: AtomicBool,
}

#[derive(Debug, Default)]
struct Held {
    chunks: HashMap<Key, Arc<[u8]>>,
    /// The oldest first.
    order: VecDeque<Key>,
    bytes: usize,
}

impl Overflow {
    /// Holds a chunk that could not be written because of `error`; the oldest make place for it.
    pub(super) fn hold(&self, key: Key, bytes: &[u8], error: &io::Error) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "cannot write to the cache, so what is read is fetched again each time, until it can be: {error}"
            );
        }
        let mut held = self.lock();
        if held.chunks.insert(key, bytes.into()).is_none() {
            held.order.push_back(key);
            held.bytes += bytes.len();
        }
        while held.bytes > MAX_BYTES && held.order.len() > 1 {
            let oldest = held.order.pop_front().and_then(|key| held.chunks.remove(&key));
            held.bytes -= oldest.map_or(0, |bytes| bytes.len());
        }
        self.any.store(true, Ordering::Release);
    }

    /// Something was written.
    pub(super) fn disk_works(&self) {
        if self.warned.load(Ordering::Relaxed) && self.warned.swap(false, Ordering::Relaxed) {
            tracing::warn!("the cache can be written to again");
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    pub(super) fn has(&self, key: Key) -> bool {
        !self.is_empty() && self.lock().chunks.contains_key(&key)
    }

    pub(super) fn get(&self, key: Key) -> Option<Arc<[u8]>> {
        self.lock().chunks.get(&key).map(Arc::clone)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        lock(&self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_the_newest_chunks_and_no_more_than_it_may() {
        let overflow = Overflow::default();
        let toc = Digest::of(b"toc");
        assert!(overflow.is_empty());
        let full = io::Error::from(io::ErrorKind::StorageFull);
        for index in 0..5 {
            overflow.hold((toc, index), &vec![1; MAX_BYTES / 3], &full);
        }
        let held: Vec<_> = (0..5).filter(|index| overflow.has((toc, *index))).collect();
        assert_eq!(held, [2, 3, 4]);
        overflow.hold((toc, 9), &vec![2; MAX_BYTES * 2], &full);
        assert!(overflow.get((toc, 9)).is_some() && !overflow.has((toc, 4)));
    }
}
