//! Which files are read, for whoever wants to know what an image needs.

use std::collections::HashMap;
use std::ffi::OsString;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use lazystar_core::Digest;
use lazystar_core::toc::NodeId;

use super::tree::{LayerTable, Tree};
use crate::driver::LazyLayer;
use crate::lock::lock;
use crate::trace::{Access, Trace};

/// Logs the first read of each file, and keeps the order. It has to remember the name of everything
/// that was looked up, so it is for people, not for every day.
#[derive(Debug, Default)]
pub struct AccessLog {
    names: Mutex<HashMap<u64, (u64, Vec<u8>)>>,
    reads: Mutex<Reads>,
}

#[derive(Debug, Default)]
struct Reads {
    /// Where in `order` an inode is.
    index: HashMap<u64, usize>,
    /// Inodes in the order of their first read, and what was read of each, in its order.
    order: Vec<(u64, Vec<Range<u64>>)>,
}

impl AccessLog {
    /// Takes note of where an inode is.
    pub fn name(&self, inode: u64, parent: u64, name: &[u8]) {
        lock(&self.names).entry(inode).or_insert_with(|| (parent, name.to_owned()));
    }

    /// Logs that `size` bytes of a file are read.
    pub fn read(&self, inode: u64, offset: u64, size: u32) {
        let is_new = {
            let mut reads = lock(&self.reads);
            let next = reads.order.len();
            let at = *reads.index.entry(inode).or_insert(next);
            if at == next {
                reads.order.push((inode, Vec::new()));
            }
            let ranges = &mut reads.order[at].1;
            let end = offset.saturating_add(u64::from(size));
            match ranges.last_mut() {
                // Most files are read from start to end.
                Some(last) if last.end == offset => last.end = end,
                _ => ranges.push(offset..end),
            }
            at == next
        };
        if is_new {
            tracing::debug!(path = %self.path(inode).display(), "file accessed");
        }
    }

    /// What was read of the image with the manifest `manifest`, whose layers were mounted one beside
    /// the other, or `merged` into one tree.
    #[must_use]
    pub fn trace(&self, manifest: Digest, layers: &[Arc<LazyLayer>], merged: bool) -> Trace {
        let tree = match merged {
            true => Tree::merged(layers.to_vec()),
            false => super::stack(LayerTable::fixed(layers).into()),
        };
        let order = lock(&self.reads).order.clone();
        let accesses = order.into_iter().filter_map(|(inode, ranges)| {
            let path = self.path(inode).into_os_string().into_string().ok()?;
            let (layer, node) = tree.locate(inode)?;
            let layer_index = layers.iter().position(|it| Arc::ptr_eq(it, &layer))?;
            // Its path in the image is that in the layer, after the layer's number in a stack.
            let path = if merged { path } else { path.split_once('/')?.1.to_owned() };
            let chunks = chunks_of(&layer, node, &ranges);
            Some(Access { path, manifest_digest: manifest, layer_index, chunks })
        });
        Trace { accesses: accesses.collect() }
    }

    /// The path from the root of the mount, as far as it is known.
    fn path(&self, inode: u64) -> PathBuf {
        let names = lock(&self.names);
        let mut parts = Vec::new();
        let mut at = inode;
        while let Some((parent, name)) = names.get(&at) {
            parts.push(OsString::from_vec(name.clone()));
            // A directory that was given as its own parent would have no end.
            if *parent == at || parts.len() > names.len() {
                break;
            }
            at = *parent;
        }
        parts.iter().rev().collect()
    }
}

/// The numbers of the chunks of a file that `ranges` of it touch, in their order.
fn chunks_of(layer: &LazyLayer, node: NodeId, ranges: &[Range<u64>]) -> Vec<u32> {
    let start = layer.toc().flat_range(node).start;
    let mut touched = Vec::new();
    for range in ranges {
        for (chunk, number) in layer.toc().file_chunks(node).iter().zip(0..) {
            let of = chunk.flat_range();
            let meets = of.start < start + range.end && start + range.start < of.end;
            if meets && !touched.contains(&number) {
                touched.push(number);
            }
        }
    }
    touched
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_put_together_of_names() {
        let log = AccessLog::default();
        log.name(2, 1, b"12");
        log.name(3, 2, b"usr");
        log.name(4, 3, b"go");
        log.name(5, 3, b"vi");
        log.name(9, 9, b"loop");
        assert_eq!(log.path(4), PathBuf::from("12/usr/go"));
        assert_eq!(log.path(9), PathBuf::from("loop"));
        assert_eq!(log.path(7), PathBuf::new());
        log.read(4, 0, 10);
        log.read(5, 7, 3);
        log.read(4, 10, 5);
        log.read(4, 0, 1);
        let order = lock(&log.reads).order.clone();
        assert_eq!(order[0], (4, vec![0..15, 0..1]));
        assert_eq!((order[1].0, &order[1].1[0], order.len()), (5, &(7..10), 2));
    }
}
