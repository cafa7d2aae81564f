//! Whole blobs for threads that may wait.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use indicatif::ProgressBar;
use lazystar_core::Digest;
use lazystar_core::digest::Hasher;
use tokio::runtime::Handle;

use super::{Blob, BlobStream, FetchError};

/// A blob, read from its start to its end and hashed on the way.
pub struct BlobReader {
    stream: Option<BlobStream>,
    runtime: Handle,
    rest: Bytes,
    hasher: Hasher,
    failed: Option<FetchError>,
    progress: ProgressBar,
}

impl BlobReader {
    /// Reads `blob`, which has `size` bytes, and shows on `progress` how far it is.
    ///
    /// # Errors
    /// As [`Blob::fetch`].
    pub async fn open(blob: &Blob, size: u64, progress: ProgressBar) -> Result<Self, FetchError> {
        Ok(Self {
            stream: Some(blob.fetch(0..size).await?),
            runtime: Handle::current(),
            rest: Bytes::new(),
            hasher: Hasher::new(),
            failed: None,
            progress,
        })
    }

    /// Why reading failed, if it did.
    pub fn failure(&mut self) -> Option<FetchError> {
        self.failed.take()
    }

    /// The digest of what was read.
    #[must_use]
    pub fn digest(self) -> Digest {
        self.hasher.finish()
    }
}

impl Read for BlobReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let Some(stream) = &mut self.stream else { return Ok(0) };
            match self.runtime.block_on(stream.next()) {
                Some(Ok(bytes)) => {
                    self.hasher.update(&bytes);
                    self.progress.inc(bytes.len() as u64);
                    self.rest = bytes;
                }
                Some(Err(error)) => {
                    self.failed = Some(error.clone());
                    self.stream = None;
                    return Err(io::Error::other(error));
                }
                None => self.stream = None,
            }
        }
        let length = self.rest.len().min(out.len());
        self.rest.copy_to_slice(&mut out[..length]);
        Ok(length)
    }
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobReader")
    }
}
