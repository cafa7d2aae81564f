//! The tree of an image: its layers seen through each other, as overlayfs shows them.
//!
//! Nothing is copied or kept: a node is named by the topmost layer that has it, and what other
//! layers add to a directory is looked up when it is asked for.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

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
        match self.below(&self.stack(dir), name) {
            Below::Nothing => None,
            Below::Other(node) => Some(node),
            Below::Directory(stack) => stack.first().copied(),
        }
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
        let mut entries = Vec::new();
        let stack = self.stack(dir);
        for part in &stack {
            let Some(toc) = self.layer(*part) else { continue };
            entries.extend(toc.entries(part.node).map(|dirent| ImageEntry {
                name: dirent.name,
                node: ImageNode { layer: part.layer, node: dirent.node },
            }));
        }
        if stack.len() > 1 {
            // Stable, and the topmost layer came first: so does its entry of each name.
            entries.sort_by(|one, other| one.name.cmp(other.name));
            entries.dedup_by(|later, first| later.name == first.name);
        }
        entries.retain(|entry| self.kind(entry.node) != Some(Kind::Whiteout));
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
        let mut stack = self.root_stack();
        while let Some(name) = names.pop() {
            match self.below(&stack, name) {
                Below::Directory(next) => stack = next,
                _ => return Vec::new(),
            }
        }
        stack
    }

    fn root_stack(&self) -> Vec<ImageNode> {
        let mut stack = Vec::new();
        for (layer, toc) in self.layers.iter().enumerate().rev() {
            let layer = u32::try_from(layer).unwrap_or(u32::MAX);
            stack.push(ImageNode { layer, node: Toc::ROOT });
            if toc.is_opaque(Toc::ROOT) {
                break;
            }
        }
        stack
    }

    /// What `name` is in a directory made up of `stack`.
    fn below(&self, stack: &[ImageNode], name: &[u8]) -> Below {
        let mut found = Vec::new();
        for part in stack {
            let Some(toc) = self.layer(*part) else { continue };
            let Some(node) = toc.lookup(part.node, name) else { continue };
            let here = ImageNode { layer: part.layer, node };
            match toc.kind(node) {
                Kind::Directory => found.push(here),
                Kind::Whiteout => break,
                _ if found.is_empty() => return Below::Other(here),
                _ => break,
            }
            if toc.is_opaque(node) {
                break;
            }
        }
        if found.is_empty() { Below::Nothing } else { Below::Directory(found) }
    }
}

enum Below {
    Nothing,
    Directory(Vec<ImageNode>),
    Other(ImageNode),
}

/// The parts of a path. A slash at the end asks for a directory, as a dot behind it does.
fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let names = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    names.chain(path.ends_with(b"/").then_some(&b"."[..]))
}
