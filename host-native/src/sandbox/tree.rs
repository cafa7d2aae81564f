//! An image in a sandbox, as a mount shows it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};

use fuser::{Errno, ReplyData};
use lazystar_core::image::ImageNode;
use lazystar_core::toc::{Attr, NodeId};
use lazystar_plugin::overlay::{Located, Location};
use lazystar_plugin::types::ErrorCode;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use super::SandboxedImage;
use crate::lock::lock;
use crate::mount::shown::{OVERLAY_FAMILIES, ROOT, Shown, inode_of, split};

/// How much of a file is read at once: a chunk, where an image does not have chunks of another size.
const WINDOW: u64 = 4 << 20;
/// Windows that are kept for those who read on in them.
const WINDOWS: usize = 16;
/// Directories whose names are kept.
const LISTINGS: usize = 64;

/// The merged tree of an image.
pub struct SandboxedTree {
    image: Arc<SandboxedImage>,
    root: ImageNode,
    totals: (u64, u64),
    listings: Mutex<Recent<u64, Arc<Listing>>>,
    /// Of directories.
    parents: Mutex<HashMap<u64, u64>>,
    windows: Windows,
    runtime: Handle,
}

/// Names in a directory and their inodes, sorted by their bytes.
type Listing = Vec<(String, u64)>;
/// Content of files from an inode and an offset on, read or being read.
type Windows = Arc<Mutex<Recent<(u64, u64), Arc<OnceCell<Vec<u8>>>>>>;

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
            windows: Arc::new(Mutex::new(Recent::new(WINDOWS))),
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
        let entries = entries.into_iter().map(|entry| (entry.name, self.inode(&entry.target)));
        let listing = Arc::new(entries.collect::<Vec<_>>());
        lock(&self.parents).extend(listing.iter().map(|(_, inode)| (*inode, dir)));
        lock(&self.listings).put(dir, Arc::clone(&listing));
        Ok(listing)
    }
}

impl Shown for SandboxedTree {
    fn attr(&self, inode: u64) -> Result<Attr, Errno> {
        Ok(super::attr(&self.located(inode)?.entry))
    }

    fn lookup(&self, dir: u64, name: &[u8]) -> Result<Option<u64>, Errno> {
        let listing = self.listing(dir)?;
        let found = listing.binary_search_by(|(known, _)| known.as_bytes().cmp(name));
        Ok(found.ok().and_then(|at| listing.get(at)).map(|(_, inode)| *inode))
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
        for (name, inode) in self.listing(dir)?.iter().skip(skip) {
            if !each(name.as_bytes(), *inode) {
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

    fn read(&self, inode: u64, offset: u64, size: u32, reply: ReplyData) {
        let file = match self.located(inode) {
            Ok(file) => file,
            Err(error) => return reply.error(error),
        };
        let (image, windows) = (Arc::clone(&self.image), Arc::clone(&self.windows));
        self.runtime.spawn(async move {
            match read(&image, &windows, inode, file, offset, size).await {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => {
                    tracing::error!(%error, "cannot read a file");
                    reply.error(Errno::EIO);
                }
            }
        });
    }
}

async fn read(
    image: &Arc<SandboxedImage>,
    windows: &Windows,
    inode: u64,
    file: Located,
    offset: u64,
    size: u32,
) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let end = offset.saturating_add(u64::from(size)).min(file.entry.size);
    let mut at = offset;
    while at < end {
        let start = at - at % WINDOW;
        let length = WINDOW.min(file.entry.size - start);
        let cell = lock(windows).get_or_put((inode, start));
        let window = cell.get_or_try_init(|| async {
            let image = Arc::clone(image);
            let work = move || image.read_part(&file, start, length);
            anyhow::Ok(tokio::task::spawn_blocking(work).await??)
        });
        let window = window.await?;
        // The sandbox is not trusted to give as much as it was asked for.
        let from = usize::try_from(at - start)?;
        let part = window.get(from..usize::try_from((end - start).min(length))?);
        bytes.extend(part.ok_or_else(|| anyhow::anyhow!("the engine gave too little"))?);
        at = start + length;
    }
    Ok(bytes)
}

/// What was used last; as many as there is room for.
struct Recent<K, V> {
    kept: VecDeque<(K, V)>,
    most: usize,
}

impl<K: PartialEq + Copy, V: Clone> Recent<K, V> {
    fn new(most: usize) -> Self {
        Self { kept: VecDeque::new(), most }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        let at = self.kept.iter().position(|(known, _)| known == key)?;
        let found = self.kept.remove(at)?;
        self.kept.push_back(found.clone());
        Some(found.1)
    }

    fn put(&mut self, key: K, value: V) {
        if self.kept.len() == self.most {
            self.kept.pop_front();
        }
        self.kept.push_back((key, value));
    }

    fn get_or_put(&mut self, key: K) -> V
    where
        V: Default,
    {
        self.get(&key).unwrap_or_else(|| {
            let new = V::default();
            self.put(key, new.clone());
            new
        })
    }
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
