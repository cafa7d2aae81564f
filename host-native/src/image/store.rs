//! Manifests and configurations kept on disk, and what tags pointed at when last seen.
//!
//! `blobs/sha256/HEX` holds documents by digest; `references/HEX`, named for the digest of a
//! reference, holds the digest that it stood for. Files appear whole or not at all, and documents
//! are checked when read, so a damaged one is only fetched again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lazystar_core::Digest;

/// A directory of documents; without one it keeps nothing.
#[derive(Clone, Debug)]
pub(super) struct Store(Option<PathBuf>);

impl Store {
    pub(super) fn new(dir: Option<&Path>) -> Self {
        Self(dir.map(Path::to_owned))
    }

    /// The document with `digest`.
    pub(super) async fn document(&self, digest: Digest) -> Option<Bytes> {
        let bytes = tokio::fs::read(self.blob(digest)?).await.ok()?;
        (Digest::of(&bytes) == digest).then(|| bytes.into())
    }

    /// Keeps a document that was checked.
    pub(super) async fn keep(&self, digest: Digest, bytes: &[u8]) {
        if let Some(path) = self.blob(digest) {
            warn(&path, write(&path, bytes).await);
        }
    }

    /// What `reference` stood for when last seen.
    pub(super) async fn record(&self, reference: &str) -> Option<Digest> {
        let text = tokio::fs::read_to_string(self.reference(reference)?).await.ok()?;
        text.lines().next()?.parse().ok()
    }

    /// Notes what `reference` stands for.
    pub(super) async fn remember(&self, reference: &str, digest: Digest) {
        if let Some(path) = self.reference(reference) {
            // The second line is for people who look into the directory.
            warn(&path, write(&path, format!("{digest}\n{reference}\n").as_bytes()).await);
        }
    }

    fn blob(&self, digest: Digest) -> Option<PathBuf> {
        Some(self.0.as_ref()?.join("blobs/sha256").join(digest.hex()))
    }

    fn reference(&self, reference: &str) -> Option<PathBuf> {
        Some(self.0.as_ref()?.join("references").join(Digest::of(reference.as_bytes()).hex()))
    }
}

async fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let unique = format!("tmp-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let partial = path.with_extension(unique);
    if let Some(dir) = path.parent() {
        tokio::fs::create_dir_all(dir).await?;
    }
    let written = match tokio::fs::write(&partial, bytes).await {
        Ok(()) => tokio::fs::rename(&partial, path).await,
        failed => failed,
    };
    if written.is_err() {
        let _ = tokio::fs::remove_file(&partial).await;
    }
    written
}

/// What cannot be kept only costs a request later.
fn warn(path: &Path, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!("cannot keep a manifest in {}: {error}", path.display());
    }
}
