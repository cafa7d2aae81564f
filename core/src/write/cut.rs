//! Cutting a tar into sections.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use super::section::{Assembly, Placed, Pressed, Section, Sections};
use super::toc::{self, Chunk, Record};
use super::{
    Compressor, DEFAULT_CHUNK_SIZE, Disposition, Format, Landmark, Options, Summary, WriteError,
    ZstdPosition, footer, order,
};
use crate::Digest;
use crate::digest::Hasher;
use crate::tar::{self, BLOCK, EncodeError, Entry, Kind, encode_header, padding};

/// Cuts one layer into sections, which others compress.
///
/// Calls: [`append`](Self::append) and its [`data`](Self::data) for each entry, or
/// [`append_landmark`](Self::append_landmark); at the end [`end`](Self::end). After each of them,
/// [`next_section`](Self::next_section) until there is none. Each section is [pressed](Section::press),
/// in any order and on any thread, and [added](Assembly::add) in the order of the sections, and what
/// became of it is told by [`placed`](Self::placed); then [`finish`](Self::finish) gives the rest.
/// After an error every call fails.
pub struct Cutter<C> {
    options: Options,
    sections: Sections<C>,
    /// How many sections are placed.
    placed: usize,
    /// Where each member begins in the blob, and where the last one ends.
    offsets: Vec<u64>,
    records: Vec<Record>,
    /// The chunks, by record and number, that are not placed, in their order.
    pending: VecDeque<(usize, usize)>,
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
    /// Of the whole file; `None` if it is a single chunk.
    whole: Option<Hasher>,
}

