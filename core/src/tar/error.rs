//! Why a tar is refused.

use alloc::string::String;
use core::fmt;

/// A header field, as errors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is the field that POSIX calls so")]
pub enum Field {
    Name,
    LinkName,
    Mode,
    Uid,
    Gid,
    Size,
    Mtime,
    UserName,
    GroupName,
    DevMajor,
    DevMinor,
    Xattr,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::LinkName => "link name",
            Self::Mode => "mode",
            Self::Uid => "uid",
            Self::Gid => "gid",
            Self::Size => "size",
            Self::Mtime => "mtime",
            Self::UserName => "user name",
            Self::GroupName => "group name",
            Self::DevMajor => "device major number",
            Self::DevMinor => "device minor number",
            Self::Xattr => "extended attribute",
        })
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The header's checksum is not the sum of its bytes.
    Checksum,
    /// The header calls itself ustar but is of neither the POSIX nor the GNU form.
    Magic,
    /// A sparse file.
    Sparse,
    /// A type flag other than the seven kinds that a layer can hold.
    Unsupported {
        /// The type flag.
        flag: u8,
    },
    /// Not a number, negative, or larger than the field's meaning allows.
    Number {
        /// Which number.
        field: Field,
    },
    /// Two headers of the entry state different values where readers differ in whom to believe.
    Contradiction {
        /// Which value.
        field: Field,
    },
    /// Not UTF-8, which a TOC cannot express.
    NotUtf8 {
        /// Which text.
        field: Field,
    },
    /// Contains a NUL byte.
    Nul {
        /// Which text.
        field: Field,
    },
    /// Empty although the kind needs it.
    Empty {
        /// Which text.
        field: Field,
    },
    /// A kind without data that announces data.
    UnexpectedData,
    /// A pax record that is not `length key=value newline`.
    PaxRecord,
    /// An extension header above the limit: 1 MiB, or 1 KiB for what is kept of a global one.
    ExtensionTooLarge,
    /// An extension header twice for one entry, or before a header that it cannot apply to.
    ExtensionMisplaced,
    /// A zero block that is neither followed by a second one nor the end.
    LoneZeroBlock,
    /// The stream ends inside an entry.
    Truncated,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum => f.write_str("wrong header checksum"),
            Self::Magic => f.write_str("unknown kind of ustar header"),
            Self::Sparse => f.write_str("sparse files are not supported"),
            Self::Unsupported { flag } => {
                write!(f, "type '{}' is not supported", flag.escape_ascii())
            }
            Self::Number { field } => write!(f, "{field} is not a valid number"),
            Self::Contradiction { field } => {
                write!(f, "its headers contradict each other about the {field}")
            }
            Self::NotUtf8 { field } => write!(f, "{field} is not UTF-8"),
            Self::Nul { field } => write!(f, "{field} contains a NUL byte"),
            Self::Empty { field } => write!(f, "{field} is empty"),
            Self::UnexpectedData => f.write_str("only regular files may have data"),
            Self::PaxRecord => f.write_str("malformed pax record"),
            Self::ExtensionTooLarge => f.write_str("extension header is too large"),
            Self::ExtensionMisplaced => f.write_str("misplaced extension header"),
            Self::LoneZeroBlock => f.write_str("a single zero block between entries"),
            Self::Truncated => f.write_str("the tar ends inside it"),
        }
    }
}

/// A tar that is refused: where and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarError {
    /// Offset in the tar of the first header block of the entry.
    pub offset: u64,
    /// Name of the entry as far as known, bad bytes replaced.
    pub name: String,
    /// What is wrong with it.
    pub reason: Reason,
}

impl fmt::Display for TarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            write!(f, "tar entry at byte {}: {}", self.offset, self.reason)
        } else {
            write!(f, "tar entry {:?} at byte {}: {}", self.name, self.offset, self.reason)
        }
    }
}

impl core::error::Error for TarError {}
