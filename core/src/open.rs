//! Opening a layer: footer and TOC, in one request where that is possible.

use alloc::vec::Vec;
use core::fmt;
use core::ops::ControlFlow;

use crate::codec::{DecodeError, gzip_stream, zstd_stream};
use crate::digest::Digest;
use crate::fetch::{Assembly, FetchFailure, FetchId, FetchRequest, Priority};
use crate::footer::{Compression, Footer, FooterError, MAX_FOOTER_LEN};
use crate::limits::Limits;
use crate::range::ByteRange;
use crate::toc::{Toc, TocError, TocReader};

/// How a layer is to be opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// The digest that the image's manifest states for the TOC
    /// (annotation `containerd.io/snapshot/stargz/toc.digest`).
    pub toc_digest: Option<Digest>,
    /// Where the TOC starts, when the manifest states that too
    /// (`io.containers.zstd-chunked.manifest-position`); makes the request exact.
    pub toc_start: Option<u64>,
    /// Open layers of which some chunks cannot be verified.
    pub unverified: bool,
    /// What the TOC may ask for.
    pub limits: Limits,
}

/// Opens one layer.
///
/// 1. Ask [`Opener::poll_output`] what is wanted, until it returns `None`.
/// 2. Wait for an answer: bytes go to [`Opener::handle_fetched`], in any order and split, a
///    failure to [`Opener::handle_fetch_failed`], and the JSON of an external TOC to
///    [`Opener::handle_external_toc`].
/// 3. Go on with 1 until [`Opener::is_done`], then call [`Opener::finish`].
#[derive(Debug)]
pub struct Opener {
    blob_size: u64,
    options: OpenOptions,
    state: State,
    next_id: u64,
}

/// What an [`Opener`] wants of its host.
#[derive(Debug)]
#[must_use]
pub enum OpenOutput {
    /// Bytes of the blob.
    Fetch(FetchRequest),
    /// The TOC, which is not in the blob but in the image's TOC image.
    ExternalToc,
}

enum State {
    /// `asked` is unset until the request was handed out.
    Fetching {
        what: Want,
        assembly: Assembly,
        range: ByteRange,
        asked: Option<FetchId>,
    },
    External {
        footer: Footer,
        asked: bool,
    },
    Done(Result<Toc, OpenError>),
}

enum Want {
    Tail,
    /// The TOC before what the tail held of it.
    RestOfToc {
        footer: Footer,
        toc: ByteRange,
        tail: Vec<u8>,
    },
}

/// Why a layer cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The blob has no usable footer.
    Footer(FooterError),
    /// Its table of contents cannot be used.
    Toc(TocError),
    /// The bytes could not be had.
    Fetch(FetchFailure),
    /// [`Opener::finish`] was called before it was done.
    Unfinished,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Footer(error) => error.fmt(f),
            Self::Toc(error) => error.fmt(f),
            Self::Fetch(error) => error.fmt(f),
            Self::Unfinished => f.write_str("the layer was not read to the end"),
        }
    }
}

impl core::error::Error for OpenError {}

impl From<TocError> for OpenError {
    fn from(error: TocError) -> Self {
        Self::Toc(error)
    }
}

/// How many bytes from the end of a blob usually hold its TOC.
///
/// A TOC takes about 50 compressed bytes an entry. Asking for too much costs bandwidth, for too
/// little a second request, which is a whole round trip.
#[must_use]
pub fn tail_len(blob_size: u64) -> u64 {
    ((64 << 10) + blob_size / 128).min(2 << 20).min(blob_size)
}

impl Opener {
    /// An opener for a blob of `blob_size` bytes.
    #[must_use]
    pub fn new(blob_size: u64, options: OpenOptions) -> Self {
        let start = match options.toc_start {
            Some(start) if start < blob_size => {
                // A hint is a claim of the manifest: it may make the request smaller or larger,
                // but not larger than a TOC may be.
                start.max(blob_size.saturating_sub(options.limits.toc_compressed_bytes))
            }
            _ => blob_size - tail_len(blob_size),
        };
        let start = start.min(blob_size.saturating_sub(MAX_FOOTER_LEN as u64));
        let range = ByteRange { start, end: blob_size };
        let state = if blob_size == 0 {
            State::Done(Err(OpenError::Footer(FooterError::Absent)))
        } else {
            State::Fetching { what: Want::Tail, assembly: Assembly::new(range), range, asked: None }
        };
        Self { blob_size, options, state, next_id: 0 }
    }

    /// What is wanted next; `None` when there is nothing to do but wait or finish.
    pub fn poll_output(&mut self) -> Option<OpenOutput> {
        match &mut self.state {
            State::Fetching { range, asked: asked @ None, .. } => {
                let id = FetchId(self.next_id);
                self.next_id += 1;
                *asked = Some(id);
                Some(OpenOutput::Fetch(FetchRequest {
                    id,
                    range: *range,
                    priority: Priority::Demand,
                }))
            }
            State::External { asked: asked @ false, .. } => {
                *asked = true;
                Some(OpenOutput::ExternalToc)
            }
            _ => None,
        }
    }

    /// Takes bytes of the blob from `at` on, which answer request `id`. Bytes that nobody asked
    /// for are ignored.
    pub fn handle_fetched(&mut self, id: FetchId, at: u64, bytes: &[u8]) {
        if let State::Fetching { assembly, asked, .. } = &mut self.state
            && *asked == Some(id)
        {
            assembly.put(at, bytes);
            if assembly.is_complete() {
                self.advance();
            }
        }
    }

