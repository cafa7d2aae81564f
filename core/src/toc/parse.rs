//! JSON to entries: what each field of the TOC means.

use alloc::vec::Vec;

use super::build::Builder;
use super::entry::{Entry, EntryKind};
use super::error::{EntryFault, TocError, fault_at};
use super::json::{Event, Lexer};
use super::{Assurance, Kind, Toc};
use crate::digest::{Digest, Hasher};
use crate::footer::Footer;
use crate::limits::Limits;
use crate::time::parse_rfc3339;

/// Reads the JSON of a TOC, in pieces of any size, into tables.
pub struct TocReader {
    lexer: Lexer,
    hasher: Hasher,
    read: u64,
    limits: Limits,
    entries: Entries,
}

struct Entries {
    place: Place,
    field: Field,
    entry: Entry,
    xattr_name: Vec<u8>,
    /// Levels of values inside a value that nobody asked for.
    skipping: u32,
    seen: bool,
    builder: Builder,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Top,
    Entries,
    Entry,
    Xattrs,
}

macro_rules! fields {
    ($($field:ident $name:literal)*) => {
        /// The fields of an entry, and at the top level.
        #[derive(Clone, Copy, PartialEq, Eq)]
        enum Field {
            Ignored,
            EntryList,
            $($field,)*
        }

        impl Field {
            const NAMED: &[(&[u8], Self)] = &[$(($name, Self::$field),)*];

            /// Nearly all are written as they are here. This compares them as numbers, and calls nothing.
            fn exact(key: &[u8]) -> Option<Self> {
                match key {
                    $($name => Some(Self::$field),)*
                    _ => None,
                }
            }
        }
    };
}

fields! {
    Name b"name"
    Type b"type"
    Size b"size"
    ModTime b"modtime"
    LinkName b"linkName"
    Mode b"mode"
    Uid b"uid"
    Gid b"gid"
    Offset b"offset"
    InnerOffset b"innerOffset"
    DevMajor b"devMajor"
    DevMinor b"devMinor"
    Xattrs b"xattrs"
    Digest b"digest"
    ChunkOffset b"chunkOffset"
    ChunkSize b"chunkSize"
    ChunkDigest b"chunkDigest"
    ChunkType b"chunkType"
}

impl Field {
    /// Names match without regard to case, as the writers' JSON library reads them.
    fn of(key: &[u8]) -> Self {
        Self::exact(key).unwrap_or_else(|| {
            let mut named = Self::NAMED.iter();
            let field = named.find(|(name, _)| name.eq_ignore_ascii_case(key));
            field.map_or(Self::Ignored, |(_, field)| *field)
        })
    }

    fn name(self) -> &'static str {
        let name = Self::NAMED.iter().find(|(_, field)| *field == self);
        name.and_then(|(name, _)| core::str::from_utf8(name).ok()).unwrap_or("entries")
    }
}

impl TocReader {
    /// A reader for the TOC of the blob of `blob_size` bytes that ends with `footer`. `seed` sets
    /// the order of a hash table inside; it should depend on the TOC, so that nobody can write a
    /// TOC that makes that table slow.
    #[must_use]
    pub fn new(footer: Footer, blob_size: u64, seed: Digest, limits: Limits) -> Self {
        Self {
            // Base64 of the largest attribute value, or a path every byte of which is escaped.
            lexer: Lexer::new((limits.xattr_bytes * 2).max(limits.path_bytes * 6)),
            hasher: Hasher::new(),
            read: 0,
            limits,
            entries: Entries {
                place: Place::Start,
                field: Field::Ignored,
                entry: Entry::default(),
                xattr_name: Vec::new(),
                skipping: 0,
                seen: false,
                builder: Builder::new(footer, blob_size, seed, limits),
            },
        }
    }

    /// Reads the next piece.
    ///
    /// # Errors
    /// When the TOC is malformed, impossible or over a limit.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), TocError> {
        self.read += piece.len() as u64;
        if self.read > self.limits.toc_bytes {
            return Err(TocError::OverLimit { what: "bytes", limit: self.limits.toc_bytes });
        }
        self.hasher.update(piece);
        let Self { lexer, entries, .. } = self;
        lexer.feed(piece, &mut |event| entries.event(event))
    }

    /// Ends the TOC and builds the tables. With an `expected` digest the TOC must have it, and
    /// every chunk must have a digest; without one, chunks without digests are let through when
    /// `unverified` is set.
    ///
    /// # Errors
    /// When the TOC ends early, has another digest, or contradicts itself.
    pub fn finish(self, expected: Option<Digest>, unverified: bool) -> Result<Toc, TocError> {
        let actual = self.hasher.finish();
        if let Some(expected) = expected
            && expected != actual
        {
            return Err(TocError::Digest { expected, actual });
        }
        self.lexer.finish()?;
        if !self.entries.seen {
            return Err(TocError::Shape("it has no list of entries"));
        }
        let assurance = match expected {
            Some(_) => Assurance::Verified,
            None => Assurance::Consistent,
        };
        self.entries.builder.finish(actual, assurance, unverified)
    }
}

