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
//!
//! A [`Writer`] does all of this on the thread that calls it. A [`Cutter`] leaves compressing and hashing
//! of the [sections](Section) that it cuts to its host, which can have as many threads do it as it likes.

mod compress;
mod cut;
mod error;
mod footer;
mod json;
mod options;
mod order;
mod section;
mod summary;
mod toc;

use alloc::vec::Vec;

pub use compress::{CompressFailed, Compressor, Miniz, Ruzstd};
pub use cut::Cutter;
pub use error::WriteError;
pub use options::{DEFAULT_CHUNK_SIZE, Disposition, Format, Options, TOC_NAME};
pub use order::{Candidate, Landmark, Order, OrderError, Step, clean, order};
pub use section::{Assembly, Placed, Pressed, Section};
pub use summary::{Summary, ZstdPosition};
pub use toc::{external_toc_layer, type_name};

use crate::tar::{BLOCK, Entry, Kind};

/// Writes one layer; see the [module](self).
///
/// Calls: [`append`](Self::append) and its [`data`](Self::data) for each entry, or
/// [`append_landmark`](Self::append_landmark); at the end [`finish`](Self::finish). Between calls,
/// [`take_output`](Self::take_output). After an error every call fails.
#[derive(Debug)]
pub struct Writer<C> {
    cutter: Cutter<C>,
    assembly: Assembly,
    out: Vec<u8>,
}

impl<C: Compressor> Writer<C> {
    /// A writer that has seen nothing.
    ///
    /// # Errors
    ///
    /// If `compressor` is not of the format's codec.
    pub fn new(options: Options, compressor: C) -> Result<Self, WriteError> {
        let cutter = Cutter::new(options, compressor)?;
        Ok(Self { cutter, assembly: Assembly::default(), out: Vec::new() })
    }

    /// Begins an entry; see [`Cutter::append`].
    ///
    /// # Errors
    ///
    /// As that, or if the compressor fails.
    pub fn append(&mut self, entry: Entry, header: &[u8]) -> Result<Disposition, WriteError> {
        let disposition = self.cutter.append(entry, header)?;
        self.press()?;
        Ok(disposition)
    }

    /// Adds a landmark: its `offset` in the TOC is where the data of the entries before it ends.
    ///
    /// # Errors
    ///
    /// If the entry before lacks data, or the compressor fails.
    pub fn append_landmark(&mut self, landmark: Landmark) -> Result<(), WriteError> {
        self.cutter.append_landmark(landmark)?;
        self.press()
    }

    /// Adds data of the last entry.
    ///
    /// # Errors
    ///
    /// If it is more than the entry announced, or the compressor fails.
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.cutter.data(bytes)?;
        self.press()
    }

    /// Adds bytes of the tar that belong to no entry; see [`Cutter::verbatim`].
    ///
    /// # Errors
    ///
    /// If the entry before lacks data, or the compressor fails.
    pub fn verbatim(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.cutter.verbatim(bytes)?;
        self.press()
    }

    /// Ends the layer: writes TOC and footer.
    ///
    /// # Errors
    ///
    /// If the last entry lacks data, a hard link names no file of this layer, or the compressor fails.
    pub fn finish(&mut self) -> Result<Summary, WriteError> {
        self.cutter.end()?;
        self.press()?;
        let (end, summary) = self.cutter.finish(core::mem::take(&mut self.assembly))?;
        self.out.extend(end);
        Ok(summary)
    }

    /// The bytes of the blob that have become final since the last call.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.out)
    }

    /// How many bytes [`take_output`](Self::take_output) would give.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.out.len()
    }

    /// The TOC as JSON, once finished; what the TOC image of [`Format::EstargzExternalToc`] holds.
    #[must_use]
    pub fn toc_json(&self) -> &[u8] {
        self.cutter.toc_json()
    }

    fn press(&mut self) -> Result<(), WriteError> {
        while let Some(pressed) = self.cutter.press_next()? {
            self.out.extend_from_slice(pressed.bytes());
            let placed = self.assembly.add(pressed);
            self.cutter.placed(placed);
        }
        Ok(())
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
