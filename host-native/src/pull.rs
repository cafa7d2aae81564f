//! Pulling an image lazily through containerd: what every client of a lazy snapshotter does.
//!
//! Manifest and configuration go into containerd's content store. For each layer the snapshotter is
//! asked for a snapshot, with labels that say which layer it is; where it has none to offer, the
//! layer is downloaded and unpacked by containerd.

mod content;
pub mod fetch;
mod transfer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use lazystar_core::Digest;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::containerd::{Containerd, ImageRecord, Prepared, source_labels};
use crate::image::Image;
use crate::link::Link;
use crate::oci::{DocumentError, chain_ids};
use crate::open::{LayerOpener, TOC_DIGEST};
use crate::reference::RegistryRef;
use crate::snapshotter::labels;

pub use transfer::bring;

/// Layers that are downloaded side by side, as other clients do.
const DOWNLOADS: usize = 3;
/// How often a snapshot is asked for that is said to be there and is not.
const ATTEMPTS: usize = 3;
/// Says what a blob unpacks to.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// How to pull.
#[derive(Debug)]
pub struct Pull {
    /// containerd, in the namespace to pull into.
    pub containerd: Containerd,
    /// The snapshotter's name in containerd's configuration.
    pub snapshotter: String,
    /// Whether layers may be lazy that nothing vouches for.
    pub allow_unverified: bool,
    /// Tells why a layer is not lazy.
    pub opener: LayerOpener,
    /// Shows bytes that are downloaded.
    pub progress: ProgressBar,
}

/// What became of a layer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PulledLayer {
    /// Its blob.
    pub digest: String,
    /// The size of that, in bytes.
    pub size: u64,
    /// Whether it is read lazily.
    pub lazy: bool,
    /// Whether it was downloaded just now.
    pub downloaded: bool,
    /// Why it is not lazy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Pull {
    /// Pulls `image`, which `reference` names, and returns what became of its layers.
    ///
    /// # Errors
    /// When the registry or containerd does not do its part.
    pub async fn run(
        &self,
        reference: &RegistryRef,
        image: &Arc<Image>,
    ) -> Result<Vec<PulledLayer>> {
        let lease = self.containerd.lease().await?;
        let under_lease = Task { pull: self, containerd: lease.containerd(), reference, image };
        let pulled = under_lease.run().await;
        let ended = lease.end().await;
        let pulled = pulled?;
        ended?;
        Ok(pulled)
    }
}

/// One pull under its lease.
struct Task<'a> {
    pull: &'a Pull,
    containerd: &'a Containerd,
    reference: &'a RegistryRef,
    image: &'a Arc<Image>,
}