impl Entries {
    fn event(&mut self, event: Event<'_>) -> Result<(), TocError> {
        if self.skipping > 0 {
            match event {
                Event::ObjectStart | Event::ArrayStart => self.skipping += 1,
                Event::ObjectEnd | Event::ArrayEnd => self.skipping -= 1,
                _ => {}
            }
            return Ok(());
        }
        match (self.place, event) {
            (Place::Start, Event::ObjectStart) => self.place = Place::Top,
            (Place::Start, _) => return Err(TocError::Shape("it is not an object")),
            (Place::Top, Event::ObjectEnd) => {}
            (Place::Top, Event::Key(key)) => {
                let is_list = key.eq_ignore_ascii_case(b"entries");
                self.field = if is_list { Field::EntryList } else { Field::Ignored };
            }
            (Place::Top, value) if self.field == Field::EntryList => match value {
                Event::ArrayStart if !self.seen => {
                    self.seen = true;
                    self.place = Place::Entries;
                }
                Event::Null => self.seen = true,
                _ => return Err(TocError::Shape("\"entries\" is not one list")),
            },
            (Place::Entries, Event::ObjectStart) => {
                self.entry.clear();
                self.place = Place::Entry;
            }
            (Place::Entries, Event::ArrayEnd) => {
                self.builder.end_file()?;
                self.place = Place::Top;
                self.field = Field::Ignored;
            }
            (Place::Entries, _) => return Err(TocError::Shape("an entry is not an object")),
            (Place::Entry, Event::ObjectEnd) => {
                self.builder.push(&self.entry)?;
                self.place = Place::Entries;
            }
            (Place::Entry, Event::Key(key)) => self.field = Field::of(key),
            (Place::Entry, Event::ObjectStart) if self.field == Field::Xattrs => {
                self.place = Place::Xattrs;
            }
            (Place::Xattrs, Event::ObjectEnd) => {
                self.entry.sort_xattrs();
                self.place = Place::Entry;
            }
            (Place::Xattrs, Event::Key(key)) => set_text(&mut self.xattr_name, key),
            (Place::Xattrs, value) => self.xattr(value)?,
            (_, Event::ObjectStart | Event::ArrayStart) if self.field == Field::Ignored => {
                self.skipping = 1;
            }
            (Place::Entry, value) => self.value(value)?,
            (Place::Top, _) => {}
        }
        Ok(())
    }

    fn value(&mut self, value: Event<'_>) -> Result<(), TocError> {
        let field = self.field;
        let entry = &mut self.entry;
        let set = match (field, value) {
            // `null` leaves a field as it is, as the writers' JSON library does.
            (Field::Ignored, _) | (_, Event::Null) => Ok(()),
            (Field::Name, Event::String(bytes)) => {
                set_text(&mut entry.name, bytes);
                Ok(())
            }
            (Field::LinkName, Event::String(bytes)) => {
                set_text(&mut entry.link, bytes);
                Ok(())
            }
            (Field::Type, Event::String(bytes)) => {
                entry.kind = entry_kind(bytes);
                Ok(())
            }
            (Field::ModTime, Event::String(bytes)) => parse_rfc3339(bytes)
                .map(|nanos| entry.mtime_nanos = nanos)
                .ok_or_else(|| EntryFault::Field(field.name())),
            (Field::ChunkType, Event::String(bytes)) => {
                entry.zeros = bytes == b"zeros";
                Ok(())
            }
            (Field::Digest, Event::String(bytes)) => {
                digest(bytes).map(|digest| entry.digest = digest)
            }
            (Field::ChunkDigest, Event::String(bytes)) => {
                digest(bytes).map(|digest| entry.chunk_digest = digest)
            }
            (_, Event::Number(digits)) => number(entry, field, digits),
            _ => Err(EntryFault::Field(field.name())),
        };
        set.map_err(|fault| fault_at(&entry.name, fault))
    }

    fn xattr(&mut self, value: Event<'_>) -> Result<(), TocError> {
        let decoded = match value {
            Event::String(bytes) => base64(bytes),
            Event::Null => Some(Vec::new()),
            _ => None,
        };
        let name = &self.xattr_name;
        let limit = self.builder.limits().xattr_bytes;
        let stored = decoded.is_some_and(|value| {
            !name.is_empty()
                && !name.contains(&0)
                && self.entry.xattrs.len() + name.len() + value.len() <= limit
                && self.entry.push_xattr(name, &value)
        });
        if stored { Ok(()) } else { Err(fault_at(&self.entry.name, EntryFault::Xattr)) }
    }
}

