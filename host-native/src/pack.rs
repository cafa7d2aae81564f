//! Layers from directories and tars.

pub mod cli;
mod directory;
mod gunzip;
pub mod layout;
mod press;
mod spool;
mod tarball;
mod wanted;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use lazystar_core::tar::{EncodeError, Entry, TarError};
use lazystar_core::write::{
    Assembly, Candidate, Compressor, Cutter, Landmark, Order, OrderError, Summary, WriteError,
    clean, order,
};

use crate::codec;
use crate::workers::Workers;
use press::Press;

pub use directory::pack_directory;
pub(crate) use gunzip::Gunzip;
pub use layout::{ImageConfig, LayerBlob, write_oci_layout};
pub(crate) use tarball::decompress;
pub use tarball::pack_tar;
pub use wanted::{Glob, GlobError, Wanted};

/// Input is read in pieces of this many bytes.
const INPUT_PIECE: usize = 256 << 10;

/// How to pack a layer.
#[derive(Clone, Debug, Default)]
pub struct PackOptions {
    /// Which blob to write.
    pub layer: lazystar_core::write::Options,
    /// Compression level; the codec's default if there is none.
    pub level: Option<i32>,
    /// What goes before the prefetch landmark, in this order.
    pub prioritised: Vec<Wanted>,
    /// Prioritised paths need not exist.
    pub allow_missing: bool,
    /// What is left out, with everything in it.
    pub excluded: Vec<Glob>,
    /// Owner and group of all entries, instead of their own.
    pub owner: Option<(u32, u32)>,
    /// The time of all entries, instead of their own.
    pub mtime: Option<i64>,
    /// The latest time that entries may have (as `SOURCE_DATE_EPOCH` asks).
    pub mtime_limit: Option<i64>,
    /// Where the input tar is kept while it is put in order; the system's temporary directory if not
    /// given. The file has no name.
    pub spool_dir: Option<PathBuf>,
    /// What compresses; the threads that everybody uses if not given. Has no influence on the blob.
    pub workers: Option<Workers>,
}

/// A layer that was packed.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Digests and sizes.
    pub summary: Summary,
    /// The TOC, which a layer with an external one does not hold.
    pub toc_json: Vec<u8>,
    /// Prioritised paths that the layer does not have.
    pub missing: Vec<String>,
}

