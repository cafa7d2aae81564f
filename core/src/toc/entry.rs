//! One entry of the TOC as it is read, before it is put into the tables.

use alloc::vec::Vec;

use super::{Kind, NONE};

/// What the `type` of an entry says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum EntryKind {
    #[default]
    Missing,
    Unknown,
    Node(Kind),
    Hardlink,
    Chunk,
}

/// The fields of an entry; reused from one to the next.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) kind: EntryKind,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) device: (u32, u32),
    pub(super) mtime_nanos: i64,
    pub(super) size: u64,
    pub(super) offset: u64,
    pub(super) inner_offset: u64,
    pub(super) chunk_offset: u64,
    pub(super) chunk_size: u64,
    pub(super) zeros: bool,
    pub(super) digest: Option<[u8; 32]>,
    pub(super) chunk_digest: Option<[u8; 32]>,
    /// As they are stored: see [`XattrIter`].
    pub(super) xattrs: Vec<u8>,
    pub(super) xattr_count: u16,
}

impl Entry {
    pub(super) fn clear(&mut self) {
        let Self { mut name, mut link, mut xattrs, .. } = core::mem::take(self);
        name.clear();
        link.clear();
        xattrs.clear();
        *self = Self { name, link, xattrs, ..Self::default() };
    }

    /// Adds an extended attribute; `false` when it is larger than can be stored.
    pub(super) fn push_xattr(&mut self, name: &[u8], value: &[u8]) -> bool {
        let (Ok(name_len), Ok(value_len)) = (u8::try_from(name.len()), u16::try_from(value.len()))
        else {
            return false;
        };
        let Some(count) = self.xattr_count.checked_add(1) else { return false };
        self.xattr_count = count;
        self.xattrs.push(name_len);
        self.xattrs.extend(value_len.to_le_bytes());
        self.xattrs.extend(name);
        self.xattrs.extend(value);
        true
    }

    /// Sorts the extended attributes by name, so that equal sets are stored alike, and keeps the
    /// last of those with the same name.
    pub(super) fn sort_xattrs(&mut self) {
        if self.xattr_count < 2 {
            return;
        }
        let stored = core::mem::take(&mut self.xattrs);
        let mut sorted: Vec<_> = XattrIter { rest: &stored, left: self.xattr_count }.collect();
        sorted.sort_by(|one, other| one.0.cmp(other.0));
        self.xattr_count = 0;
        for (at, (name, value)) in sorted.iter().enumerate() {
            if sorted.get(at + 1).is_none_or(|next| next.0 != *name) {
                self.push_xattr(name, value);
            }
        }
    }
}

/// Walks a stored set of extended attributes: a 16-bit count, then for each attribute an 8-bit
/// and a 16-bit length, the name and the value.
#[derive(Clone, Debug)]
pub(super) struct XattrIter<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> XattrIter<'a> {
    pub(super) fn new(sets: &'a [u8], offset: u32) -> Self {
        let set = if offset == NONE { None } else { sets.get(offset as usize..) };
        match set.and_then(<[u8]>::split_first_chunk) {
            Some((count, rest)) => Self { rest, left: u16::from_le_bytes(*count) },
            None => Self { rest: &[], left: 0 },
        }
    }
}

impl<'a> Iterator for XattrIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let ([name_len, value_len @ ..], rest) = self.rest.split_first_chunk::<3>()?;
        let (name, rest) = rest.split_at_checked(usize::from(*name_len))?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*value_len)))?;
        self.rest = rest;
        Some((name, value))
    }
}