impl Task<'_> {
    async fn run(&self) -> Result<Vec<PulledLayer>> {
        let Some((target, _)) = self.image.documents.first() else {
            bail!("{} is not an image in a registry", self.reference);
        };
        let (config, config_bytes) = self.image.config().await?;
        let diff_ids = &config.rootfs.diff_ids;
        let chains = chain_ids(diff_ids);
        let top = chains.last().map(|top| (&*self.pull.snapshotter, *top));
        content::store(self.containerd, self.reference, self.image, &config_bytes, top).await?;

        let mut downloads = self.downloads(&chains).await?;
        let mut layers = Vec::with_capacity(chains.len());
        for (at, chain) in chains.iter().enumerate() {
            let parent = at.checked_sub(1).map(|below| chains[below]);
            let layer = self.layer(at, *chain, parent, diff_ids[at], &mut downloads).await;
            let digest = self.image.layers[at].descriptor.digest;
            layers.push(layer.with_context(|| format!("layer {} ({digest})", at + 1))?);
        }
        let record = ImageRecord {
            name: self.reference.to_string(),
            target: target.clone(),
            labels: BTreeMap::new(),
        };
        self.containerd.name_image(&record).await?;
        Ok(layers)
    }

    /// Begins to download the layers that cannot become lazy, as far as their snapshots are not
    /// there.
    async fn downloads(&self, chains: &[Digest]) -> Result<Downloads> {
        let slots = Arc::new(Semaphore::new(DOWNLOADS));
        let mut downloads = Downloads::default();
        for (at, chain) in chains.iter().enumerate() {
            let vouched = self.image.layers[at].descriptor.annotations.contains_key(TOC_DIGEST);
            let snapshotter = &self.pull.snapshotter;
            if vouched
                || self.pull.allow_unverified
                || self.containerd.snapshot(snapshotter, &chain.to_string()).await?.is_some()
            {
                continue;
            }
            let (download, slots) = (self.download(at), Arc::clone(&slots));
            downloads.0.spawn(async move {
                let _slot = slots.acquire_owned().await;
                (at, download.await)
            });
        }
        Ok(downloads)
    }

    fn download(&self, at: usize) -> impl Future<Output = Result<()>> + Send + use<> {
        let containerd = self.containerd.clone();
        let (image, progress) = (Arc::clone(self.image), self.pull.progress.clone());
        let labels = source_labels(self.reference, None);
        async move {
            let layer = &image.layers[at];
            bring(&containerd, &layer.blob, &layer.descriptor, labels, &progress).await.map(drop)
        }
    }

    async fn layer(
        &self,
        at: usize,
        chain: Digest,
        parent: Option<Digest>,
        diff_id: Digest,
        downloads: &mut Downloads,
    ) -> Result<PulledLayer> {
        let descriptor = &self.image.layers[at].descriptor;
        let (snapshotter, name) = (&self.pull.snapshotter, chain.to_string());
        let parent = parent.map(|parent| parent.to_string()).unwrap_or_default();
        let report = |lazy, downloaded, reason| PulledLayer {
            digest: descriptor.digest.to_string(),
            size: descriptor.size,
            lazy,
            downloaded,
            reason,
        };
        for attempt in 0..ATTEMPTS {
            let key = format!("extract-{}-{attempt} {name}", unique());
            let labels = self.labels(at, &name);
            let mounts =
                match self.containerd.prepare(snapshotter, &key, &parent, labels.clone()).await? {
                    Prepared::Active(mounts) => mounts,
                    Prepared::There => match self.containerd.snapshot(snapshotter, &name).await? {
                        Some(labels) if labels.contains_key(labels::REMOTE) => {
                            return Ok(report(true, false, None));
                        }
                        Some(_) => {
                            let reason = "an ordinary snapshot of it was there already";
                            return Ok(report(false, false, Some(reason.to_owned())));
                        }
                        // Collected between the two calls.
                        None => continue,
                    },
                };
            let unpacked = async {
                downloads.finish(at, self.download(at)).await?;
                let applied = self.containerd.apply(descriptor, mounts).await?;
                if let Some(actual) = applied.filter(|applied| *applied != diff_id) {
                    let what = "unpacked layer";
                    return Err(
                        DocumentError::DigestMismatch { what, expected: diff_id, actual }.into()
                    );
                }
                self.containerd.commit(snapshotter, &name, &key, labels).await?;
                let label = [(UNCOMPRESSED.to_owned(), diff_id.to_string())];
                self.containerd.label(descriptor.digest, label.into()).await?;
                anyhow::Ok(())
            };
            if let Err(error) = unpacked.await {
                let _ = self.containerd.remove_snapshot(snapshotter, &key).await;
                return Err(error);
            }
            return Ok(report(false, true, Some(self.why_not_lazy(at).await)));
        }
        bail!("{snapshotter} says that it has the snapshot {name}, and that it has it not")
    }

    async fn why_not_lazy(&self, at: usize) -> String {
        match self.pull.opener.open(self.image, at, Link::default()).await {
            Err(error) => error.to_string(),
            Ok(_) => format!("the snapshotter {} refused; its log says why", self.pull.snapshotter),
        }
    }

    /// Labels that name a layer to the snapshotter, in both ways that are in use.
    fn labels(&self, at: usize, chain: &str) -> BTreeMap<String, String> {
        let descriptor = &self.image.layers[at].descriptor;
        let inherited = descriptor
            .annotations
            .iter()
            .filter(|(key, _)| key.starts_with("containerd.io/snapshot/"))
            .map(|(key, value)| (key.clone(), value.clone()));
        let mut all: BTreeMap<_, _> = inherited.collect();
        all.insert(labels::TARGET.to_owned(), chain.to_owned());
        let upper = self.image.layers[at..].iter().map(|layer| layer.descriptor.digest);
        all.extend(labels::all_naming(self.reference, descriptor.digest, upper));
        if self.pull.allow_unverified {
            all.insert(labels::SKIP_VERIFY.to_owned(), "true".to_owned());
        }
        all
    }
}

/// Downloads that are under way, by layer.
#[derive(Default)]
struct Downloads(JoinSet<(usize, Result<()>)>, BTreeMap<usize, Result<()>>);

impl Downloads {
    /// Waits for the download of a layer, or does it.
    async fn finish(
        &mut self,
        at: usize,
        download: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        while let Some(done) = self.0.join_next().await {
            let (which, result) = done.context("a download ended unexpectedly")?;
            if which == at {
                return result;
            }
            self.1.insert(which, result);
        }
        match self.1.remove(&at) {
            Some(result) => result,
            None => download.await,
        }
    }
}

fn unique() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", now.as_nanos(), std::process::id())
}
