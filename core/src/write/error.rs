//! Why a layer cannot be written.

use alloc::string::String;
use core::fmt;

use super::CompressFailed;
use crate::footer::Compression;
use crate::tar::EncodeError;

/// Why a layer cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError {
    /// The compressor is not of the format's codec.
    WrongCodec {
        /// What the format needs.
        expected: Compression,
    },
    /// The header is not whole blocks, or announces data for a kind without data.
    Header {
        /// Name of the entry.
        name: String,
    },
    /// The entry has less data than announced.
    Incomplete {
        /// Name of the entry.
        name: String,
        /// How many bytes are missing.
        missing: u64,
    },
    /// The entry has more data than announced.
    ExcessData {
        /// Name of the entry.
        name: String,
    },
    /// The input has a TOC already, which a lossless writer can neither keep nor drop.
    Reserved {
        /// Name of the entry.
        name: String,
    },
    /// A hard link that leads to no file of this layer; readers refuse such a layer.
    DanglingHardLink {
        /// Name of the link.
        name: String,
        /// What it names.
        target: String,
    },
    /// The compressed TOC does not fit into a skippable frame (4 GiB).
    TocTooLarge {
        /// Size of the TOC, in bytes.
        size: usize,
    },
    /// A header cannot be encoded.
    Encode(EncodeError),
    /// The compressor failed.
    Compress(CompressFailed),
    /// Not all sections that were cut have been placed.
    Unplaced,
    /// The writer has finished, or failed before.
    Over,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongCodec { expected } => write!(f, "the format needs a {expected} compressor"),
            Self::Header { name } => write!(f, "entry {name:?} has no valid header"),
            Self::Incomplete { name, missing } => {
                write!(f, "entry {name:?} lacks {missing} bytes of its data")
            }
            Self::ExcessData { name } => write!(f, "entry {name:?} has more data than announced"),
            Self::Reserved { name } => {
                write!(f, "entry {name:?} is a TOC, which a lossless conversion cannot keep")
            }
            Self::DanglingHardLink { name, target } => {
                write!(f, "hard link {name:?} leads to {target:?}, which is no file of this layer")
            }
            Self::TocTooLarge { size } => write!(f, "a TOC of {size} bytes is too large"),
            Self::Encode(error) => error.fmt(f),
            Self::Compress(error) => error.fmt(f),
            Self::Unplaced => f.write_str("sections of the layer are missing"),
            Self::Over => f.write_str("the layer is finished or has failed"),
        }
    }
}

impl core::error::Error for WriteError {}

impl From<EncodeError> for WriteError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

impl From<CompressFailed> for WriteError {
    fn from(error: CompressFailed) -> Self {
        Self::Compress(error)
    }
}
