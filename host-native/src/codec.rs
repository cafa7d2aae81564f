//! Compression and decompression at full speed: libdeflate and libzstd.

mod compress;

pub use compress::{GzipCompressor, ZstdCompressor, compressor};
use lazystar_core::codec::{Codec, DecodeError, PortableCodec};
use lazystar_core::footer::Compression;
use libdeflater::Decompressor;
use zstd::zstd_safe::{DCtx, InBuffer, OutBuffer};

/// What a member may hold after its last chunk: padding and the tar headers of entries without
/// data, a thousand directories' worth.
const SLACK: usize = 1 << 20;

/// The codec of the native host.
pub struct NativeCodec {
    deflate: Decompressor,
    zstd: DCtx<'static>,
    portable: PortableCodec,
}

impl Default for NativeCodec {
    fn default() -> Self {
        Self {
            deflate: Decompressor::new(),
            zstd: DCtx::create(),
            portable: PortableCodec::default(),
        }
    }
}

impl std::fmt::Debug for NativeCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NativeCodec")
    }
}

impl Codec for NativeCodec {
    fn decode(
        &mut self,
        compression: Compression,
        compressed: &[u8],
        want: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        match compression {
            Compression::Gzip => self.gzip(compressed, want, out),
            Compression::Zstd => self.zstd(compressed, want, out),
        }
    }
}

impl NativeCodec {
    /// libdeflate inflates whole members only, into a buffer that must be large enough. How large
    /// is the last word of the member, which mostly is the last of the input; where that is not
    /// so, or anything else is odd, the portable codec decides.
    fn gzip(
        &mut self,
        compressed: &[u8],
        want: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let stated = compressed.last_chunk().map_or(0, |size| u32::from_le_bytes(*size)) as usize;
        if (want..=want + SLACK).contains(&stated) {
            let start = out.len();
            out.resize(start + stated, 0);
            match self.deflate.gzip_decompress(compressed, &mut out[start..]) {
                Ok(len) if len >= want => {
                    out.truncate(start + want);
                    return Ok(());
                }
                _ => out.truncate(start),
            }
        }
        self.portable.decode(Compression::Gzip, compressed, want, out)
    }

    fn zstd(
        &mut self,
        compressed: &[u8],
        want: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        self.zstd.init().map_err(|_| DecodeError::Corrupt)?;
        let start = out.len();
        out.resize(start + want, 0);
        let mut input = InBuffer::around(compressed);
        let mut output = OutBuffer::around(&mut out[start..]);
        while output.pos() < want {
            let before = (input.pos(), output.pos());
            self.zstd
                .decompress_stream(&mut output, &mut input)
                .map_err(|_| DecodeError::Corrupt)?;
            if before == (input.pos(), output.pos()) {
                return Err(DecodeError::Short);
            }
        }
        Ok(())
    }
}
