//! The files of an image whose layers are read in a sandbox.

use anyhow::Result;
use futures_util::future::LocalBoxFuture;
use lazystar_core::image::ImageNode;
use lazystar_core::toc::{Attr, NodeId};
use lazystar_plugin::overlay::{Located, Location};
use tokio::task::block_in_place;

use super::super::open_sandboxed;
use super::files::{Files, Take};
use crate::cli::Global;
use crate::reference::ImageRef;
use crate::sandbox::{self, SandboxedImage};

/// The tree as the component has it.
pub(super) struct SandboxedFiles(SandboxedImage);

impl SandboxedFiles {
    pub(super) async fn open(global: &Global, image: &ImageRef) -> Result<Self> {
        Ok(Self(open_sandboxed(global, image).await?))
    }

    fn located(&self, node: ImageNode) -> Result<Located> {
        Ok(self.0.stat(Location { layer: node.layer, entry: node.node.0 })?)
    }
}

impl Files for SandboxedFiles {
    fn find(&self, path: &str, follow: bool) -> Result<ImageNode> {
        Ok(node(&self.0.lookup(path, follow)?))
    }

    fn names(&self, dir: ImageNode) -> Result<Vec<(String, ImageNode)>> {
        let entries = self.0.children(&self.located(dir)?)?;
        Ok(entries.into_iter().map(|entry| (entry.name, node(&entry.target))).collect())
    }

    fn attr(&self, node: ImageNode) -> Result<Attr> {
        Ok(sandbox::attr(&self.located(node)?.entry))
    }

    fn target(&self, link: ImageNode) -> Result<String> {
        Ok(self.0.read_link(&self.located(link)?)?)
    }

    fn xattrs(&self, node: ImageNode) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(self.0.xattrs(&self.located(node)?)?.into_iter().collect())
    }

    fn read<'a>(
        &'a self,
        file: ImageNode,
        take: &'a mut Take<'_>,
    ) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let file = self.located(file)?;
            let mut failed = Ok(());
            let read = block_in_place(|| {
                self.0.read(&[file], |_, bytes| {
                    failed = take(bytes);
                    let why = failed.as_ref().err().map(ToString::to_string);
                    why.map_or(Ok(()), |why| Err(lazystar_plugin::Error::Source(why.into())))
                })
            });
            failed?;
            Ok(read?)
        })
    }
}

fn node(found: &Located) -> ImageNode {
    ImageNode { layer: found.layer, node: NodeId(found.entry.id) }
}
