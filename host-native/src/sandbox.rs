//! Images through the component in wasmtime: tables of contents are parsed, and chunks decompressed and
//! verified, in a sandbox that a hostile image cannot leave.
//!
//! Names, manifests and what registries answer are read outside of it. Content is kept by the kernel
//! and, for a moment, in memory; not on the disk.

mod recent;
mod source;
mod tree;
mod window;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use lazystar_core::toc::{Attr, Kind};
use lazystar_plugin::layers::Descriptor;
use lazystar_plugin::types::{Device, Entry, EntryKind, Instant};
use lazystar_plugin::{Engine, Limits, Trust};
use tokio::runtime::Handle;

pub use source::BlobSource;
pub use tree::SandboxedTree;

use crate::image::{Image, ImageLayer};
use crate::reference::ImageRef;

/// An image in a sandbox of its own. Its calls block, and so must not be made by what runs on the
/// runtime, unless it says so.
pub type SandboxedImage = lazystar_plugin::Image<BlobSource>;

const COMPONENT: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../host-wasm/dist/engine.wasm"));

/// Opens all layers of an image. What the component compiles to is kept in the directory `compiled`.
///
/// # Errors
/// When a layer cannot be read lazily, or cannot be trusted.
pub async fn open(
    image: &Arc<Image>,
    compiled: &Path,
    allow_unverified: bool,
) -> Result<SandboxedImage> {
    if image.layers.is_empty() {
        bail!("{} has no layers", image.reference);
    }
    let least = match image.reference {
        _ if allow_unverified => Trust::Unverified,
        // Nothing can vouch for a single blob but itself.
        ImageRef::File(_) => Trust::Consistent,
        _ => Trust::Verified,
    };
    let layers = layers(image, &Handle::current());
    let compiled = compiled.to_owned();
    let opening = tokio::task::spawn_blocking(move || {
        let engine = Engine::new(COMPONENT, &Limits::default(), Some(&compiled))?;
        SandboxedImage::of_layers(engine.sandbox()?, layers, least)
    });
    let opened = opening.await.context("opening the image failed unexpectedly")?;
    opened.with_context(|| format!("cannot open {}", image.reference))
}

/// The layers of an image as a sandbox takes them; their bytes are fetched on `runtime`.
#[must_use]
pub fn layers(image: &Arc<Image>, runtime: &Handle) -> Vec<(Descriptor, BlobSource)> {
    let source = |at| BlobSource::new(Arc::clone(image), at, runtime.clone());
    (0..).zip(&image.layers).map(|(at, layer)| (descriptor(layer), source(at))).collect()
}

fn descriptor(layer: &ImageLayer) -> Descriptor {
    let ImageLayer { descriptor, blob } = layer;
    Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: blob.size().unwrap_or(descriptor.size),
        annotations: descriptor.annotations.clone().into_iter().collect(),
    }
}

/// An object as core describes it.
#[must_use]
pub fn attr(entry: &Entry) -> Attr {
    let Instant { seconds, nanoseconds } = entry.modified;
    let (kind, device) = match entry.kind {
        EntryKind::Directory => (Kind::Directory, None),
        EntryKind::Regular => (Kind::Regular, None),
        EntryKind::Symlink => (Kind::Symlink, None),
        EntryKind::CharacterDevice(device) => (Kind::CharDevice, Some(device)),
        EntryKind::BlockDevice(device) => (Kind::BlockDevice, Some(device)),
        EntryKind::Fifo => (Kind::Fifo, None),
        EntryKind::Whiteout => (Kind::Whiteout, None),
    };
    Attr {
        kind,
        mode: u16::try_from(entry.mode & 0o7777).unwrap_or_default(),
        uid: entry.uid,
        gid: entry.gid,
        size: entry.size,
        mtime_nanos: seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanoseconds)),
        nlink: entry.links,
        device: device.map_or((0, 0), |Device { major, minor }| (major, minor)),
    }
}
