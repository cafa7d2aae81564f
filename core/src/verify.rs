//! The only way to bytes that may be read: decode a member, then check its chunks.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::codec::{Codec, DecodeError};
use crate::digest::Digest;
use crate::range::ByteRange;
use crate::toc::{Assurance, Chunk, ChunkIndex, Toc};

/// A chunk whose bytes have the digest that the TOC states. Nothing else makes one.
#[derive(Clone, Copy)]
pub struct VerifiedChunk<'a> {
    index: ChunkIndex,
    flat: u64,
    bytes: &'a [u8],
}

impl<'a> VerifiedChunk<'a> {
    /// Its number.
    #[must_use]
    pub const fn index(&self) -> ChunkIndex {
        self.index
    }

    /// Where its bytes are in the flat space.
    #[must_use]
    pub const fn flat(&self) -> u64 {
        self.flat
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl fmt::Debug for VerifiedChunk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifiedChunk({}, {} bytes)", self.index.0, self.bytes.len())
    }
}

/// Why a chunk cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChunkFault {
    /// The bytes have another digest than the TOC states.
    Digest {
        /// What the TOC states.
        expected: Digest,
        /// What the bytes have.
        actual: Digest,
        /// Where their member is in the blob.
        range: ByteRange,
    },
    /// The member cannot be decompressed.
    Decode {
        /// Why.
        error: DecodeError,
        /// Where the member is in the blob.
        range: ByteRange,
    },
}

impl fmt::Display for ChunkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest { expected, actual, range } => write!(
                f,
                "{range} of the blob hold a chunk with digest {actual}, the TOC says {expected}: the registry served corrupt or altered data"
            ),
            Self::Decode { error, range } => write!(
                f,
                "{range} of the blob cannot be decompressed ({error}): the registry served corrupt or altered data"
            ),
        }
    }
}

impl core::error::Error for ChunkFault {}

/// Checks `bytes`, which claim to be chunk `index` of `toc`; for bytes that were kept by someone
/// who cannot be trusted, such as a cache file after a crash.
///
/// `None` when they are not that chunk, or when the TOC has no digest for it.
#[must_use]
pub fn verify<'a>(toc: &Toc, index: ChunkIndex, bytes: &'a [u8]) -> Option<VerifiedChunk<'a>> {
    let chunk = toc.chunk(index)?;
    let expected = chunk.digest()?;
    let genuine = bytes.len() == chunk.len as usize && Digest::of(bytes) == expected;
    genuine.then_some(VerifiedChunk { index, flat: chunk.flat, bytes })
}

/// The compressed bytes of one member, ready to be decoded and verified on any thread.
pub struct MemberJob {
    toc: Arc<Toc>,
    member: u64,
    compressed: Vec<u8>,
}

impl MemberJob {
    pub(crate) fn new(toc: Arc<Toc>, member: u64, compressed: Vec<u8>) -> Self {
        Self { toc, member, compressed }
    }

    /// Where the member starts in the blob.
    #[must_use]
    pub fn member(&self) -> u64 {
        self.member
    }

    /// How many compressed bytes there are.
    #[must_use]
    pub fn compressed_len(&self) -> usize {
        self.compressed.len()
    }

    /// Decodes the member and verifies every chunk in it.
    #[must_use]
    pub fn run(&self, codec: &mut impl Codec) -> Member {
        let range = self.toc.member_span(self.member);
        let indices = self.toc.member_chunks(self.member);
        let chunk = |index: u32| self.toc.chunks().get(index as usize).filter(|it| !it.is_hole());
        let want = indices.clone().filter_map(chunk).map(|chunk| chunk.member_range().end).max();
        let mut plain = Vec::new();
        let compression = self.toc.format().compression();
        let decoded = codec.decode(compression, &self.compressed, want.unwrap_or(0), &mut plain);
        let mut chunks = Vec::with_capacity(indices.len());
        for index in indices {
            let Some(chunk) = chunk(index) else { continue };
            let fault = match decoded {
                Ok(()) => self.check(chunk, &plain, range).err(),
                Err(error) => Some(ChunkFault::Decode { error, range }),
            };
            chunks.push((ChunkIndex(index), fault));
        }
        Member { toc: Arc::clone(&self.toc), member: self.member, plain, chunks }
    }

    fn check(&self, chunk: &Chunk, plain: &[u8], range: ByteRange) -> Result<(), ChunkFault> {
        let short = ChunkFault::Decode { error: DecodeError::Short, range };
        let bytes = plain.get(chunk.member_range()).ok_or(short)?;
        let Some(expected) = chunk.digest() else {
            // The TOC was opened only because a person allowed unverified layers.
            return if self.toc.assurance() == Assurance::Unverified { Ok(()) } else { Err(short) };
        };
        let actual = Digest::of(bytes);
        if actual == expected {
            Ok(())
        } else {
            Err(ChunkFault::Digest { expected, actual, range })
        }
    }
}

impl fmt::Debug for MemberJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemberJob({}, {} bytes)", self.member, self.compressed.len())
    }
}

/// A member that was decoded: verified chunks, and the faults of those that are not.
pub struct Member {
    toc: Arc<Toc>,
    member: u64,
    plain: Vec<u8>,
    chunks: Vec<(ChunkIndex, Option<ChunkFault>)>,
}

impl Member {
    /// The chunks that may be read.
    pub fn verified(&self) -> impl Iterator<Item = VerifiedChunk<'_>> {
        self.chunks.iter().filter(|(_, fault)| fault.is_none()).filter_map(|(index, _)| {
            let chunk = self.toc.chunk(*index)?;
            let bytes = self.plain.get(chunk.member_range())?;
            Some(VerifiedChunk { index: *index, flat: chunk.flat, bytes })
        })
    }

    /// The chunks that may not, and why.
    pub fn faults(&self) -> impl Iterator<Item = (ChunkIndex, ChunkFault)> {
        self.chunks.iter().filter_map(|(index, fault)| Some((*index, (*fault)?)))
    }

    pub(crate) fn start(&self) -> u64 {
        self.member
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Member({}, {} bytes)", self.member, self.plain.len())
    }
}
