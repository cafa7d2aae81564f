//! Making images lazily readable: whole images, from one place to another.
//!
//! ```text
//! index      --> for each platform asked for:
//! manifest   --> layers: blob -> decompress ahead -> tar -> members on all cores -> blob
//!                configuration with the new DiffIDs
//! manifest   --> everything else in it as it was
//! tag        --> last of all
//! ```
//!
//! Documents are changed where they have to be and nowhere else. What cannot be a lazy layer, as
//! attestations and foreign layers, passes through.

mod archive;
mod destination;
mod documents;
mod hot;
mod layer;
mod record;
mod report;
mod stream;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use indicatif::MultiProgress;
use lazystar_core::Digest;
use lazystar_core::write::Format;
use tokio::sync::OnceCell;

pub use hot::{Hot, HotError};
pub use layer::LayerError;
pub use report::{ConvertedImage, ConvertedLayer, Outcome, Report};

use crate::image::{ImageError, OpenOptions, Source};
use crate::oci::{DocumentError, MAX_INDEXES};
use crate::pack::layout::LayoutError;
use crate::reference::ImageRef;
use crate::source::FetchError;
use crate::workers::Workers;
use destination::Destination;
use record::Records;

/// How to convert.
#[derive(Clone, Debug, Default)]
pub struct ConvertOptions {
    /// Which blobs to write.
    pub layer: lazystar_core::write::Options,
    /// Compression level; the codec's default if there is none.
    pub level: Option<i32>,
    /// All platforms of the image, not only that of [`OpenOptions::platform`].
    pub all_platforms: bool,
    /// Whose media types to write; those that the image has if not given.
    pub flavour: Option<Flavour>,
    /// Convert layers that are lazy already, and those that were converted before.
    pub force: bool,
    /// What comes first in the layers.
    pub hot: Hot,
    /// What compresses; the threads that everybody uses if not given.
    pub workers: Option<Workers>,
    /// Where it is remembered which layers were converted before.
    pub records: Option<PathBuf>,
    /// Where a layer is kept while it is put in order.
    pub spool_dir: Option<PathBuf>,
    /// Shows how far layers are.
    pub progress: MultiProgress,
}

/// Whose media types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Those of OCI.
    Oci,
    /// Those of Docker.
    Docker,
}

/// Why an image could not be converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] ImageError),
    /// The registry does not give or take something.
    #[error(transparent)]
    Registry(#[from] FetchError),
    /// The layout cannot be written.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A document is not what it should be.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A layer cannot be converted.
    #[error("layer {number} of {count} ({digest}) cannot be converted: {cause}")]
    Layer {
        /// Which, counted from 1.
        number: usize,
        /// Of how many.
        count: usize,
        /// Its digest.
        digest: Digest,
        /// Why.
        cause: Arc<LayerError>,
    },
    /// The blob of something that passes through cannot be copied.
    #[error("blob {digest} cannot be copied: {cause}")]
    Copy {
        /// Which.
        digest: Digest,
        /// Why.
        cause: io::Error,
    },
    /// A blob cannot be written.
    #[error("cannot write a blob: {cause}")]
    Write {
        /// Why.
        cause: io::Error,
    },
    /// The archive cannot be written.
    #[error("cannot write the archive: {cause}")]
    Archive {
        /// Why.
        cause: io::Error,
    },
    /// The destination has no tag.
    #[error(
        "name the destination by a tag, without a digest: what its digest will be is not known yet"
    )]
    Untagged,
    /// The destination is a single layer.
    #[error(
        "the destination is an image: oci:DIR:TAG, docker-archive:FILE or one in a registry; for a single layer there is `lazystar pack`"
    )]
    NoFile,
    /// An archive has no second image.
    #[error(
        "an archive has no place for the image with the external TOCs; use a registry or a layout"
    )]
    ExternalTocInArchive,
    /// An archive has one platform.
    #[error("an archive holds one platform; choose it with --platform, without --all-platforms")]
    PlatformsInArchive,
    /// Docker has no media type for zstd.
    #[error("Docker has no media type for zstd layers; leave --docker out")]
    DockerZstd,
    /// Indexes that point at indexes.
    #[error("its indexes are nested more than {MAX_INDEXES} deep")]
    Nested,
    /// Nothing of the index was asked for.
    #[error("the image holds no manifest")]
    Empty,
}

impl From<io::Error> for ConvertError {
    fn from(cause: io::Error) -> Self {
        Self::Write { cause }
    }
}

/// One conversion under way.
struct Conversion<'a> {
    options: &'a ConvertOptions,
    open: &'a OpenOptions,
    source: &'a Source,
    /// Where the source is, for a registry that can take blobs from there.
    origin: Option<String>,
    destination: &'a Destination,
    /// Where that is, for records.
    place: Option<String>,
    flavour: Option<Flavour>,
    records: Records,
    /// Layers by what they are known by: one that occurs twice is converted once.
    layers: Mutex<HashMap<Digest, Arc<OnceCell<layer::Converted>>>>,
    images: Mutex<Vec<ConvertedImage>>,
}

/// Converts the image `from` and writes it to `to`, whose tag moves only when everything is there.
///
/// The same image and options give the same digests, whatever the number of threads.
///
/// # Errors
///
/// If the image cannot be read, a layer of it is no tar that a lazy layer can hold, or the destination
/// does not take it. What was there under the tag is there still.
pub async fn convert(
    from: &ImageRef,
    to: &ImageRef,
    open: &OpenOptions,
    options: &ConvertOptions,
) -> Result<Report, ConvertError> {
    let started = Instant::now();
    let zstd = options.layer.format.compression() == lazystar_core::footer::Compression::Zstd;
    let flavour = match options.flavour {
        Some(Flavour::Docker) if zstd => return Err(ConvertError::DockerZstd),
        None if zstd => Some(Flavour::Oci),
        given => given,
    };
    let source = Source::open(from, open).await?;
    let destination = Destination::open(to, from, &open.client, open.plain_http).await?;
    if matches!(destination, Destination::Archive { .. }) && options.all_platforms {
        return Err(ConvertError::PlatformsInArchive);
    }
    let external = options.layer.format == Format::EstargzExternalToc;
    let tocs = if external { Some(destination.with_tag(crate::image::TOC_SUFFIX)?) } else { None };
    let conversion = Conversion {
        options,
        open,
        source: &source,
        origin: record::place(from),
        destination: &destination,
        place: record::place(to),
        flavour,
        records: Records::new(options.records.clone()),
        layers: Mutex::default(),
        images: Mutex::default(),
    };
    let top = conversion.document(&source.top, source.bytes.clone(), 0).await?;
    let toc_image = match tocs {
        Some(tocs) => Some(conversion.write_tocs(tocs).await?),
        None => None,
    };
    let images = crate::lock::lock(&conversion.images).clone();
    let (descriptor, bytes) = (top.descriptor, top.bytes);
    destination.put_tagged(&descriptor, &bytes).await?;
    Ok(Report {
        source: from.to_string(),
        destination: to.to_string(),
        digest: descriptor.digest.to_string(),
        toc_image: toc_image.map(|digest| digest.to_string()),
        images,
        seconds: started.elapsed().as_secs_f64(),
    })
}
