//! Blobs from a registry into containerd's content store.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use bytes::BytesMut;
use indicatif::ProgressBar;

use crate::containerd::{Containerd, Ingest};
use crate::oci::Descriptor;
use crate::source::Blob;

/// What is sent to containerd in one go.
const PIECE: usize = 1 << 20;

/// Brings a blob into containerd's content store, going on where an earlier attempt ended.
/// containerd checks its digest. Returns whether it was not there before.
///
/// # Errors
/// When the registry does not give the blob, or containerd does not take it.
pub async fn bring(
    containerd: &Containerd,
    blob: &Blob,
    descriptor: &Descriptor,
    labels: BTreeMap<String, String>,
    progress: &ProgressBar,
) -> Result<bool> {
    let (digest, size) = (descriptor.digest, descriptor.size);
    progress.inc_length(size);
    let Some(mut ingest) = containerd.ingest(digest, size).await? else {
        progress.inc(size);
        containerd.label(digest, labels).await?;
        return Ok(false);
    };
    let resumed = ingest.offset() > 0;
    progress.inc(ingest.offset());
    copy(blob, size, &mut ingest, progress).await?;
    let Err(error) = ingest.commit(labels.clone()).await else { return Ok(true) };
    // What arrived is of no use, and must not be built upon by the next attempt.
    if let Some(mut ingest) = containerd.ingest(digest, size).await? {
        ingest.restart().await?;
        if resumed {
            progress.set_position(progress.position().saturating_sub(size));
            copy(blob, size, &mut ingest, progress).await?;
            return ingest.commit(labels).await.map(|()| true).map_err(Into::into);
        }
    }
    Err(error).with_context(|| format!("{} is not what its digest says", blob.name()))
}

async fn copy(blob: &Blob, size: u64, ingest: &mut Ingest, progress: &ProgressBar) -> Result<()> {
    let mut stream = blob.fetch(ingest.offset().min(size)..size).await?;
    let mut waiting = BytesMut::with_capacity(2 * PIECE);
    while let Some(bytes) = stream.next().await
        && !ingest.is_there()
    {
        let bytes = bytes?;
        progress.inc(bytes.len() as u64);
        waiting.extend_from_slice(&bytes);
        if waiting.len() >= PIECE {
            ingest.write(waiting.split().freeze()).await?;
        }
    }
    ingest.write(waiting.freeze()).await?;
    Ok(())
}