impl<C: Compressor> Cutter<C> {
    /// A cutter that has seen nothing. `compressor` is for the TOC; it has to be of the same kind and
    /// level as those that press.
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
            sections: Sections::new(compressor, &options),
            placed: 0,
            options,
            offsets: Vec::from([0]),
            records: Vec::new(),
            pending: VecDeque::new(),
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
                writer.sections.push(&padding[Landmark::CONTENT.len()..]);
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
                writer.sections.push_bounded(bytes);
            }
            Ok(())
        })
    }

    /// Ends the last entry: afterwards [`next_section`](Self::next_section) gives what is left.
    ///
    /// # Errors
    ///
    /// If the last entry lacks data, or a hard link names no file of this layer.
    pub fn end(&mut self) -> Result<(), WriteError> {
        self.run(|writer| {
            writer.complete()?;
            order::check_links(writer.records.iter().map(|record| record.entry.candidate()))
                .map_err(|(name, target)| WriteError::DanglingHardLink { name, target })?;
            if !writer.options.lossless && !writer.options.format.toc_in_tar() {
                writer.sections.push(&[0; 2 * BLOCK]);
            }
            writer.sections.close();
            Ok(())
        })
    }

    /// The next section to press.
    pub fn next_section(&mut self) -> Option<Section> {
        self.sections.next()
    }

    /// Presses the next section with the compressor of the cutter itself.
    pub(super) fn press_next(&mut self) -> Result<Option<Pressed>, WriteError> {
        let Some(section) = self.sections.next() else { return Ok(None) };
        Ok(Some(section.press(&mut self.sections.compressor)?))
    }

    /// What became of the next section, in the order of the sections.
    pub fn placed(&mut self, placed: Placed) {
        let Placed { members, chunks } = placed;
        let first = self.offsets.len() - 1;
        for size in members {
            self.offsets.push(self.offsets.last().copied().unwrap_or(0) + size);
        }
        self.placed += 1;
        for placed in chunks {
            let Some((record, chunk)) = self.pending.pop_front() else { return };
            let Some(record) = self.records.get_mut(record) else { return };
            if let Some(chunk) = record.chunks.get_mut(chunk) {
                chunk.member = first + placed.member;
                chunk.inner = placed.inner;
                chunk.digest = placed.digest;
            }
            if record.chunks.len() == 1 && record.digest.is_none() {
                record.digest = placed.digest;
            }
        }
    }

    /// Writes TOC and footer, the rest of the blob, once all sections are placed.
    ///
    /// # Errors
    ///
    /// If sections are missing, or the compressor fails.
    pub fn finish(&mut self, assembly: Assembly) -> Result<(Vec<u8>, Summary), WriteError> {
        let finished = self.run(|writer| writer.write_end(assembly))?;
        self.over = true;
        Ok(finished)
    }

    /// The TOC as JSON, once finished; what the TOC image of [`Format::EstargzExternalToc`] holds.
    #[must_use]
    pub fn toc_json(&self) -> &[u8] {
        &self.toc_json
    }

    /// The same, for whoever needs nothing else any more.
    #[must_use]
    pub fn into_toc_json(self) -> Vec<u8> {
        self.toc_json
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
            whole: (self.options.format.has_digests() && entry.size > chunk_size).then(Hasher::new),
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
            self.sections.push_bounded(&header);
        } else {
            self.sections.push_bounded(header);
        }
        let empty =
            entry.kind == Kind::Regular && entry.size == 0 && self.options.format.has_digests();
        let digest = empty.then(|| Digest::of(b""));
        if entry.size > 0 {
            self.file = Some(file);
        }
        self.records.push(Record { entry, digest, chunks: Vec::new() });
        Ok(Disposition::Written)
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
                self.sections.begin_chunk(file.chunk_left, file.landmark);
                let at = self.records.len().saturating_sub(1);
                let full = file.chunk_left == u64::from(self.options.chunk_size);
                if let Some(record) = self.records.last_mut() {
                    if record.chunks.is_empty() {
                        // Most files have one, and a layer may have a million files.
                        record.chunks.reserve_exact(1);
                    }
                    self.pending.push_back((at, record.chunks.len()));
                    record.chunks.push(Chunk {
                        member: 0,
                        inner: 0,
                        offset: file.position,
                        size: full.then_some(file.chunk_left),
                        digest: None,
                    });
                }
            }
            let length = usize::try_from(file.chunk_left).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at(length);
            bytes = rest;
            self.sections.push(now);
            file.position += length as u64;
            file.left -= length as u64;
            file.chunk_left -= length as u64;
            if let Some(whole) = &mut file.whole {
                whole.update(now);
            }
            if file.left == 0 {
                self.end_file();
            }
        }
        Ok(())
    }

    /// Records the digest of a file that is complete, unless that of its only chunk is it.
    fn end_file(&mut self) {
        let (Some(file), Some(record)) = (&mut self.file, self.records.last_mut()) else { return };
        if let Some(whole) = file.whole.take() {
            record.digest = Some(whole.finish());
        }
        if !self.options.lossless {
            let zeros = [0; BLOCK];
            self.sections.push(&zeros[..padding(record.entry.size)]);
        }
    }

    fn write_end(&mut self, mut assembly: Assembly) -> Result<(Vec<u8>, Summary), WriteError> {
        if self.placed != self.sections.closed() {
            return Err(WriteError::Unplaced);
        }
        let format = self.options.format;
        let ends = format == Format::ZstdChunkedStorage;
        let json = toc::encode(&core::mem::take(&mut self.records), &self.offsets, ends);
        let toc_digest = self.options.format.has_digests().then(|| Digest::of(&json));
        let toc_offset = self.offsets.last().copied().unwrap_or(0);
        let mut end = Vec::new();
        let mut zstd = None;
        self.toc_json = match format {
            Format::Estargz | Format::LegacyStargz => {
                let tar = toc::Tar::around(json)?;
                end = self.sections.compress(tar.bytes())?;
                match format {
                    Format::Estargz => end.extend(footer::estargz(toc_offset)),
                    _ => end.extend(footer::legacy(toc_offset)),
                }
                assembly.add_bytes(tar.bytes(), &end);
                tar.into_json()
            }
            Format::EstargzExternalToc => {
                end.extend(footer::EXTERNAL_TOC);
                assembly.add_bytes(&[], &end);
                json
            }
            Format::ZstdChunked | Format::ZstdChunkedStorage => {
                let compressed = self.sections.compress(&json)?;
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
                end.extend(header);
                end.extend(compressed);
                end.extend(footer::zstd(&position));
                assembly.add_bytes(&[], &end);
                zstd = Some(position);
                json
            }
        };
        let (blob_digest, blob_size, diff_id, uncompressed_size) = assembly.totals();
        let summary = Summary {
            format,
            blob_digest,
            blob_size,
            diff_id,
            uncompressed_size,
            toc_digest,
            zstd,
        };
        Ok((end, summary))
    }
}

impl<C> core::fmt::Debug for Cutter<C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Cutter")
            .field("options", &self.options)
            .field("sections", &self.sections)
            .field("entries", &self.records.len())
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}
