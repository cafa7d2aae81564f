//! Tar streams: a strict parser and a small header encoder.
//!
//! The parser accepts what container layers contain (POSIX.1-2001 ustar and pax, GNU long names,
//! `SCHILY.xattr.*`, base-256 numbers) and refuses, with the entry and the reason, everything that two
//! readers could understand differently.
//!
//! Names in a tar are bytes, names in a TOC are JSON text. A name that is not UTF-8 is therefore an
//! error here: a TOC that replaced its bytes would describe another file than the tar does. The values
//! of extended attributes are bytes in both and stay as they are.

mod encode;
mod error;
mod extensions;
mod header;
mod parse;
mod pax;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

pub use encode::{EncodeError, encode_header};
pub use error::{Field, Reason, TarError};
pub use parse::{Event, Parser};
pub(crate) use pax::is_expressible as is_expressible_time;

/// The unit in which a tar is laid out, in bytes.
pub const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file; the only kind that has data.
    Regular,
    /// A symbolic link.
    Symlink,
    /// Another name of a file in the same tar.
    HardLink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
}

/// What the headers of one entry say, with every extension applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name as stored: a trailing `/` or a leading `./` is kept.
    pub name: String,
    /// What the entry is.
    pub kind: Kind,
    /// Bytes of data that follow the header; zero unless `kind` is [`Kind::Regular`].
    pub size: u64,
    /// Permission bits with set-uid, set-gid and sticky (`mode & 0o7777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Name of the owner, or empty.
    pub user_name: String,
    /// Name of the group, or empty.
    pub group_name: String,
    /// Seconds since 1970, a fraction rounded half up; within the years 1 to 9999.
    pub mtime: i64,
    /// Target of a symbolic or hard link as stored; empty for other kinds.
    pub link_name: String,
    /// Major number of a device; zero for other kinds.
    pub dev_major: u32,
    /// Minor number of a device; zero for other kinds.
    pub dev_minor: u32,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Part of the above comes from a global pax header, so that the entry's own header bytes do not
    /// say all of it.
    pub inherits: bool,
}

impl Entry {
    /// An entry of `kind` at `name` with nothing else set.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            size: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            user_name: String::new(),
            group_name: String::new(),
            mtime: 0,
            link_name: String::new(),
            dev_major: 0,
            dev_minor: 0,
            xattrs: BTreeMap::new(),
            inherits: false,
        }
    }
}

/// How many zero bytes follow `size` bytes of data to fill the last block.
#[must_use]
pub const fn padding(size: u64) -> usize {
    // The result is below BLOCK, so the cast cannot truncate.
    ((BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64) as usize
}

#[cfg(test)]
mod tests;
