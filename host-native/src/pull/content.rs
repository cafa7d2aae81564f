//! An image's documents in containerd's content store, and the labels that hold them together.

use std::collections::BTreeMap;

use bytes::Bytes;
use lazystar_core::Digest;

use crate::containerd::{Containerd, Result, source_labels};
use crate::image::Image;
use crate::oci::Document;
use crate::reference::RegistryRef;

/// Start labels by which content keeps other content, and snapshots, from being collected.
const KEEPS_CONTENT: &str = "containerd.io/gc.ref.content.";
const KEEPS_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";

/// Stores the documents of `image`. `top` is the snapshotter and the snapshot that the
/// configuration keeps.
pub(super) async fn store(
    containerd: &Containerd,
    reference: &RegistryRef,
    image: &Image,
    config: &Bytes,
    top: Option<(&str, Digest)>,
) -> Result<()> {
    let mut keep = BTreeMap::new();
    if let Some((snapshotter, chain)) = top {
        keep.insert(format!("{KEEPS_SNAPSHOT}{snapshotter}"), chain.to_string());
    }
    put(containerd, reference, Digest::of(config), config, keep).await?;
    // The manifest first: what is kept has to be there before what keeps it.
    for (descriptor, bytes) in image.documents.iter().rev() {
        let document = Document::parse(bytes, &descriptor.media_type)?;
        put(containerd, reference, descriptor.digest, bytes, children(&document)).await?;
    }
    Ok(())
}

async fn put(
    containerd: &Containerd,
    reference: &RegistryRef,
    digest: Digest,
    bytes: &Bytes,
    mut labels: BTreeMap<String, String>,
) -> Result<()> {
    let stored = containerd.stored(digest).await?;
    labels.extend(source_labels(reference, stored.as_ref()));
    match stored {
        Some(_) => containerd.label(digest, labels).await,
        None => containerd.store(bytes, labels).await,
    }
}

/// Labels by which a document keeps what it points at.
fn children(document: &Document) -> BTreeMap<String, String> {
    let numbered = |kind: &str, at: usize| format!("{KEEPS_CONTENT}{kind}.{at}");
    match document {
        Document::Index(index) => {
            let manifests = index.manifests.iter().enumerate();
            manifests.map(|(at, it)| (numbered("m", at), it.digest.to_string())).collect()
        }
        Document::Manifest(manifest) => {
            let layers = manifest.layers.iter().enumerate();
            let layers = layers.map(|(at, it)| (numbered("l", at), it.digest.to_string()));
            let config = (format!("{KEEPS_CONTENT}config"), manifest.config.digest.to_string());
            layers.chain([config]).collect()
        }
    }
}
