//! What a manifest says about a layer.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Format;
use super::footer::MANIFEST_TYPE;
use crate::Digest;
use crate::footer::Compression;

/// Digests and sizes of a layer that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What was written.
    pub format: Format,
    /// Digest of the blob.
    pub blob_digest: Digest,
    /// Size of the blob, in bytes.
    pub blob_size: u64,
    /// DiffID: digest of the decompressed blob.
    pub diff_id: Digest,
    /// Size of the decompressed blob, in bytes.
    pub uncompressed_size: u64,
    /// Digest of the TOC's JSON; `None` for [`Format::LegacyStargz`], which has nothing to verify.
    pub toc_digest: Option<Digest>,
    /// Where the TOC of a zstd:chunked blob is.
    pub zstd: Option<ZstdPosition>,
}

/// Where the TOC of a zstd:chunked blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZstdPosition {
    /// Offset of the compressed TOC in the blob.
    pub offset: u64,
    /// Its size, in bytes.
    pub compressed: u64,
    /// Size of the JSON, in bytes.
    pub raw: u64,
    /// Digest of the compressed TOC.
    pub checksum: Digest,
    /// In the dialect of containers/storage.
    pub storage: bool,
}

impl Summary {
    /// The annotations that the layer's descriptor needs, sorted by key.
    #[must_use]
    pub fn annotations(&self) -> Vec<(String, String)> {
        let mut annotations = Vec::new();
        let mut add = |key: &str, value: String| annotations.push((key.to_string(), value));
        if let Some(digest) = self.toc_digest {
            add("containerd.io/snapshot/stargz/toc.digest", digest.to_string());
            add("io.containers.estargz.uncompressed-size", self.uncompressed_size.to_string());
        }
        if let Some(ZstdPosition { offset, compressed, raw, checksum, storage }) = self.zstd {
            let prefix = if storage {
                "io.github.containers.zstd-chunked"
            } else {
                "io.containers.zstd-chunked"
            };
            add(&format!("{prefix}.manifest-checksum"), checksum.to_string());
            add(
                &format!("{prefix}.manifest-position"),
                format!("{offset}:{compressed}:{raw}:{MANIFEST_TYPE}"),
            );
        }
        annotations
    }

    /// The OCI media type of the blob.
    #[must_use]
    pub const fn media_type(&self) -> &'static str {
        match self.format.compression() {
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}
