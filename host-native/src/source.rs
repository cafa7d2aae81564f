//! Where the bytes of a layer come from.
//!
//! A [`Blob`] gives any range of its bytes as a stream of exactly that many bytes, or an error that
//! says whose fault it is. The bytes are not verified: that is for whoever knows the digests.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use lazystar_core::Digest;

mod body;
mod error;
mod file;
mod range;
mod reader;
mod registry;
mod whole;

pub use error::FetchError;
pub(crate) use error::is_transient_status;
pub(crate) use range::content_range;
pub use reader::BlobReader;

use crate::oci::Descriptor;
use crate::registry::{Outage, Repository, Urgency};

/// How often a range is asked for from its start because the blob became another one.
const CHANGES: u32 = 3;

/// A blob that can be read at any range. Clones are cheap and share connections.
#[derive(Clone)]
pub struct Blob(Arc<Origin>);

enum Origin {
    Registry(registry::RegistryBlob),
    File(file::FileBlob),
    Memory { name: String, bytes: Bytes },
}

impl Blob {
    /// The blob of `descriptor` in a registry's repository. Sends no request.
    #[must_use]
    pub fn registry(repository: &Repository, descriptor: &Descriptor) -> Self {
        Self(Arc::new(Origin::Registry(registry::RegistryBlob::new(repository, descriptor))))
    }

    /// The blob in a file, which stays open.
    ///
    /// # Errors
    /// If it cannot be opened, or is no regular file.
    pub fn file(path: &Path) -> Result<Self, FetchError> {
        file::FileBlob::open(path).map(|blob| Self(Arc::new(Origin::File(blob))))
    }

    /// A blob that is a part of a file.
    ///
    /// # Errors
    /// If the file cannot be opened, is no regular file, or ends before that part.
    pub fn file_part(path: &Path, part: Range<u64>) -> Result<Self, FetchError> {
        file::FileBlob::part(path, part).map(|blob| Self(Arc::new(Origin::File(blob))))
    }

    /// A blob that is in memory already.
    #[must_use]
    pub fn memory(name: &str, bytes: Bytes) -> Self {
        Self(Arc::new(Origin::Memory { name: name.to_owned(), bytes }))
    }

    /// The length of the blob in bytes, where known before it is asked for.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        match &*self.0 {
            Origin::Registry(blob) => Some(blob.size()),
            Origin::File(blob) => Some(blob.size()),
            Origin::Memory { bytes, .. } => Some(bytes.len() as u64),
        }
    }

    /// The digest that a registry has it under.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        match &*self.0 {
            Origin::Registry(blob) => Some(blob.digest()),
            Origin::File(_) | Origin::Memory { .. } => None,
        }
    }

    /// What to call the blob in messages.
    #[must_use]
    pub fn name(&self) -> String {
        match &*self.0 {
            Origin::Registry(blob) => blob.name(),
            Origin::File(blob) => blob.name(),
            Origin::Memory { name, .. } => name.clone(),
        }
    }

    /// What a reader gets while no host has the blob.
    pub(crate) fn outage(&self) -> Outage {
        match &*self.0 {
            Origin::Registry(blob) => blob.outage(),
            Origin::File(_) | Origin::Memory { .. } => Outage::ERROR,
        }
    }

    /// Whether the blob is coming as a whole, because a host gives no ranges of it. Then all of it
    /// costs no request.
    pub(crate) fn comes_whole(&self) -> bool {
        match &*self.0 {
            Origin::Registry(blob) => blob.comes_whole(),
            Origin::File(_) | Origin::Memory { .. } => false,
        }
    }

    /// Lets go of what came as a whole.
    pub(crate) fn drop_whole(&self) {
        if let Origin::Registry(blob) = &*self.0 {
            blob.drop_whole();
        }
    }

    /// Asks for `range` and returns once the source has begun to answer.
    ///
    /// An empty range asks for nothing.
    ///
    /// # Errors
    /// If the source does not give that range; see [`FetchError`].
    pub async fn fetch(&self, range: Range<u64>) -> Result<BlobStream, FetchError> {
        self.fetch_as(range, &Urgency::default()).await
    }

    /// As [`Blob::fetch`]; what is not urgent goes after what is, where a registry limits requests.
    pub(crate) async fn fetch_as(
        &self,
        range: Range<u64>,
        urgency: &Urgency,
    ) -> Result<BlobStream, FetchError> {
        let size = self.size().unwrap_or(u64::MAX);
        if range.start > range.end || range.end > size {
            return Err(FetchError::RangeNotSatisfiable {
                origin: self.name(),
                start: range.start,
                end: range.end,
            });
        }
        if range.is_empty() {
            return Ok(BlobStream(Stream::Memory(Bytes::new())));
        }
        Ok(BlobStream(match &*self.0 {
            Origin::Registry(blob) => Stream::Registry(Box::new(blob.fetch(range, urgency).await?)),
            Origin::File(blob) => Stream::File(blob.fetch(range)),
            Origin::Memory { bytes, .. } => {
                // `range` lies within `bytes`, so both ends fit.
                Stream::Memory(bytes.slice(range.start as usize..range.end as usize))
            }
        }))
    }

    /// Fetches `range` into memory. For ranges whose length somebody bounded.
    ///
    /// # Errors
    /// As [`Blob::fetch`] and [`BlobStream::next`].
    pub async fn fetch_all(&self, range: Range<u64>) -> Result<Bytes, FetchError> {
        let mut changes = 0;
        loop {
            match self.fetch_once(range.clone()).await {
                Err(FetchError::Changed { .. }) if changes < CHANGES => changes += 1,
                settled => return settled,
            }
        }
    }

    async fn fetch_once(&self, range: Range<u64>) -> Result<Bytes, FetchError> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let mut stream = self.fetch(range).await?;
        let mut all = BytesMut::new();
        while let Some(bytes) = stream.next().await {
            let bytes = bytes?;
            if bytes.len() == length {
                return Ok(bytes);
            }
            if all.is_empty() {
                all.reserve(length);
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({}, {:?} bytes)", self.name(), self.size())
    }
}

/// The bytes of one range, in order. Dropping it stops the transfer.
pub struct BlobStream(Stream);

enum Stream {
    Registry(Box<body::Body>),
    File(file::Body),
    Memory(Bytes),
}

impl BlobStream {
    /// The next bytes, never empty; `None` once the whole range has been given.
    ///
    /// Safe to cancel: no byte is lost, and the next call goes on where this one stopped. After an
    /// error the stream ends.
    pub async fn next(&mut self) -> Option<Result<Bytes, FetchError>> {
        match &mut self.0 {
            Stream::Registry(body) => body.next().await,
            Stream::File(body) => body.next().await,
            Stream::Memory(bytes) if bytes.is_empty() => None,
            Stream::Memory(bytes) => Some(Ok(std::mem::take(bytes))),
        }
    }
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlobStream")
    }
}
