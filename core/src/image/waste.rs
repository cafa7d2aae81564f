//! Bytes of an image that no container can see.

use alloc::vec;
use alloc::vec::Vec;

use super::Image;
use super::ImageNode;
use super::side::{SideBySide, descend};
use crate::toc::{Kind, NodeId, Toc};

/// How much of what an image stores can be seen. Plain bytes of regular files, hard links once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Efficiency {
    /// In all layers.
    pub stored: u64,
    /// In the merged tree.
    pub visible: u64,
    /// The paths that cost most, the largest first.
    pub worst: Vec<Waste>,
}

/// A path that stores bytes which cannot be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waste {
    /// The path, which starts with a slash.
    pub path: Vec<u8>,
    /// The bytes that cannot be seen.
    pub bytes: u64,
    /// In how many layers they are.
    pub layers: u32,
}

/// A bit for each node of each layer.
struct Marks(Vec<Vec<u64>>);

impl Marks {
    fn new(image: &Image) -> Self {
        let words = |toc: &Toc| vec![0; toc.node_count().div_ceil(64) as usize];
        Self(image.layers().iter().map(|toc| words(toc)).collect())
    }

    /// Sets the bit of a node; whether it was not set before.
    fn set(&mut self, node: ImageNode) -> bool {
        let NodeId(number) = node.node;
        let layer = self.0.get_mut(node.layer as usize);
        let Some(word) = layer.and_then(|layer| layer.get_mut(number as usize / 64)) else {
            return false;
        };
        let bit = 1 << (number % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

pub(super) fn efficiency(image: &Image, worst: usize) -> Efficiency {
    let size = |node: ImageNode| {
        let toc = image.layer(node).filter(|toc| toc.kind(node.node) == Kind::Regular);
        toc.map_or(0, |toc| toc.attr(node.node).size)
    };
    let mut marks = Marks::new(image);
    let mut sum = Efficiency::default();
    let mut walk = image.walk(image.root());
    while let Some((_, node)) = walk.next_object() {
        if marks.set(node) {
            sum.visible = sum.visible.saturating_add(size(node));
        }
    }
    sum.stored = sum.visible;
    // Every path of every layer, whatever hides it; what was marked above counts no more.
    let roots = (0..image.layers().len()).rev().filter_map(|layer| u32::try_from(layer).ok());
    let roots = roots.map(|layer| ImageNode { layer, node: Toc::ROOT });
    let mut levels = Vec::from([SideBySide::new(roots, 0)]);
    let mut path = Vec::new();
    while let Some(level) = levels.last_mut() {
        let Some((name, nodes)) = level.next(image.layers()) else {
            levels.pop();
            continue;
        };
        descend(&mut path, level.path, name);
        let (mut bytes, mut layers) = (0_u64, 0);
        for node in nodes.iter().copied().filter(|node| size(*node) > 0) {
            if marks.set(node) {
                bytes = bytes.saturating_add(size(node));
                layers += 1;
            }
        }
        sum.stored = sum.stored.saturating_add(bytes);
        if bytes > 0 {
            let place = sum.worst.partition_point(|other| other.bytes >= bytes);
            if place < worst {
                sum.worst.truncate(worst - 1);
                sum.worst.insert(place, Waste { path: path.clone(), bytes, layers });
            }
        }
        let dirs = nodes.into_iter().filter(|node| image.kind(*node) == Some(Kind::Directory));
        levels.push(SideBySide::new(dirs, path.len()));
    }
    sum
}
