//! Blobs in files.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::FetchError;

/// Bytes read at once: few enough to start decoding early, many enough that handing them to
/// another thread costs little.
const STEP: u64 = 512 << 10;

/// An open file.
pub(super) struct FileBlob {
    path: Arc<PathBuf>,
    file: Arc<File>,
    /// Where it begins in the file.
    start: u64,
    size: u64,
}

impl FileBlob {
    pub(super) fn open(path: &Path) -> Result<Self, FetchError> {
        let fail = |cause| FetchError::io(path, cause);
        let file = File::open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if !metadata.is_file() {
            return Err(fail(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            )));
        }
        let (path, size) = (Arc::new(path.to_owned()), metadata.len());
        Ok(Self { path, file: Arc::new(file), start: 0, size })
    }

    /// A part of the file as a blob of its own.
    pub(super) fn part(path: &Path, part: Range<u64>) -> Result<Self, FetchError> {
        let whole = Self::open(path)?;
        if part.start > part.end || part.end > whole.size {
            let (got, expected) = (whole.size, part.end);
            return Err(FetchError::Truncated { origin: whole.name(), got, expected });
        }
        Ok(Self { start: part.start, size: part.end - part.start, ..whole })
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) fn fetch(&self, range: Range<u64>) -> Body {
        Body {
            path: Arc::clone(&self.path),
            file: Arc::clone(&self.file),
            start: self.start + range.start,
            at: self.start + range.start,
            end: self.start + range.end,
        }
    }
}

/// What is left of a range.
pub(super) struct Body {
    path: Arc<PathBuf>,
    file: Arc<File>,
    start: u64,
    at: u64,
    end: u64,
}

impl Body {
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, FetchError>> {
        if self.at == self.end {
            return None;
        }
        let (file, at) = (Arc::clone(&self.file), self.at);
        let step = (self.end - at).min(STEP) as usize;
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; step];
            let mut filled = 0;
            while filled < step {
                match file.read_at(&mut buffer[filled..], at + filled as u64) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            buffer.truncate(filled);
            Ok(Bytes::from(buffer))
        });
        let read = read.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        let (got, expected) = (self.at - self.start, self.end - self.start);
        Some(match read {
            Ok(bytes) if !bytes.is_empty() => {
                self.at += bytes.len() as u64;
                Ok(bytes)
            }
            failed => {
                self.at = self.end;
                Err(match failed {
                    // The file was cut after it was opened.
                    Ok(_) => FetchError::Truncated {
                        origin: self.path.display().to_string(),
                        got,
                        expected,
                    },
                    Err(cause) => FetchError::io(&self.path, cause),
                })
            }
        })
    }
}
