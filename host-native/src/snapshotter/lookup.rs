//! Layers of clients that do not say which they are.
//!
//! `docker pull` and `ctr images pull` name the chain ID of a layer and nothing else. By then
//! containerd has the image's manifest and configuration, so it is asked: the image whose DiffIDs
//! make that chain has the layer, and labels of its manifest say where it came from.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use lazystar_core::Digest;
use tokio::time::timeout;

use super::labels;
use super::record::Labels;
use crate::containerd::{Containerd, ContainerdError, Stored};
use crate::image::{Image, OpenOptions};
use crate::lock::lock;
use crate::oci::{Descriptor, Document, ImageConfig, MAX_CONFIG, MAX_MANIFEST, chain_ids};
use crate::open::TOC_DIGEST;
use crate::reference::{ImageRef, RegistryRef};

/// How long the search may take. The client waits for it, and would otherwise pull.
const PATIENCE: Duration = Duration::from_secs(5);
/// Matches manifests: what has a configuration that is not to be collected.
const MANIFESTS: &str = r#"labels."containerd.io/gc.ref.content.config""#;
/// How long a registry may take to say whether it has an image, if it is one of several that may.
const PROBE: Duration = Duration::from_secs(2);
/// The port of registries that are run for a test.
const USUAL_PORT: u16 = 5000;
/// Images that are remembered.
const REMEMBERED: usize = 256;

/// Asks containerd which layer has a chain ID.
#[derive(Debug)]
pub struct Lookup {
    containerd: Containerd,
    options: OpenOptions,
    /// Registries on other ports than usual.
    registries: Mutex<Vec<RegistryRef>>,
    /// Chain ID to layer, for the manifests seen so far.
    images: Mutex<HashMap<Digest, Arc<Chains>>>,
}

/// The layers of an image by chain ID; none of one that cannot be read.
type Chains = HashMap<String, Descriptor>;

impl Lookup {
    /// A search in the containerd behind the socket `address`. Sends nothing yet.
    ///
    /// containerd keeps the hosts of registries without their ports. `registries`, each
    /// `HOST:PORT`, are asked for images of their hosts; `options` say how.
    ///
    /// # Errors
    /// When the address or a registry cannot be one.
    pub fn new(
        address: &Path,
        registries: &[String],
        options: OpenOptions,
    ) -> anyhow::Result<Self> {
        let registries = registries.iter().map(|host| {
            let registry = format!("{host}/registry").parse::<RegistryRef>();
            registry.with_context(|| format!("{host:?} is not the HOST:PORT of a registry"))
        });
        Ok(Self {
            containerd: Containerd::new(address, "default")?,
            options,
            registries: Mutex::new(registries.collect::<Result<_, _>>()?),
            images: Mutex::default(),
        })
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
            return Ok((self.source(&containerd, manifest).await?, layer));
        }
        Err(format!("no image that containerd has in the namespace {namespace:?} has that layer"))
    }

    /// The image in the registry that it came from.
    async fn source(
        &self,
        containerd: &Containerd,
        manifest: &Stored,
    ) -> Result<RegistryRef, String> {
        let source = manifest.sources().into_iter().next();
        let source = source.ok_or("the image was built or imported here, not pulled")?;
        if source.host() != source.hostname() {
            return Ok(source);
        }
        let names = containerd.image_names().await.map_err(text)?;
        let known = names.iter().filter_map(|name| name.parse().ok());
        let candidates = candidates(&source, lock(&self.registries).iter().cloned().chain(known));
        if let [only] = &candidates[..] {
            return Ok(only.clone());
        }
        for candidate in &candidates {
            let image = ImageRef::Registry(candidate.clone());
            let opened = timeout(PROBE, Image::open(&image, &self.options)).await;
            if matches!(opened, Ok(Ok(_))) {
                let mut registries = lock(&self.registries);
                registries.retain(|it| it.host() != candidate.host());
                registries.insert(0, candidate.clone());
                registries.truncate(REMEMBERED);
                return Ok(candidate.clone());
            }
        }
        Err(format!(
            "containerd does not tell the port of the registry {}; name it with --registry",
            source.host()
        ))
    }

    async fn chains(
        &self,
        containerd: &Containerd,
        manifest: &Stored,
    ) -> Result<Arc<Chains>, String> {
        let known = lock(&self.images).get(&manifest.digest).cloned();
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
        let mut images = lock(&self.images);
        if images.len() >= REMEMBERED {
            images.clear();
        }
        images.insert(manifest.digest, Arc::clone(&chains));
        Ok(chains)
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

/// Where `source` may be, whose host has no port: in registries on other ports of that host, in the
/// one on the usual port, and on this machine, in the one on the port that is usual for tests.
fn candidates(source: &RegistryRef, others: impl Iterator<Item = RegistryRef>) -> Vec<RegistryRef> {
    let mut found: Vec<RegistryRef> = others
        .filter(|it| it.hostname() == source.hostname())
        .map(|it| source.at_host_of(&it))
        .collect();
    found.push(source.clone());
    if matches!(source.host(), "localhost" | "127.0.0.1" | "[::1]") {
        let usual = format!("{}:{USUAL_PORT}/registry", source.host()).parse();
        found.extend(usual.map(|usual| source.at_host_of(&usual)));
    }
    let mut seen = HashSet::new();
    found.retain(|it| seen.insert(it.host().to_owned()));
    found
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

    #[test]
    fn ports_are_guessed_from_what_is_known() {
        let reference = |text: &str| text.parse::<RegistryRef>().expect("a reference");
        let of = |source: &str, others: &[&str]| {
            let found = candidates(&reference(source), others.iter().map(|it| reference(it)));
            found.iter().map(|it| it.host().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(of("docker.io/a", &["docker.io/b", "r.example:1/a"]), ["docker.io"]);
        let known = ["r.example:1/x", "r.example:2/y", "r.example:1/z"];
        assert_eq!(of("r.example/a", &known), ["r.example:1", "r.example:2", "r.example"]);
        assert_eq!(of("127.0.0.1/a", &[]), ["127.0.0.1", "127.0.0.1:5000"]);
    }
}
