use alloc::string::String;
use core::fmt;

use super::json::JsonError;
use crate::codec::DecodeError;
use crate::digest::Digest;

/// Why a table of contents cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TocError {
    /// The TOC is not JSON.
    Json(JsonError),
    /// The TOC is JSON of another shape.
    Shape(&'static str),
    /// The TOC cannot be decompressed.
    Decode(DecodeError),
    /// The first tar entry is not `stargz.index.json`, or is damaged.
    NotTheIndex,
    /// The TOC has another digest than the image's manifest states.
    Digest {
        /// What the manifest states.
        expected: Digest,
        /// What the TOC has.
        actual: Digest,
    },
    /// An entry is impossible, or lies outside what the blob holds.
    Entry {
        /// The path of the entry.
        path: String,
        /// What is wrong with it.
        fault: EntryFault,
    },
    /// More than a limit allows.
    OverLimit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryFault {
    /// A number is negative or does not fit what it counts.
    Number(&'static str),
    /// A field is not of the type that it should be.
    Field(&'static str),
    /// The type is none that a layer can hold.
    Kind,
    /// The name is empty where it must not be, or no file system could hold it or the link's target:
    /// too long, with a zero byte, or a whiteout of `.` or `..`.
    Name,
    /// It lies below something that is not a directory.
    ParentNotDirectory,
    /// A hard link to something that is not there.
    LinkTargetMissing,
    /// A hard link to a directory.
    LinkToDirectory,
    /// A chain of hard links that leads back to itself.
    LinkCycle,
    /// A symbolic link without a target.
    EmptySymlink,
    /// The chunks do not cover the file exactly, one after the other.
    Chunks,
    /// A chunk that follows no regular file.
    StrayChunk,
    /// The data lies outside the members of the blob, or before that of an earlier chunk.
    Offset,
    /// A chunk or the member that holds it is larger than is read into memory.
    TooLarge,
    /// A chunk has no digest, so its bytes cannot be verified.
    NoDigest,
    /// A digest is not `sha256:` and 64 hex digits.
    Digest,
    /// Extended attributes are not base64, or larger than a file system takes.
    Xattr,
}

impl fmt::Display for TocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => write!(f, "the TOC is not valid JSON: {error}"),
            Self::Shape(what) => write!(f, "the TOC is malformed: {what}"),
            Self::Decode(error) => write!(f, "the TOC cannot be decompressed: {error}"),
            Self::NotTheIndex => {
                f.write_str("the footer points at something that is not stargz.index.json")
            }
            Self::Digest { expected, actual } => write!(
                f,
                "the TOC has digest {actual}, the image's manifest says {expected}: the blob is corrupt or was replaced"
            ),
            Self::Entry { path, fault } => write!(f, "the TOC is corrupt at {path:?}: {fault}"),
            Self::OverLimit { what, limit } => {
                write!(f, "the TOC holds more {what} than the limit of {limit}")
            }
        }
    }
}

impl fmt::Display for EntryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(field) => write!(f, "{field:?} is negative or too large"),
            Self::Field(field) => write!(f, "{field:?} is of the wrong type"),
            Self::Kind => f.write_str("its type is unknown"),
            Self::Name => f.write_str("it has no name, or one that no file system can hold"),
            Self::ParentNotDirectory => {
                f.write_str("it lies below something that is not a directory")
            }
            Self::LinkTargetMissing => f.write_str("the target of the hard link does not exist"),
            Self::LinkToDirectory => f.write_str("a hard link to a directory"),
            Self::LinkCycle => f.write_str("the hard link leads back to itself"),
            Self::EmptySymlink => f.write_str("a symbolic link without a target"),
            Self::Chunks => f.write_str("its chunks do not cover it exactly"),
            Self::StrayChunk => f.write_str("a chunk that follows no regular file"),
            Self::Offset => f.write_str("its data lies outside the payload or out of order"),
            Self::TooLarge => f.write_str("a chunk or its member is larger than the limit"),
            Self::NoDigest => f.write_str("a chunk has no digest, so it cannot be verified"),
            Self::Digest => f.write_str("a digest is not sha256:<64 hex digits>"),
            Self::Xattr => f.write_str("its extended attributes are malformed or too large"),
        }
    }
}

/// The error that the entry called `name` has a fault.
pub(super) fn fault_at(name: &[u8], fault: EntryFault) -> TocError {
    TocError::Entry { path: String::from_utf8_lossy(name).into_owned(), fault }
}

impl core::error::Error for TocError {}

impl From<JsonError> for TocError {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

impl From<DecodeError> for TocError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}