fn number(entry: &mut Entry, field: Field, digits: &[u8]) -> Result<(), EntryFault> {
    let fault = || EntryFault::Number(field.name());
    let number = core::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<i64>().ok());
    let wide = number.and_then(|number| u64::try_from(number).ok()).ok_or_else(fault);
    let narrow = || wide.and_then(|wide| u32::try_from(wide).map_err(|_| fault()));
    match field {
        Field::Size => entry.size = wide?,
        Field::Offset => entry.offset = wide?,
        Field::InnerOffset => entry.inner_offset = wide?,
        Field::ChunkOffset => entry.chunk_offset = wide?,
        Field::ChunkSize => entry.chunk_size = wide?,
        // Some tars carry the file type above the permission bits.
        #[allow(clippy::cast_possible_truncation, reason = "masked")]
        Field::Mode => entry.mode = (wide? & 0o7777) as u16,
        Field::Uid => entry.uid = narrow()?,
        Field::Gid => entry.gid = narrow()?,
        Field::DevMajor => entry.device.0 = narrow()?,
        Field::DevMinor => entry.device.1 = narrow()?,
        _ => return Err(EntryFault::Field(field.name())),
    }
    Ok(())
}

fn entry_kind(name: &[u8]) -> EntryKind {
    match name {
        b"dir" => EntryKind::Node(Kind::Directory),
        b"reg" => EntryKind::Node(Kind::Regular),
        b"symlink" => EntryKind::Node(Kind::Symlink),
        b"char" => EntryKind::Node(Kind::CharDevice),
        b"block" => EntryKind::Node(Kind::BlockDevice),
        b"fifo" => EntryKind::Node(Kind::Fifo),
        b"hardlink" => EntryKind::Hardlink,
        b"chunk" => EntryKind::Chunk,
        _ => EntryKind::Unknown,
    }
}

/// Makes `out` the text in `bytes`; each byte that is not UTF-8 becomes U+FFFD.
fn set_text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.clear();
    let mut rest = bytes;
    while let Err(error) = core::str::from_utf8(rest) {
        let (valid, bad) = rest.split_at(error.valid_up_to());
        out.extend_from_slice(valid);
        out.extend_from_slice("\u{fffd}".as_bytes());
        rest = bad.get(1..).unwrap_or(&[]);
    }
    out.extend_from_slice(rest);
}

fn digest(bytes: &[u8]) -> Result<Option<[u8; 32]>, EntryFault> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let digest = *Digest::from_text(bytes).map_err(|_| EntryFault::Digest)?.as_bytes();
    // The tables mark a chunk without a digest by zeros, which nothing is known to hash to.
    if digest == [0; 32] { Err(EntryFault::Digest) } else { Ok(Some(digest)) }
}

/// Standard base64 with padding (RFC 4648 section 4); line ends inside are skipped.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count, mut padding) = (0_u32, 0_u32, 0);
    for byte in text.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                padding += 1;
                continue;
            }
            _ => return None,
        };
        if padding > 0 {
            return None;
        }
        bits = bits << 6 | u32::from(value);
        count += 1;
        if count.is_multiple_of(4) {
            out.extend_from_slice(&bits.to_be_bytes()[1..]);
            bits = 0;
        }
    }
    match (count % 4, padding) {
        (0, 0) => {}
        (2, 2) => out.push((bits >> 4).to_be_bytes()[3]),
        (3, 1) => out.extend_from_slice(&(bits >> 2).to_be_bytes()[2..]),
        _ => return None,
    }
    Some(out)
}

impl core::fmt::Debug for TocReader {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TocReader").field("read", &self.read).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_base64() {
        assert_eq!(base64(b"").as_deref(), Some(&b""[..]));
        assert_eq!(base64(b"Zg==").as_deref(), Some(&b"f"[..]));
        assert_eq!(base64(b"Zm8=").as_deref(), Some(&b"fo"[..]));
        assert_eq!(base64(b"Zm9v\nYmFy").as_deref(), Some(&b"foobar"[..]));
        assert_eq!(base64(b"//79").as_deref(), Some(&[0xff, 0xfe, 0xfd][..]));
        for bad in ["Z", "Zg=", "Zg", "Z=g=", "Zm9v!"] {
            assert_eq!(base64(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn replaces_bytes_that_are_not_utf8() {
        let mut out = Vec::from(b"before");
        set_text(&mut out, b"a\xff\xfeb");
        assert_eq!(out, "a\u{fffd}\u{fffd}b".as_bytes());
    }
}
