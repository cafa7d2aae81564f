//! Lazy layers: opening them and mounting each on the directory of its snapshot.
//!
//! The first layer of an image that is asked for opens all of them side by side, so that the
//! others are there when their turn comes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use lazystar_core::Digest;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::labels::LayerSource;
use crate::driver::LazyLayer;
use crate::image::{Image, OpenOptions};
use crate::mount::{self, Mounted};
use crate::open::{LayerOpener, Layers};
use crate::reference::{ImageRef, RegistryRef};

/// How long a client may wait for a layer before it gets an ordinary snapshot.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the layers of an image stay open for the next of them to be asked for.
const KEPT_OPEN: Duration = Duration::from_secs(60);

/// All lazy layers that are mounted.
#[derive(Debug)]
pub struct LazyLayers {
    opener: LayerOpener,
    options: OpenOptions,
    opening: Mutex<HashMap<String, Opening>>,
    /// A cell for each directory, so that whoever wants the same layer waits for one mount of it.
    mounted: Mutex<HashMap<PathBuf, Arc<OnceCell<MountedLayer>>>>,
}

#[derive(Debug)]
struct Opening {
    since: Instant,
    image: Arc<OnceCell<Opened>>,
}

#[derive(Debug)]
struct Opened {
    image: Arc<Image>,
    layers: Layers,
}

#[derive(Debug)]
struct MountedLayer {
    manifest: Option<Digest>,
    layer: Arc<LazyLayer>,
    mounted: Mounted,
}

impl LazyLayers {
    /// Layers that are opened by `opener`, their images with `options`.
    #[must_use]
    pub fn new(opener: LayerOpener, options: OpenOptions) -> Self {
        Self { opener, options, opening: Mutex::default(), mounted: Mutex::default() }
    }

    /// Mounts a layer on `dir`, unless it is there already, and returns the digest of the manifest
    /// that it was found in.
    ///
    /// # Errors
    /// When the layer cannot be read lazily, with the reason, or not mounted.
    pub async fn mount(&self, dir: &Path, source: &LayerSource) -> Result<Option<Digest>> {
        let cell = Arc::clone(lock(&self.mounted).entry(dir.to_owned()).or_default());
        let mounted = cell.get_or_try_init(|| self.mount_new(dir, source)).await;
        if mounted.is_err() {
            let mut all = lock(&self.mounted);
            // Unless somebody else is trying again by now.
            if all.get(dir).is_some_and(|kept| Arc::strong_count(kept) <= 2) {
                all.remove(dir);
            }
        }
        Ok(mounted?.manifest)
    }

    async fn mount_new(&self, dir: &Path, source: &LayerSource) -> Result<MountedLayer> {
        let (layer, manifest) = timeout(PATIENCE, self.open(source)).await.map_err(|_| {
            anyhow!("{} did not answer within {} s", source.reference.host(), PATIENCE.as_secs())
        })??;
        let on = dir.to_owned();
        let layers = vec![Arc::clone(&layer)];
        let mounted =
            tokio::task::spawn_blocking(move || mount::mount(layers, &on, None)).await??;
        let prefetched = Arc::clone(&layer);
        tokio::spawn(async move { prefetched.prefetch().await });
        Ok(MountedLayer { manifest, layer, mounted })
    }

    /// What is in the cache of the layer that is mounted on `dir`, in bytes, and its files.
    #[must_use]
    pub fn usage(&self, dir: &Path) -> Option<(u64, u64)> {
        let cell = lock(&self.mounted).get(dir).map(Arc::clone)?;
        let layer = &cell.get()?.layer;
        let bytes = layer.cache().disk_bytes().unwrap_or(0);
        Some((bytes, u64::from(layer.toc().node_count())))
    }

    /// Unmounts what is mounted on `dir`, if anything is.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unmount(&self, dir: &Path) -> Result<()> {
        let mounted = lock(&self.mounted).remove(dir);
        let mounted = mounted.as_ref().and_then(|cell| cell.get());
        mounted.map_or(Ok(()), |it| it.mounted.unmounter().unmount())
    }

    /// Unmounts everything.
    pub fn unmount_all(&self) {
        let dirs: Vec<_> = lock(&self.mounted).keys().cloned().collect();
        for dir in dirs {
            if let Err(error) = self.unmount(&dir) {
                tracing::warn!(dir = %dir.display(), "cannot unmount: {error:#}");
            }
        }
    }

    async fn open(&self, source: &LayerSource) -> Result<(Arc<LazyLayer>, Option<Digest>)> {
        let cell = self.opening(&source.reference);
        let opened = cell.get_or_try_init(|| self.open_image(&source.reference)).await?;
        let image = &opened.image;
        let at = image.layers.iter().position(|it| it.descriptor.digest == source.digest);
        let Some(at) = at else {
            bail!("{} has no layer {}; its tag may have moved", source.reference, source.digest);
        };
        let layer = opened.layers[at].as_ref().map_err(|error| anyhow!("{error}"))?;
        match source.toc_digest {
            Some(stated) if stated != layer.toc().digest() => bail!(
                "the client wants the TOC digest {stated}, but the layer in the registry has {}",
                layer.toc().digest()
            ),
            None if !(source.skip_verify && self.opener.allow_unverified) => bail!(
                "the client does not pass the digest of the TOC, so nothing vouches for the content; the image has to be converted, or allow_no_verification set and the layer pulled with skipverify"
            ),
            _ => Ok((Arc::clone(layer), image.manifest_digest)),
        }
    }

    async fn open_image(&self, reference: &RegistryRef) -> Result<Opened> {
        let reference = ImageRef::Registry(reference.clone());
        let image = Image::open(&reference, &self.options).await;
        let image = Arc::new(image.with_context(|| format!("cannot open {reference}"))?);
        let layers = self.opener.open_all(&image).await;
        Ok(Opened { image, layers })
    }

    fn opening(&self, reference: &RegistryRef) -> Arc<OnceCell<Opened>> {
        let mut opening = lock(&self.opening);
        opening.retain(|_, it| it.since.elapsed() < KEPT_OPEN);
        let new = || Opening { since: Instant::now(), image: Arc::default() };
        Arc::clone(&opening.entry(reference.to_string()).or_insert_with(new).image)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
