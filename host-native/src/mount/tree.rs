//! Layers as a mount shows them: inode numbers on one side, nodes of layers on the other.
//!
//! An inode number is the layer's number and the node in it, so it is the same at every mount of an
//! image. The top directory is 1, as FUSE wants it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use fuser::Errno;
use lazystar_core::Toc;
use lazystar_core::fetch::Priority;
use lazystar_core::image::{Image, ImageNode};
use lazystar_core::toc::{Attr, Kind, NodeId};

use super::answer::Answer;
use super::shown::{OVERLAY_FAMILIES, ROOT, Shown, inode_of, split};
use crate::driver::{LazyLayer, READ_ATTEMPTS};
use crate::lock::lock;

/// The shape of a mount.
#[derive(Debug)]
pub enum Tree {
    /// Each layer in a directory of its own, named by its number, as lower directories for
    /// overlayfs: whiteouts are devices, opaque directories have a mark.
    Stack {
        /// The layers.
        layers: Arc<LayerTable>,
        /// The attribute that marks opaque directories.
        opaque: &'static str,
    },
    /// All layers seen through each other.
    Merged {
        /// The layers, the bottom one first.
        layers: Vec<Arc<LazyLayer>>,
        /// Their trees.
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

/// Layers by their numbers.
#[derive(Debug)]
pub struct LayerTable {
    layers: RwLock<BTreeMap<u32, Arc<LazyLayer>>>,
    changes: bool,
}

impl LayerTable {
    /// These layers and no others, numbered from 0.
    #[must_use]
    pub fn fixed(layers: &[Arc<LazyLayer>]) -> Self {
        let numbered = (0..).zip(layers.iter().map(Arc::clone)).collect();
        Self { layers: RwLock::new(numbered), changes: false }
    }

    /// No layers yet; they come and go.
    #[must_use]
    pub fn changing() -> Self {
        Self { layers: RwLock::default(), changes: true }
    }

    /// Shows a layer. A number is never given to another layer: the kernel keeps what it knows.
    pub fn insert(&self, number: u32, layer: Arc<LazyLayer>) {
        self.layers.write().unwrap_or_else(PoisonError::into_inner).insert(number, layer);
    }

    /// Shows a layer no longer.
    pub fn remove(&self, number: u32) -> Option<Arc<LazyLayer>> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner).remove(&number)
    }

