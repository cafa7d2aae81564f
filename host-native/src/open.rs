//! Opening the layers of an image: one request each, none for what the cache holds.

use std::sync::Arc;

use bytes::Bytes;
use lazystar_core::fetch::FetchRequest;
use lazystar_core::open::{OpenError, OpenOptions as LayerOptions, OpenOutput, Opener};
use lazystar_core::toc::Assurance;
use lazystar_core::{ByteRange, Digest, Toc};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::cache::Cache;
use crate::driver::LazyLayer;
use crate::image::{Image, ImageError, ImageLayer};
use crate::link::Link;
use crate::oci::Descriptor;
use crate::reference::ImageRef;
use crate::source::FetchError;

/// The annotation that states the digest of a layer's TOC.
pub const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// The annotations that state where the TOC of a zstd:chunked layer is, as
/// `offset:compressed:plain:type`; two writers, two names.
const MANIFEST_POSITIONS: [&str; 2] = [
    "io.containers.zstd-chunked.manifest-position",
    "io.github.containers.zstd-chunked.manifest-position",
];

/// Why a layer cannot be read lazily.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Its blob is no lazily readable one, or cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its blob could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Its external TOC could not be fetched.
    #[error(transparent)]
    ExternalToc(#[from] ImageError),
    /// Nothing says what its TOC must be.
    #[error(
        "the image's manifest does not state the digest of the layer's TOC (annotation {TOC_DIGEST}), so nothing vouches for its content; convert the image, or allow it with --allow-unverified"
    )]
    Unvouched,
    /// The annotation is not a digest.
    #[error(
        "the annotation {TOC_DIGEST} is {0:?}, which is no sha256 digest; the image has to be converted again"
    )]
    BadTocDigest(String),
    /// The cache cannot be used.
    #[error("the cache cannot be used: {0}")]
    Cache(#[from] std::io::Error),
    /// A task of ours died.
    #[error("opening the layer failed unexpectedly: {0}")]
    Internal(#[from] tokio::task::JoinError),
}

/// What opening layers needs.
#[derive(Clone, Debug)]
pub struct LayerOpener {
    /// Where content is kept.
    pub cache: Cache,
    /// Whether to open layers whose content nothing vouches for.
    pub allow_unverified: bool,
}

/// The outcome for each layer, the bottom one first.
pub type Layers = Vec<Result<Arc<LazyLayer>, LayerError>>;

impl LayerOpener {
    /// Opens all layers of an image, side by side.
    pub async fn open_all(&self, image: &Arc<Image>) -> Layers {
        let link = Link::default();
        let mut tasks = JoinSet::new();
        for at in 0..image.layers.len() {
            let (opener, image, link) = (self.clone(), Arc::clone(image), link.clone());
            tasks.spawn(async move { (at, opener.open(&image, at, link).await) });
        }
        let mut layers: Vec<_> = image.layers.iter().map(|_| None).collect();
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok((at, result)) => layers[at] = Some(result),
                Err(error) => tracing::error!(%error, "opening a layer failed"),
            }
        }
        let missing = || Err(LayerError::Open(OpenError::Unfinished));
        layers.into_iter().map(|layer| layer.unwrap_or_else(missing)).collect()
    }

    /// Opens one layer of an image, to be fetched over `link`.
    ///
    /// # Errors
    /// When it cannot be read lazily, with the reason.
    pub async fn open(
        &self,
        image: &Image,
        at: usize,
        link: Link,
    ) -> Result<Arc<LazyLayer>, LayerError> {
        let layer = &image.layers[at];
        let toc = Arc::new(self.toc(image, layer).await?);
        if toc.assurance() == Assurance::Unverified {
            tracing::warn!(layer = %layer.descriptor.digest, "the content of this layer is not verified");
        }
        let cache = self.cache.layer(&toc)?;
        Ok(LazyLayer::new(cache, toc, layer.blob.clone(), link, Handle::current()))
    }

    async fn toc(&self, image: &Image, layer: &ImageLayer) -> Result<Toc, LayerError> {
        let stated = toc_digest(&layer.descriptor)?;
        let vouched = stated.is_some() || matches!(image.reference, ImageRef::File(_));
        if !vouched && !self.allow_unverified {
            // Say first what matters more: that the blob is no lazily readable one at all.
            self.read_toc(image, layer, None).await?;
            return Err(LayerError::Unvouched);
        }
        self.read_toc(image, layer, stated).await
    }

    async fn read_toc(
        &self,
        image: &Image,
        layer: &ImageLayer,
        toc_digest: Option<Digest>,
    ) -> Result<Toc, LayerError> {
        let options = LayerOptions {
            toc_digest,
            toc_start: toc_start(&layer.descriptor),
            unverified: self.allow_unverified,
            ..LayerOptions::default()
        };
        let size = layer.blob.size().unwrap_or(layer.descriptor.size);
        let digest = layer.descriptor.digest;
        if let Some(tail) = self.cache.tail(&digest) {
            let mut bytes = Source::Kept { size, tail: tail.into() };
            match drive(image, layer, Opener::new(size, options), &mut bytes).await {
                Ok(toc) => return Ok(toc),
                Err(error) => tracing::warn!(layer = %digest, %error, "kept TOC is of no use"),
            }
        }
        let mut bytes = Source::Blob { fetched: Vec::new() };
        let toc = drive(image, layer, Opener::new(size, options), &mut bytes).await?;
        if let Source::Blob { fetched } = bytes
            && let Err(error) = self.cache.keep_tail(&digest, fetched.iter().rev())
        {
            tracing::warn!(%error, "cannot keep the TOC in the cache");
        }
        Ok(toc)
    }
}

