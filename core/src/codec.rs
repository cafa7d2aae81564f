//! Decompression of members: gzip members and zstd frames.

mod gzip;
mod zstd;

use alloc::vec::Vec;
use core::fmt;

pub(crate) use gzip::stream as gzip_stream;
pub(crate) use zstd::stream as zstd_stream;

use crate::footer::Compression;

/// Decompresses members. A host may bring a faster one than [`PortableCodec`]; both give the same
/// bytes or both an error, which the digest check after them makes certain.
pub trait Codec {
    /// Appends to `out` the first `want` plain bytes of the members that `compressed` starts with.
    ///
    /// # Errors
    /// When the input is damaged or ends before `want` bytes came out of it. `out` may then hold
    /// some of them.
    fn decode(
        &mut self,
        compression: Compression,
        compressed: &[u8],
        want: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError>;
}

/// Why a member cannot be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not the compression that the layer's format has.
    NotCompressed,
    /// Damaged.
    Corrupt,
    /// It ends before all that was wanted came out.
    Short,
    /// It wants more memory than is given to a member.
    OverLimit,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotCompressed => "no gzip member or zstd frame starts there",
            Self::Corrupt => "the compressed data is damaged",
            Self::Short => "the compressed data ends too early",
            Self::OverLimit => "the compressed data wants more memory than is allowed",
        })
    }
}

impl core::error::Error for DecodeError {}

/// The codec that works everywhere: `miniz_oxide` and `ruzstd`.
#[derive(Debug, Default)]
pub struct PortableCodec {
    gzip: gzip::Inflater,
}

impl Codec for PortableCodec {
    fn decode(
        &mut self,
        compression: Compression,
        compressed: &[u8],
        want: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        match compression {
            Compression::Gzip => self.gzip.decode(compressed, want, out),
            Compression::Zstd => zstd::decode(compressed, want, out),
        }
    }
}
