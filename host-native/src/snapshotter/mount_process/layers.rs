//! Opening the layers that are asked for.
//!
//! The first layer of an image that is asked for opens all of them side by side, so that the
//! others are there when their turn comes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use lazystar_core::Digest;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::config::{Config, Prefetch, Verification};
use crate::driver::LazyLayer;
use crate::image::{Image, OpenOptions};
use crate::lock::lock;
use crate::metrics::{Reason, count_fallback};
use crate::open::{LayerOpener, Layers};
use crate::reference::{ImageRef, RegistryRef};
use crate::snapshotter::labels::LayerSource;

/// How long a client may wait for a layer before it gets an ordinary snapshot.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the layers of an image stay open for the next of them to be asked for.
const KEPT_OPEN: Duration = Duration::from_secs(60);

/// Opens layers.
#[derive(Debug)]
pub struct ImageLayers {
    opener: LayerOpener,
    options: OpenOptions,
    verification: Verification,
    prefetch: Prefetch,
    log_access: bool,
    pinned: Vec<String>,
    kept_open: Duration,
    opening: Mutex<HashMap<String, Opening>>,
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

impl ImageLayers {
    /// Layers that are opened by `opener`, their images with `options`.
    #[must_use]
    pub fn new(opener: LayerOpener, options: OpenOptions, config: &Config) -> Self {
        Self {
            opener,
            options,
            verification: config.verification,
            prefetch: config.prefetch,
            log_access: config.log_file_access,
            pinned: config.pinned_images.clone(),
            kept_open: config.resolved_ttl.unwrap_or(KEPT_OPEN),
            opening: Mutex::default(),
        }
    }

    /// Whether the quota of the cache leaves an image alone.
    #[must_use]
    pub fn is_pinned(&self, image: &RegistryRef) -> bool {
        let name = image.to_string();
        let rest = |start: &String| name.strip_prefix(start.trim_end_matches('/'));
        let ends = |rest: &str| rest.is_empty() || rest.starts_with(['/', ':', '@']);
        self.pinned.iter().filter_map(rest).any(ends)
    }

    /// Whether to log the first read of each file.
    #[must_use]
    pub fn logs_access(&self) -> bool {
        self.log_access
    }

    /// What to fetch of each layer before anybody reads it.
    #[must_use]
    pub fn prefetch(&self) -> Prefetch {
        self.prefetch
    }

    /// What opens layers.
    #[must_use]
    pub fn opener(&self) -> &LayerOpener {
        &self.opener
    }

    /// Opens a layer. Beside it is the digest of the manifest that it was found in.
    ///
    /// # Errors
    /// When it cannot be read lazily, with the reason.
    pub async fn open(&self, source: &LayerSource) -> Result<(Arc<LazyLayer>, Option<Digest>)> {
        let started = Instant::now();
        let found = timeout(PATIENCE, self.find(source)).await.map_err(|_| {
            count_fallback(Reason::Unreachable);
            anyhow!("{} did not answer within {} s", source.reference.host(), PATIENCE.as_secs())
        })??;
        found.0.metrics().mounted(started.elapsed());
        Ok(found)
    }

    /// Keeps nothing open that was not asked for.
    pub fn forget(&self) {
        self.opening().clear();
    }

    async fn find(&self, source: &LayerSource) -> Result<(Arc<LazyLayer>, Option<Digest>)> {
        let cell = self.cell(&source.reference, source.digest);
        let opened = cell.get_or_try_init(|| self.open_image(source)).await?;
        let image = &opened.image;
        let at = image.layers.iter().position(|it| it.descriptor.digest == source.digest);
        let Some(at) = at else {
            count_fallback(Reason::NotFound);
            bail!("{} has no layer {}; its tag may have moved", source.reference, source.digest);
        };
        let layer = opened.layers[at].as_ref().map_err(|error| {
            count_fallback(error.into());
            anyhow!("{error}")
        })?;
        let unvouched = match self.verification {
            Verification::Required | Verification::Skippable => {
                source.skip_verify && self.opener.allow_unverified
            }
            Verification::Off => true,
        };
        let refuse = |why: String| {
            count_fallback(Reason::Unverified);
            Err(anyhow!(why))
        };
        match source.toc_digest {
            Some(stated) if stated != layer.toc().digest() => refuse(format!(
                "the client wants the TOC digest {stated}, but the layer in the registry has {}",
                layer.toc().digest()
            )),
            None if !unvouched => refuse(
                "the client does not pass the digest of the TOC, so nothing vouches for the content; the image has to be converted, or allow_no_verification set and the layer pulled with skipverify"
                    .to_owned(),
            ),
            _ => Ok((Arc::clone(layer), image.manifest_digest)),
        }
    }

    async fn open_image(&self, source: &LayerSource) -> Result<Opened> {
        let reference = ImageRef::Registry(source.reference.clone());
        let options = OpenOptions { layer: Some(source.digest), ..self.options.clone() };
        let image = Image::open(&reference, &options).await;
        image.as_ref().err().into_iter().for_each(|error| count_fallback(error.into()));
        let image = Arc::new(image.with_context(|| format!("cannot open {reference}"))?);
        let layers = self.opener.open_all(&image).await;
        Ok(Opened { image, layers })
    }

    /// The image that the layer is looked for in, opened or being opened by whoever asked first.
    fn cell(&self, reference: &RegistryRef, layer: Digest) -> Arc<OnceCell<Opened>> {
        let mut opening = self.opening();
        opening.retain(|_, it| it.since.elapsed() < self.kept_open);
        let name = reference.to_string();
        let moved = opening
            .get(&name)
            .and_then(|it| it.image.get())
            .is_some_and(|it| it.image.layers.iter().all(|known| known.descriptor.digest != layer));
        if moved {
            opening.remove(&name);
        }
        let new = || Opening { since: Instant::now(), image: Arc::default() };
        Arc::clone(&opening.entry(name).or_insert_with(new).image)
    }

    fn opening(&self) -> std::sync::MutexGuard<'_, HashMap<String, Opening>> {
        lock(&self.opening)
    }
}
