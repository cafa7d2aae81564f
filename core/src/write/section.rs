//! Sections: collects plain bytes and cuts them into what threads may each compress, count and hash.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use super::{CompressFailed, Compressor, DEFAULT_CHUNK_SIZE, Options, WriteError};
use crate::Digest;
use crate::digest::Hasher;

/// A part of the tar that is compressed by itself: one member, or as many as it takes where a minimum
/// chunk size has chunks share members.
#[derive(Debug)]
pub struct Section {
    plain: Vec<u8>,
    /// Where in `plain` the chunks are.
    chunks: Vec<Range<usize>>,
    /// Whether their digests are wanted.
    digests: bool,
    min_chunk_size: usize,
}

impl Section {
    /// How many bytes it has before compression.
    #[must_use]
    pub fn plain_len(&self) -> usize {
        self.plain.len()
    }

    /// Compresses and hashes it. Sections depend on nothing but themselves, so threads may each press
    /// some.
    ///
    /// # Errors
    ///
    /// If the compressor fails.
    pub fn press(self, compressor: &mut impl Compressor) -> Result<Pressed, CompressFailed> {
        let mut compressed = Vec::new();
        let mut placed = Placed { members: Vec::new(), chunks: Vec::new() };
        let mut begin = 0;
        let mut trial = Trial::default();
        for chunk in &self.chunks {
            let before = self.plain.get(begin..chunk.start).unwrap_or_default();
            if trial.reaches(self.min_chunk_size, before, compressor)? {
                placed.members.push(trial.compressed.len() as u64);
                compressed.append(&mut trial.compressed);
                trial = Trial::default();
                begin = chunk.start;
            }
            let bytes = self.plain.get(chunk.clone()).unwrap_or_default();
            placed.chunks.push(PlacedChunk {
                member: placed.members.len(),
                inner: (chunk.start - begin) as u64,
                digest: self.digests.then(|| Digest::of(bytes)),
            });
        }
        let before = compressed.len();
        compressor.compress(self.plain.get(begin..).unwrap_or_default(), &mut compressed)?;
        placed.members.push((compressed.len() - before) as u64);
        Ok(Pressed { plain: self.plain, compressed, placed })
    }
}

/// Finds out where members that several chunks share are large enough.
#[derive(Default)]
struct Trial {
    compressed: Vec<u8>,
    /// How long a member has to be before a trial is worth its time.
    next: usize,
}

impl Trial {
    /// Whether the member `plain` has the minimum compressed size; then `compressed` is it.
    ///
    /// Only compressing tells, so it is tried, but not for each of many small files: a member of
    /// fewer plain bytes cannot have it, and after a trial the ratio tells when the next may succeed.
    fn reaches(
        &mut self,
        minimum: usize,
        plain: &[u8],
        compressor: &mut impl Compressor,
    ) -> Result<bool, CompressFailed> {
        let length = plain.len();
        if length == 0 || length < minimum.max(self.next) {
            return Ok(false);
        }
        self.compressed.clear();
        compressor.compress(plain, &mut self.compressed)?;
        let compressed = self.compressed.len();
        // length * minimum / compressed, but at least an eighth more.
        let predicted = length as u64 * minimum as u64 / (compressed as u64).max(1);
        let predicted = usize::try_from(predicted).unwrap_or(usize::MAX);
        self.next = predicted.max(length.saturating_add(length / 8));
        Ok(compressed >= minimum)
    }
}

/// A section, compressed.
#[derive(Debug)]
pub struct Pressed {
    plain: Vec<u8>,
    compressed: Vec<u8>,
    placed: Placed,
}

impl Pressed {
    /// The next bytes of the blob.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.compressed
    }
}

/// What became of a section: for [`Cutter::placed`](super::Cutter::placed).
#[derive(Debug)]
pub struct Placed {
    /// The compressed sizes of its members.
    pub(super) members: Vec<u64>,
    pub(super) chunks: Vec<PlacedChunk>,
}

/// Where a chunk is.
#[derive(Debug)]
pub(super) struct PlacedChunk {
    /// In which of the section's members.
    pub(super) member: usize,
    /// Where in the plain bytes of that.
    pub(super) inner: u64,
    pub(super) digest: Option<Digest>,
}

/// Counts and hashes sections in their order: the blob on one side, the tar on the other.
#[derive(Debug, Default)]
pub struct Assembly {
    blob: Totals,
    diff: Totals,
}

