//! Inside the mount process.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fuser::{BackgroundSession, INodeNo, Notifier};
use futures_util::future::join_all;
use lazystar_core::Digest;
use tokio::net::UnixStream;
use tokio::sync::OnceCell;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::layers::ImageLayers;
use super::protocol::{Identity, NumberedLayer, Reply, Request, ShownLayer, write_with_fd};
use crate::driver::LazyLayer;
use crate::driver::reads::ReadFile;
use crate::lock::lock;
use crate::metrics;
use crate::mount::fuse::ImageFs;
use crate::mount::shown::ROOT;
use crate::mount::tree::LayerTable;
use crate::mount::{session, stack};
use crate::snapshotter::lines::{read, write};
use crate::socket::listen;

/// How long whoever reads waits, after the process before this one died, for layers that have to
/// be opened first. What is in the cache takes milliseconds.
const RESUME_PATIENCE: Duration = Duration::from_secs(5);

/// Serves `device` as the daemon that connects to `socket` says, until it is unmounted or told to
/// end.
///
/// # Errors
/// When the socket cannot be used.
pub async fn serve(device: OwnedFd, socket: &Path, layers: ImageLayers) -> Result<()> {
    let listener = listen(socket, "")?;
    let (end, mut ended) = tokio::sync::mpsc::channel(1);
    let process = Arc::new(Process {
        identity: Identity::own(),
        device,
        layers,
        shown: Arc::new(LayerTable::changing()),
        opening: Mutex::default(),
        prefetching: Mutex::default(),
        started: tokio::sync::Mutex::new(false),
        notifier: OnceLock::new(),
        end,
    });
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            _ = ended.recv() => break,
        };
        let process = Arc::clone(&process);
        tokio::spawn(async move {
            if let Err(error) = process.answer(stream).await {
                tracing::debug!("a daemon went away: {error:#}");
            }
        });
    }
    tracing::info!("ending");
    Ok(())
}

struct Process {
    identity: Identity,
    device: OwnedFd,
    layers: ImageLayers,
    shown: Arc<LayerTable>,
    /// Layers that are open or being opened, by their numbers.
    opening: Mutex<HashMap<u32, Opening>>,
    prefetching: Mutex<HashMap<u32, AbortHandle>>,
    started: tokio::sync::Mutex<bool>,
    notifier: OnceLock<Notifier>,
    end: tokio::sync::mpsc::Sender<()>,
}

/// The blob of a layer; and a cell, so that whoever wants the same layer waits for one opening of
/// it, with the digest of the manifest that it was found in.
type Opening = (Digest, Arc<OnceCell<Option<Digest>>>);

impl Process {
    async fn answer(self: &Arc<Self>, mut stream: UnixStream) -> Result<()> {
        let Some(request) = read(&mut stream).await? else { return Ok(()) };
        let reply = match request {
            Request::Hello => Reply::Hello(self.identity.clone()),
            Request::Start { resume, layers } => match self.start(resume, layers).await {
                Ok(()) => Reply::Done,
                Err(error) => Reply::Failed(format!("{error:#}")),
            },
            Request::Open(layer) => match self.open(&layer).await {
                Ok(manifest) => Reply::Opened { manifest },
                Err(error) => Reply::Failed(format!("{error:#}")),
            },
            Request::Close { number } => {
                self.close(number);
                Reply::Done
            }
            Request::Layers { only } => Reply::Layers(self.shown(only)),
            Request::Metrics => Reply::Metrics(self.metrics()),
            Request::Reads { layer } => Reply::Reads(self.reads(layer)),
            Request::Device => {
                return write_with_fd(&mut stream, &Reply::Done, &self.device).await;
            }
            Request::Watch => {
                // Ends with the daemon, or with this process.
                read::<Request>(&mut stream).await?;
                return Ok(());
            }
            Request::Stop => {
                write(&mut stream, &Reply::Done).await?;
                return Ok(self.end.send(()).await?);
            }
        };
        write(&mut stream, &reply).await
    }

