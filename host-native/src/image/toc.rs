//! External TOCs: an image `<tag>-esgztoc` with the TOC of each layer of the image `<tag>`.

use std::io::Read;

use bytes::Bytes;
use lazystar_core::Digest;
use libdeflater::{DecompressionError, Decompressor};

use super::{Image, ImageError, ImageLayer, OpenOptions};
use crate::oci::check_digest;
use crate::reference::ImageRef;

/// What is appended to the tag of an image to name its TOC image.
pub(crate) const SUFFIX: &str = "-esgztoc";
/// Names the layer that a TOC describes.
pub(crate) const LAYER: &str = "containerd.io/snapshot/stargz/layer.digest";
/// The only file in the blob of a TOC.
const FILE: &str = "stargz.index.json";
/// Largest compressed TOC. They shrink about tenfold.
const MAX_COMPRESSED: u64 = 64 << 20;
/// Largest TOC, with its tar framing: more than a million entries.
const MAX_TOC: usize = 256 << 20;

/// The image that holds the external TOCs of another image.
#[derive(Debug)]
pub struct TocImage {
    layers: Vec<ImageLayer>,
}

impl TocImage {
    /// Opens the TOC image of the image that `reference` names.
    ///
    /// # Errors
    /// If `reference` has no tag, or there is no such image.
    pub async fn open(reference: &ImageRef, options: &OpenOptions) -> Result<Self, ImageError> {
        let reference = Self::reference(reference)?;
        // Its configuration says nothing, and its layers are of all platforms.
        Ok(Self { layers: Image::open(&reference, options).await?.layers })
    }

    /// The name of the TOC image of the image that `reference` names.
    ///
    /// # Errors
    /// If `reference` has no tag.
    pub fn reference(reference: &ImageRef) -> Result<ImageRef, ImageError> {
        let untagged = || ImageError::ExternalToc {
            of: reference.to_string(),
            why: "it is found by the tag of the image, so name the image by tag".to_owned(),
        };
        Ok(match reference {
            ImageRef::Registry(image) => {
                let tag = image.tag().ok_or_else(untagged)?;
                ImageRef::Registry(image.with_tag(&format!("{tag}{SUFFIX}"))?)
            }
            ImageRef::OciLayout { dir, tag: Some(tag) } => {
                ImageRef::OciLayout { dir: dir.clone(), tag: Some(format!("{tag}{SUFFIX}")) }
            }
            _ => return Err(untagged()),
        })
    }

    /// The TOC of the layer whose blob has digest `layer`.
    ///
    /// # Errors
    /// If there is none, or it is not usable.
    pub async fn toc(&self, layer: Digest) -> Result<Bytes, ImageError> {
        let fail = |why: String| ImageError::ExternalToc { of: layer.to_string(), why };
        let name = layer.to_string();
        let found =
            self.layers.iter().find(|toc| toc.descriptor.annotations.get(LAYER) == Some(&name));
        let toc = found.ok_or_else(|| {
            fail("the TOC image has none for it; convert the image again".to_owned())
        })?;
        let size = toc.descriptor.size;
        if size > MAX_COMPRESSED {
            return Err(fail(format!(
                "it has {size} bytes, more than the {MAX_COMPRESSED} that are allowed"
            )));
        }
        let blob = toc.blob.fetch_all(0..size).await?;
        check_digest("external TOC", &blob, toc.descriptor.digest)?;
        let unpacked = tokio::task::spawn_blocking(move || unpack(&blob)).await;
        unpacked
            .unwrap_or_else(|_| Err("unpacking it panicked"))
            .map_err(|why| fail(why.to_owned()))
    }
}

/// Takes the TOC out of its tar.gz.
fn unpack(blob: &[u8]) -> Result<Bytes, &'static str> {
    let tar = inflate(blob)?;
    let mut archive = tar::Archive::new(&tar[..]);
    let entries = archive.entries().map_err(|_| "its tar is malformed")?;
    for entry in entries {
        let mut entry = entry.map_err(|_| "its tar is malformed")?;
        let path = entry.path_bytes();
        if path.strip_prefix(b"./").unwrap_or(&path) == FILE.as_bytes() {
            let mut toc = Vec::new();
            // Bounded: the tar is in memory, and its size is limited.
            let size = entry.size();
            entry.read_to_end(&mut toc).map_err(|_| "its tar is malformed")?;
            return if toc.len() as u64 == size {
                Ok(toc.into())
            } else {
                Err("its tar is cut short")
            };
        }
    }
    Err("it holds no stargz.index.json")
}

/// Inflates a gzip file of one member.
fn inflate(blob: &[u8]) -> Result<Vec<u8>, &'static str> {
    // The last four bytes of a gzip member are its uncompressed size, modulo 2^32 (RFC 1952).
    let size = blob.last_chunk().map_or(0, |last| u32::from_le_bytes(*last) as usize);
    let mut tar = vec![0; size.min(MAX_TOC)];
    match Decompressor::new().gzip_decompress(blob, &mut tar) {
        Ok(length) => {
            tar.truncate(length);
            Ok(tar)
        }
        Err(DecompressionError::InsufficientSpace) => {
            Err("it is larger than 256 MiB, or not one gzip member")
        }
        Err(DecompressionError::BadData) => Err("its gzip is malformed"),
    }
}
