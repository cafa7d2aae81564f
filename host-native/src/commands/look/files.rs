//! The files of an image, whoever reads its layers.

use std::sync::Arc;

use anyhow::{Context, Result};
use futures_util::future::LocalBoxFuture;
use lazystar_core::image::{Image as ImageTree, ImageNode};
use lazystar_core::toc::Attr;

use super::super::open_tree;
use crate::cli::{EngineKind, Global};
use crate::driver::LazyLayer;
use crate::reference::ImageRef;

/// How much of a file is fetched before it is written: enough for several requests side by side.
const WINDOW: u64 = 16 << 20;

/// Takes a piece of a file.
pub(super) type Take<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

/// The merged tree of an image.
pub(super) trait Files {
    /// The object at a path; a symbolic link at its end is followed if `follow` is set.
    fn find(&self, path: &str, follow: bool) -> Result<ImageNode>;

    /// The names in a directory, sorted, and what they name.
    fn names(&self, dir: ImageNode) -> Result<Vec<(String, ImageNode)>>;

    /// What is known of an object.
    fn attr(&self, node: ImageNode) -> Result<Attr>;

    /// The target of a symbolic link.
    fn target(&self, link: ImageNode) -> Result<String>;

    /// Names and values of extended attributes.
    fn xattrs(&self, node: ImageNode) -> Result<Vec<(String, Vec<u8>)>>;

    /// Reads a file from its start to its end.
    fn read<'a>(
        &'a self,
        file: ImageNode,
        take: &'a mut Take<'_>,
    ) -> LocalBoxFuture<'a, Result<()>>;
}

/// Opens an image with the engine asked for.
pub(super) async fn open(global: &Global, image: &ImageRef) -> Result<Box<dyn Files>> {
    Ok(match global.engine {
        EngineKind::Native => {
            let (tree, layers) = open_tree(global, image).await?;
            Box::new(NativeFiles { tree, layers })
        }
        #[cfg(feature = "wasm-engine")]
        EngineKind::Wasm => Box::new(super::sandboxed::SandboxedFiles::open(global, image).await?),
        #[cfg(not(feature = "wasm-engine"))]
        EngineKind::Wasm => anyhow::bail!(crate::cli::NO_WASM_ENGINE),
    })
}

/// The tree as core has it.
struct NativeFiles {
    tree: ImageTree,
    layers: Vec<Arc<LazyLayer>>,
}

impl NativeFiles {
    fn layer(&self, node: ImageNode) -> Result<&Arc<LazyLayer>> {
        self.layers.get(node.layer as usize).context("the image has no such layer")
    }
}

impl Files for NativeFiles {
    fn find(&self, path: &str, follow: bool) -> Result<ImageNode> {
        Ok(self.tree.resolve(path.as_bytes(), follow)?)
    }

    fn names(&self, dir: ImageNode) -> Result<Vec<(String, ImageNode)>> {
        let entries = self.tree.entries(dir);
        Ok(entries.iter().map(|entry| (text(entry.name), entry.node)).collect())
    }

    fn attr(&self, node: ImageNode) -> Result<Attr> {
        self.tree.attr(node).context("the image has no such node")
    }

    fn target(&self, link: ImageNode) -> Result<String> {
        Ok(text(self.layer(link)?.toc().readlink(link.node)))
    }

    fn xattrs(&self, node: ImageNode) -> Result<Vec<(String, Vec<u8>)>> {
        let xattrs = self.layer(node)?.toc().xattrs(node.node);
        Ok(xattrs.map(|(name, value)| (text(name), value.to_vec())).collect())
    }

    fn read<'a>(
        &'a self,
        file: ImageNode,
        take: &'a mut Take<'_>,
    ) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let layer = self.layer(file)?;
            let flat = layer.toc().flat_range(file.node);
            let mut bytes = Vec::new();
            let mut at = flat.start;
            while at < flat.end {
                let end = (at + WINDOW).min(flat.end);
                bytes.resize(usize::try_from(end - at)?, 0);
                layer.read(at, &mut bytes).await?;
                take(&bytes)?;
                at = end;
            }
            Ok(())
        })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
