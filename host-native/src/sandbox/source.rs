//! The bytes of a layer, for a sandbox.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use lazystar_plugin::types::ByteRange;
use lazystar_plugin::{Error, Give, Source};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::image::Image;
use crate::source::{Blob, FetchError};

/// Ranges of a layer that are fetched side by side.
const FETCHES: usize = 8;
/// Pieces that were fetched and that the sandbox has not taken yet.
const PIECES: usize = 16;

/// A layer of an image. It fetches on the runtime, for a thread that is not one of the runtime's.
#[derive(Clone, Debug)]
pub struct BlobSource {
    image: Arc<Image>,
    layer: usize,
    runtime: Handle,
}

type Piece = Result<(u64, Bytes), FetchError>;

impl BlobSource {
    pub(super) fn new(image: Arc<Image>, layer: usize, runtime: Handle) -> Self {
        Self { image, layer, runtime }
    }
}

impl Source for BlobSource {
    fn fetch(&self, ranges: &[ByteRange], give: &mut Give<'_>) -> Result<(), Error> {
        let (sender, mut pieces) = mpsc::channel(PIECES);
        let room = Arc::new(Semaphore::new(FETCHES));
        // Ends all of them when it goes.
        let mut fetches = JoinSet::new();
        for ByteRange { offset, length } in ranges.iter().copied() {
            let (blob, sender) = (self.image.layers[self.layer].blob.clone(), sender.clone());
            let room = Arc::clone(&room);
            let fetch = async move {
                let _room = room.acquire().await;
                if let Err(error) = fetch(&blob, offset, length, &sender).await {
                    let _ = sender.send(Err(error)).await;
                }
            };
            fetches.spawn_on(fetch, &self.runtime);
        }
        drop(sender);
        while let Some(piece) = self.runtime.block_on(pieces.recv()) {
            let (offset, bytes) = piece.map_err(failed)?;
            give(offset, &bytes)?;
        }
        Ok(())
    }

    fn external_toc(&self) -> Result<Cow<'_, [u8]>, Error> {
        let digest = self.image.layers[self.layer].descriptor.digest;
        let toc = self.runtime.block_on(self.image.external_toc(digest));
        Ok(Cow::Owned(toc.map_err(failed)?.into()))
    }
}

async fn fetch(
    blob: &Blob,
    offset: u64,
    length: u64,
    sender: &mpsc::Sender<Piece>,
) -> Result<(), FetchError> {
    let mut stream = blob.fetch(offset..offset.saturating_add(length)).await?;
    let mut at = offset;
    while let Some(bytes) = stream.next().await {
        let bytes = bytes?;
        let next = at + bytes.len() as u64;
        // Nobody waits for it when the receiver is gone.
        if sender.send(Ok((at, bytes))).await.is_err() {
            break;
        }
        at = next;
    }
    Ok(())
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Source(Box::new(error))
}
