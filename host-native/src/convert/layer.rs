//! One layer from blob to lazy blob.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use indicatif::ProgressBar;
use lazystar_core::Digest;
use lazystar_core::footer::Format as Found;
use lazystar_core::open::{OpenOptions, OpenOutput, Opener};
use lazystar_core::write::{Format, external_toc_layer};

use super::destination::{BlobWriter, Destination};
use super::record::{self, Record};
use super::stream::{CheckedReader, ReadAhead};
use super::{Conversion, ConvertError, Outcome};
use crate::codec;
use crate::oci::Descriptor;
use crate::open::{TOC_DIGEST, toc_digest, toc_start};
use crate::pack::{self, PackError, PackOptions, Packed, Wanted};
use crate::progress;
use crate::source::{BlobReader, FetchError};

/// Why a layer could not be converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// It is no tar that a lazy layer can hold, or cannot be read.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Its blob cannot be fetched, or what was made of it not sent.
    #[error(transparent)]
    Registry(#[from] FetchError),
    /// What was made of it cannot be written.
    #[error(transparent)]
    Write(Box<ConvertError>),
    /// Its tar is another one than the configuration says.
    #[error("its DiffID is {actual}, not {expected} as its image says: the image is damaged")]
    DiffId {
        /// What the configuration says.
        expected: Digest,
        /// What its content has.
        actual: Digest,
    },
    /// A thread of ours died.
    #[error("a thread died: {0}")]
    Internal(String),
}

impl From<ConvertError> for LayerError {
    fn from(error: ConvertError) -> Self {
        match error {
            ConvertError::Registry(error) => Self::Registry(error),
            error => Self::Write(Box::new(error)),
        }
    }
}

/// A layer of the new image.
#[derive(Clone, Debug)]
pub(super) struct Converted {
    pub(super) outcome: Outcome,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) diff_id: Digest,
    pub(super) annotations: BTreeMap<String, String>,
    /// The blob of its external TOC.
    pub(super) toc: Option<Vec<u8>>,
    pub(super) missing: usize,
    pub(super) seconds: f64,
}

