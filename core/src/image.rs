//! The tree of an image: its layers seen through each other, as overlayfs shows them.
//!
//! Nothing is copied or kept: a node is named by the topmost layer that has it, and what other
//! layers add to a directory is looked up when it is asked for.

mod changes;
mod side;
mod walk;
mod waste;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

pub use changes::{Change, ChangeKind, Changes};
use side::SideBySide;
pub use walk::Walk;
pub use waste::{Efficiency, Waste};

use crate::toc::{Attr, Kind, NodeId, Toc};

/// Linux gives up on a path after as many symbolic links (`MAXSYMLINKS`).
const MAX_SYMLINKS: u32 = 40;

/// A file or directory of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageNode {
    /// The layer that has it, counted from the bottom.
    pub layer: u32,
    /// Its number there.
    pub node: NodeId,
}

/// A name in a directory of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageEntry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// What it names.
    pub node: ImageNode,
}

/// All layers of an image.
#[derive(Clone, Debug)]
pub struct Image {
    layers: Vec<Arc<Toc>>,
}

/// Why a path leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// A part of it does not exist.
    NotFound,
    /// Something on the way is not a directory.
    NotDirectory,
    /// More symbolic links than Linux follows.
    TooManyLinks,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "no such file or directory in the image",
            Self::NotDirectory => "not a directory",
            Self::TooManyLinks => "too many levels of symbolic links",
        })
    }
}

impl core::error::Error for PathError {}

impl Image {
    /// The image with these layers, the bottom one first.
    #[must_use]
    pub fn new(layers: Vec<Arc<Toc>>) -> Self {
        Self { layers }
    }

    /// The layers, the bottom one first.
    #[must_use]
    pub fn layers(&self) -> &[Arc<Toc>] {
        &self.layers
    }

    /// The top directory.
    #[must_use]
    pub fn root(&self) -> ImageNode {
        let top = self.layers.len().saturating_sub(1);
        ImageNode { layer: u32::try_from(top).unwrap_or(u32::MAX), node: Toc::ROOT }
    }

    /// The layer that has `node`.
    #[must_use]
    pub fn layer(&self, node: ImageNode) -> Option<&Arc<Toc>> {
        self.layers.get(node.layer as usize).filter(|toc| toc.contains(node.node))
    }

    /// The attributes of a node. As under overlayfs, a directory to which several layers
    /// contribute has one link.
    #[must_use]
    pub fn attr(&self, node: ImageNode) -> Option<Attr> {
        let toc = self.layer(node)?;
        let mut attr = toc.attr(node.node);
        if attr.kind == Kind::Directory && self.stack(node).len() > 1 {
            attr.nlink = 1;
        }
        Some(attr)
    }

    /// What `name` in `dir` names.
    #[must_use]
    pub fn lookup(&self, dir: ImageNode, name: &[u8]) -> Option<ImageNode> {
        self.below(&self.stack(dir), name).first().copied()
    }

    /// The directory that a directory is in (itself for the root).
    #[must_use]
    pub fn parent(&self, dir: ImageNode) -> Option<ImageNode> {
        let toc = self.layer(dir)?;
        let parent = toc.parent(dir.node)?;
        self.stack(ImageNode { layer: dir.layer, node: parent.node }).first().copied()
    }

