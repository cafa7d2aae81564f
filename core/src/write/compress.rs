//! Compressors of members.

use alloc::vec::Vec;
use core::fmt;

use crate::footer::Compression;
use ruzstd::encoding::{CompressionLevel, FrameCompressor};

/// A compressor gave up, for instance for want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressFailed;

impl fmt::Display for CompressFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the compressor failed")
    }
}

impl core::error::Error for CompressFailed {}

/// Compresses whole members. Hosts bring faster ones than [`Miniz`] and [`Ruzstd`].
pub trait Compressor {
    /// What [`compress`](Self::compress) writes.
    fn compression(&self) -> Compression;

    /// Appends `plain` to `out` as exactly one gzip member or zstd frame. The result must depend on
    /// nothing but `plain`, otherwise layers are not reproducible.
    ///
    /// # Errors
    ///
    /// If it cannot; `out` may then hold a part.
    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), CompressFailed>;
}

impl<C: Compressor + ?Sized> Compressor for &mut C {
    fn compression(&self) -> Compression {
        (**self).compression()
    }

    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), CompressFailed> {
        (**self).compress(plain, out)
    }
}

impl<C: Compressor + ?Sized> Compressor for alloc::boxed::Box<C> {
    fn compression(&self) -> Compression {
        (**self).compression()
    }

    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), CompressFailed> {
        (**self).compress(plain, out)
    }
}

/// Gzip in pure Rust.
#[derive(Clone, Copy, Debug)]
pub struct Miniz {
    /// 0 (stored) to 10 (smallest).
    pub level: u8,
}

impl Default for Miniz {
    fn default() -> Self {
        Self { level: 6 }
    }
}

/// Header of a gzip member: deflate, no flags, no time, unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

impl Compressor for Miniz {
    fn compression(&self) -> Compression {
        Compression::Gzip
    }

    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), CompressFailed> {
        out.extend_from_slice(&GZIP_HEADER);
        out.append(&mut miniz_oxide::deflate::compress_to_vec(plain, self.level));
        out.extend_from_slice(&crc32(plain).to_le_bytes());
        // ISIZE is the size modulo 2^32 (RFC 1952, 2.3.1).
        out.extend_from_slice(&(plain.len() as u32).to_le_bytes());
        Ok(())
    }
}

/// zstd in pure Rust, about as strong as level 1 of the reference implementation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ruzstd;

impl Compressor for Ruzstd {
    fn compression(&self) -> Compression {
        Compression::Zstd
    }

    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), CompressFailed> {
        let mut frame = FrameCompressor::new(CompressionLevel::Fastest);
        frame.set_source(plain);
        frame.set_drain(out);
        frame.compress();
        Ok(())
    }
}

/// CRC-32 of gzip: reflected, polynomial 0x04c11db7.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| CRC_TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

static CRC_TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_standard_check_string() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