impl Conversion<'_> {
    /// Has the layer `descriptor` with the DiffID `diff_id` at the destination, lazy.
    pub(super) async fn layer(
        &self,
        descriptor: &Descriptor,
        diff_id: Digest,
        hot: Vec<Wanted>,
    ) -> Result<Converted, LayerError> {
        let how = (&self.options.layer, self.options.level, &hot);
        let key = record::key(descriptor.digest, &how);
        let slot = Arc::clone(crate::lock::lock(&self.layers).entry(key).or_default());
        let converted = slot.get_or_try_init(|| self.convert(descriptor, diff_id, hot, key)).await;
        converted.cloned()
    }

    async fn convert(
        &self,
        descriptor: &Descriptor,
        diff_id: Digest,
        hot: Vec<Wanted>,
        key: Digest,
    ) -> Result<Converted, LayerError> {
        let started = Instant::now();
        if !self.options.force {
            if let Some(known) = self.known(key).await? {
                return Ok(known);
            }
            if hot.is_empty()
                && let Some(lazy) = self.lazy_already(descriptor, diff_id).await?
            {
                return Ok(lazy);
            }
        }
        let progress = self.bar(descriptor);
        let packed = self.pack(descriptor, hot, &progress).await;
        progress.finish_and_clear();
        let packed = packed?;
        let summary = &packed.summary;
        if self.options.layer.lossless && summary.diff_id != diff_id {
            return Err(LayerError::DiffId { expected: diff_id, actual: summary.diff_id });
        }
        let toc = match summary.format {
            Format::EstargzExternalToc => {
                let compressor = codec::compressor(summary.format.compression(), None);
                let mut compressor = compressor.map_err(PackError::Level)?;
                let toc = external_toc_layer(packed.toc_json, &mut compressor);
                Some(toc.map_err(PackError::Layer)?)
            }
            _ => None,
        };
        let annotations: BTreeMap<_, _> = summary.annotations().into_iter().collect();
        let record = Record {
            digest: summary.blob_digest,
            size: summary.blob_size,
            diff_id: summary.diff_id,
            uncompressed_size: summary.uncompressed_size,
            annotations: annotations.clone(),
            places: self.records.get(key).map(|(known, _)| known.places).unwrap_or_default(),
            has_toc: toc.is_some(),
        };
        self.records.put(key, record, toc.as_deref(), self.place.as_deref());
        Ok(Converted {
            outcome: Outcome::Converted,
            digest: summary.blob_digest,
            size: summary.blob_size,
            diff_id: summary.diff_id,
            annotations,
            toc,
            missing: packed.missing.len(),
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// What an earlier run made of it, if the destination has that or can get it.
    async fn known(&self, key: Digest) -> Result<Option<Converted>, LayerError> {
        let Some((record, toc)) = self.records.get(key) else { return Ok(None) };
        if !self.destination.obtain(record.digest, record.size, &record.places).await? {
            return Ok(None);
        }
        self.records.put(key, record.clone(), toc.as_deref(), self.place.as_deref());
        Ok(Some(Converted {
            outcome: Outcome::Known,
            digest: record.digest,
            size: record.size,
            diff_id: record.diff_id,
            annotations: record.annotations,
            toc,
            missing: 0,
            seconds: 0.0,
        }))
    }

    /// The layer as it is, if it is one of the format asked for; brings its blob.
    async fn lazy_already(
        &self,
        descriptor: &Descriptor,
        diff_id: Digest,
    ) -> Result<Option<Converted>, LayerError> {
        let Ok(Some(toc_digest)) = toc_digest(descriptor) else { return Ok(None) };
        let blob = self.source.blob(descriptor).map_err(ConvertError::from)?;
        let toc_start = toc_start(descriptor);
        let options =
            OpenOptions { toc_digest: Some(toc_digest), toc_start, ..OpenOptions::default() };
        let mut opener = Opener::new(descriptor.size, options);
        while let Some(output) = opener.poll_output() {
            match output {
                OpenOutput::Fetch(request) => {
                    let bytes = blob.fetch_all(request.range.into()).await?;
                    opener.handle_fetched(request.id, request.range.start, &bytes);
                }
                // Its TOC is in an image that is not converted with it.
                OpenOutput::ExternalToc => return Ok(None),
            }
        }
        let Ok(toc) = opener.finish() else { return Ok(None) };
        let fits = matches!(
            (toc.format(), self.options.layer.format),
            (Found::EStargz, Format::Estargz) | (Found::ZstdChunked, Format::ZstdChunked)
        );
        if !fits {
            return Ok(None);
        }
        let started = Instant::now();
        self.copy(descriptor).await?;
        Ok(Some(Converted {
            outcome: Outcome::Lazy,
            digest: descriptor.digest,
            size: descriptor.size,
            diff_id,
            annotations: descriptor.annotations.clone(),
            toc: None,
            missing: 0,
            seconds: started.elapsed().as_secs_f64(),
        }))
    }

    async fn pack(
        &self,
        descriptor: &Descriptor,
        hot: Vec<Wanted>,
        progress: &ProgressBar,
    ) -> Result<Packed, LayerError> {
        let options = PackOptions {
            layer: self.options.layer,
            level: self.options.level,
            prioritised: hot,
            allow_missing: true,
            workers: self.options.workers.clone(),
            spool_dir: self.options.spool_dir.clone(),
            ..PackOptions::default()
        };
        let blob = self.source.blob(descriptor).map_err(ConvertError::from)?;
        let reader = BlobReader::open(&blob, descriptor.size, progress.clone()).await?;
        let reader = CheckedReader::new(reader, descriptor.digest);
        let mut writer = self.destination.begin().await?;
        let work = move || {
            let reader = ReadAhead::new(move || pack::decompress(reader));
            let packed = match reader {
                Ok(reader) => pack::pack_tar(reader, &options, &mut writer),
                Err(error) => Err(PackError::Read(error)),
            };
            (packed, writer)
        };
        let done = tokio::task::spawn_blocking(work).await;
        let (packed, writer): (_, BlobWriter) =
            done.map_err(|panic| LayerError::Internal(panic.to_string()))?;
        let packed = match packed {
            Err(PackError::Write(cause)) => {
                let failure = writer.failure().await;
                return Err(
                    failure.map_or_else(|| PackError::Write(cause).into(), LayerError::from)
                );
            }
            packed => packed?,
        };
        writer.finish(packed.summary.blob_digest).await?;
        Ok(packed)
    }

    /// Brings a blob as it is.
    pub(super) async fn copy(&self, descriptor: &Descriptor) -> Result<(), ConvertError> {
        let Descriptor { digest, size, .. } = *descriptor;
        if self.destination.obtain(digest, size, self.origin.as_slice()).await? {
            return Ok(());
        }
        let blob = self.source.blob(descriptor)?;
        let progress = self.bar(descriptor);
        let copied = copy_blob(&blob, descriptor, self.destination, &progress).await;
        progress.finish_and_clear();
        copied
    }

    fn bar(&self, descriptor: &Descriptor) -> ProgressBar {
        let template = "{msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
        let short: String = descriptor.digest.hex().chars().take(12).collect();
        progress::bar_among(&self.options.progress, template, descriptor.size, &short)
    }
}

async fn copy_blob(
    blob: &crate::source::Blob,
    descriptor: &Descriptor,
    destination: &Destination,
    progress: &ProgressBar,
) -> Result<(), ConvertError> {
    let digest = descriptor.digest;
    let mut stream = blob.fetch(0..descriptor.size).await?;
    let mut writer = destination.begin().await?;
    let mut hasher = lazystar_core::digest::Hasher::new();
    while let Some(bytes) = stream.next().await {
        let bytes = bytes?;
        hasher.update(&bytes);
        progress.inc(bytes.len() as u64);
        writer.write_some(&bytes).await?;
    }
    let actual = hasher.finish();
    if actual != digest {
        let cause = format!("it has digest {actual}: it is damaged, or changes while it is read");
        return Err(ConvertError::Copy { digest, cause: std::io::Error::other(cause) });
    }
    writer.finish(digest).await
}

/// The annotations of a layer's descriptor that only lazy layers have.
pub(super) fn is_about_toc(annotation: &str) -> bool {
    annotation == TOC_DIGEST
        || annotation == "io.containers.estargz.uncompressed-size"
        || annotation.starts_with("io.containers.zstd-chunked.")
        || annotation.starts_with("io.github.containers.zstd-chunked.")
}
