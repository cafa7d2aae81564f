//! Members: collects plain bytes and cuts them; compresses, counts and hashes what was cut.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use super::{CompressFailed, Compressor, DEFAULT_CHUNK_SIZE, WriteError};
use crate::Digest;
use crate::digest::Hasher;

/// One member before it is compressed.
#[derive(Debug)]
pub struct Member {
    plain: Vec<u8>,
    /// What `plain` compresses to, where finding out where to cut has told already.
    compressed: Option<Vec<u8>>,
    /// Where in `plain` the chunks are whose digests are wanted.
    chunks: Vec<Range<usize>>,
}

impl Member {
    /// How many bytes it has before compression.
    #[must_use]
    pub fn plain_len(&self) -> usize {
        self.plain.len()
    }

    /// Compresses and hashes it. Members depend on nothing but themselves, so threads may each press
    /// some.
    ///
    /// # Errors
    ///
    /// If the compressor fails.
    pub fn press(self, compressor: &mut impl Compressor) -> Result<Pressed, CompressFailed> {
        let compressed = match self.compressed {
            Some(compressed) => compressed,
            None => {
                let mut compressed = Vec::new();
                compressor.compress(&self.plain, &mut compressed)?;
                compressed
            }
        };
        let digests = self.chunks.into_iter();
        let digests = digests.map(|chunk| Digest::of(self.plain.get(chunk).unwrap_or_default()));
        Ok(Pressed { digests: digests.collect(), plain: self.plain, compressed })
    }
}

/// One member, compressed.
#[derive(Debug)]
pub struct Pressed {
    plain: Vec<u8>,
    compressed: Vec<u8>,
    digests: Vec<Digest>,
}

impl Pressed {
    /// The next bytes of the blob.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.compressed
    }
}

/// What became of a member: for [`Cutter::placed`](super::Cutter::placed).
#[derive(Debug)]
pub struct Placed {
    pub(super) size: u64,
    pub(super) digests: Vec<Digest>,
}

/// Counts and hashes members in their order: the blob on one side, the tar on the other.
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
    /// Takes the next member. Its [`bytes`](Pressed::bytes) are the next ones of the blob.
    #[must_use]
    pub fn add(&mut self, pressed: Pressed) -> Placed {
        self.diff.add(&pressed.plain);
        self.blob.add(&pressed.compressed);
        Placed { size: pressed.compressed.len() as u64, digests: pressed.digests }
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

/// Where members begin and end.
pub(super) struct Members<C> {
    /// For trials, and for whoever has no other.
    pub(super) compressor: C,
    min_chunk_size: usize,
    /// Plain size from which a member is closed whatever its compressed size, so that a run of
    /// directories, or of zeros, needs no more memory than this.
    limit: usize,
    /// Plain bytes of the member that is open, and the chunks in it.
    plain: Vec<u8>,
    chunks: Vec<Range<usize>>,
    /// What the first `trial.plain` bytes of `plain` compress to.
    trial: Trial,
    /// How many members were closed, and those of them that nobody has taken.
    closed: usize,
    ready: VecDeque<Member>,
}

#[derive(Default)]
struct Trial {
    plain: usize,
    compressed: Vec<u8>,
    /// How long `plain` has to be before another trial is worth its time.
    next: usize,
}

impl<C: Compressor> Members<C> {
    pub(super) fn new(compressor: C, chunk_size: u32, min_chunk_size: u32) -> Self {
        let chunk_size = chunk_size.max(DEFAULT_CHUNK_SIZE) as usize;
        Self {
            compressor,
            min_chunk_size: min_chunk_size as usize,
            limit: chunk_size.saturating_mul(2),
            plain: Vec::new(),
            chunks: Vec::new(),
            trial: Trial::default(),
            closed: 0,
            ready: VecDeque::new(),
        }
    }

    /// Adds bytes to the open member.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.plain.extend_from_slice(bytes);
    }

    /// Adds bytes that are no chunk: they may begin another member when the open one is large.
    pub(super) fn push_bounded(&mut self, bytes: &[u8]) {
        // By pieces of a block, so that where members begin does not depend on the caller's splits.
        for piece in bytes.chunks(super::BLOCK) {
            if self.plain.len() >= self.limit {
                self.close();
            }
            self.push(piece);
        }
    }

    /// Begins a chunk of `size` bytes, in a new member if it is a landmark or the open one is large
    /// enough. Says in which member, and where in its plain bytes.
    pub(super) fn begin_chunk(
        &mut self,
        size: u64,
        landmark: bool,
        digest: bool,
    ) -> Result<(usize, u64), WriteError> {
        let full = self.plain.len() as u64 + size > self.limit as u64;
        if landmark || self.min_chunk_size == 0 || full || self.reaches_minimum()? {
            self.close();
        }
        let start = self.plain.len();
        if digest {
            // A chunk is at most a member, which is in memory.
            let end = start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
            self.chunks.push(start..end);
        }
        Ok((self.closed, start as u64))
    }

    /// Whether the open member has the minimum compressed size.
    ///
    /// Only compressing tells, so it is tried, but not for each of many small files: a member of
    /// fewer plain bytes cannot have it, and after a trial the ratio tells when the next may succeed.
    fn reaches_minimum(&mut self) -> Result<bool, WriteError> {
        let length = self.plain.len();
        if length < self.min_chunk_size.max(self.trial.next) {
            return Ok(false);
        }
        if self.trial.plain != length {
            self.trial.compressed.clear();
            self.compressor.compress(&self.plain, &mut self.trial.compressed)?;
            self.trial.plain = length;
        }
        let compressed = self.trial.compressed.len();
        if compressed >= self.min_chunk_size {
            return Ok(true);
        }
        // length * minimum / compressed, but at least an eighth more.
        let predicted = length as u64 * self.min_chunk_size as u64 / (compressed as u64).max(1);
        let predicted = usize::try_from(predicted).unwrap_or(usize::MAX);
        self.trial.next = predicted.max(length.saturating_add(length / 8));
        Ok(false)
    }

    /// Ends the open member if it has any bytes.
    pub(super) fn close(&mut self) {
        if self.plain.is_empty() {
            return;
        }
        let tried = self.trial.plain == self.plain.len();
        let trial = core::mem::take(&mut self.trial);
        self.ready.push_back(Member {
            plain: core::mem::take(&mut self.plain),
            compressed: tried.then_some(trial.compressed),
            chunks: core::mem::take(&mut self.chunks),
        });
        self.closed += 1;
    }

    /// The next member that is closed.
    pub(super) fn next(&mut self) -> Option<Member> {
        self.ready.pop_front()
    }

    /// How many members there are.
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

impl<C> core::fmt::Debug for Members<C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Members")
            .field("closed", &self.closed)
            .field("plain", &self.plain.len())
            .finish_non_exhaustive()
    }
}
