//! Going through the tree of an image.

use alloc::vec::Vec;

use super::side::{SideBySide, descend, visible};
use super::{Image, ImageNode};
use crate::toc::Kind;

/// Goes through everything below a directory of an image: names in the order of their bytes, a
/// directory before what is in it.
#[derive(Clone, Debug)]
pub struct Walk {
    image: Image,
    levels: Vec<SideBySide>,
    path: Vec<u8>,
}

impl Walk {
    pub(super) fn new(image: Image, dir: ImageNode) -> Self {
        let path = image.path(dir);
        let levels = Vec::from([SideBySide::new(image.stack(dir), path.len())]);
        Self { image, levels, path }
    }

    /// The next object and its path, which starts with a slash; `None` after the last.
    pub fn next_object(&mut self) -> Option<(&[u8], ImageNode)> {
        loop {
            let level = self.levels.last_mut()?;
            let layers = self.image.layers();
            let Some((name, nodes)) = level.next(layers) else {
                self.levels.pop();
                continue;
            };
            let found = visible(layers, nodes);
            let Some(node) = found.first().copied() else { continue };
            descend(&mut self.path, level.path, name);
            if self.image.kind(node) == Some(Kind::Directory) {
                self.levels.push(SideBySide::new(found, self.path.len()));
            }
            return Some((&self.path, node));
        }
    }
}