    async fn start(self: &Arc<Self>, resume: bool, layers: Vec<NumberedLayer>) -> Result<()> {
        let mut started = self.started.lock().await;
        if *started {
            bail!("the device is served already");
        }
        let opening = layers.into_iter().map(|layer| {
            let process = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = process.open(&layer).await {
                    tracing::warn!(number = layer.number, "cannot open a layer again: {error:#}");
                }
            })
        });
        // What takes longer goes on, and fails until then.
        let _ = timeout(RESUME_PATIENCE, join_all(opening)).await;
        let mut filesystem = ImageFs::new(stack(Arc::clone(&self.shown)));
        if self.layers.logs_access() {
            filesystem = filesystem.with_access_log(Arc::default());
        }
        let device = self.device.try_clone()?;
        let start = move || -> Result<BackgroundSession> {
            match resume {
                true => session::resume(filesystem, &device),
                false => session::start(filesystem, device, true),
            }
        };
        let session = tokio::task::spawn_blocking(start).await?.context("cannot serve FUSE")?;
        let _ = self.notifier.set(session.notifier());
        let end = self.end.clone();
        std::thread::spawn(move || {
            // Everything is unmounted, or FUSE broke; either way nothing is left to do.
            if let Err(error) = session.join() {
                tracing::error!("FUSE ended: {error}");
            }
            let _ = end.blocking_send(());
        });
        *started = true;
        Ok(())
    }

    async fn open(self: &Arc<Self>, wanted: &NumberedLayer) -> Result<Option<Digest>> {
        let new = || (wanted.source.digest, Arc::default());
        let cell = Arc::clone(&lock(&self.opening).entry(wanted.number).or_insert_with(new).1);
        let opened = cell.get_or_try_init(|| async {
            let (layer, manifest) = self.layers.open(&wanted.source).await?;
            layer.cache().pin(self.layers.is_pinned(&wanted.source.reference));
            self.shown.insert(wanted.number, Arc::clone(&layer));
            let wanted_ahead = self.layers.prefetch();
            let prefetch = tokio::spawn(async move {
                if wanted_ahead.enabled {
                    layer.prefetch(wanted_ahead.size).await;
                }
            });
            lock(&self.prefetching).insert(wanted.number, prefetch.abort_handle());
            anyhow::Ok(manifest)
        });
        let manifest = *opened.await?;
        let still_wanted =
            lock(&self.opening).get(&wanted.number).is_some_and(|it| Arc::ptr_eq(&it.1, &cell));
        if !still_wanted {
            self.close(wanted.number);
        }
        Ok(manifest)
    }

    fn close(&self, number: u32) {
        let removed = lock(&self.opening).remove(&number);
        lock(&self.prefetching).remove(&number).into_iter().for_each(|it| it.abort());
        let Some(layer) = self.shown.remove(number) else { return };
        // What else is open of its image would keep its files.
        self.layers.forget();
        let (cache, toc) = (&self.layers.opener().cache, layer.toc().digest());
        if self.shown.all().iter().all(|(_, other)| other.toc().digest() != toc)
            && let Err(error) = cache.remove(layer.toc())
        {
            tracing::warn!(%toc, %error, "cannot remove the content of a layer from the cache");
        }
        if let Some((blob, _)) = removed
            && lock(&self.opening).values().all(|(other, _)| *other != blob)
        {
            cache.forget_tail(&blob);
        }
        // The kernel need not remember what is in it.
        if let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_entry(INodeNo(ROOT), number.to_string().as_ref())
        {
            tracing::debug!(number, %error, "the kernel did not know a layer");
        }
    }

    fn metrics(&self) -> String {
        metrics::set_cache_bytes(self.shown(None).iter().map(|layer| layer.cached).sum());
        metrics::render()
    }

    fn reads(&self, layer: Digest) -> Vec<Vec<ReadFile>> {
        let opening = lock(&self.opening);
        let numbers: Vec<u32> =
            opening.iter().filter(|it| it.1.0 == layer).map(|it| *it.0).collect();
        drop(opening);
        let shown = numbers.into_iter().filter_map(|number| self.shown.get(number));
        shown.map(|layer| layer.files_read()).collect()
    }

    fn shown(&self, only: Option<u32>) -> Vec<ShownLayer> {
        let layers = match only {
            Some(number) => {
                self.shown.get(number).map(|layer| (number, layer)).into_iter().collect()
            }
            None => self.shown.all(),
        };
        layers.iter().map(|(number, layer)| describe(*number, layer)).collect()
    }
}

fn describe(number: u32, layer: &Arc<LazyLayer>) -> ShownLayer {
    let toc = layer.toc();
    ShownLayer {
        number,
        toc: toc.digest(),
        entries: u64::from(toc.node_count()),
        size: toc.flat_size(),
        cached: layer.cache().disk_bytes().unwrap_or(0),
    }
}

/// The device that the daemon passed on.
///
/// # Errors
/// When standard input is none.
pub fn inherited_device() -> Result<OwnedFd> {
    Ok(std::io::stdin().as_fd().try_clone_to_owned()?)
}
