//! `overlay`: the merged tree of an image.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use lazystar_core::image::{Image, ImageNode, PathError};
use lazystar_core::toc::{Kind, NodeId};

use crate::bindings::exports::lazystar::engine::layers::LayerBorrow;
use crate::bindings::exports::lazystar::engine::overlay::{
    DirectoryEntry, GuestRootfs, Located, Location, Page,
};
use crate::bindings::exports::lazystar::engine::types::ErrorCode;
use crate::convert::{self, PAGE};
use crate::layer::OpenLayer;

/// The resource `rootfs`.
#[derive(Debug)]
pub(crate) struct MergedTree(Image);

impl MergedTree {
    fn located(&self, at: ImageNode) -> Result<Located, ErrorCode> {
        let attr = self.0.attr(at).ok_or(ErrorCode::NotFound)?;
        Ok(Located { layer: at.layer, entry: convert::entry(at.node, &attr, false) })
    }
}

impl GuestRootfs for MergedTree {
    fn new(layers: Vec<LayerBorrow<'_>>) -> Self {
        let toc = |layer: &LayerBorrow<'_>| Arc::clone(layer.get::<OpenLayer>().toc());
        Self(Image::new(layers.iter().map(toc).collect()))
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

    fn children(&self, directory: Location, start: u32, maximum: u32) -> Result<Page, ErrorCode> {
        let directory = node(directory);
        if self.0.attr(directory).ok_or(ErrorCode::NotFound)?.kind != Kind::Directory {
            return Err(ErrorCode::WrongKind);
        }
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
