//! Blobs that come whole although a part was asked for: kept as they come, so that no byte is
//! downloaded twice.

use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use tokio::task::{AbortHandle, spawn_blocking};

use super::FetchError;
use super::body::Body;

/// How much is read at once.
const PIECE: usize = 256 << 10;

/// A blob that is coming as a whole, into a file without a name. Dropping it stops the transfer.
pub(super) struct WholeBlob {
    file: Arc<File>,
    progress: watch::Receiver<Progress>,
    transfer: AbortHandle,
}

#[derive(Default)]
struct Progress {
    /// How many bytes are in the file.
    at: u64,
    failure: Option<FetchError>,
}

impl WholeBlob {
    /// Keeps what `body` gives, from its first byte on, in a file in `dir`.
    ///
    /// # Errors
    /// If there can be no file.
    pub(super) fn start(body: Body, dir: &Path) -> Result<Arc<Self>, FetchError> {
        let file = Arc::new(nameless(dir).map_err(|error| FetchError::io(dir, error))?);
        let (send, progress) = watch::channel(Progress::default());
        let (into, place) = (Arc::clone(&file), dir.to_owned());
        let transfer = tokio::spawn(async move {
            if let Err(error) = keep(body, &into, &place, &send).await {
                send.send_modify(|progress| progress.failure = Some(error));
            }
        });
        Ok(Arc::new(Self { file, progress, transfer: transfer.abort_handle() }))
    }

    /// The first bytes of `range`, when they have come.
    pub(super) async fn next(&self, range: Range<u64>) -> Result<Bytes, FetchError> {
        let mut progress = self.progress.clone();
        let here = |it: &Progress| it.at > range.start || it.failure.is_some();
        let available = match progress.wait_for(here).await {
            Ok(it) if it.at > range.start => it.at.min(range.end).min(range.start + PIECE as u64),
            Ok(it) => return Err(it.failure.clone().unwrap_or_else(|| stopped(&range))),
            Err(_) => return Err(stopped(&range)),
        };
        let file = Arc::clone(&self.file);
        let read = move || {
            let mut bytes = BytesMut::zeroed((available - range.start) as usize);
            file.read_exact_at(&mut bytes, range.start).map(|()| bytes.freeze())
        };
        let nameless = Path::new("what was kept of a blob");
        match spawn_blocking(read).await {
            Ok(read) => read.map_err(|error| FetchError::io(nameless, error)),
            Err(error) => Err(FetchError::io(nameless, error.into())),
        }
    }
}

impl Drop for WholeBlob {
    fn drop(&mut self) {
        self.transfer.abort();
    }
}

fn stopped(range: &Range<u64>) -> FetchError {
    let expected = range.end - range.start;
    FetchError::Truncated { origin: "the transfer of the whole blob".to_owned(), got: 0, expected }
}

async fn keep(
    mut body: Body,
    file: &Arc<File>,
    dir: &Path,
    progress: &watch::Sender<Progress>,
) -> Result<(), FetchError> {
    let mut at = 0;
    while let Some(piece) = body.next().await {
        let (piece, into) = (piece?, Arc::clone(file));
        let length = piece.len() as u64;
        let written = spawn_blocking(move || into.write_all_at(&piece, at)).await;
        written
            .unwrap_or_else(|error| Err(error.into()))
            .map_err(|error| FetchError::io(dir, error))?;
        at += length;
        progress.send_modify(|progress| progress.at = at);
    }
    Ok(())
}

/// A file that is gone when it is closed.
fn nameless(dir: &Path) -> std::io::Result<File> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    fs::create_dir_all(dir)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("whole-{}-{number}", std::process::id()));
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}
