//! Decompressing a whole blob, taking note of where its members begin.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use zstd::zstd_safe::{DCtx, InBuffer, OutBuffer};

use crate::pack::Gunzip;

/// Bytes that are read at once.
const STEP: usize = 256 << 10;

/// The plain bytes of a blob.
pub(super) enum Plain<R: Read> {
    Gzip(Box<Gunzip<BufReader<R>>>),
    Zstd(Box<Frames<BufReader<R>>>),
    Tar(BufReader<R>),
}

impl<R: Read> Plain<R> {
    pub(super) fn new(reader: R) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(STEP, reader);
        let head = reader.fill_buf()?;
        Ok(match head {
            [0x1f, 0x8b, 8, ..] => Self::Gzip(Box::new(Gunzip::noting_starts(reader))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Self::Zstd(Box::new(Frames::new(reader)))
            }
            _ => Self::Tar(reader),
        })
    }

    /// Where members begin: in the blob, and in the plain bytes.
    pub(super) fn starts(&mut self) -> BTreeMap<u64, u64> {
        match self {
            Self::Gzip(gzip) => gzip.starts().iter().copied().collect(),
            Self::Zstd(frames) => std::mem::take(&mut frames.starts),
            Self::Tar(_) => BTreeMap::from([(0, 0)]),
        }
    }
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(gzip) => gzip.read(out),
            Self::Zstd(frames) => frames.read(out),
            Self::Tar(reader) => reader.read(out),
        }
    }
}

/// zstd frames one after another.
pub(super) struct Frames<R> {
    input: R,
    zstd: DCtx<'static>,
    consumed: u64,
    produced: u64,
    between: bool,
    starts: BTreeMap<u64, u64>,
}

impl<R: BufRead> Frames<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            zstd: DCtx::create(),
            consumed: 0,
            produced: 0,
            between: true,
            starts: BTreeMap::new(),
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let input = self.input.fill_buf()?;
            let at_end = input.is_empty();
            if at_end && self.between {
                return Ok(0);
            }
            if self.between {
                if self.starts.last_key_value().is_some_and(|(_, at)| *at == self.produced) {
                    // An empty frame, or one to be skipped.
                    self.starts.pop_last();
                }
                self.starts.insert(self.consumed, self.produced);
                self.between = false;
            }
            let mut from = InBuffer::around(input);
            let mut to = OutBuffer::around(&mut *out);
            let left = self.zstd.decompress_stream(&mut to, &mut from).map_err(|code| {
                let message = zstd::zstd_safe::get_error_name(code);
                io::Error::new(io::ErrorKind::InvalidData, message)
            })?;
            let (consumed, produced) = (from.pos(), to.pos());
            self.input.consume(consumed);
            self.consumed += consumed as u64;
            self.produced += produced as u64;
            self.between = left == 0;
            if produced > 0 {
                return Ok(produced);
            }
            if at_end && !self.between {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
