//! What a mount shows: inode numbers on one side, nodes of layers on the other.
//!
//! An inode number is the layer and the node in it, so it is the same at every mount of an image.
//! The top directory is 1, as FUSE wants it.

use std::sync::{Arc, Mutex, PoisonError};

use lazystar_core::Toc;
use lazystar_core::image::{Image, ImageNode};
use lazystar_core::toc::{Attr, Kind, NodeId};

/// The inode number of the top directory.
pub const ROOT: u64 = 1;

/// The shape of a mount.
#[derive(Debug)]
pub enum Tree {
    /// Each layer in a directory of its own, named by its number from the bottom, as lower
    /// directories for overlayfs: whiteouts are devices, opaque directories have a mark.
    Layers {
        /// The layers, the bottom one first.
        layers: Vec<Arc<Toc>>,
        /// The attribute that marks opaque directories.
        opaque: &'static str,
    },
    /// All layers seen through each other.
    Merged {
        /// The layers.
        image: Image,
        /// The directory listed last, since the kernel asks for long ones piece by piece.
        listed: Mutex<Option<Listing>>,
    },
}

/// The names in a directory and what they name.
type Listing = (u64, Arc<Vec<(Box<[u8]>, u64)>>);

/// The attribute that marks opaque directories for an overlayfs that root mounted.
pub const TRUSTED_OPAQUE: &str = "trusted.overlay.opaque";
/// The same for one that root of a user namespace mounted.
pub const USER_OPAQUE: &str = "user.overlay.opaque";
/// The family of attributes that steer overlayfs; an image must not bring its own.
const OVERLAY_FAMILIES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

impl Tree {
    /// Layers merged into one tree.
    #[must_use]
    pub fn merged(image: Image) -> Self {
        Self::Merged { image, listed: Mutex::new(None) }
    }

    /// The attributes of an inode; `None` when there is no such inode.
    #[must_use]
    pub fn attr(&self, inode: u64) -> Option<Attr> {
        match self {
            Self::Layers { layers, .. } if inode == ROOT => Some(stack_root(layers.len())),
            Self::Layers { .. } => self.locate(inode).map(|(_, toc, node)| toc.attr(node)),
            Self::Merged { image, .. } => image.attr(image_node(image, inode)),
        }
    }

    /// What `name` in a directory names.
    #[must_use]
    pub fn lookup(&self, dir: u64, name: &[u8]) -> Option<u64> {
        match self {
            Self::Layers { layers, .. } if dir == ROOT => {
                let layer: usize = std::str::from_utf8(name).ok()?.parse().ok()?;
                layers.get(layer).map(|_| inode_of(layer, Toc::ROOT))
            }
            Self::Layers { .. } => {
                let (layer, toc, node) = self.locate(dir)?;
                toc.lookup(node, name).map(|found| inode_of(layer, found))
            }
            Self::Merged { image, .. } => {
                let found = image.lookup(image_node(image, dir), name)?;
                Some(merged_inode(image, found))
            }
        }
    }

    /// Calls `each` with name and inode of everything in a directory from number `skip` on, until
    /// it returns `false`.
    pub fn list(&self, dir: u64, skip: usize, mut each: impl FnMut(&[u8], u64) -> bool) {
        match self {
            Self::Layers { layers, .. } if dir == ROOT => {
                for layer in skip..layers.len() {
                    if !each(layer.to_string().as_bytes(), inode_of(layer, Toc::ROOT)) {
                        return;
                    }
                }
            }
            Self::Layers { .. } => {
                let Some((layer, toc, node)) = self.locate(dir) else { return };
                for dirent in toc.entries_from(node, skip) {
                    if !each(dirent.name, inode_of(layer, dirent.node)) {
                        return;
                    }
                }
            }
            Self::Merged { image, listed } => {
                for (name, inode) in listing(image, listed, dir, skip).iter().skip(skip) {
                    if !each(name, *inode) {
                        return;
                    }
                }
            }
        }
    }

