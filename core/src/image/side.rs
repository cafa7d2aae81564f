//! Directories of several layers, read side by side.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::ImageNode;
use crate::toc::{Dirent, Kind, Toc};

/// The parts of one directory, the topmost layer first, and how far each was read.
#[derive(Clone, Debug)]
pub(super) struct SideBySide {
    parts: Vec<(ImageNode, usize)>,
    /// The length of the directory's path.
    pub(super) path: usize,
}

impl SideBySide {
    pub(super) fn new(parts: impl IntoIterator<Item = ImageNode>, path: usize) -> Self {
        Self { parts: parts.into_iter().map(|part| (part, 0)).collect(), path }
    }

    /// The next name in the order of its bytes, and what each layer that has it has there, the
    /// topmost first.
    pub(super) fn next<'a>(
        &mut self,
        layers: &'a [Arc<Toc>],
    ) -> Option<(&'a [u8], Vec<ImageNode>)> {
        let dirent = |(part, at): &(ImageNode, usize)| -> Option<Dirent<'a>> {
            layers.get(part.layer as usize)?.entries_from(part.node, *at).next()
        };
        let name = self.parts.iter().filter_map(|part| Some(dirent(part)?.name)).min()?;
        let mut found = Vec::new();
        for part in &mut self.parts {
            if let Some(Dirent { node, .. }) = dirent(part).filter(|dirent| dirent.name == name) {
                part.1 += 1;
                found.push(ImageNode { layer: part.0.layer, node });
            }
        }
        Some((name, found))
    }
}

/// What a container sees at a name, of what layers have there, the topmost first: the parts of a
/// directory, or the one other object.
pub(super) fn visible(
    layers: &[Arc<Toc>],
    nodes: impl IntoIterator<Item = ImageNode>,
) -> Vec<ImageNode> {
    let mut found = Vec::new();
    for node in nodes {
        let Some(toc) = layers.get(node.layer as usize) else { continue };
        match toc.kind(node.node) {
            Kind::Directory => found.push(node),
            Kind::Whiteout => break,
            _ => {
                if found.is_empty() {
                    found.push(node);
                }
                break;
            }
        }
        if toc.is_opaque(node.node) {
            break;
        }
    }
    found
}

/// Appends a name to the path of a directory of which the path has `len` bytes.
pub(super) fn descend(path: &mut Vec<u8>, len: usize, name: &[u8]) {
    path.truncate(len);
    path.push(b'/');
    path.extend_from_slice(name);
}