    /// What has not come of the bytes that were asked for, in the order of the blob.
    #[must_use]
    pub fn missing(&self) -> Vec<ByteRange> {
        match &self.state {
            State::Fetching { assembly, asked: Some(_), .. } => assembly.missing().collect(),
            _ => Vec::new(),
        }
    }

    /// Takes the news that request `id` will not be answered.
    pub fn handle_fetch_failed(&mut self, id: FetchId, failure: FetchFailure) {
        if matches!(&self.state, State::Fetching { asked, .. } if *asked == Some(id)) {
            self.state = State::Done(Err(OpenError::Fetch(failure)));
        }
    }

    /// Takes the JSON of an external TOC, or why it could not be had.
    pub fn handle_external_toc(&mut self, json: Result<&[u8], FetchFailure>) {
        let State::External { footer, .. } = &self.state else { return };
        let result = json.map_err(OpenError::Fetch).and_then(|json| {
            let mut reader = self.reader(*footer, json);
            reader.feed(json)?;
            Ok(reader.finish(self.options.toc_digest, self.options.unverified)?)
        });
        self.state = State::Done(result);
    }

    /// Whether [`Opener::finish`] has a result.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done(_))
    }

    /// The table of contents.
    ///
    /// # Errors
    /// Why the layer cannot be read lazily, or [`OpenError::Unfinished`].
    pub fn finish(self) -> Result<Toc, OpenError> {
        match self.state {
            State::Done(result) => result,
            _ => Err(OpenError::Unfinished),
        }
    }

    fn advance(&mut self) {
        let state = core::mem::replace(&mut self.state, State::Done(Err(OpenError::Unfinished)));
        let State::Fetching { what, assembly, range, .. } = state else { return };
        self.state = match what {
            Want::Tail => self.footer(assembly.into_bytes(), range.start),
            Want::RestOfToc { footer, toc, tail } => {
                let mut bytes = assembly.into_bytes();
                bytes.extend_from_slice(&tail);
                self.toc(footer, toc, &bytes, range.start)
            }
        };
    }

    fn footer(&self, tail: Vec<u8>, start: u64) -> State {
        let footer = match Footer::parse(&tail, self.blob_size) {
            Ok(footer) => footer,
            Err(error) => return State::Done(Err(OpenError::Footer(error))),
        };
        let Some(toc) = footer.toc else { return State::External { footer, asked: false } };
        let limit = self.options.limits.toc_compressed_bytes;
        if toc.len() > limit {
            let error = TocError::OverLimit { what: "compressed bytes", limit };
            return State::Done(Err(error.into()));
        }
        if toc.start >= start {
            return self.toc(footer, toc, &tail, start);
        }
        let range = ByteRange { start: toc.start, end: start.min(toc.end) };
        let what = Want::RestOfToc { footer, toc, tail };
        State::Fetching { what, assembly: Assembly::new(range), range, asked: None }
    }

    /// Reads the TOC out of `bytes`, which are those of the blob from `start` on.
    fn toc(&self, footer: Footer, toc: ByteRange, bytes: &[u8], start: u64) -> State {
        let index = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX);
        let compressed = bytes.get(index(toc.start)..index(toc.end)).unwrap_or(&[]);
        let mut reader = self.reader(footer, compressed);
        let read = match footer.format.compression() {
            Compression::Gzip => read_index(compressed, &mut reader),
            Compression::Zstd => zstd_stream(compressed, &mut |piece| reader.feed(piece)),
        };
        let finish = |()| reader.finish(self.options.toc_digest, self.options.unverified);
        State::Done(read.and_then(finish).map_err(OpenError::Toc))
    }

    fn reader(&self, footer: Footer, toc: &[u8]) -> TocReader {
        let seed = self.options.toc_digest.unwrap_or_else(|| Digest::of(toc));
        TocReader::new(footer, self.blob_size, seed, self.options.limits)
    }
}

/// Feeds a reader the file `stargz.index.json`, the first of the tar in a gzip member.
fn read_index(compressed: &[u8], reader: &mut TocReader) -> Result<(), TocError> {
    const BLOCK: usize = 512;
    let mut header = Vec::with_capacity(BLOCK);
    let mut left = 0;
    let result = gzip_stream(compressed, &mut |mut piece: &[u8]| {
        if header.len() < BLOCK {
            let (of_header, rest) = piece.split_at(piece.len().min(BLOCK - header.len()));
            header.extend_from_slice(of_header);
            piece = rest;
            if header.len() < BLOCK {
                return Ok(ControlFlow::Continue(()));
            }
            left = index_size(&header).ok_or(TocError::NotTheIndex)?;
        }
        if left == 0 {
            // Padding, zero blocks, or gigabytes of nothing.
            return Ok(ControlFlow::Break(()));
        }
        let json = &piece[..piece.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        left -= json.len() as u64;
        reader.feed(json).map(ControlFlow::Continue)
    });
    match result {
        Ok(()) if header.len() < BLOCK => Err(TocError::NotTheIndex),
        Ok(()) if left > 0 => Err(DecodeError::Short.into()),
        other => other,
    }
}

/// The size that a tar header states, when it is one of `stargz.index.json`.
fn index_size(header: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"stargz.index.json\0";
    let digits = header.get(124..136).filter(|_| header.starts_with(NAME))?;
    let digits = digits.trim_ascii().split(|byte| *byte == 0).next()?;
    let digit = |size: u64, digit: &u8| {
        let value = char::from(*digit).to_digit(8)?;
        Some(size << 3 | u64::from(value))
    };
    digits.iter().try_fold(0, digit)
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fetching { .. } => "Fetching",
            Self::External { .. } => "External",
            Self::Done(_) => "Done",
        })
    }
}
