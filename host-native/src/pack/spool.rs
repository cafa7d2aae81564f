//! A temporary file without a name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::{Mode, OFlags};

use super::{INPUT_PIECE, PackError};

/// A temporary file, written from start to end and then read anywhere. It has no name, so that nothing
/// is left of it however the process ends.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    file: BufWriter<File>,
    len: u64,
}

impl Spool {
    pub(super) fn create(dir: Option<&Path>) -> Result<Self, PackError> {
        let dir = dir.map_or_else(std::env::temp_dir, Path::to_path_buf);
        match open(&dir) {
            Ok(file) => Ok(Self { dir, file: BufWriter::with_capacity(INPUT_PIECE, file), len: 0 }),
            Err(source) => Err(PackError::Spool { dir, source }),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.len += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|source| self.failed(source))
    }

    /// Makes everything written readable.
    pub(super) fn flush(&mut self) -> Result<(), PackError> {
        self.file.flush().map_err(|source| self.failed(source))
    }

    pub(super) fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), PackError> {
        self.file.get_ref().read_exact_at(bytes, offset).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> PackError {
        PackError::Spool { dir: self.dir.clone(), source }
    }
}

fn open(dir: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR) {
        return Ok(file.into());
    }
    // Some filesystems cannot do that; there the file has a name for a moment.
    let mut attempt = 0u32;
    loop {
        let path = dir.join(format!(".lazystar-{}-{attempt}", process::id()));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 1000 => {
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}