    /// The names in a directory, sorted by their bytes; empty for anything else.
    #[must_use]
    pub fn entries(&self, dir: ImageNode) -> Vec<ImageEntry<'_>> {
        let mut names = SideBySide::new(self.stack(dir), 0);
        let mut entries = Vec::new();
        while let Some((name, nodes)) = names.next(&self.layers) {
            let node = side::visible(&self.layers, nodes).first().copied();
            entries.extend(node.map(|node| ImageEntry { name, node }));
        }
        entries
    }

    /// The node at a path, which may start with a slash. Symbolic links on the way are followed
    /// inside the image, the last part only when `follow` is set.
    ///
    /// # Errors
    /// When the path leads nowhere.
    pub fn resolve(&self, path: &[u8], follow: bool) -> Result<ImageNode, PathError> {
        let mut left: Vec<&[u8]> = parts(path).rev().collect();
        let mut trail = Vec::from([self.root()]);
        let mut links = 0;
        while let Some(name) = left.pop() {
            let dir = trail.last().copied().unwrap_or_else(|| self.root());
            if self.kind(dir) != Some(Kind::Directory) {
                return Err(PathError::NotDirectory);
            }
            if name == b"." {
                continue;
            }
            if name == b".." {
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            let node = self.lookup(dir, name).ok_or(PathError::NotFound)?;
            let toc = self.layer(node).ok_or(PathError::NotFound)?;
            if toc.kind(node.node) == Kind::Symlink && (follow || !left.is_empty()) {
                links += 1;
                if links > MAX_SYMLINKS {
                    return Err(PathError::TooManyLinks);
                }
                let target = toc.readlink(node.node);
                if target.starts_with(b"/") {
                    trail.truncate(1);
                }
                left.extend(parts(target).rev());
            } else {
                trail.push(node);
            }
        }
        trail.last().copied().ok_or(PathError::NotFound)
    }

    /// Goes through everything below a directory; nothing for anything else.
    #[must_use]
    pub fn walk(&self, dir: ImageNode) -> Walk {
        Walk::new(self.clone(), dir)
    }

    /// Goes through what layer `upper` changes in the layers below it; nothing when there is no
    /// such layer.
    #[must_use]
    pub fn changes(&self, upper: u32) -> Changes {
        Changes::new(self.clone(), upper)
    }

    /// How much of what the image stores can be seen, with at most `worst` of the paths that cost
    /// most.
    #[must_use]
    pub fn efficiency(&self, worst: usize) -> Efficiency {
        waste::efficiency(self, worst)
    }

    /// The path of a directory, which starts with a slash; empty for the root.
    fn path(&self, dir: ImageNode) -> Vec<u8> {
        let mut names = Vec::new();
        if let Some(toc) = self.layer(dir) {
            let mut at = dir.node;
            while at != Toc::ROOT
                && let Some(parent) = toc.parent(at)
            {
                names.push(parent.name);
                at = parent.node;
            }
        }
        let mut path = Vec::new();
        for name in names.into_iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }

    fn kind(&self, node: ImageNode) -> Option<Kind> {
        self.layer(node).map(|toc| toc.kind(node.node))
    }

    /// The directories that make up a directory, the topmost first: found by its path, which a
    /// directory has just one of.
    fn stack(&self, dir: ImageNode) -> Vec<ImageNode> {
        let Some(toc) = self.layer(dir) else { return Vec::new() };
        let mut names = Vec::new();
        let mut at = dir.node;
        while at != Toc::ROOT {
            let Some(parent) = toc.parent(at) else { return Vec::new() };
            names.push(parent.name);
            at = parent.node;
        }
        let mut stack = self.root_stack(u32::MAX);
        while let Some(name) = names.pop() {
            stack = self.below(&stack, name);
        }
        stack.retain(|node| self.kind(*node) == Some(Kind::Directory));
        stack
    }

    /// The parts of the top directory of the layers below `end`, the topmost first.
    fn root_stack(&self, end: u32) -> Vec<ImageNode> {
        let roots = (0..self.layers.len()).filter_map(|layer| u32::try_from(layer).ok());
        let roots = roots.filter(|layer| *layer < end);
        side::visible(&self.layers, roots.rev().map(|layer| ImageNode { layer, node: Toc::ROOT }))
    }

    /// What `name` is in a directory made up of `stack`: the parts of a directory, the topmost
    /// first, or one other object, or nothing.
    fn below(&self, stack: &[ImageNode], name: &[u8]) -> Vec<ImageNode> {
        let nodes = stack.iter().filter_map(|part| {
            let node = self.layer(*part)?.lookup(part.node, name)?;
            Some(ImageNode { layer: part.layer, node })
        });
        side::visible(&self.layers, nodes)
    }
}

/// The parts of a path. A slash at the end asks for a directory, as a dot behind it does.
fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let names = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    names.chain(path.ends_with(b"/").then_some(&b"."[..]))
}
