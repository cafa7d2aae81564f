//! Blobs as the streams that packing reads and writes.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use lazystar_core::Digest;

use crate::source::BlobReader;

/// Bytes that are decompressed ahead, in pieces.
const PIECE: usize = 256 << 10;
const PIECES_AHEAD: usize = 16;

/// A blob that fails at its end if its digest is not what it should be.
pub(super) struct CheckedReader {
    blob: Option<BlobReader>,
    expected: Digest,
}

impl CheckedReader {
    /// Reads `blob`, whose digest is to be `expected`.
    pub(super) fn new(blob: BlobReader, expected: Digest) -> Self {
        Self { blob: Some(blob), expected }
    }
}

impl Read for CheckedReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(blob) = &mut self.blob else { return Ok(0) };
        let length = blob.read(out)?;
        if length == 0
            && !out.is_empty()
            && let Some(blob) = self.blob.take()
        {
            let (actual, expected) = (blob.digest(), self.expected);
            if actual != expected {
                let why = format!(
                    "the blob has digest {actual} instead of {expected}: it is damaged, or changes while it is read"
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }
        Ok(length)
    }
}

/// What another thread reads ahead.
pub(super) struct ReadAhead {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

impl ReadAhead {
    /// Reads what `open` opens, on a thread of its own.
    pub(super) fn new<R: Read>(
        open: impl FnOnce() -> io::Result<R> + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, pieces) = sync_channel(PIECES_AHEAD);
        let read = move || {
            let mut reader = match open() {
                Ok(reader) => reader,
                Err(error) => return drop(sender.send(Err(error))),
            };
            loop {
                let mut piece = Vec::with_capacity(PIECE);
                let read = reader.by_ref().take(PIECE as u64).read_to_end(&mut piece);
                let is_last = !matches!(read, Ok(length) if length == PIECE);
                // What was read before an error is worth nothing.
                let sent = sender.send(read.map(|_| piece));
                if is_last || sent.is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("read ahead".into()).spawn(read)?;
        Ok(Self { pieces, piece: Vec::new(), at: 0 })
    }
}

impl Read for ReadAhead {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.pieces.recv() {
                Ok(piece) => {
                    self.piece = piece?;
                    self.at = 0;
                    if self.piece.is_empty() {
                        return Ok(0);
                    }
                }
                Err(_) => return Ok(0),
            }
        }
        let length = out.len().min(self.piece.len() - self.at);
        out[..length].copy_from_slice(&self.piece[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_ahead_is_all_of_it_and_the_error() {
        let text: Vec<u8> = (0..PIECE * 3 + 5).map(|at| at as u8).collect();
        let input = text.clone();
        let mut all = Vec::new();
        ReadAhead::new(move || Ok(io::Cursor::new(input))).unwrap().read_to_end(&mut all).unwrap();
        assert!(all == text);

        struct Broken(usize);
        impl Read for Broken {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                if self.0 == 0 {
                    return Err(io::Error::other("broken"));
                }
                self.0 -= 1;
                Ok(out.len().min(1000))
            }
        }
        let mut reader = ReadAhead::new(|| Ok(Broken(600))).unwrap();
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "broken");
    }
}
