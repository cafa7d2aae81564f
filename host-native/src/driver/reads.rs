//! Which files of a layer are read, in which order: so cheap that it is always known.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use lazystar_core::Toc;
use lazystar_core::toc::{Kind, NodeId};
use serde::{Deserialize, Serialize};

/// What was read of a layer. Takes nothing before the first read, and from then on 4 bytes for each
/// entry of the layer and a bit for each chunk.
#[derive(Debug, Default)]
pub struct Reads(OnceLock<Marks>);

#[derive(Debug)]
struct Marks {
    /// For each node the rank of its first read, 0 for none.
    ranks: Box<[AtomicU32]>,
    /// A bit for each chunk that was read.
    chunks: Box<[AtomicU64]>,
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadFile {
    /// Its path, from the root of its layer without a leading slash.
    pub path: String,
    /// The rank of its first read among those of all layers in this process.
    pub rank: u32,
    /// The numbers of its chunks that were read.
    pub chunks: Vec<u32>,
}

impl Reads {
    /// Notes that a range of the flat space, of the file `node`, is read.
    pub(crate) fn note(&self, toc: &Toc, node: NodeId, flat: Range<u64>) {
        static RANK: AtomicU32 = AtomicU32::new(1);
        let marks = self.0.get_or_init(|| Marks {
            ranks: (0..toc.node_count()).map(|_| AtomicU32::new(0)).collect(),
            chunks: (0..toc.chunks().len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
        });
        let Some(rank) = marks.ranks.get(node.0 as usize) else { return };
        if rank.load(Ordering::Relaxed) == 0 {
            let next = RANK.fetch_add(1, Ordering::Relaxed);
            // Whoever else reads it first is as early.
            let _ = rank.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        for chunk in toc.chunks_in(flat) {
            let (word, bit) = (chunk as usize / 64, 1 << (chunk % 64));
            if let Some(word) = marks.chunks.get(word)
                && word.load(Ordering::Relaxed) & bit == 0
            {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// The files that were read, by their paths. One that has several names is given by the first.
    pub(crate) fn files(&self, toc: &Toc) -> Vec<ReadFile> {
        let mut files = Vec::new();
        let Some(marks) = self.0.get() else { return files };
        let mut ranks: Vec<u32> =
            marks.ranks.iter().map(|rank| rank.load(Ordering::Relaxed)).collect();
        let mut dirs = vec![(Toc::ROOT, String::new())];
        while let Some((dir, path)) = dirs.pop() {
            for entry in toc.entries(dir) {
                let Ok(name) = std::str::from_utf8(entry.name) else { continue };
                let path = || format!("{path}{name}");
                if toc.kind(entry.node) == Kind::Directory {
                    dirs.push((entry.node, path() + "/"));
                } else if let Some(rank) = ranks.get_mut(entry.node.0 as usize)
                    && *rank != 0
                {
                    let chunks = marks.chunks_of(toc, entry.node);
                    files.push(ReadFile { path: path(), rank: std::mem::take(rank), chunks });
                }
            }
        }
        files
    }
}

impl Marks {
    fn chunks_of(&self, toc: &Toc, node: NodeId) -> Vec<u32> {
        let is_read = |chunk: &u32| {
            let word = self.chunks.get(*chunk as usize / 64);
            word.is_some_and(|word| word.load(Ordering::Relaxed) & 1 << (chunk % 64) != 0)
        };
        let all = toc.chunks_in(toc.flat_range(node));
        let first = all.start;
        all.filter(is_read).map(|chunk| chunk - first).collect()
    }
}
