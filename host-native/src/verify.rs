//! Checking an image as a whole: every claim of its manifest, tables of contents and tars against what is
//! really there.
//!
//! Each blob is read once, from start to end. What is decompressed is hashed (DiffID) and parsed as a tar,
//! whose entries and data are compared with the TOC: names, attributes, digests of chunks, and whether each
//! chunk can be had by decompressing from where the TOC says.

mod compare;
mod members;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use indicatif::ProgressBar;
use lazystar_core::Digest;
use lazystar_core::digest::Hasher;
use lazystar_core::footer::{Footer, FooterError, Format, MAX_FOOTER_LEN};
use lazystar_core::tar::Parser;
use serde::Serialize;

use crate::image::{Image, ImageError, ImageLayer};
use crate::oci::media;
use crate::open::toc_digest;
use crate::source::{BlobReader, FetchError};
use compare::{Comparison, TocFile};
use members::Plain;

/// Lies of one layer that are told; more are counted.
const MAX_TOLD: usize = 10;
/// The largest TOC, as tar entry or JSON.
const MAX_TOC: u64 = 512 << 20;
const PIECE: usize = 256 << 10;

/// What was found out about a layer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// The digest of its blob, as the manifest states it.
    pub digest: String,
    /// Its format; `foreign` for one that was not looked at.
    pub format: &'static str,
    /// Entries of its tar.
    pub entries: u64,
    /// Chunks that were compared with their digests.
    pub chunks: u64,
    /// What is wrong, the first things.
    pub lies: Vec<String>,
    /// How many things are wrong.
    pub lie_count: usize,
}

/// Collects what is wrong with a layer.
#[derive(Debug, Default)]
struct Lies {
    told: Vec<String>,
    count: usize,
}

impl Lies {
    fn add(&mut self, lie: impl Into<String>) {
        self.count += 1;
        if self.told.len() < MAX_TOLD {
            self.told.push(lie.into());
        }
    }
}

/// Checks layer number `at` of an image, whose configuration says that its DiffID is `diff_id`. With
/// `ordinary`, a layer that is not lazy is not wrong for that, nor one that nothing vouches for.
///
/// # Errors
/// If it cannot be read; what is wrong with what was read is in the answer.
pub async fn verify_layer(
    image: &Arc<Image>,
    at: usize,
    diff_id: Option<Digest>,
    ordinary: bool,
    progress: ProgressBar,
) -> Result<Verified, ImageError> {
    let layer = image.layers[at].clone();
    let is_file = image.manifest_digest.is_none();
    if media::is_foreign(&layer.descriptor.media_type) || !layer.descriptor.urls.is_empty() {
        return Ok(verified(&layer, "foreign", Found::default(), Lies::default()));
    }
    let mut lies = Lies::default();
    let toc = toc_of(image, &layer, is_file || ordinary, &mut lies).await?;
    if toc.is_none() && !ordinary {
        lies.add("it is not lazily readable: it has no table of contents");
    }
    let format = toc.as_ref().map_or("ordinary", |toc| toc.format.name());
    let size = layer.blob.size().unwrap_or(layer.descriptor.size);
    let reader = BlobReader::open(&layer.blob, size, progress).await?;
    let expected = (!is_file).then_some(layer.descriptor.digest);
    let uncompressed = annotation(&layer, "io.containers.estargz.uncompressed-size");
    let work = move || {
        let found = read(reader, toc, expected, diff_id, uncompressed.as_deref(), &mut lies);
        (found, lies)
    };
    let done = tokio::task::spawn_blocking(work).await;
    let (found, lies) = done.map_err(|panic| FetchError::Io {
        origin: layer.blob.name(),
        cause: Arc::new(io::Error::other(panic)),
    })?;
    Ok(verified(&layer, format, found?, lies))
}

fn verified(layer: &ImageLayer, format: &'static str, found: Found, lies: Lies) -> Verified {
    let Found { entries, chunks } = found;
    let digest = layer.descriptor.digest.to_string();
    Verified { digest, format, entries, chunks, lie_count: lies.count, lies: lies.told }
}

#[derive(Default)]
struct Found {
    entries: u64,
    chunks: u64,
}

struct LayerToc {
    format: Format,
    json: Bytes,
    file: TocFile,
}

fn annotation(layer: &ImageLayer, name: &str) -> Option<String> {
    layer.descriptor.annotations.get(name).cloned()
}

