//! What the daemon tells its owner, on `ROOT/control.sock`: whoever connects gets a [`Status`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use lazystar_core::Digest;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use super::labels::LayerSource;
use super::lines::{read, write};
use super::record::Labels;
use super::snapshots::Snapshotter;
use crate::socket::listen;

/// What there is to know about a snapshotter.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// All snapshots, lazy or not.
    pub snapshots: usize,
    /// The lazy ones.
    pub layers: Vec<LayerStatus>,
    /// Those that a client would have had lazily.
    pub not_lazy: Vec<NotLazy>,
}

/// A lazy layer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerStatus {
    /// The name of its snapshot.
    pub snapshot: String,
    /// The number of its snapshot, which names its directory.
    pub number: u64,
    /// The image that it was pulled for, without the digest that it had then.
    pub image: String,
    /// The digest of its blob.
    #[serde(with = "crate::as_text")]
    pub layer: Digest,
    /// Whether it is mounted.
    pub mounted: bool,
    /// Files, directories and the like in it; nothing is known of one that is not mounted.
    pub entries: u64,
    /// The size of its content, in bytes.
    pub size: u64,
    /// What of that is in the cache, in bytes on the disk.
    pub cached: u64,
}

/// A layer that was asked for lazily and is not lazy.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NotLazy {
    /// The name of its snapshot.
    pub snapshot: String,
    /// The image and the digest of the layer, if the client named them.
    #[serde(flatten)]
    pub source: Option<Named>,
    /// When it was asked for, in nanoseconds since 1970.
    pub at: u64,
    /// Why it is not lazy.
    pub reason: String,
}

/// A layer of an image.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Named {
    /// The image.
    pub image: String,
    /// The digest of the layer's blob.
    #[serde(with = "crate::as_text")]
    pub layer: Digest,
}

/// The socket of the snapshotter in `root`.
#[must_use]
pub fn socket(root: &Path) -> PathBuf {
    root.join("control.sock")
}

/// Asks the snapshotter in `root`.
///
/// # Errors
/// When none is running there.
pub async fn ask(root: &Path) -> Result<Status> {
    let mut stream = UnixStream::connect(socket(root)).await.with_context(|| {
        format!("no snapshotter is running in {}; start it, or name another --root", root.display())
    })?;
    read(&mut stream).await?.context("the snapshotter went away")
}

/// Tells whoever connects, for as long as the process lives.
pub(super) async fn serve(snapshotter: Arc<Snapshotter>) {
    let listener = match listen(&socket(snapshotter.root()), "") {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!("`lazystar status` will not work: {error:#}"),
    };
    while let Ok((mut stream, _)) = listener.accept().await {
        let snapshotter = Arc::clone(&snapshotter);
        tokio::spawn(async move {
            let told = async { write(&mut stream, &status(&snapshotter).await?).await };
            if let Err(error) = told.await {
                tracing::warn!("cannot tell how things are: {error:#}");
            }
        });
    }
}

async fn status(snapshotter: &Snapshotter) -> Result<Status> {
    // Those that are not mounted are there all the same.
    let shown = snapshotter.shown().await.unwrap_or_default();
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        snapshots: 0,
        layers: Vec::new(),
        not_lazy: Vec::new(),
    };
    snapshotter.walk(|name, record| {
        status.snapshots += 1;
        let Some(source) = record.source else { return };
        let found = shown.iter().find(|it| u64::from(it.number) == record.id);
        status.layers.push(LayerStatus {
            snapshot: name.to_owned(),
            number: record.id,
            image: without_digest(&source),
            layer: source.digest,
            mounted: found.is_some(),
            entries: found.map_or(0, |it| it.entries),
            size: found.map_or(0, |it| it.size),
            cached: found.map_or(0, |it| it.cached),
        });
    })?;
    let not_lazy = snapshotter.fallbacks()?.into_iter().map(|(snapshot, it)| NotLazy {
        snapshot,
        source: named(&it.labels),
        at: it.at,
        reason: it.reason,
    });
    status.not_lazy.extend(not_lazy);
    Ok(status)
}

fn named(labels: &Labels) -> Option<Named> {
    let source = LayerSource::parse(labels).ok()?;
    Some(Named { image: without_digest(&source), layer: source.digest })
}

fn without_digest(source: &LayerSource) -> String {
    let name = source.reference.to_string();
    name.split_once('@').map_or_else(|| name.clone(), |(name, _)| name.to_owned())
}
