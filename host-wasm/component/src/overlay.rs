//! `overlay`: the merged tree of an image.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;

use lazystar_core::image::{ChangeKind, Changes, Image, ImageNode, PathError};
use lazystar_core::toc::{Kind, NodeId};

use crate::bindings::exports::lazystar::engine::layers::LayerBorrow;
use crate::bindings::exports::lazystar::engine::overlay::{
    Change, Difference, Differences, DirectoryEntry, Efficiency, Found, GuestDifferences,
    GuestRootfs, GuestWalk, Located, Location, Page, Walk, Waste,
};
use crate::bindings::exports::lazystar::engine::types::ErrorCode;
use crate::convert::{self, PAGE};
use crate::layer::OpenLayer;

/// Bytes of paths in a page: with what is said of each it stays below 1 MiB.
const PATHS: usize = 512 << 10;
/// Paths that `efficiency` gives: they have less than 4096 bytes each.
const WORST: usize = 200;

/// The resource `rootfs`.
#[derive(Debug)]
pub(crate) struct MergedTree(Image);

/// The resource `walk`.
#[derive(Debug)]
pub(crate) struct TreeWalk {
    tree: MergedTree,
    walk: RefCell<lazystar_core::image::Walk>,
    /// In lower case.
    containing: Vec<u8>,
}

/// The resource `differences`.
#[derive(Debug)]
pub(crate) struct LayerChanges {
    tree: MergedTree,
    changes: RefCell<Changes>,
}

impl MergedTree {
    pub(crate) fn of<'a>(layers: impl Iterator<Item = &'a OpenLayer>) -> Self {
        Self(Image::new(layers.map(|layer| Arc::clone(layer.toc())).collect()))
    }

    pub(crate) fn walk_from(
        &self,
        directory: Location,
        containing: String,
    ) -> Result<TreeWalk, ErrorCode> {
        let directory = self.directory(directory)?;
        Ok(TreeWalk {
            tree: Self(self.0.clone()),
            walk: RefCell::new(self.0.walk(directory)),
            containing: containing.into_bytes().to_ascii_lowercase(),
        })
    }

    pub(crate) fn changes_of(&self, layer: u32) -> Result<LayerChanges, ErrorCode> {
        if layer as usize >= self.0.layers().len() {
            return Err(ErrorCode::NotFound);
        }
        let changes = RefCell::new(self.0.changes(layer));
        Ok(LayerChanges { tree: Self(self.0.clone()), changes })
    }

    fn located(&self, at: ImageNode) -> Result<Located, ErrorCode> {
        let attr = self.0.attr(at).ok_or(ErrorCode::NotFound)?;
        Ok(Located { layer: at.layer, entry: convert::entry(at.node, &attr, false) })
    }

    fn directory(&self, at: Location) -> Result<ImageNode, ErrorCode> {
        let directory = node(at);
        match self.0.attr(directory).ok_or(ErrorCode::NotFound)?.kind {
            Kind::Directory => Ok(directory),
            _ => Err(ErrorCode::WrongKind),
        }
    }
}

impl GuestWalk for TreeWalk {
    fn next(&self, maximum: u32) -> Vec<Found> {
        let mut walk = self.walk.borrow_mut();
        page(maximum, || {
            loop {
                let (path, node) = walk.next_object()?;
                if contains(path, &self.containing) {
                    let path = convert::text(path);
                    return Some((
                        path.len(),
                        Found { path, target: self.tree.located(node).ok()? },
                    ));
                }
            }
        })
    }
}

impl GuestDifferences for LayerChanges {
    fn next(&self, maximum: u32) -> Vec<Difference> {
        let mut changes = self.changes.borrow_mut();
        let located = |node: Option<ImageNode>| node.and_then(|it| self.tree.located(it).ok());
        page(maximum, || {
            let change = changes.next_change()?;
            let path = convert::text(change.path);
            let kind = match change.kind {
                ChangeKind::Added => Change::Added,
                ChangeKind::Modified => Change::Modified,
                ChangeKind::Metadata => Change::MetadataOnly,
                ChangeKind::Duplicated => Change::Duplicated,
                ChangeKind::Removed => Change::Removed,
            };
            let (before, after) = (located(change.before), located(change.after));
            Some((path.len(), Difference { path, change: kind, before, after }))
        })
    }
}

impl GuestRootfs for MergedTree {
    fn new(layers: Vec<LayerBorrow<'_>>) -> Self {
        Self::of(layers.iter().map(|layer| layer.get::<OpenLayer>()))
    }

    fn root(&self) -> Result<Located, ErrorCode> {
        self.located(self.0.root())
    }

    fn lookup(&self, path: String, follow: bool) -> Result<Located, ErrorCode> {
        let found = self.0.resolve(path.as_bytes(), follow).map_err(|error| match error {
            PathError::NotFound => ErrorCode::NotFound,
            PathError::NotDirectory => ErrorCode::WrongKind,
            PathError::TooManyLinks => ErrorCode::TooManyLinks,
        })?;
        self.located(found)
    }

    fn stat(&self, locations: Vec<Location>) -> Result<Vec<Located>, ErrorCode> {
        convert::at_most(&locations, PAGE, "locations in a call")?;
        convert::each(locations, |at| self.located(node(at)))
    }

    fn walk(&self, directory: Location, containing: String) -> Result<Walk, ErrorCode> {
        self.walk_from(directory, containing).map(Walk::new)
    }

    fn differences(&self, layer: u32) -> Result<Differences, ErrorCode> {
        self.changes_of(layer).map(Differences::new)
    }

    fn efficiency(&self, worst: u32) -> Efficiency {
        let lazystar_core::image::Efficiency { stored, visible, worst } =
            self.0.efficiency(WORST.min(worst as usize));
        let worst = worst.into_iter().map(|waste| Waste {
            path: convert::text(&waste.path),
            bytes: waste.bytes,
            layers: waste.layers,
        });
        Efficiency { stored, visible, worst: worst.collect() }
    }

    fn children(&self, directory: Location, start: u32, maximum: u32) -> Result<Page, ErrorCode> {
        let directory = self.directory(directory)?;
        let all = self.0.entries(directory);
        let (skip, take, next) = convert::page(all.len(), start, maximum);
        let page = all.into_iter().skip(skip).take(take).map(|entry| {
            let name = convert::text(entry.name);
            Ok(DirectoryEntry { name, target: self.located(entry.node)? })
        });
        Ok(Page { entries: page.collect::<Result<_, ErrorCode>>()?, next })
    }
}

fn node(at: Location) -> ImageNode {
    ImageNode { layer: at.layer, node: NodeId(at.entry) }
}

/// What `next` gives, each with the length of its path, as far as a call takes it.
fn page<T>(maximum: u32, mut next: impl FnMut() -> Option<(usize, T)>) -> Vec<T> {
    let (mut items, mut bytes) = (Vec::new(), 0);
    while items.len() < maximum.clamp(1, PAGE) as usize && bytes < PATHS {
        let Some((len, item)) = next() else { break };
        bytes += len;
        items.push(item);
    }
    items
}

/// Whether a path has a text in it, which is in lower case.
fn contains(path: &[u8], text: &[u8]) -> bool {
    let same = |window: &[u8]| window.eq_ignore_ascii_case(text);
    text.is_empty() || path.windows(text.len()).any(same)
}