/// The layer's TOC, compared with what the manifest says of it.
async fn toc_of(
    image: &Image,
    layer: &ImageLayer,
    unvouched: bool,
    lies: &mut Lies,
) -> Result<Option<LayerToc>, ImageError> {
    let size = layer.blob.size().unwrap_or(layer.descriptor.size);
    let tail = layer.blob.fetch_all(size.saturating_sub(MAX_FOOTER_LEN as u64)..size).await?;
    let footer = match Footer::parse(&tail, size) {
        Ok(footer) => footer,
        Err(FooterError::Absent) => return Ok(None),
        Err(error) => {
            lies.add(error.to_string());
            return Ok(None);
        }
    };
    let json = match footer.toc {
        None => image.external_toc(layer.descriptor.digest).await?,
        Some(range) if range.len() > MAX_TOC => {
            lies.add(format!("its TOC has {} bytes; {MAX_TOC} are read", range.len()));
            return Ok(None);
        }
        Some(range) => {
            let packed = layer.blob.fetch_all(range.into()).await?;
            for prefix in ["io.containers.zstd-chunked", "io.github.containers.zstd-chunked"] {
                let stated = annotation(layer, &format!("{prefix}.manifest-checksum"));
                if stated.is_some_and(|stated| stated != Digest::of(&packed).to_string()) {
                    lies.add("the manifest states another checksum of its compressed TOC");
                }
                let stated = annotation(layer, &format!("{prefix}.manifest-position"));
                let position = format!("{}:{}:", range.start, range.len());
                if stated.is_some_and(|stated| !stated.starts_with(&position)) {
                    lies.add("the manifest states another place of its TOC than its footer");
                }
            }
            match unpack(footer.format, &packed) {
                Ok(json) => json,
                Err(error) => {
                    lies.add(format!("its TOC cannot be unpacked: {error}"));
                    return Ok(None);
                }
            }
        }
    };
    match toc_digest(&layer.descriptor) {
        Ok(Some(stated)) if stated != Digest::of(&json) => {
            lies.add(format!("its TOC has digest {}, not {stated}", Digest::of(&json)));
        }
        Ok(Some(_)) => {}
        Ok(None) if unvouched => {}
        Ok(None) => lies.add("the manifest does not state the digest of its TOC"),
        Err(error) => lies.add(error.to_string()),
    }
    match serde_json::from_slice(&json) {
        Ok(file) => Ok(Some(LayerToc { format: footer.format, json, file })),
        Err(error) => {
            lies.add(format!("its TOC is malformed: {error}"));
            Ok(None)
        }
    }
}

fn unpack(format: Format, packed: &[u8]) -> io::Result<Bytes> {
    let mut plain = Plain::new(packed)?;
    let mut bytes = Vec::new();
    plain.by_ref().take(MAX_TOC).read_to_end(&mut bytes)?;
    if format == Format::ZstdChunked {
        return Ok(bytes.into());
    }
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut entries = archive.entries()?;
    let mut entry = entries.next().ok_or(io::ErrorKind::UnexpectedEof)??;
    let mut json = Vec::new();
    entry.read_to_end(&mut json)?;
    Ok(json.into())
}

/// Reads the blob to its end.
fn read(
    mut reader: BlobReader,
    toc: Option<LayerToc>,
    blob_digest: Option<Digest>,
    diff_id: Option<Digest>,
    uncompressed_size: Option<&str>,
    lies: &mut Lies,
) -> Result<Found, ImageError> {
    let legacy = toc.as_ref().is_some_and(|toc| toc.format == Format::Stargz);
    let json_digest = toc.as_ref().map(|toc| Digest::of(&toc.json));
    let mut comparison = Comparison::new(toc.map(|toc| toc.file), json_digest, legacy);
    let mut parser = Parser::new();
    let mut hasher = Hasher::new();
    let mut tar_failed = false;
    let mut buffer = vec![0; PIECE];
    let mut plain = Plain::new(&mut reader);
    let (mut size, mut starts) = (0, BTreeMap::new());
    let broken = match &mut plain {
        Err(error) => Some(error.to_string()),
        Ok(plain) => loop {
            let length = match plain.read(&mut buffer) {
                Ok(0) => break None,
                Ok(length) => length,
                Err(error) => break Some(error.to_string()),
            };
            let mut piece = &buffer[..length];
            hasher.update(piece);
            size += length as u64;
            while !tar_failed {
                match parser.next(&mut piece) {
                    Ok(Some(event)) => comparison.event(event, lies),
                    Ok(None) => break,
                    Err(error) => {
                        tar_failed = true;
                        lies.add(format!("its tar is broken: {error}"));
                    }
                }
            }
        },
    };
    if let Ok(plain) = &mut plain {
        starts = plain.starts();
    }
    drop(plain);
    // The rest, if decompressing ended early: the digest is over all of it.
    let rest = io::copy(&mut reader, &mut io::sink());
    if let Some(error) = reader.failure() {
        return Err(error.into());
    }
    rest.map_err(|error| FetchError::Io { origin: "the blob".to_owned(), cause: Arc::new(error) })?;
    if let Some(error) = &broken {
        lies.add(format!("it cannot be decompressed: {error}"));
    } else {
        if !tar_failed && let Err(error) = parser.finish() {
            lies.add(format!("its tar is broken: {error}"));
        }
        let actual = hasher.finish();
        if let Some(expected) = diff_id.filter(|expected| *expected != actual) {
            lies.add(format!("its DiffID is {actual}, not {expected} as the configuration says"));
        }
        if uncompressed_size.is_some_and(|stated| stated != size.to_string()) {
            lies.add(format!("it has {size} uncompressed bytes, not what the manifest states"));
        }
        if !tar_failed {
            comparison.end(&starts, lies);
        }
    }
    let actual = reader.digest();
    if let Some(expected) = blob_digest.filter(|expected| *expected != actual) {
        lies.add(format!("its blob has digest {actual}, not {expected}"));
    }
    Ok(Found { entries: comparison.entries, chunks: comparison.chunks })
}
