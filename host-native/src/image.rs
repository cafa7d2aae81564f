//! Images: a manifest, a configuration and layers whose bytes can be fetched.
//!
//! [`Image::open`] fetches no more than the manifest, which is all that reading files takes.

use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use lazystar_core::Digest;
use tokio::sync::OnceCell;

mod archive;
mod layout;
mod place;
mod source;
mod store;
mod toc;

pub(crate) use layout::{REF_NAME, blob_path};
pub use source::Source;
pub use toc::TocImage;
pub(crate) use toc::{LAYER as TOC_LAYER, SUFFIX as TOC_SUFFIX};

use crate::oci::{Descriptor, DocumentError, ImageConfig, MAX_CONFIG, Platform, check_size};
use crate::reference::{ImageRef, ReferenceError};
use crate::registry::Client;
use crate::source::{Blob, FetchError};
use place::Place;

/// How to open an image.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// What sends requests; clones of one client share connections, tokens and counters.
    pub client: Client,
    /// Whether to speak to the registry without encryption.
    pub plain_http: bool,
    /// Which of the images of an index to take.
    pub platform: Platform,
    /// Take the image of an index that has this layer, whatever it is for, if `platform` has not.
    pub layer: Option<Digest>,
    /// Where manifests and configurations are kept, so that a known image opens with one request
    /// or none, and without a reachable registry.
    pub manifests: Option<PathBuf>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            client: Client::default(),
            plain_http: false,
            platform: Platform::host(),
            layer: None,
            manifests: None,
        }
    }
}

/// Why an image cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Its source does not give something.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// One of its documents is not usable.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A name made from its name is not one.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The directory is not an OCI layout that has the image.
    #[error("{dir} is not an OCI layout with this image: {why}")]
    Layout {
        /// The directory.
        dir: String,
        /// What is missing.
        why: String,
    },
    /// The file is not an archive of `docker save` that has the image.
    #[error("{path} is not a docker archive with this image: {why}")]
    Archive {
        /// The file.
        path: String,
        /// What is missing.
        why: String,
    },
    /// There is no usable external TOC.
    #[error("the external TOC of {of} is not usable: {why}")]
    ExternalToc {
        /// The layer, or the image if that is at fault.
        of: String,
        /// What is wrong.
        why: String,
    },
}

/// A layer of an image.
#[derive(Clone, Debug)]
pub struct ImageLayer {
    /// What the manifest says of it. For a layer in a file the digest is not that of its content,
    /// which would have to be read as a whole: it stands for path, inode, size and time of change.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub blob: Blob,
}

/// An image whose layers can be read. Opening it fetches its manifest and nothing else.
pub struct Image {
    /// What it was opened by.
    pub reference: ImageRef,
    /// The digest of its manifest; none for a single layer.
    pub manifest_digest: Option<Digest>,
    /// What its reference names, down to its manifest, as they were signed: a manifest alone, or an
    /// index before it. None for a single layer.
    pub documents: Vec<(Descriptor, Bytes)>,
    /// Its layers, lowest first.
    pub layers: Vec<ImageLayer>,
    /// What points at its configuration; none for a single layer.
    pub config: Option<Descriptor>,
    place: Place,
    options: OpenOptions,
    tocs: OnceCell<TocImage>,
}

impl Image {
    /// Finds the manifest of `reference` for the platform of `options`.
    ///
    /// # Errors
    /// If the image is not there, not readable, or not for the platform.
    pub async fn open(reference: &ImageRef, options: &OpenOptions) -> Result<Self, ImageError> {
        let place = Place::of(reference, options)?;
        let mut image = Self {
            reference: reference.clone(),
            manifest_digest: None,
            documents: Vec::new(),
            layers: Vec::new(),
            config: None,
            place,
            options: options.clone(),
            tocs: OnceCell::new(),
        };
        if let Place::File { path } = &image.place {
            image.layers.push(layout::single_layer(path).await?);
            return Ok(image);
        }
        let found = image.place.resolve(&options.platform, options.layer).await?;
        for descriptor in &found.manifest.layers {
            let blob = image.place.blob(descriptor)?;
            image.layers.push(ImageLayer { descriptor: descriptor.clone(), blob });
        }
        image.manifest_digest = found.documents.last().map(|(manifest, _)| manifest.digest);
        image.documents = found.documents;
        image.config = Some(found.manifest.config);
        Ok(image)
    }

    /// How to run it: the configuration, verified, and its bytes. Empty for a single layer.
    ///
    /// # Errors
    /// If it is not there or not usable.
    pub async fn config(&self) -> Result<(ImageConfig, Bytes), ImageError> {
        let Some(descriptor) = &self.config else {
            return Ok((ImageConfig::default(), Bytes::new()));
        };
        check_size("image configuration", descriptor.size, MAX_CONFIG)?;
        let bytes = self.place.config(descriptor).await?;
        let config = ImageConfig::parse(&bytes)?;
        let (diff_ids, layers) = (config.rootfs.diff_ids.len(), self.layers.len());
        if diff_ids != layers {
            return Err(DocumentError::LayerCount { diff_ids, layers }.into());
        }
        Ok((config, bytes))
    }

    /// The TOC of `layer` from the image's TOC image, `<tag>-esgztoc`, which is looked up once.
    ///
    /// The bytes are what the TOC image's manifest says; whether they are the TOC of the layer is
    /// for the layer's TOC digest to tell.
    ///
    /// # Errors
    /// If there is no such image, or nothing in it for the layer.
    pub async fn external_toc(&self, layer: Digest) -> Result<Bytes, ImageError> {
        let tocs =
            self.tocs.get_or_try_init(|| TocImage::open(&self.reference, &self.options)).await?;
        tocs.toc(layer).await
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({}, {} layers)", self.reference, self.layers.len())
    }
}
