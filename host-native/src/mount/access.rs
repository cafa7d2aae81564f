//! Which files are read, for whoever wants to know what an image needs.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use lazystar_core::Digest;

use super::tree::Tree;
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
    /// Inodes in the order of their first read, and the chunks of each in theirs.
    order: Vec<(u64, Vec<u32>)>,
}

impl AccessLog {
    /// Takes note of where an inode is.
    pub fn name(&self, inode: u64, parent: u64, name: &[u8]) {
        lock(&self.names).entry(inode).or_insert_with(|| (parent, name.to_owned()));
    }

    /// Logs that these chunks of a file are read, the first time.
    pub fn read(&self, inode: u64, chunks: impl Iterator<Item = u32>) {
        let is_new = {
            let mut reads = lock(&self.reads);
            let next = reads.order.len();
            let at = *reads.index.entry(inode).or_insert(next);
            if at == next {
                reads.order.push((inode, Vec::new()));
            }
            let known = &mut reads.order[at].1;
            for chunk in chunks {
                if !known.contains(&chunk) {
                    known.push(chunk);
                }
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
        let tree = merged.then(|| Tree::merged(layers.to_vec()));
        let order = lock(&self.reads).order.clone();
        let accesses = order.into_iter().filter_map(|(inode, chunks)| {
            let path = self.path(inode).into_os_string().into_string().ok()?;
            let (layer_index, path) = match &tree {
                // Its path is the same in the image and in the layer.
                Some(tree) => {
                    let (layer, _) = tree.locate(inode)?;
                    (layers.iter().position(|it| Arc::ptr_eq(it, &layer))?, path)
                }
                None => {
                    let (number, path) = path.split_once('/')?;
                    (number.parse().ok()?, path.to_owned())
                }
            };
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
        log.read(4, 1..2);
        log.read(5, 0..1);
        log.read(4, 0..3);
        let trace = log.trace(Digest::of(b""), &[], false);
        let read: Vec<_> =
            trace.accesses.iter().map(|it| (it.layer_index, &*it.path, &it.chunks[..])).collect();
        assert_eq!(read, [(12, "usr/go", &[1, 0, 2][..]), (12, "usr/vi", &[0][..])]);
    }
}
