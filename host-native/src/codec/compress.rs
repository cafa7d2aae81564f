//! Compressors of members: libdeflate and libzstd.

use std::fmt;
use std::io;

use lazystar_core::footer::Compression;
use lazystar_core::write::{CompressFailed, Compressor};
use zstd::zstd_safe::compress_bound;

/// Gzip by libdeflate. Its state is kept from member to member.
pub struct GzipCompressor {
    deflate: libdeflater::Compressor,
    /// As long as the worst case of the largest member so far; what comes out is a third of that.
    scratch: Vec<u8>,
}

impl GzipCompressor {
    /// The level unless one is asked for: what libdeflate and gzip take, too.
    pub const DEFAULT_LEVEL: i32 = 6;

    /// A compressor of level 0 (stored) to 12 (smallest).
    ///
    /// # Errors
    ///
    /// If there is no such level.
    pub fn new(level: i32) -> io::Result<Self> {
        let level = libdeflater::CompressionLvl::new(level).map_err(|_| {
            let message = format!("gzip has levels 0 to 12, not {level}");
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })?;
        Ok(Self { deflate: libdeflater::Compressor::new(level), scratch: Vec::new() })
    }
}

impl Compressor for GzipCompressor {
    fn compression(&self) -> Compression {
        Compression::Gzip
    }

    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), CompressFailed> {
        room(&mut self.scratch, self.deflate.gzip_compress_bound(plain.len()));
        let length =
            self.deflate.gzip_compress(plain, &mut self.scratch).map_err(|_| CompressFailed)?;
        out.extend_from_slice(&self.scratch[..length]);
        Ok(())
    }
}

impl fmt::Debug for GzipCompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GzipCompressor")
    }
}

/// zstd by libzstd. Its state is kept from frame to frame.
pub struct ZstdCompressor {
    zstd: zstd::bulk::Compressor<'static>,
    /// As for gzip.
    scratch: Vec<u8>,
}

impl ZstdCompressor {
    /// The level unless one is asked for: libzstd's own.
    pub const DEFAULT_LEVEL: i32 = 3;

    /// A compressor of level 1 to 22, or negative for faster ones.
    ///
    /// # Errors
    ///
    /// If there is no such level.
    pub fn new(level: i32) -> io::Result<Self> {
        if !zstd::compression_level_range().contains(&level) {
            let message = format!("zstd has levels up to 22, not {level}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Self { zstd: zstd::bulk::Compressor::new(level)?, scratch: Vec::new() })
    }
}

impl Compressor for ZstdCompressor {
    fn compression(&self) -> Compression {
        Compression::Zstd
    }

    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), CompressFailed> {
        room(&mut self.scratch, compress_bound(plain.len()));
        let length = self
            .zstd
            .compress_to_buffer(plain, &mut self.scratch[..])
            .map_err(|_| CompressFailed)?;
        out.extend_from_slice(&self.scratch[..length]);
        Ok(())
    }
}

impl fmt::Debug for ZstdCompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ZstdCompressor")
    }
}

/// Makes `scratch` at least `bound` long. New memory is asked for that is zero already: what nobody
/// writes to is none, and of the worst case most is never written.
fn room(scratch: &mut Vec<u8>, bound: usize) {
    if scratch.len() < bound {
        *scratch = Vec::new();
        *scratch = vec![0; bound];
    }
}

/// The compressor for `compression`, at its default level unless one is given.
///
/// # Errors
///
/// If there is no such level.
pub fn compressor(
    compression: Compression,
    level: Option<i32>,
) -> io::Result<Box<dyn Compressor + Send>> {
    Ok(match compression {
        Compression::Gzip => {
            Box::new(GzipCompressor::new(level.unwrap_or(GzipCompressor::DEFAULT_LEVEL))?)
        }
        Compression::Zstd => {
            Box::new(ZstdCompressor::new(level.unwrap_or(ZstdCompressor::DEFAULT_LEVEL))?)
        }
    })
}