    /// The layer of a number.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<Arc<LazyLayer>> {
        self.read().get(&number).map(Arc::clone)
    }

    /// All layers.
    #[must_use]
    pub fn all(&self) -> Vec<(u32, Arc<LazyLayer>)> {
        self.read().iter().map(|(number, layer)| (*number, Arc::clone(layer))).collect()
    }

    fn may_have_xattrs(&self) -> bool {
        self.changes || self.read().values().any(|layer| layer.toc().has_xattrs())
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<u32, Arc<LazyLayer>>> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tree {
    /// Layers merged into one tree.
    #[must_use]
    pub fn merged(layers: Vec<Arc<LazyLayer>>) -> Self {
        let image = Image::new(layers.iter().map(|layer| Arc::clone(layer.toc())).collect());
        Self::Merged { layers, image, listed: Mutex::new(None) }
    }

    /// The layer and node behind an inode.
    fn locate(&self, inode: u64) -> Option<(Arc<LazyLayer>, NodeId)> {
        let (layer, node) = match self {
            Self::Stack { layers, .. } => {
                let at = split(inode)?;
                (layers.get(at.layer)?, at.node)
            }
            Self::Merged { image, layers, .. } => {
                let at = image_node(image, inode);
                (Arc::clone(layers.get(at.layer as usize)?), at.node)
            }
        };
        layer.toc().contains(node).then_some((layer, node))
    }
}

impl Shown for Tree {
    fn attr(&self, inode: u64) -> Result<Attr, Errno> {
        let attr = match self {
            Self::Stack { layers, .. } if inode == ROOT => Some(stack_root(layers.read().len())),
            Self::Stack { .. } => self.locate(inode).map(|(layer, node)| layer.toc().attr(node)),
            Self::Merged { image, .. } => image.attr(image_node(image, inode)),
        };
        attr.ok_or(Errno::ENOENT)
    }

    fn lookup(&self, dir: u64, name: &[u8]) -> Result<Option<u64>, Errno> {
        Ok(match self {
            Self::Stack { layers, .. } if dir == ROOT => {
                let number = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
                let known = number.filter(|number| layers.get(*number).is_some());
                known.map(layer_root)
            }
            Self::Stack { .. } => {
                let found =
                    self.locate(dir).and_then(|(layer, node)| layer.toc().lookup(node, name));
                found.map(|node| same_layer(dir, node))
            }
            Self::Merged { image, .. } => {
                let found = image.lookup(image_node(image, dir), name);
                found.map(|node| merged_inode(image, node))
            }
        })
    }

    fn absence_lasts(&self, dir: u64) -> bool {
        !matches!(self, Self::Stack { layers, .. } if dir == ROOT && layers.changes)
    }

    fn list(
        &self,
        dir: u64,
        skip: usize,
        mut each: impl FnMut(&[u8], u64) -> bool,
    ) -> Result<(), Errno> {
        match self {
            Self::Stack { layers, .. } if dir == ROOT => {
                for (number, _) in layers.all().into_iter().skip(skip) {
                    if !each(number.to_string().as_bytes(), layer_root(number)) {
                        break;
                    }
                }
            }
            Self::Stack { .. } => {
                let (layer, node) = self.locate(dir).ok_or(Errno::ENOENT)?;
                for dirent in layer.toc().entries_from(node, skip) {
                    if !each(dirent.name, same_layer(dir, dirent.node)) {
                        break;
                    }
                }
            }
            Self::Merged { image, listed, .. } => {
                for (name, inode) in listing(image, listed, dir, skip).iter().skip(skip) {
                    if !each(name, *inode) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn parent(&self, dir: u64) -> u64 {
        match self {
            Self::Stack { .. } => match self.locate(dir) {
                Some((_, Toc::ROOT)) | None => ROOT,
                Some((layer, node)) => {
                    layer.toc().parent(node).map_or(ROOT, |parent| same_layer(dir, parent.node))
                }
            },
            Self::Merged { image, .. } => {
                let parent = image.parent(image_node(image, dir));
                parent.map_or(ROOT, |parent| merged_inode(image, parent))
            }
        }
    }

    fn readlink(&self, inode: u64) -> Result<Vec<u8>, Errno> {
        match self.locate(inode) {
            Some((layer, node)) if layer.toc().kind(node) == Kind::Symlink => {
                Ok(layer.toc().readlink(node).to_vec())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn may_have_xattrs(&self) -> bool {
        match self {
            Self::Stack { layers, .. } => layers.may_have_xattrs(),
            Self::Merged { layers, .. } => layers.iter().any(|layer| layer.toc().has_xattrs()),
        }
    }

    fn xattrs(&self, inode: u64, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), Errno> {
        let Some((layer, node)) = self.locate(inode) else { return Ok(()) };
        let toc = layer.toc();
        if let Self::Stack { opaque, .. } = self
            && toc.is_opaque(node)
        {
            each(opaque.as_bytes(), b"y");
        }
        for (name, value) in toc.xattrs(node) {
            if !OVERLAY_FAMILIES.iter().any(|family| name.starts_with(family)) {
                each(name, value);
            }
        }
        Ok(())
    }

    fn totals(&self) -> (u64, u64) {
        let add = |(bytes, files), layer: &Arc<LazyLayer>| {
            (bytes + layer.toc().flat_size(), files + u64::from(layer.toc().node_count()))
        };
        match self {
            Self::Stack { layers, .. } => layers.read().values().fold((0, 0), add),
            Self::Merged { layers, .. } => layers.iter().fold((0, 0), add),
        }
    }

    fn read(&self, inode: u64, offset: u64, size: u32, reply: Answer) {
        let Some((layer, node)) = self.locate(inode) else {
            return reply.error(Errno::EIO);
        };
        let file = layer.toc().flat_range(node);
        let start = file.start.saturating_add(offset).min(file.end);
        let flat = start..start.saturating_add(u64::from(size)).min(file.end);
        layer.note_read(node, flat.clone());
        read(layer, flat, reply, READ_ATTEMPTS, None);
    }
}

/// Answers a read of the flat space, now or when it was fetched; `waiting` is since when it waits.
fn read(
    layer: Arc<LazyLayer>,
    flat: Range<u64>,
    reply: Answer,
    attempts: u32,
    waiting: Option<Instant>,
) {
    let len = usize::try_from(flat.end - flat.start).unwrap_or(0);
    if layer.is_present(flat.clone()) {
        let mut bytes = vec![0; len];
        match layer.cache().read(flat.start, &mut bytes) {
            Ok(true) => {
                match waiting {
                    Some(since) => layer.metrics().waited(len as u64, since.elapsed()),
                    None => layer.metrics().hit(len as u64),
                }
                return reply.data(&bytes);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "cannot read the cache");
                return reply.error(Errno::EIO);
            }
        }
    }
    // A cache that is too small may lose it again before it is read.
    let Some(attempts) = attempts.checked_sub(1) else { return reply.error(Errno::EIO) };
    let reader = Arc::clone(&layer);
    let since = Some(waiting.unwrap_or_else(Instant::now));
    let reply = reply.later();
    reader.request(flat.clone(), Priority::Demand, move |result| match result {
        Ok(()) => read(layer, flat, reply, attempts, since),
        Err(_) => reply.error(Errno::EIO),
    });
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

fn layer_root(layer: u32) -> u64 {
    inode_of(ImageNode { layer, node: Toc::ROOT })
}

/// Another node of the layer that `inode` is in.
fn same_layer(inode: u64, node: NodeId) -> u64 {
    inode & !u64::from(u32::MAX) | u64::from(node.0)
}

fn image_node(image: &Image, inode: u64) -> ImageNode {
    match inode {
        ROOT => image.root(),
        other => split(other).unwrap_or_else(|| image.root()),
    }
}

fn merged_inode(image: &Image, node: ImageNode) -> u64 {
    if node == image.root() { ROOT } else { inode_of(node) }
}

fn listing(
    image: &Image,
    listed: &Mutex<Option<Listing>>,
    dir: u64,
    skip: usize,
) -> Arc<Vec<(Box<[u8]>, u64)>> {
    let mut listed = lock(listed);
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
