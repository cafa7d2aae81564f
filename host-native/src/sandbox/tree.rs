//! An image in a sandbox, as a mount shows it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use fuser::Errno;
use lazystar_core::image::ImageNode;
use lazystar_core::toc::{Attr, NodeId};
use lazystar_plugin::overlay::{Located, Location};
use lazystar_plugin::types::{EntryKind, ErrorCode};
use tokio::runtime::Handle;

use super::SandboxedImage;
use super::recent::Recent;
use super::window::{Window, Windows};
use crate::lock::lock;
use crate::mount::answer::Answer;
use crate::mount::shown::{OVERLAY_FAMILIES, ROOT, Shown, inode_of, split};

/// Directories whose names are kept.
const LISTINGS: u64 = 64;

/// The merged tree of an image.
pub struct SandboxedTree {
    image: Arc<SandboxedImage>,
    root: ImageNode,
    totals: (u64, u64),
    listings: Mutex<Recent<u64, Arc<Listing>>>,
    /// The directory that an inode is in.
    parents: Mutex<HashMap<u64, u64>>,
    windows: Arc<Windows>,
    runtime: Handle,
}

/// What is in a directory, sorted by the bytes of the names.
type Listing = Vec<(String, Located)>;

impl SandboxedTree {
    /// The tree of an image, whose blocking calls are made on `runtime`.
    ///
    /// # Errors
    /// When the sandbox was stopped.
    pub fn new(image: SandboxedImage, runtime: Handle) -> Result<Self, lazystar_plugin::Error> {
        let root = node(&image.root()?);
        let layers = image.layers()?;
        let bytes = layers.iter().map(|layer| layer.blob_size).sum();
        let files = layers.iter().map(|layer| u64::from(layer.entries)).sum();
        Ok(Self {
            image: Arc::new(image),
            root,
            totals: (bytes, files),
            listings: Mutex::new(Recent::new(LISTINGS)),
            parents: Mutex::default(),
            windows: Arc::default(),
            runtime,
        })
    }

    fn located(&self, inode: u64) -> Result<Located, Errno> {
        let at = if inode == ROOT { self.root } else { split(inode).ok_or(Errno::ENOENT)? };
        let at = Location { layer: at.layer, entry: at.node.0 };
        self.image.stat(at).map_err(errno)
    }

    fn inode(&self, found: &Located) -> u64 {
        let at = node(found);
        if at == self.root { ROOT } else { inode_of(at) }
    }

    fn listing(&self, dir: u64) -> Result<Arc<Listing>, Errno> {
        if let Some(known) = lock(&self.listings).get(&dir) {
            return Ok(known);
        }
        let entries = self.image.children(&self.located(dir)?).map_err(errno)?;
        let entries = entries.into_iter().map(|entry| (entry.name, entry.target));
        let listing = Arc::new(entries.collect::<Vec<_>>());
        let parents = listing.iter().map(|(_, target)| (self.inode(target), dir));
        lock(&self.parents).extend(parents);
        lock(&self.listings).put(dir, Arc::clone(&listing), 1);
        Ok(listing)
    }

    /// The regular files that come after a file in its directory, itself the first.
    fn following(&self, inode: u64, file: Located) -> Vec<Located> {
        let dir = lock(&self.parents).get(&inode).copied();
        let listing = dir.and_then(|dir| self.listing(dir).ok()).unwrap_or_default();
        let here = listing.iter().skip_while(|(_, it)| self.inode(it) != inode).skip(1);
        let files = here.filter(|(_, it)| matches!(it.entry.kind, EntryKind::Regular));
        [file].into_iter().chain(files.map(|(_, it)| *it)).collect()
    }
}

impl Shown for SandboxedTree {
    fn attr(&self, inode: u64) -> Result<Attr, Errno> {
        Ok(super::attr(&self.located(inode)?.entry))
    }

    fn lookup(&self, dir: u64, name: &[u8]) -> Result<Option<u64>, Errno> {
        let listing = self.listing(dir)?;
        let found = listing.binary_search_by(|(known, _)| known.as_bytes().cmp(name));
        Ok(found.ok().and_then(|at| listing.get(at)).map(|(_, target)| self.inode(target)))
    }

    fn absence_lasts(&self, _dir: u64) -> bool {
        true
    }

    fn list(
        &self,
        dir: u64,
        skip: usize,
        mut each: impl FnMut(&[u8], u64) -> bool,
    ) -> Result<(), Errno> {
        for (name, target) in self.listing(dir)?.iter().skip(skip) {
            if !each(name.as_bytes(), self.inode(target)) {
                break;
            }
        }
        Ok(())
    }

    fn parent(&self, dir: u64) -> u64 {
        lock(&self.parents).get(&dir).copied().unwrap_or(ROOT)
    }

    fn readlink(&self, inode: u64) -> Result<Vec<u8>, Errno> {
        let target = self.image.read_link(&self.located(inode)?).map_err(errno)?;
        Ok(target.into_bytes())
    }

    fn may_have_xattrs(&self) -> bool {
        true
    }

    fn xattrs(&self, inode: u64, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), Errno> {
        for (name, value) in self.image.xattrs(&self.located(inode)?).map_err(errno)? {
            if !OVERLAY_FAMILIES.iter().any(|family| name.as_bytes().starts_with(family)) {
                each(name.as_bytes(), &value);
            }
        }
        Ok(())
    }

    fn totals(&self) -> (u64, u64) {
        self.totals
    }

    fn read(&self, inode: u64, offset: u64, size: u32, reply: Answer) {
        let file = match self.located(inode) {
            Ok(file) => file,
            Err(error) => return reply.error(error),
        };
        let end = offset.saturating_add(u64::from(size)).min(file.entry.size);
        let mut windows = Vec::new();
        let mut at = offset;
        while at < end {
            let window = self.windows.at(&file, at, || self.following(inode, file));
            at = window.1;
            windows.push(window.0);
        }
        let image = Arc::clone(&self.image);
        let reply = reply.later();
        self.runtime.spawn(async move {
            match read(&image, &windows, &file, offset, end).await {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => {
                    tracing::error!("cannot read a file: {error:#}");
                    reply.error(Errno::EIO);
                }
            }
        });
    }
}

async fn read(
    image: &Arc<SandboxedImage>,
    windows: &[Arc<Window>],
    file: &Located,
    offset: u64,
    end: u64,
) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for window in windows {
        window.read(image, file, offset..end, &mut bytes).await?;
    }
    Ok(bytes)
}

fn node(found: &Located) -> ImageNode {
    ImageNode { layer: found.layer, node: NodeId(found.entry.id) }
}

fn errno(error: lazystar_plugin::Error) -> Errno {
    match error {
        lazystar_plugin::Error::Engine(ErrorCode::NotFound) => Errno::ENOENT,
        lazystar_plugin::Error::Engine(ErrorCode::WrongKind) => Errno::EINVAL,
        other => {
            tracing::error!(error = %other, "the engine failed");
            Errno::EIO
        }
    }
}

impl fmt::Debug for SandboxedTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxedTree").field("image", &self.image).finish_non_exhaustive()
    }
}
