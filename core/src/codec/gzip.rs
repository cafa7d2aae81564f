//! gzip members (RFC 1952). The trailing CRC is not checked: SHA-256 follows.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::ControlFlow;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

use super::DecodeError;

/// The deflate window that back references reach into, twice over so that what is being written
/// never wraps onto what is being reported.
const WINDOW: usize = 64 << 10;
const TRAILER_LEN: usize = 8;

/// Inflates, keeping its 10 KiB of state from one member to the next.
#[derive(Default)]
pub(crate) struct Inflater(Box<DecompressorOxide>);

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inflater")
    }
}

impl Inflater {
    pub(crate) fn decode(
        &mut self,
        mut compressed: &[u8],
        want: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let start = out.len();
        out.resize(start + want, 0);
        let mut at = start;
        while at < out.len() {
            compressed = skip_header(compressed)?;
            self.0.init();
            let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
            let (status, read, wrote) = decompress(&mut self.0, compressed, out, at, flags);
            at += wrote;
            compressed = match status {
                TINFLStatus::Done => {
                    compressed.get(read + TRAILER_LEN..).ok_or(DecodeError::Short)?
                }
                TINFLStatus::HasMoreOutput if at == out.len() => break,
                TINFLStatus::FailedCannotMakeProgress | TINFLStatus::NeedsMoreInput => {
                    return Err(DecodeError::Short);
                }
                _ => return Err(DecodeError::Corrupt),
            };
        }
        Ok(())
    }
}

/// Reports the plain bytes of the first member, piece by piece, until they end or enough came.
pub(crate) fn stream<E: From<DecodeError>>(
    compressed: &[u8],
    report: &mut impl FnMut(&[u8]) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    let mut rest = skip_header(compressed)?;
    let mut state = Box::<DecompressorOxide>::default();
    let mut window = vec![0; WINDOW];
    let mut at = 0;
    loop {
        let (status, read, wrote) = decompress(&mut state, rest, &mut window, at, 0);
        rest = rest.get(read..).unwrap_or(&[]);
        if report(&window[at..at + wrote])?.is_break() {
            return Ok(());
        }
        at = (at + wrote) % WINDOW;
        match status {
            TINFLStatus::Done => return Ok(()),
            TINFLStatus::HasMoreOutput => {}
            TINFLStatus::FailedCannotMakeProgress | TINFLStatus::NeedsMoreInput => {
                return Err(DecodeError::Short.into());
            }
            _ => return Err(DecodeError::Corrupt.into()),
        }
    }
}

/// What follows the header of the member that `bytes` starts with.
fn skip_header(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    const FHCRC: u8 = 2;
    const FEXTRA: u8 = 4;
    const FNAME: u8 = 8;
    const FCOMMENT: u8 = 16;

    let (header, mut rest) = bytes.split_first_chunk::<10>().ok_or(DecodeError::Short)?;
    let [0x1f, 0x8b, 8, flags, ..] = *header else {
        return Err(DecodeError::NotCompressed);
    };
    if flags & FEXTRA != 0 {
        let (len, after) = rest.split_first_chunk().ok_or(DecodeError::Short)?;
        rest = after.get(usize::from(u16::from_le_bytes(*len))..).ok_or(DecodeError::Short)?;
    }
    for flag in [FNAME, FCOMMENT] {
        if flags & flag != 0 {
            let end = rest.iter().position(|byte| *byte == 0).ok_or(DecodeError::Short)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & FHCRC != 0 {
        rest = rest.get(2..).ok_or(DecodeError::Short)?;
    }
    Ok(rest)
}
