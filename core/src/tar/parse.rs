//! The parser: bytes in, in any split; events out.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use super::extensions::Extensions;
use super::header::{Header, text};
use super::pax::Records;
use super::{BLOCK, Entry, Field, Reason, TarError, padding};

/// Limit of one extension header. Long names need a few KiB, attributes at most 64 KiB each on Linux.
const MAX_EXTENSION: u64 = 1 << 20;

/// Limit of what is kept of global headers, which is copied to every entry after them.
const MAX_GLOBAL: usize = 1 << 10;

static ZERO_BLOCK: [u8; BLOCK] = [0; BLOCK];

/// Something found in a tar.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// An entry begins; [`Event::Data`] of altogether `entry.size` bytes follow.
    Entry {
        /// What the headers say.
        entry: Entry,
        /// The header blocks of this entry as they are, extension headers included.
        header: Vec<u8>,
    },
    /// Data of the entry.
    Data(&'a [u8]),
    /// Bytes that fill the last block of the entry's data.
    Padding(&'a [u8]),
    /// A global pax header, already applied to the entries that follow.
    Global(Vec<u8>),
    /// Bytes from the end mark on.
    Trailer(&'a [u8]),
}

/// Parses a tar that arrives in pieces.
///
/// Call [`next`](Self::next) with the piece until it returns `None`, then bring the next piece; after
/// the last one call [`finish`](Self::finish). The events do not depend on how the tar is split, except
/// for the split of data, padding and trailer. After an error every call returns that error.
///
/// Memory is bounded by the extension headers of one entry: three of 1 MiB each, raw and parsed.
#[derive(Default)]
pub struct Parser {
    state: State,
    /// The header block or extension body that is being collected.
    partial: Vec<u8>,
    /// Header blocks seen since the last entry.
    raw: Vec<u8>,
    extensions: Extensions,
    global: Records,
    /// Offset of the first header block of the current entry.
    start: u64,
    consumed: u64,
    failed: Option<TarError>,
}

#[derive(Default)]
enum State {
    #[default]
    Header,
    Extension {
        flag: u8,
        size: usize,
    },
    Data {
        left: u64,
        padding: usize,
    },
    SecondZero,
    Trailer,
}

impl Parser {
    /// A parser at the start of a tar.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes off the front of `input` up to the next event; `None` if more are needed.
    ///
    /// # Errors
    ///
    /// If the tar is malformed, ambiguous or contains what a layer cannot hold.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, TarError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        while !input.is_empty() {
            match self.step(input) {
                Ok(None) => {}
                Ok(event) => return Ok(event),
                Err(reason) => {
                    let name = self.name_so_far();
                    return Err(self.fail(name, reason));
                }
            }
        }
        Ok(None)
    }

    /// Says that the tar has ended. An end without zero blocks is accepted between entries.
    ///
    /// # Errors
    ///
    /// If the tar ended inside an entry, or had failed before.
    pub fn finish(&mut self) -> Result<(), TarError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let complete = match self.state {
            State::Header => self.partial.is_empty() && self.raw.is_empty(),
            State::SecondZero => self.partial.is_empty(),
            State::Extension { .. } | State::Data { .. } => false,
            State::Trailer => true,
        };
        if complete {
            return Ok(());
        }
        let name = self.name_so_far();
        Err(self.fail(name, Reason::Truncated))
    }

    fn fail(&mut self, name: String, reason: Reason) -> TarError {
        let error = TarError { offset: self.start, name, reason };
        self.failed = Some(error.clone());
        error
    }

    /// The name for an error: of the extensions, else of the last header block.
    fn name_so_far(&self) -> String {
        let pax = self.extensions.pax.as_ref().and_then(|pax| pax.get("path"));
        let name = match pax.or(self.extensions.long_name.as_deref()) {
            Some(name) => name,
            None if self.partial.len() == BLOCK => text(&self.partial[..100]),
            None => {
                self.raw.rchunks(BLOCK).next().map_or(&[][..], |b| text(&b[..b.len().min(100)]))
            }
        };
        String::from_utf8_lossy(name).into_owned()
    }

    fn step<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, Reason> {
        match self.state {
            State::Header | State::SecondZero => {
                if !self.collect(input, BLOCK) {
                    return Ok(None);
                }
                self.block()
            }
            State::Extension { flag, size } => {
                if !self.collect(input, size + padding(size as u64)) {
                    return Ok(None);
                }
                self.extension(flag, size)
            }
            State::Data { left, padding } => {
                if left > 0 {
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let data = self.take(input, length);
                    self.data_left(left - length as u64, padding);
                    return Ok(Some(Event::Data(data)));
                }
                let length = padding.min(input.len());
                let bytes = self.take(input, length);
                self.data_left(0, padding - length);
                Ok(Some(Event::Padding(bytes)))
            }
            State::Trailer => {
                let length = input.len();
                Ok(Some(Event::Trailer(self.take(input, length))))
            }
        }
    }

    fn take<'a>(&mut self, input: &mut &'a [u8], length: usize) -> &'a [u8] {
        let (taken, rest) = input.split_at(length.min(input.len()));
        *input = rest;
        self.consumed += taken.len() as u64;
        taken
    }

    /// Fills `partial` up to `length`; says whether it is full.
    fn collect(&mut self, input: &mut &[u8], length: usize) -> bool {
        if self.partial.is_empty() && self.raw.is_empty() {
            self.start = self.consumed;
        }
        let missing = length.saturating_sub(self.partial.len());
        let taken = self.take(input, missing);
        self.partial.extend_from_slice(taken);
        self.partial.len() >= length
    }

    fn data_left(&mut self, left: u64, padding: usize) {
        self.state =
            if left == 0 && padding == 0 { State::Header } else { State::Data { left, padding } };
    }

    fn block(&mut self) -> Result<Option<Event<'static>>, Reason> {
        if self.partial == ZERO_BLOCK {
            if !self.raw.is_empty() {
                return Err(Reason::ExtensionMisplaced);
            }
            self.partial.clear();
            self.state = match self.state {
                State::Header => State::SecondZero,
                _ => State::Trailer,
            };
            return Ok(Some(Event::Trailer(&ZERO_BLOCK)));
        }
        if matches!(self.state, State::SecondZero) {
            return Err(Reason::LoneZeroBlock);
        }
        let block: [u8; BLOCK] =
            self.partial.as_slice().try_into().map_err(|_| Reason::Checksum)?;
        let header = Header::parse(&block)?;
        match header.flag() {
            flag @ (b'x' | b'g' | b'L' | b'K') => {
                let taken = match flag {
                    b'x' => self.extensions.pax.is_some(),
                    b'L' => self.extensions.long_name.is_some(),
                    b'K' => self.extensions.long_link.is_some(),
                    _ => !self.raw.is_empty(),
                };
                if taken {
                    return Err(Reason::ExtensionMisplaced);
                }
                let size = header.size()?;
                if size > MAX_EXTENSION {
                    return Err(Reason::ExtensionTooLarge);
                }
                let size = usize::try_from(size).map_err(|_| Reason::ExtensionTooLarge)?;
                self.raw.append(&mut self.partial);
                self.state = State::Extension { flag, size };
                // An empty body needs no input, and the caller may have none left.
                if size == 0 { self.extension(flag, 0) } else { Ok(None) }
            }
            _ => {
                let entry = self.extensions.entry(&header, &self.global)?;
                self.raw.append(&mut self.partial);
                self.extensions = Extensions::default();
                self.data_left(entry.size, padding(entry.size));
                let header = core::mem::take(&mut self.raw);
                Ok(Some(Event::Entry { entry, header }))
            }
        }
    }

    fn extension(&mut self, flag: u8, size: usize) -> Result<Option<Event<'static>>, Reason> {
        self.state = State::Header;
        let body = self.partial.get(..size).unwrap_or_default();
        match flag {
            b'L' => self.extensions.long_name = Some(text(body).to_owned()),
            b'K' => self.extensions.long_link = Some(text(body).to_owned()),
            b'x' => self.extensions.pax = Some(Records::parse(body)?),
            _ => {
                let records = Records::parse(body)?;
                for (key, field) in
                    [("path", Field::Name), ("linkpath", Field::LinkName), ("size", Field::Size)]
                {
                    // No name, target, size or attribute is that of all entries that follow.
                    if records.get(key).is_some_and(|value| !value.is_empty()) {
                        return Err(Reason::Contradiction { field });
                    }
                }
                if records.xattrs().next().is_some() {
                    return Err(Reason::Contradiction { field: Field::Xattr });
                }
                self.global.values.extend(records.values);
                if self.global.values.values().map(Vec::len).sum::<usize>() > MAX_GLOBAL {
                    return Err(Reason::ExtensionTooLarge);
                }
                self.raw.append(&mut self.partial);
                return Ok(Some(Event::Global(core::mem::take(&mut self.raw))));
            }
        }
        self.raw.append(&mut self.partial);
        Ok(None)
    }
}

impl core::fmt::Debug for Parser {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Parser")
            .field("consumed", &self.consumed)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}
