//! zstd frames (RFC 8878).

use alloc::vec;
use alloc::vec::Vec;

use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::io::Read;

use super::DecodeError;

/// The largest window accepted: what libzstd takes unless told otherwise (`ZSTD_WINDOWLOG_LIMIT_DEFAULT`).
const MAX_WINDOW: u64 = 128 << 20;
/// How much is decoded before it is handed on.
const PIECE: usize = 128 << 10;

pub(crate) fn decode(
    mut compressed: &[u8],
    want: usize,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let mut frame = decoder();
    let end = out.len() + want;
    while out.len() < end {
        frame.reset(&mut compressed).map_err(blame)?;
        while out.len() < end {
            let missing = end - out.len();
            if frame.can_collect() < missing && !frame.is_finished() {
                let strategy = BlockDecodingStrategy::UptoBytes(missing.min(PIECE));
                frame.decode_blocks(&mut compressed, strategy).map_err(blame)?;
            }
            let take = frame.can_collect().min(missing);
            if take == 0 && frame.is_finished() {
                break;
            }
            let at = out.len();
            out.resize(at + take, 0);
            frame.read_exact(&mut out[at..]).map_err(|_| DecodeError::Corrupt)?;
        }
    }
    Ok(())
}

/// Reports the plain bytes of the frames, piece by piece.
pub(crate) fn stream<E: From<DecodeError>>(
    mut compressed: &[u8],
    report: &mut impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut frame = decoder();
    let mut piece = vec![0; PIECE];
    while !compressed.is_empty() {
        frame.reset(&mut compressed).map_err(blame)?;
        loop {
            if !frame.is_finished() {
                let strategy = BlockDecodingStrategy::UptoBytes(PIECE);
                frame.decode_blocks(&mut compressed, strategy).map_err(blame)?;
            }
            let len = frame.read(&mut piece).map_err(|_| DecodeError::Corrupt)?;
            if len == 0 && frame.is_finished() {
                break;
            }
            report(&piece[..len])?;
        }
    }
    Ok(())
}

fn decoder() -> FrameDecoder {
    let mut frame = FrameDecoder::new();
    frame.set_max_window_size(MAX_WINDOW);
    frame
}

fn blame(error: FrameDecoderError) -> DecodeError {
    match error {
        FrameDecoderError::WindowSizeTooBig { .. } => DecodeError::OverLimit,
        FrameDecoderError::ReadFrameHeaderError(_) => DecodeError::NotCompressed,
        _ => DecodeError::Corrupt,
    }
}