#[derive(Debug, Default)]
struct Totals {
    size: u64,
    hasher: Hasher,
}

impl Totals {
    fn add(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.hasher.update(bytes);
    }
}

impl Assembly {
    /// Takes the next section. Its [`bytes`](Pressed::bytes) are the next ones of the blob.
    #[must_use]
    pub fn add(&mut self, pressed: Pressed) -> Placed {
        self.diff.add(&pressed.plain);
        self.blob.add(&pressed.compressed);
        pressed.placed
    }

    /// Adds a part of the blob that decompresses to `plain`.
    pub(super) fn add_bytes(&mut self, plain: &[u8], compressed: &[u8]) {
        self.diff.add(plain);
        self.blob.add(compressed);
    }

    /// Digest and size of the blob, digest and size of the tar.
    pub(super) fn totals(&self) -> (Digest, u64, Digest, u64) {
        let digest = |totals: &Totals| totals.hasher.clone().finish();
        (digest(&self.blob), self.blob.size, digest(&self.diff), self.diff.size)
    }
}

/// Where sections begin and end.
pub(super) struct Sections<C> {
    /// For whoever has no other.
    pub(super) compressor: C,
    min_chunk_size: usize,
    digests: bool,
    /// Plain size from which a section is closed, so that a run of directories, or of small files that
    /// share members, needs no more memory than this.
    limit: usize,
    /// Plain bytes of the section that is open, and the chunks in it.
    plain: Vec<u8>,
    chunks: Vec<Range<usize>>,
    /// How many sections were closed, and those of them that nobody has taken.
    closed: usize,
    ready: VecDeque<Section>,
}

impl<C: Compressor> Sections<C> {
    pub(super) fn new(compressor: C, options: &Options) -> Self {
        let chunk_size = options.chunk_size.max(DEFAULT_CHUNK_SIZE) as usize;
        Self {
            compressor,
            min_chunk_size: options.min_chunk_size as usize,
            digests: options.format.has_digests(),
            limit: chunk_size.saturating_mul(2),
            plain: Vec::new(),
            chunks: Vec::new(),
            closed: 0,
            ready: VecDeque::new(),
        }
    }

    /// Adds bytes to the open section.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.plain.extend_from_slice(bytes);
    }

    /// Adds bytes that are no chunk: they may begin another section when the open one is large.
    pub(super) fn push_bounded(&mut self, bytes: &[u8]) {
        // By pieces of a block, so that where sections begin does not depend on the caller's splits.
        for piece in bytes.chunks(super::BLOCK) {
            if self.plain.len() >= self.limit {
                self.close();
            }
            self.push(piece);
        }
    }

    /// Begins a chunk of `size` bytes: in a new section, unless chunks share members, it is no landmark,
    /// and the open one has room. Where sections begin depends on plain sizes alone.
    pub(super) fn begin_chunk(&mut self, size: u64, landmark: bool) {
        let full = self.plain.len() as u64 + size > self.limit as u64;
        if landmark || self.min_chunk_size == 0 || full {
            self.close();
        }
        let start = self.plain.len();
        // A chunk is at most a section, which is in memory.
        let end = start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
        self.chunks.push(start..end);
    }

    /// Ends the open section if it has any bytes.
    pub(super) fn close(&mut self) {
        if self.plain.is_empty() {
            return;
        }
        self.ready.push_back(Section {
            plain: core::mem::take(&mut self.plain),
            chunks: core::mem::take(&mut self.chunks),
            digests: self.digests,
            min_chunk_size: self.min_chunk_size,
        });
        self.closed += 1;
    }

    /// The next section that is closed.
    pub(super) fn next(&mut self) -> Option<Section> {
        self.ready.pop_front()
    }

    /// How many sections there are.
    pub(super) fn closed(&self) -> usize {
        self.closed
    }

    /// Compresses what is not part of the tar.
    pub(super) fn compress(&mut self, plain: &[u8]) -> Result<Vec<u8>, WriteError> {
        let mut out = Vec::new();
        self.compressor.compress(plain, &mut out)?;
        Ok(out)
    }
}

impl<C> core::fmt::Debug for Sections<C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Sections")
            .field("closed", &self.closed)
            .field("plain", &self.plain.len())
            .finish_non_exhaustive()
    }
}