/// Why a layer could not be packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// A file or directory cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A name or the name of an attribute is not UTF-8.
    #[error("{path:?} has a name or attribute that is not UTF-8, which a TOC cannot express")]
    NotUtf8 {
        /// Of which file.
        path: PathBuf,
    },
    /// A file was written to while it was read.
    #[error("{path} changed while it was packed; pack a snapshot of the directory instead", path = path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// The input cannot be read or decompressed.
    #[error("cannot read the input tar: {0}")]
    Read(#[source] io::Error),
    /// The blob cannot be written.
    #[error("cannot write the layer: {0}")]
    Write(#[source] io::Error),
    /// The spool file failed.
    #[error("cannot use a temporary file in {path}: {source}", path = dir.display())]
    Spool {
        /// Where it is.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The compression level does not exist.
    #[error(transparent)]
    Level(io::Error),
    /// The input is not a tar that a layer can hold.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The layer cannot be written.
    #[error(transparent)]
    Layer(#[from] WriteError),
    /// The entries cannot be put in order.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// Prioritised paths do not exist.
    #[error("the layer has no {}", .0.join(", "))]
    Missing(Vec<String>),
    /// A lossless layer keeps its input as it is.
    #[error(
        "a layer that keeps its DiffID keeps its tar: its entries cannot be put in another order, left out or changed"
    )]
    Lossless,
}

impl PackOptions {
    /// Whether an entry is to be left out.
    fn excludes(&self, name: &str) -> bool {
        !self.excluded.is_empty() && {
            let path = clean(name);
            self.excluded.iter().any(|glob| glob.covers(&path))
        }
    }

    /// Whether entries are not as their tar has them.
    const fn changes_entries(&self) -> bool {
        self.owner.is_some() || self.mtime.is_some() || self.mtime_limit.is_some()
    }

    fn change(&self, entry: &mut Entry) {
        if let Some((uid, gid)) = self.owner {
            (entry.uid, entry.gid) = (uid, gid);
            entry.user_name.clear();
            entry.group_name.clear();
        }
        let limit = self.mtime_limit.unwrap_or(i64::MAX);
        entry.mtime = self.mtime.unwrap_or(entry.mtime).min(limit);
    }
}

impl From<EncodeError> for PackError {
    fn from(error: EncodeError) -> Self {
        Self::Layer(error.into())
    }
}

/// The layer writer with its output.
struct Sink<W> {
    cutter: Cutter<Box<dyn Compressor + Send>>,
    press: Press,
    assembly: Assembly,
    out: W,
}

impl<W: Write> Sink<W> {
    fn new(options: &PackOptions, out: W) -> Result<Self, PackError> {
        let compression = options.layer.format.compression();
        let compressor = codec::compressor(compression, options.level).map_err(PackError::Level)?;
        let workers = options.workers.as_ref().unwrap_or_else(|| Workers::shared()).clone();
        Ok(Self {
            cutter: Cutter::new(options.layer, compressor)?,
            press: Press::new(workers, compression, options.level),
            assembly: Assembly::default(),
            out,
        })
    }

    fn append(&mut self, entry: Entry, header: &[u8]) -> Result<(), PackError> {
        self.cutter.append(entry, header)?;
        self.pass_on(false)
    }

    fn append_landmark(&mut self, landmark: Landmark) -> Result<(), PackError> {
        self.cutter.append_landmark(landmark)?;
        self.pass_on(false)
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.cutter.data(bytes)?;
        self.pass_on(false)
    }

    fn verbatim(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.cutter.verbatim(bytes)?;
        self.pass_on(false)
    }

    /// Has what was cut compressed, and writes what has become final; `all` of it at the end.
    fn pass_on(&mut self, all: bool) -> Result<(), PackError> {
        while let Some(section) = self.cutter.next_section() {
            self.press.add(section);
        }
        if all {
            self.press.hand_over();
        }
        while let Some(batch) = self.press.take(all).map_err(WriteError::from)? {
            for pressed in batch {
                self.out.write_all(pressed.bytes()).map_err(PackError::Write)?;
                let placed = self.assembly.add(pressed);
                self.cutter.placed(placed);
            }
        }
        Ok(())
    }

    fn finish(mut self, missing: Vec<String>) -> Result<Packed, PackError> {
        self.cutter.end()?;
        self.pass_on(true)?;
        let (end, summary) = self.cutter.finish(self.assembly)?;
        self.out.write_all(&end).map_err(PackError::Write)?;
        self.out.flush().map_err(PackError::Write)?;
        Ok(Packed { summary, toc_json: self.cutter.into_toc_json(), missing })
    }
}

/// The order of `entries` as the options ask.
fn ordered<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    options: &PackOptions,
) -> Result<Order, PackError> {
    let candidates: Vec<Candidate<'_>> = entries.map(Entry::candidate).collect();
    let globs = options.prioritised.iter().any(|wanted| matches!(wanted, Wanted::Glob(_)));
    let files = candidates.iter().filter(|it| globs && !it.name.ends_with('/'));
    let files: Vec<(String, &str)> = files.map(|it| (clean(it.name), it.name)).collect();
    let mut prioritised: Vec<&str> = Vec::new();
    let mut unmatched = Vec::new();
    for wanted in &options.prioritised {
        match wanted {
            Wanted::Path(path) => prioritised.push(path),
            Wanted::Glob(glob) => {
                let matching = files.iter().filter(|(path, _)| glob.matches(path));
                let before = prioritised.len();
                prioritised.extend(matching.map(|(_, name)| *name));
                if prioritised.len() == before {
                    unmatched.push(glob.to_string());
                }
            }
        }
    }
    let mut order = order(&candidates, &prioritised)?;
    order.missing.append(&mut unmatched);
    if !options.allow_missing && !order.missing.is_empty() {
        return Err(PackError::Missing(order.missing));
    }
    Ok(order)
}

fn at_path(path: &Path) -> impl FnOnce(io::Error) -> PackError + use<'_> {
    move |source| PackError::Path { path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests;
