//! Members: collects plain bytes, compresses them member by member, counts and hashes both sides.

use alloc::vec::Vec;

use super::{Compressor, DEFAULT_CHUNK_SIZE, WriteError};
use crate::Digest;
use crate::digest::Hasher;

pub(super) struct Members<C> {
    compressor: C,
    min_chunk_size: usize,
    /// Plain size from which a member is closed whatever its compressed size, so that a run of
    /// directories, or of zeros, needs no more memory than this.
    limit: usize,
    /// Plain bytes of the member that is open.
    plain: Vec<u8>,
    /// What the first `trial.plain` bytes of `plain` compress to.
    trial: Trial,
    /// Where each member begins in the blob, the open one included.
    offsets: Vec<u64>,
    out: Vec<u8>,
    blob: Totals,
    diff: Totals,
}

#[derive(Default)]
struct Trial {
    plain: usize,
    compressed: Vec<u8>,
    /// How long `plain` has to be before another trial is worth its time.
    next: usize,
}

#[derive(Default)]
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

impl<C: Compressor> Members<C> {
    pub(super) fn new(compressor: C, chunk_size: u32, min_chunk_size: u32) -> Self {
        let chunk_size = chunk_size.max(DEFAULT_CHUNK_SIZE) as usize;
        Self {
            compressor,
            min_chunk_size: min_chunk_size as usize,
            limit: chunk_size.saturating_mul(2),
            plain: Vec::new(),
            trial: Trial::default(),
            offsets: Vec::from([0]),
            out: Vec::new(),
            blob: Totals::default(),
            diff: Totals::default(),
        }
    }

    /// Adds bytes to the open member.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.plain.extend_from_slice(bytes);
    }

    /// Adds bytes that are no chunk: they may begin another member when the open one is large.
    pub(super) fn push_bounded(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        // By pieces of a block, so that where members begin does not depend on the caller's splits.
        for piece in bytes.chunks(super::BLOCK) {
            if self.plain.len() >= self.limit {
                self.close()?;
            }
            self.push(piece);
        }
        Ok(())
    }

    /// Begins a chunk of `size` bytes, in a new member if it is a landmark or the open one is large
    /// enough. Says in which member, and where in its plain bytes.
    pub(super) fn begin_chunk(
        &mut self,
        size: u64,
        landmark: bool,
    ) -> Result<(usize, u64), WriteError> {
        let full = self.plain.len() as u64 + size > self.limit as u64;
        if landmark || self.min_chunk_size == 0 || full || self.reaches_minimum()? {
            self.close()?;
        }
        Ok((self.offsets.len() - 1, self.plain.len() as u64))
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
    pub(super) fn close(&mut self) -> Result<(), WriteError> {
        if self.plain.is_empty() {
            return Ok(());
        }
        self.diff.add(&self.plain);
        let start = self.out.len();
        if self.trial.plain == self.plain.len() {
            self.out.append(&mut self.trial.compressed);
        } else {
            self.compressor.compress(&self.plain, &mut self.out)?;
        }
        self.blob.add(&self.out[start..]);
        self.trial.plain = 0;
        self.trial.next = 0;
        self.plain.clear();
        self.offsets.push(self.blob.size);
        Ok(())
    }

    /// Appends bytes to the blob that decompress to nothing.
    pub(super) fn frame(&mut self, bytes: &[u8]) {
        self.blob.add(bytes);
        self.out.extend_from_slice(bytes);
    }

    /// Compresses what is not part of the tar.
    pub(super) fn compress(&mut self, plain: &[u8]) -> Result<Vec<u8>, WriteError> {
        let mut out = Vec::new();
        self.compressor.compress(plain, &mut out)?;
        Ok(out)
    }

    pub(super) fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// Size of the blob so far.
    pub(super) fn offset(&self) -> u64 {
        self.blob.size
    }

    pub(super) fn take_output(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.out)
    }

    pub(super) fn output_len(&self) -> usize {
        self.out.len()
    }

    /// Digest and size of the blob, digest and size of the tar.
    pub(super) fn totals(&self) -> (Digest, u64, Digest, u64) {
        let digest = |totals: &Totals| totals.hasher.clone().finish();
        (digest(&self.blob), self.blob.size, digest(&self.diff), self.diff.size)
    }
}

impl<C> core::fmt::Debug for Members<C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Members")
            .field("members", &self.offsets.len())
            .field("plain", &self.plain.len())
            .field("out", &self.out.len())
            .finish_non_exhaustive()
    }
}