/// The digest of the TOC that is in `layer` of an image, whatever the image says of it.
///
/// # Errors
/// When the layer cannot be read lazily, with the reason.
pub(crate) async fn own_toc_digest(
    image: &Image,
    layer: &ImageLayer,
) -> Result<Digest, LayerError> {
    let size = layer.blob.size().unwrap_or(layer.descriptor.size);
    let options = LayerOptions { unverified: true, ..LayerOptions::default() };
    let mut bytes = Source::Blob { fetched: Vec::new() };
    Ok(drive(image, layer, Opener::new(size, options), &mut bytes).await?.digest())
}

/// Where an opener's bytes come from.
enum Source {
    /// What was kept of the end of the blob, which is `size` bytes long.
    Kept { size: u64, tail: Bytes },
    /// The blob; what was fetched of it, from the end towards the start.
    Blob { fetched: Vec<Bytes> },
}

impl Source {
    async fn get(&mut self, layer: &ImageLayer, range: ByteRange) -> Result<Bytes, LayerError> {
        match self {
            Self::Kept { size, tail } => {
                let start = size.saturating_sub(tail.len() as u64);
                let index = |at: u64| usize::try_from(at.checked_sub(start)?).ok();
                let (from, to) = (index(range.start), index(range.end));
                match (from, to) {
                    (Some(from), Some(to)) if to <= tail.len() => Ok(tail.slice(from..to)),
                    _ => Err(OpenError::Unfinished.into()),
                }
            }
            Self::Blob { fetched } => {
                let bytes = layer.blob.fetch_all(range.into()).await?;
                fetched.push(bytes.clone());
                Ok(bytes)
            }
        }
    }
}

async fn drive(
    image: &Image,
    layer: &ImageLayer,
    mut opener: Opener,
    source: &mut Source,
) -> Result<Toc, LayerError> {
    while let Some(output) = opener.poll_output() {
        match output {
            OpenOutput::Fetch(FetchRequest { id, range, .. }) => {
                let bytes = source.get(layer, range).await?;
                // Parsing a large TOC takes a while; other layers go on meanwhile.
                opener = tokio::task::spawn_blocking(move || {
                    opener.handle_fetched(id, range.start, &bytes);
                    opener
                })
                .await?;
            }
            OpenOutput::ExternalToc => {
                let json = image.external_toc(layer.descriptor.digest).await?;
                opener.handle_external_toc(Ok(&json));
            }
        }
    }
    Ok(opener.finish()?)
}

pub(crate) fn toc_digest(descriptor: &Descriptor) -> Result<Option<Digest>, LayerError> {
    match descriptor.annotations.get(TOC_DIGEST).map(String::as_str) {
        None | Some("") => Ok(None),
        Some(text) => match text.parse() {
            Ok(digest) => Ok(Some(digest)),
            Err(_) => Err(LayerError::BadTocDigest(text.to_owned())),
        },
    }
}

pub(crate) fn toc_start(descriptor: &Descriptor) -> Option<u64> {
    let position = MANIFEST_POSITIONS.iter().find_map(|name| descriptor.annotations.get(*name))?;
    position.split(':').next()?.parse().ok()
}