    /// The directory that a directory is in.
    #[must_use]
    pub fn parent(&self, dir: u64) -> u64 {
        match self {
            Self::Layers { .. } => match self.locate(dir) {
                Some((_, _, Toc::ROOT)) | None => ROOT,
                Some((layer, toc, node)) => {
                    toc.parent(node).map_or(ROOT, |parent| inode_of(layer, parent.node))
                }
            },
            Self::Merged { image, .. } => {
                let parent = image.parent(image_node(image, dir));
                parent.map_or(ROOT, |parent| merged_inode(image, parent))
            }
        }
    }

    /// The layer and node behind an inode.
    #[must_use]
    pub fn locate(&self, inode: u64) -> Option<(usize, &Toc, NodeId)> {
        let (layers, node) = match self {
            Self::Layers { .. } if inode == ROOT => return None,
            Self::Layers { layers, .. } => (layers.as_slice(), split(inode)?),
            Self::Merged { image, .. } => (image.layers(), image_node(image, inode)),
        };
        let toc = layers.get(node.layer as usize)?;
        toc.contains(node.node).then_some((node.layer as usize, &**toc, node.node))
    }

    /// Whether any inode has extended attributes.
    #[must_use]
    pub fn has_xattrs(&self) -> bool {
        match self {
            Self::Layers { layers, .. } => layers.iter().any(|toc| toc.has_xattrs()),
            Self::Merged { image, .. } => image.layers().iter().any(|toc| toc.has_xattrs()),
        }
    }

    /// The extended attributes of an inode, as overlayfs or a user may see them.
    pub fn xattrs(&self, inode: u64) -> impl Iterator<Item = (&[u8], &[u8])> {
        let found = self.locate(inode);
        let mark = match (self, found) {
            (Self::Layers { opaque, .. }, Some((_, toc, node))) if toc.is_opaque(node) => {
                Some((opaque.as_bytes(), &b"y"[..]))
            }
            _ => None,
        };
        let own = found.into_iter().flat_map(|(_, toc, node)| toc.xattrs(node));
        let own =
            own.filter(|(name, _)| !OVERLAY_FAMILIES.iter().any(|family| name.starts_with(family)));
        mark.into_iter().chain(own)
    }
}

fn stack_root(layers: usize) -> Attr {
    Attr {
        kind: Kind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        mtime_nanos: 0,
        nlink: u32::try_from(layers).unwrap_or(u32::MAX).saturating_add(2),
        device: (0, 0),
    }
}

fn inode_of(layer: usize, node: NodeId) -> u64 {
    (layer as u64 + 1) << 32 | u64::from(node.0)
}

fn split(inode: u64) -> Option<ImageNode> {
    let layer = u32::try_from((inode >> 32).checked_sub(1)?).ok()?;
    let node = NodeId(u32::try_from(inode & u64::from(u32::MAX)).ok()?);
    Some(ImageNode { layer, node })
}

fn image_node(image: &Image, inode: u64) -> ImageNode {
    match inode {
        ROOT => image.root(),
        other => split(other).unwrap_or_else(|| image.root()),
    }
}

fn merged_inode(image: &Image, node: ImageNode) -> u64 {
    if node == image.root() { ROOT } else { inode_of(node.layer as usize, node.node) }
}

fn listing(
    image: &Image,
    listed: &Mutex<Option<Listing>>,
    dir: u64,
    skip: usize,
) -> Arc<Vec<(Box<[u8]>, u64)>> {
    let mut listed = listed.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((last, entries)) = &*listed
        && *last == dir
        && skip > 0
    {
        return Arc::clone(entries);
    }
    let entries = image.entries(image_node(image, dir));
    let entries = entries.iter().map(|entry| (entry.name.into(), merged_inode(image, entry.node)));
    let entries = Arc::new(entries.collect::<Vec<_>>());
    *listed = Some((dir, Arc::clone(&entries)));
    entries
}
