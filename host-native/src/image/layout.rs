//! Images on this machine: OCI layout directories and single layers.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use lazystar_core::Digest;

use super::{ImageError, ImageLayer};
use crate::oci::{Descriptor, Index, MAX_MANIFEST, Platform, check_digest, check_size, media};
use crate::source::{Blob, FetchError};

/// Names an image in `index.json` (OCI image specification, "Annotations").
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

pub(super) fn fail(dir: &Path, why: impl Into<String>) -> ImageError {
    ImageError::Layout { dir: dir.display().to_string(), why: why.into() }
}

/// The path of a blob.
pub(crate) fn blob_path(dir: &Path, digest: Digest) -> PathBuf {
    dir.join("blobs/sha256").join(digest.hex())
}

/// The entry of `index.json` with `tag`, or the only image without one.
pub(super) async fn entry(
    dir: &Path,
    tag: Option<&str>,
    platform: &Platform,
) -> Result<Descriptor, ImageError> {
    let path = dir.join("index.json");
    let size = tokio::fs::metadata(&path)
        .await
        .map_err(|error| fail(dir, format!("index.json: {error}")))?
        .len();
    check_size("index.json", size, MAX_MANIFEST)?;
    let bytes =
        tokio::fs::read(&path).await.map_err(|error| fail(dir, format!("index.json: {error}")))?;
    let mut index: Index = serde_json::from_slice(&bytes)
        .map_err(|error| fail(dir, format!("index.json: {error}")))?;
    let name = |entry: &Descriptor| entry.annotations.get(REF_NAME).cloned();
    let mut names: Vec<String> = index.manifests.iter().filter_map(name).collect();
    names.sort();
    names.dedup();
    let known = || {
        if names.is_empty() {
            "no tags".to_owned()
        } else {
            format!("the tags {}", names.join(", "))
        }
    };
    match tag {
        Some(tag) => {
            index.manifests.retain(|entry| name(entry).as_deref() == Some(tag));
            if index.manifests.is_empty() {
                return Err(fail(dir, format!("there is no tag {tag}, but {}", known())));
            }
        }
        None if names.len() > 1 => {
            return Err(fail(
                dir,
                format!("write one of {} after the directory and a colon", known()),
            ));
        }
        None => {}
    }
    match &index.manifests[..] {
        [] => Err(fail(dir, "it has no images")),
        [only] => Ok(only.clone()),
        _ => Ok(platform.choose(&index)?.clone()),
    }
}

/// The document that `descriptor` points at, verified. Its size was checked against a limit.
pub(super) async fn document(
    dir: &Path,
    what: &'static str,
    descriptor: &Descriptor,
) -> Result<Bytes, ImageError> {
    let bytes = blob(dir, descriptor)?.fetch_all(0..descriptor.size).await?;
    check_digest(what, &bytes, descriptor.digest)?;
    Ok(bytes)
}

/// The blob that `descriptor` points at.
pub(super) fn blob(dir: &Path, descriptor: &Descriptor) -> Result<Blob, ImageError> {
    let blob = Blob::file(&blob_path(dir, descriptor.digest))?;
    match blob.size() {
        Some(size) if size != descriptor.size => {
            let (digest, expected) = (descriptor.digest, descriptor.size);
            Err(fail(
                dir,
                format!(
                    "blob {digest} has {size} bytes instead of {expected}; copy the image again"
                ),
            ))
        }
        _ => Ok(blob),
    }
}

/// What has `digest`, if it is there.
pub(super) fn find(dir: &Path, digest: Digest) -> Result<Option<Blob>, ImageError> {
    let path = blob_path(dir, digest);
    if path.exists() { Ok(Some(Blob::file(&path)?)) } else { Ok(None) }
}

/// The layer in a file.
pub(super) async fn single_layer(path: &Path) -> Result<ImageLayer, ImageError> {
    let blob = Blob::file(path)?;
    let size = blob.size().unwrap_or(0);
    let head = blob.fetch_all(0..size.min(4)).await?;
    let descriptor = Descriptor {
        media_type: media::of_layer(&head).to_owned(),
        digest: identity(path).map_err(|error| FetchError::io(path, error))?,
        size,
        annotations: Default::default(),
        platform: None,
        urls: Vec::new(),
    };
    Ok(ImageLayer { descriptor, blob })
}

/// A digest that changes whenever the file at `path` is another or changed.
fn identity(path: &Path) -> std::io::Result<Digest> {
    use std::os::unix::fs::MetadataExt;
    let path = path.canonicalize()?;
    let of = path.metadata()?;
    let identity =
        (of.dev(), of.ino(), of.len(), of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec());
    Ok(Digest::of(format!("file {} {identity:?}", path.display()).as_bytes()))
}
