//! Core's values as those of the interface.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use lazystar_core::footer::{self, FooterError};
use lazystar_core::open::OpenError;
use lazystar_core::toc::{self, Attr, EntryFault, Kind, NodeId, TocError};
use lazystar_core::verify::ChunkFault;
use lazystar_core::{ByteRange, Digest, Limits, Toc};

use crate::bindings::exports::lazystar::engine::{layers, types};
use types::ErrorCode;

/// The most entries that a call takes or gives.
pub(crate) const PAGE: u32 = 1000;

pub(crate) fn byte_range(range: ByteRange) -> types::ByteRange {
    types::ByteRange { offset: range.start, length: range.len() }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The attributes of a node; the caller knows that it exists.
pub(crate) fn entry(node: NodeId, attr: &Attr, opaque: bool) -> types::Entry {
    const NANOS: i64 = 1_000_000_000;
    let (major, minor) = attr.device;
    let device = types::Device { major, minor };
    types::Entry {
        id: node.0,
        kind: match attr.kind {
            Kind::Directory => types::EntryKind::Directory,
            Kind::Regular => types::EntryKind::Regular,
            Kind::Symlink => types::EntryKind::Symlink,
            Kind::CharDevice => types::EntryKind::CharacterDevice(device),
            Kind::BlockDevice => types::EntryKind::BlockDevice(device),
            Kind::Fifo => types::EntryKind::Fifo,
            Kind::Whiteout => types::EntryKind::Whiteout,
        },
        size: attr.size,
        mode: u32::from(attr.mode),
        uid: attr.uid,
        gid: attr.gid,
        links: attr.nlink,
        modified: types::Instant {
            seconds: attr.mtime_nanos.div_euclid(NANOS),
            nanoseconds: u32::try_from(attr.mtime_nanos.rem_euclid(NANOS)).unwrap_or(0),
        },
        opaque,
    }
}

pub(crate) fn assurance(assurance: toc::Assurance) -> types::Assurance {
    match assurance {
        toc::Assurance::Verified => types::Assurance::Verified,
        toc::Assurance::Consistent => types::Assurance::Consistent,
        toc::Assurance::Unverified => types::Assurance::Unverified,
    }
}

pub(crate) fn summary(toc: &Toc) -> layers::Summary {
    layers::Summary {
        format: match toc.format() {
            footer::Format::EStargz => layers::Format::Estargz,
            footer::Format::EStargzExternalToc => layers::Format::EstargzExternalToc,
            footer::Format::Stargz => layers::Format::Stargz,
            footer::Format::ZstdChunked => layers::Format::ZstdChunked,
        },
        blob_size: toc.blob_size(),
        entries: toc.node_count(),
        chunks: u32::try_from(toc.chunks().len()).unwrap_or(u32::MAX),
        toc_digest: toc.digest().to_string(),
        assurance: assurance(toc.assurance()),
        memory: toc.memory() as u64,
    }
}

/// Refuses a list that is longer than a call takes.
pub(crate) fn at_most<T>(list: &[T], maximum: u32, subject: &str) -> Result<(), ErrorCode> {
    if u32::try_from(list.len()).is_ok_and(|len| len <= maximum) {
        return Ok(());
    }
    Err(limit_exceeded(subject.to_string(), u64::from(maximum)))
}

/// How many of a list with `len` items a page from `start` on holds, and where the next starts.
pub(crate) fn page(len: usize, start: u32, maximum: u32) -> (usize, usize, Option<u32>) {
    // A page of nothing would never come to an end.
    let take = maximum.clamp(1, PAGE);
    let end = start.saturating_add(take);
    (start as usize, take as usize, ((end as usize) < len).then_some(end))
}

pub(crate) fn limit_exceeded(subject: String, maximum: u64) -> ErrorCode {
    ErrorCode::LimitExceeded(types::LimitExceeded { subject, maximum })
}

pub(crate) fn malformed(range: Option<ByteRange>, message: String) -> ErrorCode {
    ErrorCode::Malformed(types::Malformed { blob_range: range.map(byte_range), message })
}

pub(crate) fn digest_mismatch(
    subject: types::Subject,
    expected: Digest,
    actual: Digest,
    range: Option<ByteRange>,
) -> ErrorCode {
    ErrorCode::DigestMismatch(types::DigestMismatch {
        subject,
        expected: expected.to_string(),
        actual: actual.to_string(),
        blob_range: range.map(byte_range),
    })
}

/// Why a layer cannot be opened whose footer and TOC were read from `range` of its blob.
pub(crate) fn open_error(error: &OpenError, range: ByteRange, limits: &Limits) -> ErrorCode {
    let message = error.to_string();
    match error {
        OpenError::Footer(FooterError::Absent) => ErrorCode::NotLazy,
        OpenError::Toc(TocError::Digest { expected, actual }) => {
            digest_mismatch(types::Subject::TableOfContents, *expected, *actual, Some(range))
        }
        OpenError::Toc(TocError::OverLimit { what, limit }) => {
            limit_exceeded((*what).to_string(), *limit)
        }
        OpenError::Toc(TocError::Entry { fault: EntryFault::TooLarge, .. }) => {
            limit_exceeded(message, limits.chunk_bytes)
        }
        OpenError::Toc(TocError::Entry { fault: EntryFault::NoDigest, .. }) => {
            ErrorCode::Unverifiable(message)
        }
        OpenError::Footer(_) | OpenError::Toc(_) => malformed(Some(range), message),
        _ => ErrorCode::Other(message),
    }
}

/// Why a chunk of a file cannot be given.
pub(crate) fn chunk_fault(fault: &ChunkFault, file: NodeId) -> ErrorCode {
    match fault {
        ChunkFault::Digest { expected, actual, range } => {
            digest_mismatch(types::Subject::File(file.0), *expected, *actual, Some(*range))
        }
        ChunkFault::Decode { range, .. } => malformed(Some(*range), fault.to_string()),
        _ => ErrorCode::Other(fault.to_string()),
    }
}

/// Refuses bytes that a host brings but that are not in the blob.
pub(crate) fn supplied(offset: u64, bytes: &[u8], blob_size: u64) -> Result<(), ErrorCode> {
    if offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= blob_size) {
        return Ok(());
    }
    let message = alloc::format!("bytes past the end of the blob of {blob_size} bytes");
    Err(ErrorCode::Protocol(message))
}

/// Every item of a list, or the first error.
pub(crate) fn each<T, U>(
    list: Vec<T>,
    convert: impl FnMut(T) -> Result<U, ErrorCode>,
) -> Result<Vec<U>, ErrorCode> {
    list.into_iter().map(convert).collect()
}
