//! JSON to entries: what each field of the TOC means.

use alloc::string::String;
use alloc::vec::Vec;

use super::build::Builder;
use super::entry::{Entry, EntryKind};
use super::error::{EntryFault, TocError};
use super::json::{Event, Lexer};
use super::{Assurance, Kind, Toc};
use crate::digest::{Digest, Hasher};
use crate::footer::Footer;
use crate::limits::Limits;

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

/// The fields of an entry, and at the top level.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Ignored,
    EntryList,
    Name,
    Type,
    Size,
    ModTime,
    LinkName,
    Mode,
    Uid,
    Gid,
    Offset,
    InnerOffset,
    DevMajor,
    DevMinor,
    Xattrs,
    Digest,
    ChunkOffset,
    ChunkSize,
    ChunkDigest,
    ChunkType,
}

const FIELDS: [(&str, Field); 18] = [
    ("name", Field::Name),
    ("type", Field::Type),
    ("size", Field::Size),
    ("modtime", Field::ModTime),
    ("linkName", Field::LinkName),
    ("mode", Field::Mode),
    ("uid", Field::Uid),
    ("gid", Field::Gid),
    ("offset", Field::Offset),
    ("innerOffset", Field::InnerOffset),
    ("devMajor", Field::DevMajor),
    ("devMinor", Field::DevMinor),
    ("xattrs", Field::Xattrs),
    ("digest", Field::Digest),
    ("chunkOffset", Field::ChunkOffset),
    ("chunkSize", Field::ChunkSize),
    ("chunkDigest", Field::ChunkDigest),
    ("chunkType", Field::ChunkType),
];

impl Field {
    /// Names match without regard to case, as the writers' JSON library reads them.
    fn of(key: &[u8]) -> Self {
        // Nearly all are written as they are here.
        let exact = FIELDS.iter().find(|(name, _)| name.as_bytes() == key);
        let field = exact
            .or_else(|| FIELDS.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(key)));
        field.map_or(Self::Ignored, |(_, field)| *field)
    }

    fn name(self) -> &'static str {
        FIELDS.iter().find(|(_, field)| *field == self).map_or("entries", |(name, _)| name)
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
            (Field::ModTime, Event::String(bytes)) => timestamp(bytes)
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

pub(super) fn fault_at(name: &[u8], fault: EntryFault) -> TocError {
    TocError::Entry { path: String::from_utf8_lossy(name).into_owned(), fault }
}

fn number(entry: &mut Entry, field: Field, digits: &[u8]) -> Result<(), EntryFault> {
    let fault = EntryFault::Number(field.name());
    let number = core::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<i64>().ok());
    let wide = number.and_then(|number| u64::try_from(number).ok()).ok_or(fault);
    let narrow = wide.and_then(|wide| u32::try_from(wide).map_err(|_| fault));
    match field {
        Field::Size => entry.size = wide?,
        Field::Offset => entry.offset = wide?,
        Field::InnerOffset => entry.inner_offset = wide?,
        Field::ChunkOffset => entry.chunk_offset = wide?,
        Field::ChunkSize => entry.chunk_size = wide?,
        // Some tars carry the file type above the permission bits.
        #[allow(clippy::cast_possible_truncation, reason = "masked")]
        Field::Mode => entry.mode = (wide? & 0o7777) as u16,
        Field::Uid => entry.uid = narrow?,
        Field::Gid => entry.gid = narrow?,
        Field::DevMajor => entry.device.0 = narrow?,
        Field::DevMinor => entry.device.1 = narrow?,
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
    let digest = core::str::from_utf8(bytes).ok().and_then(|text| text.parse::<Digest>().ok());
    let digest = *digest.ok_or(EntryFault::Digest)?.as_bytes();
    // The tables mark a chunk without a digest by zeros, which nothing is known to hash to.
    if digest == [0; 32] { Err(EntryFault::Digest) } else { Ok(Some(digest)) }
}

/// Nanoseconds since 1970 of an RFC 3339 time, saturated at what fits into 64 bits.
fn timestamp(bytes: &[u8]) -> Option<i64> {
    if bytes.is_empty() {
        return Some(0);
    }
    let digits = |range: core::ops::Range<usize>| {
        bytes.get(range)?.iter().try_fold(0_i64, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
        })
    };
    let separated = |at: usize, byte: u8| bytes.get(at).filter(|found| **found == byte);
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    for (at, byte) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
        separated(at, byte)?;
    }
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let mut rest = bytes.get(19..)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let len = fraction.iter().position(|byte| !byte.is_ascii_digit())?;
        let mut scale = 100_000_000;
        for digit in &fraction[..len] {
            nanos += i64::from(digit - b'0') * scale;
            scale /= 10;
        }
        rest = &fraction[len..];
    }
    let offset_minutes = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let pair = |a: u8, b: u8| {
                let both = a.is_ascii_digit() && b.is_ascii_digit();
                both.then(|| i64::from(a - b'0') * 10 + i64::from(b - b'0'))
            };
            let minutes = pair(*h1, *h2)? * 60 + pair(*m1, *m2)?;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    let seconds = days_from_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
        - offset_minutes * 60;
    Some(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, by counting in eras of 400 years
/// that start in March, so that the leap day is the last of its year.
const fn days_from_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
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
    fn reads_times() {
        let second = 1_000_000_000;
        assert_eq!(timestamp(b"1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(timestamp(b"2024-02-29T12:34:56Z"), Some(1_709_210_096 * second));
        assert_eq!(
            timestamp(b"2024-02-29T13:34:56.25+01:00"),
            Some(1_709_210_096 * second + second / 4)
        );
        assert_eq!(timestamp(b"1969-12-31T23:59:59Z"), Some(-second));
        assert_eq!(timestamp(b"0001-01-01T00:00:00Z"), Some(i64::MIN));
        for bad in ["2024", "2024-13-01T00:00:00Z", "2024-02-29 12:34:56Z", "2024-02-29T12:34:56"] {
            assert_eq!(timestamp(bad.as_bytes()), None, "{bad}");
        }
    }

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
