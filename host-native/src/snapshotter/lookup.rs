//! Layers of clients that do not say which they are.
//!
//! `docker pull` and `ctr images pull` name the chain ID of a layer and nothing else. By then
//! containerd has the image's manifest and configuration, so it is asked: the image whose DiffIDs
//! make that chain has the layer, and labels of its manifest say where it came from.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lazystar_core::Digest;
use tokio::time::timeout;

use super::labels;
use super::store::Labels;
use crate::containerd::{Containerd, ContainerdError, Stored};
use crate::oci::{Descriptor, Document, ImageConfig, MAX_CONFIG, MAX_MANIFEST, chain_ids};
use crate::open::TOC_DIGEST;
use crate::reference::RegistryRef;

/// How long the search may take. The client waits for it, and would otherwise pull.
const PATIENCE: Duration = Duration::from_secs(5);
/// Matches manifests: what has a configuration that is not to be collected.
const MANIFESTS: &str = r#"labels."containerd.io/gc.ref.content.config""#;
/// Images that are remembered.
const REMEMBERED: usize = 256;

/// Asks containerd which layer has a chain ID.
#[derive(Debug)]
pub struct Lookup {
    containerd: Containerd,
    /// Chain ID to layer, for the manifests seen so far.
    images: Mutex<HashMap<Digest, Arc<Chains>>>,
}

/// The layers of an image by chain ID; none of one that cannot be read.
type Chains = HashMap<String, Descriptor>;

impl Lookup {
    /// A search in the containerd behind the socket `address`. Sends nothing yet.
    ///
    /// # Errors
    /// When the address cannot be one.
    pub fn new(address: &Path) -> Result<Self, ContainerdError> {
        Ok(Self { containerd: Containerd::new(address, "default")?, images: Mutex::default() })
    }

    /// `known`, what a client says of the snapshot `key` that is to become `target`, and labels
    /// that name its layer.
    ///
    /// # Errors
    /// One sentence, when containerd does not know the layer.
    pub async fn complete(
        &self,
        key: &str,
        target: &str,
        known: &Labels,
    ) -> Result<Labels, String> {
        let found = timeout(PATIENCE, self.find(key, target)).await.unwrap_or_else(|_| {
            Err(format!("containerd did not tell within {} s", PATIENCE.as_secs()))
        });
        let (reference, layer) = found.map_err(|why| {
            format!("the client does not say which layer of which image this is, and {why}")
        })?;
        let mut labels = known.clone();
        labels.extend(labels::naming(&reference, layer.digest));
        if let Some(toc) = layer.annotations.get(TOC_DIGEST) {
            labels.insert(TOC_DIGEST.to_owned(), toc.clone());
        }
        Ok(labels)
    }

    async fn find(&self, key: &str, target: &str) -> Result<(RegistryRef, Descriptor), String> {
        let namespace = namespace(key)
            .ok_or_else(|| format!("its key {key:?} names no namespace of containerd"))?;
        let containerd = self.containerd.in_namespace(namespace).map_err(text)?;
        let mut manifests = containerd.list(MANIFESTS).await.map_err(text)?;
        // The image that is being pulled is likely the one that came last.
        manifests.sort_by_key(|it| std::cmp::Reverse((it.created, it.digest.to_string())));
        for manifest in &manifests {
            let Some(layer) = self.chains(&containerd, manifest).await?.get(target).cloned() else {
                continue;
            };
            if containerd.stored(layer.digest).await.map_err(text)?.is_some() {
                return Err("containerd has its content already".to_owned());
            }
            let source = manifest.sources().into_iter().next();
            let source = source.ok_or("it was built or imported here, not pulled")?;
            return Ok((source, layer));
        }
        Err(format!("no image that containerd has in the namespace {namespace:?} has that layer"))
    }

    async fn chains(
        &self,
        containerd: &Containerd,
        manifest: &Stored,
    ) -> Result<Arc<Chains>, String> {
        let known = self.images().get(&manifest.digest).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let chains = match read(containerd, manifest.digest).await {
            Ok(chains) => chains,
            // A manifest whose configuration is still on its way is not the one that is unpacked.
            Err(ContainerdError::Refused { .. }) => return Ok(Arc::default()),
            Err(ContainerdError::Content(error)) => {
                tracing::debug!(manifest = %manifest.digest, "not an image: {error}");
                Chains::default()
            }
            Err(error) => return Err(error.to_string()),
        };
        let chains = Arc::new(chains);
        let mut images = self.images();
        if images.len() >= REMEMBERED {
            images.clear();
        }
        images.insert(manifest.digest, Arc::clone(&chains));
        Ok(chains)
    }

    fn images(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Arc<Chains>>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(containerd: &Containerd, manifest: Digest) -> Result<Chains, ContainerdError> {
    let bytes = containerd.document(manifest, MAX_MANIFEST).await?;
    let Document::Manifest(manifest) = Document::parse(&bytes, "")? else {
        return Ok(Chains::default());
    };
    let config = containerd.document(manifest.config.digest, MAX_CONFIG).await?;
    let config = ImageConfig::parse(&config)?;
    let chains = chain_ids(&config.rootfs.diff_ids);
    Ok(chains.iter().map(ToString::to_string).zip(manifest.layers).collect())
}

/// containerd's keys of snapshots are `NAMESPACE/NUMBER/KEY`.
fn namespace(key: &str) -> Option<&str> {
    let (namespace, rest) = key.split_once('/')?;
    let (number, _) = rest.split_once('/')?;
    number.parse::<u64>().ok().map(|_| namespace)
}

fn text(error: ContainerdError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_namespaces() {
        assert_eq!(namespace("moby/12/extract-1-x sha256:aa"), Some("moby"));
        for none in ["", "key", "a/b", "a/b/c", "/x/"] {
            assert_eq!(namespace(none), None, "{none:?}");
        }
    }
}
