//! Bringing into containerd's content store what it lacks of an image that was pulled lazily.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use lazystar_core::Digest;
use serde::Serialize;

use super::{UNCOMPRESSED, bring};
use crate::containerd::{Containerd, Stored, source_labels};
use crate::oci::{
    Descriptor, Document, ImageConfig, MAX_CONFIG, MAX_INDEXES, MAX_MANIFEST, Manifest,
};
use crate::reference::RegistryRef;
use crate::registry::{Client, Repository};
use crate::source::Blob;

/// How to fetch.
#[derive(Debug)]
pub struct Fetch {
    /// containerd, in the namespace that has the image.
    pub containerd: Containerd,
    /// Sends requests.
    pub client: Client,
    /// Whether to speak to registries without encryption.
    pub plain_http: bool,
    /// Shows bytes that are downloaded.
    pub progress: ProgressBar,
}

/// A blob of the image.
#[derive(Debug, Serialize)]
pub struct FetchedBlob {
    /// Its digest.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it was not there before.
    pub fetched: bool,
}

impl Fetch {
    /// Fetches what is missing of the image `name` and returns its configurations and layers.
    ///
    /// # Errors
    /// When containerd does not have the image, or a blob cannot be had.
    pub async fn run(&self, name: &RegistryRef) -> Result<Vec<FetchedBlob>> {
        let lease = self.containerd.lease().await?;
        let fetched = self.image(lease.containerd(), name).await;
        let ended = lease.end().await;
        let fetched = fetched?;
        ended?;
        Ok(fetched)
    }

    async fn image(&self, containerd: &Containerd, name: &RegistryRef) -> Result<Vec<FetchedBlob>> {
        let Some(image) = containerd.image(&name.to_string()).await? else {
            bail!("containerd has no image {name} in this namespace; pull it, or see --namespace");
        };
        let mut fetched = Vec::new();
        let mut level = vec![image.target.digest];
        for _ in 0..MAX_INDEXES {
            let mut next = Vec::new();
            for digest in std::mem::take(&mut level) {
                // An index lists what nobody pulled, too.
                let Some(stored) = containerd.stored(digest).await? else { continue };
                let bytes = containerd.document(digest, MAX_MANIFEST).await?;
                match Document::parse(&bytes, "")? {
                    Document::Index(index) => {
                        next.extend(index.manifests.iter().map(|entry| entry.digest));
                    }
                    Document::Manifest(manifest) => {
                        fetched.extend(self.manifest(containerd, name, &stored, manifest).await?);
                    }
                }
            }
            level = next;
        }
        if fetched.is_empty() {
            bail!("containerd has no manifest of {name} for any platform; pull it again");
        }
        Ok(fetched)
    }

    async fn manifest(
        &self,
        containerd: &Containerd,
        name: &RegistryRef,
        stored: &Stored,
        manifest: Manifest,
    ) -> Result<Vec<FetchedBlob>> {
        let from = origin(name, stored);
        let repository = Repository::new(&self.client, &from, self.plain_http)?;
        let bring = async |descriptor: &Descriptor, more: &[(String, String)]| {
            let known = containerd.stored(descriptor.digest).await?;
            let mut labels = source_labels(&from, known.as_ref());
            labels.extend(more.iter().cloned());
            let blob = Blob::registry(&repository, descriptor);
            let fetched = bring(containerd, &blob, descriptor, labels, &self.progress).await;
            let fetched = fetched.with_context(|| format!("cannot fetch {}", descriptor.digest))?;
            anyhow::Ok(FetchedBlob {
                digest: descriptor.digest.to_string(),
                size: descriptor.size,
                fetched,
            })
        };
        let mut all = vec![bring(&manifest.config, &[]).await?];
        let unpacks_to = unpacked(containerd, &manifest).await;
        for layer in &manifest.layers {
            let label = unpacks_to.get(&layer.digest).map(ToString::to_string);
            let label = label.map(|diff_id| (UNCOMPRESSED.to_owned(), diff_id));
            all.push(bring(layer, label.as_slice()).await?);
        }
        Ok(all)
    }
}

/// The repository to fetch from: that of the image's name, unless it came from elsewhere.
fn origin(name: &RegistryRef, stored: &Stored) -> RegistryRef {
    let sources = stored.sources();
    // Other clients do not say which port.
    let is_name =
        |it: &RegistryRef| it.hostname() == name.hostname() && it.repository() == name.repository();
    match sources.first() {
        Some(first) if !sources.iter().any(is_name) => first.clone(),
        _ => name.clone(),
    }
}

/// Layer to DiffID, as far as the configuration is an image's.
async fn unpacked(containerd: &Containerd, manifest: &Manifest) -> BTreeMap<Digest, Digest> {
    let config = containerd.document(manifest.config.digest, MAX_CONFIG).await.ok();
    let config = config.and_then(|bytes| ImageConfig::parse(&bytes).ok());
    let diff_ids = config.map(|config| config.rootfs.diff_ids).unwrap_or_default();
    manifest.layers.iter().map(|layer| layer.digest).zip(diff_ids).collect()
}
