//! Which layer to write.

use crate::footer::Compression;

/// Name of the TOC's tar entry.
pub const TOC_NAME: &str = "stargz.index.json";

/// The chunk size if none is asked for, in bytes; what other writers of the format use.
pub const DEFAULT_CHUNK_SIZE: u32 = 4 << 20;

/// Which blob to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// eStargz: gzip members, TOC and 51-byte footer in the blob.
    #[default]
    Estargz,
    /// eStargz whose TOC is a blob of another image; 46-byte footer.
    EstargzExternalToc,
    /// stargz as before eStargz: no digests, 47-byte footer. Readers cannot verify it.
    LegacyStargz,
    /// zstd:chunked as the stargz snapshotter reads it (40 bytes in the last frame).
    ZstdChunked,
    /// zstd:chunked as containers/storage reads it (64 bytes in the last frame), without tar-split.
    ZstdChunkedStorage,
}

impl Format {
    /// What members are compressed with.
    #[must_use]
    pub const fn compression(self) -> Compression {
        match self {
            Self::Estargz | Self::EstargzExternalToc | Self::LegacyStargz => Compression::Gzip,
            Self::ZstdChunked | Self::ZstdChunkedStorage => Compression::Zstd,
        }
    }

    /// Whether its TOC states digests.
    pub(super) const fn has_digests(self) -> bool {
        !matches!(self, Self::LegacyStargz)
    }

    /// Whether the TOC is an entry of the tar, and thus part of the DiffID.
    pub(super) const fn toc_in_tar(self) -> bool {
        matches!(self, Self::Estargz | Self::LegacyStargz)
    }
}

/// How to write a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Which blob to write.
    pub format: Format,
    /// Bytes of a file in one chunk, the unit of verification; 0 means [`DEFAULT_CHUNK_SIZE`].
    pub chunk_size: u32,
    /// Compressed bytes that a member should have before the next chunk opens another; 0 means one
    /// chunk in each. More makes layers of many small files smaller, and reads of one file larger.
    /// Every 8 MiB of the tar, or twice the chunk size, another opens in any case.
    pub min_chunk_size: u32,
    /// Keep every byte of the input tar, so that decompressing the blob gives it back (followed by the
    /// TOC if that is in the tar). The caller brings padding and trailer by [`Writer::verbatim`](super::Writer::verbatim).
    pub lossless: bool,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It is in the layer.
    Written,
    /// It is a landmark or TOC that another conversion left behind; its data is ignored as well.
    Dropped,
}
