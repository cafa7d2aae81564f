//! The layer writer: entries in, a lazily readable blob out.
//!
//! [`Writer`] takes the entries of a tar one after another, in any split of their data, and gives the
//! bytes of the blob. It cuts the tar into members so that every chunk of a file can be decompressed
//! on its own, and describes them in a TOC at the end. In the same pass it computes all digests that a
//! manifest needs ([`Summary`]).
//!
//! ```text
//! member 0   headers up to and including that of the first file with data
//! member 1   its data (first chunk), padding, the headers that follow
//! member …   one for each further chunk, or for as many as the minimum chunk size asks
//! member T   TOC: a tar entry and the end of the tar (gzip), or a skippable frame (zstd)
//! footer     where the TOC is
//! ```
//!
//! Where the TOC is not an entry, the two zero blocks that end a tar are in the last member before it.
//!
//! Memory is bounded by twice the chunk size (at least 8 MiB), what the compressor makes of it, output
//! that was not taken, and the TOC. The same entries and options always give the same bytes.

mod compress;
mod error;
mod footer;
mod json;
mod member;
mod options;
mod order;
mod summary;
mod toc;

use alloc::string::String;
use alloc::vec::Vec;

pub use compress::{CompressFailed, Compressor, Miniz, Ruzstd};
pub use error::WriteError;
pub use options::{DEFAULT_CHUNK_SIZE, Disposition, Format, Options, TOC_NAME};
pub use order::{Candidate, Landmark, Order, OrderError, Step, order};
pub use summary::{Summary, ZstdPosition};

use crate::Digest;
use crate::digest::Hasher;
use crate::tar::{self, BLOCK, EncodeError, Entry, Kind, encode_header, padding};
use member::Members;
pub use toc::external_toc_layer;
use toc::{Chunk, Record};

/// Writes one layer; see the [module](self).
///
/// Calls: [`append`](Self::append) and its [`data`](Self::data) for each entry, or
/// [`append_landmark`](Self::append_landmark); at the end [`finish`](Self::finish). Between calls,
/// [`take_output`](Self::take_output). After an error every call fails.
pub struct Writer<C> {
    options: Options,
    members: Members<C>,
    records: Vec<Record>,
    file: Option<OpenFile>,
    toc_json: Vec<u8>,
    over: bool,
}

/// The file whose data is being written.
#[derive(Debug)]
struct OpenFile {
    left: u64,
    /// Where in the file the next byte goes.
    position: u64,
    chunk_left: u64,
    landmark: bool,
    /// Its name if it is not in the layer.
    dropped: Option<String>,
    chunk: Hasher,
    /// Of the whole file; `None` if it is a single chunk.
    whole: Option<Hasher>,
}

impl<C: Compressor> Writer<C> {
    /// A writer that has seen nothing.
    ///
    /// # Errors
    ///
    /// If `compressor` is not of the format's codec.
    pub fn new(mut options: Options, compressor: C) -> Result<Self, WriteError> {
        if compressor.compression() != options.format.compression() {
            return Err(WriteError::WrongCodec { expected: options.format.compression() });
        }
        if options.chunk_size == 0 {
            options.chunk_size = DEFAULT_CHUNK_SIZE;
        }
        Ok(Self {
            members: Members::new(compressor, options.chunk_size, options.min_chunk_size),
            options,
            records: Vec::new(),
            file: None,
            toc_json: Vec::new(),
            over: false,
        })
    }

    /// Begins an entry. `header` are its header blocks as a [`Parser`](crate::tar::Parser) or [`encode_header`] gave
    /// them; they go into the blob unchanged, unless part of the entry comes from a global header.
    ///
    /// # Errors
    ///
    /// If the entry before lacks data, the header is not whole blocks, or the entry is a TOC and the
    /// writer lossless.
    pub fn append(&mut self, entry: Entry, header: &[u8]) -> Result<Disposition, WriteError> {
        self.run(|writer| writer.append_entry(entry, header, false))
    }

    /// Adds a landmark: its `offset` in the TOC is where the data of the entries before it ends.
    ///
    /// # Errors
    ///
    /// If the entry before lacks data.
    pub fn append_landmark(&mut self, landmark: Landmark) -> Result<(), WriteError> {
        self.run(|writer| {
            let mut entry = Entry::new(landmark.name(), Kind::Regular);
            entry.size = Landmark::CONTENT.len() as u64;
            let header = encode_header(&entry)?;
            writer.append_entry(entry, &header, true)?;
            writer.write_data(&Landmark::CONTENT)?;
            let padding = [0; BLOCK];
            if writer.options.lossless {
                writer.members.push(&padding[Landmark::CONTENT.len()..]);
            }
            Ok(())
        })
    }

    /// Adds data of the last entry.
    ///
    /// # Errors
    ///
    /// If it is more than the entry announced.
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.run(|writer| writer.write_data(bytes))
    }

    /// Adds bytes of the tar that belong to no entry: padding, global headers and the trailer. Only a
    /// lossless writer takes them; others write their own and ignore these.
    ///
    /// # Errors
    ///
    /// If the entry before lacks data.
    pub fn verbatim(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.run(|writer| {
            if writer.options.lossless {
                writer.complete()?;
                writer.members.push_bounded(bytes)?;
            }
            Ok(())
        })
    }

    /// Ends the layer: writes TOC and footer.
    ///
    /// # Errors
    ///
    /// If the last entry lacks data, or a hard link names no file of this layer.
    pub fn finish(&mut self) -> Result<Summary, WriteError> {
        let summary = self.run(Self::end)?;
        self.over = true;
        Ok(summary)
    }

    /// The bytes of the blob that have become final since the last call.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        self.members.take_output()
    }

    /// How many bytes [`take_output`](Self::take_output) would give.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.members.output_len()
    }

    /// The TOC as JSON, once finished; what the TOC image of [`Format::EstargzExternalToc`] holds.
    #[must_use]
    pub fn toc_json(&self) -> &[u8] {
        &self.toc_json
    }

    fn run<T>(
        &mut self,
        call: impl FnOnce(&mut Self) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        if self.over {
            return Err(WriteError::Over);
        }
        call(self).inspect_err(|_| self.over = true)
    }

    /// Closes the entry before, which has to have all of its data.
    fn complete(&mut self) -> Result<(), WriteError> {
        match self.file.take() {
            Some(file) if file.left > 0 => {
                let name = self.name_of(file.dropped);
                Err(WriteError::Incomplete { name, missing: file.left })
            }
            _ => Ok(()),
        }
    }

    /// Name of the file that is open: the last entry unless that was dropped.
    fn name_of(&self, dropped: Option<String>) -> String {
        let last = || self.records.last().map(|record| record.entry.name.clone());
        dropped.or_else(last).unwrap_or_default()
    }

    fn append_entry(
        &mut self,
        entry: Entry,
        header: &[u8],
        landmark: bool,
    ) -> Result<Disposition, WriteError> {
        self.complete()?;
        if header.is_empty() || !header.len().is_multiple_of(BLOCK) {
            return Err(WriteError::Header { name: entry.name });
        }
        if entry.kind != Kind::Regular && entry.size != 0 {
            return Err(WriteError::Header { name: entry.name });
        }
        if !tar::is_expressible_time(entry.mtime) {
            let field = tar::Field::Mtime;
            return Err(EncodeError { name: entry.name, field }.into());
        }
        let chunk_size = u64::from(self.options.chunk_size);
        let mut file = OpenFile {
            left: entry.size,
            position: 0,
            chunk_left: 0,
            landmark: false,
            dropped: None,
            chunk: Hasher::new(),
            whole: (entry.size > chunk_size).then(Hasher::new),
        };
        match order::reserved(&entry.name) {
            Some(order::Reserved::Toc) if self.options.lossless => {
                return Err(WriteError::Reserved { name: entry.name });
            }
            Some(_) if !self.options.lossless && !landmark => {
                file.dropped = Some(entry.name);
                self.file = Some(file);
                return Ok(Disposition::Dropped);
            }
            Some(_) => file.landmark = true,
            None => {}
        }
        if entry.inherits && !self.options.lossless {
            let header = encode_header(&entry)?;
            self.members.push_bounded(&header)?;
        } else {
            self.members.push_bounded(header)?;
        }
        let empty = entry.kind == Kind::Regular && entry.size == 0 && self.digests();
        let digest = empty.then(|| Digest::of(b""));
        if entry.size > 0 {
            self.file = Some(file);
        }
        self.records.push(Record { entry, digest, chunks: Vec::new() });
        Ok(Disposition::Written)
    }

    fn digests(&self) -> bool {
        self.options.format != Format::LegacyStargz
    }

    fn write_data(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            let file = match &mut self.file {
                Some(file) if file.left > 0 => file,
                file => {
                    let dropped = file.take().and_then(|file| file.dropped);
                    return Err(WriteError::ExcessData { name: self.name_of(dropped) });
                }
            };
            if file.dropped.is_some() {
                let length = usize::try_from(file.left).unwrap_or(usize::MAX).min(bytes.len());
                file.left -= length as u64;
                bytes = &bytes[length..];
                continue;
            }
            if file.chunk_left == 0 {
                file.chunk_left = file.left.min(u64::from(self.options.chunk_size));
                let (member, inner) = self.members.begin_chunk(file.chunk_left, file.landmark)?;
                let full = file.chunk_left == u64::from(self.options.chunk_size);
                if let Some(record) = self.records.last_mut() {
                    record.chunks.push(Chunk {
                        member,
                        inner,
                        offset: file.position,
                        size: full.then_some(file.chunk_left),
                        digest: None,
                    });
                }
            }
            let length = usize::try_from(file.chunk_left).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at(length);
            bytes = rest;
            self.members.push(now);
            file.position += length as u64;
            file.left -= length as u64;
            file.chunk_left -= length as u64;
            if self.options.format != Format::LegacyStargz {
                file.chunk.update(now);
                if let Some(whole) = &mut file.whole {
                    whole.update(now);
                }
            }
            if file.chunk_left == 0 {
                self.end_chunk();
            }
        }
        Ok(())
    }

    /// Records the digests of a chunk that is complete, and of the file if it was the last one.
    fn end_chunk(&mut self) {
        let (Some(file), Some(record)) = (&mut self.file, self.records.last_mut()) else { return };
        let digest = core::mem::take(&mut file.chunk).finish();
        if self.options.format != Format::LegacyStargz {
            if let Some(chunk) = record.chunks.last_mut() {
                chunk.digest = Some(digest);
            }
            if file.left == 0 {
                record.digest = Some(file.whole.take().map_or(digest, Hasher::finish));
            }
        }
        if file.left == 0 && !self.options.lossless {
            let zeros = [0; BLOCK];
            self.members.push(&zeros[..padding(record.entry.size)]);
        }
    }

    fn end(&mut self) -> Result<Summary, WriteError> {
        self.complete()?;
        order::check_links(self.records.iter().map(|record| record.entry.candidate()))
            .map_err(|(name, target)| WriteError::DanglingHardLink { name, target })?;
        let format = self.options.format;
        if !self.options.lossless && !format.toc_in_tar() {
            self.members.push(&[0; 2 * BLOCK]);
        }
        self.members.close()?;

        let ends = format == Format::ZstdChunkedStorage;
        let json = toc::encode(&self.records, self.members.offsets(), ends);
        let toc_digest = self.digests().then(|| Digest::of(&json));
        let toc_offset = self.members.offset();
        let mut zstd = None;
        match format {
            Format::Estargz | Format::LegacyStargz => {
                self.members.push(&toc::tar(&json)?);
                self.members.close()?;
                self.members.frame(&match format {
                    Format::Estargz => footer::estargz(toc_offset).to_vec(),
                    _ => footer::legacy(toc_offset).to_vec(),
                });
            }
            Format::EstargzExternalToc => self.members.frame(&footer::EXTERNAL_TOC),
            Format::ZstdChunked | Format::ZstdChunkedStorage => {
                let compressed = self.members.compress(&json)?;
                let position = ZstdPosition {
                    // Of the payload: after the frame's own header.
                    offset: toc_offset + footer::SKIPPABLE_HEADER as u64,
                    compressed: compressed.len() as u64,
                    raw: json.len() as u64,
                    checksum: Digest::of(&compressed),
                    storage: format == Format::ZstdChunkedStorage,
                };
                let header = footer::skippable_header(compressed.len())
                    .ok_or(WriteError::TocTooLarge { size: json.len() })?;
                self.members.frame(&header);
                self.members.frame(&compressed);
                self.members.frame(&footer::zstd(&position));
                zstd = Some(position);
            }
        }
        self.toc_json = json;
        let (blob_digest, blob_size, diff_id, uncompressed_size) = self.members.totals();
        Ok(Summary { format, blob_digest, blob_size, diff_id, uncompressed_size, toc_digest, zstd })
    }
}

impl<C> core::fmt::Debug for Writer<C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Writer")
            .field("options", &self.options)
            .field("members", &self.members)
            .field("entries", &self.records.len())
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

impl Entry {
    /// What matters of the entry for the order of a layer.
    #[must_use]
    pub fn candidate(&self) -> Candidate<'_> {
        let link = (self.kind == Kind::HardLink).then_some(self.link_name.as_str());
        Candidate { name: &self.name, hard_link: link }
    }
}

#[cfg(test)]
mod tests;
