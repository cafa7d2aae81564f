//! Lazy layers: each is shown by the mount process, and bound on the directory of its snapshot.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::time::sleep;

use super::labels::LayerSource;
use super::mount_process::client::{Launch, MountProcess, Serving};
use super::mount_process::protocol::{NumberedLayer, ShownLayer};
use super::mounts::mounted_below;
use crate::lock::lock;

/// How long to wait before another mount process takes the place of one that ended sooner.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// How often one may end so soon before the mount is given up and made anew.
const MAX_ENDED_AT_ONCE: u32 = 3;

/// A lazy layer: its number, where it is mounted, and where it comes from.
#[derive(Clone, Debug)]
pub struct LazyLayer {
    /// The number of its snapshot.
    pub number: u32,
    /// The directory of its snapshot.
    pub dir: PathBuf,
    /// Where it comes from.
    pub source: LayerSource,
}

/// All lazy layers that are mounted.
#[derive(Debug)]
pub struct LazyLayers {
    process: MountProcess,
    /// A cell for each layer, so that whoever wants the same one waits for one mount of it.
    mounted: Mutex<HashMap<u32, (LazyLayer, Mount)>>,
    ending: AtomicBool,
    runtime: Handle,
}

/// Where a mounted layer comes from, by the digest of the manifest that it was found in: the tag
/// may name another image when it has to be opened again.
type Mount = Arc<OnceCell<LayerSource>>;

impl LazyLayers {
    /// No layers yet, for a snapshotter in `root`, whose FUSE device `kept` may be if somebody held
    /// it. Must be called in a runtime.
    #[must_use]
    pub fn new(root: &Path, launch: Launch, kept: Option<OwnedFd>) -> Self {
        Self {
            process: MountProcess::new(root, launch, kept),
            mounted: Mutex::default(),
            ending: AtomicBool::new(false),
            runtime: Handle::current(),
        }
    }

    /// Finds or starts the mount process, and returns those of `known` that are not mounted.
    ///
    /// # Errors
    /// When no mount process can be started.
    pub async fn begin(self: &Arc<Self>, known: Vec<LazyLayer>) -> Result<Vec<LazyLayer>> {
        let numbered = known.iter().map(LazyLayer::numbered).collect();
        let serving = self.process.begin(numbered).await?;
        let missing = match &serving {
            Serving::Kept(shown) => self.adopt(known, shown),
            Serving::New => known,
        };
        let this = Arc::clone(self);
        tokio::spawn(async move { this.supervise().await });
        Ok(missing)
    }

    /// Mounts a layer, unless it is mounted already, and returns where it comes from, whatever its tag
    /// names later.
    ///
    /// # Errors
    /// When the layer cannot be read lazily, with the reason, or not mounted.
    pub async fn mount(&self, layer: &LazyLayer) -> Result<LayerSource> {
        let number = layer.number;
        let new = || (layer.clone(), Mount::default());
        let cell = Arc::clone(&self.mounted().entry(number).or_insert_with(new).1);
        let mounted = cell.get_or_try_init(|| self.mount_new(layer)).await;
        if mounted.is_err() {
            let mut all = self.mounted();
            // Unless somebody else is trying again by now.
            if all.get(&number).is_some_and(|(_, kept)| Arc::strong_count(kept) <= 2) {
                all.remove(&number);
            }
        }
        let source = mounted?;
        if let Some((known, _)) = self.mounted().get_mut(&number) {
            known.source = source.clone();
        }
        Ok(source.clone())
    }

    /// Whether a layer is mounted.
    #[must_use]
    pub fn is_mounted(&self, number: u32) -> bool {
        self.mounted().get(&number).is_some_and(|(_, cell)| cell.initialized())
    }

    /// What is shown, of all layers or of one.
    ///
    /// # Errors
    /// When the mount process does not answer.
    pub async fn shown(&self, only: Option<u32>) -> Result<Vec<ShownLayer>> {
        self.process.shown(only).await
    }

    /// The figures of the mount process.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<String> {
        self.process.metrics().await
    }

    /// Unmounts a layer, if it is mounted on `dir`, and lets go of its content.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unmount(self: &Arc<Self>, number: u32, dir: &Path) -> Result<()> {
        let was_mounted = self.mounted().remove(&number).is_some();
        unbind(dir)?;
        if was_mounted {
            let this = Arc::clone(self);
            self.runtime.spawn(async move {
                if let Err(error) = this.process.close(number).await {
                    tracing::warn!(number, "a removed layer is still shown: {error:#}");
                }
            });
        }
        Ok(())
    }

    /// Ends this process's part. The mount process goes on, unless it has nothing to show or
    /// `everything` is to end.
    pub async fn end(&self, everything: bool) {
        self.ending.store(true, Ordering::Relaxed);
        if everything || self.mounted().is_empty() {
            self.process.stop().await;
        }
    }

    async fn mount_new(&self, layer: &LazyLayer) -> Result<LayerSource> {
        let manifest = self.process.open(layer.numbered()).await?;
        let (from, dir) = (self.process.dir(layer.number), layer.dir.clone());
        let bound = tokio::task::spawn_blocking(move || bind(&from, &dir)).await?;
        if bound.is_err() {
            self.process.close(layer.number).await?;
        }
        bound?;
        let mut source = layer.source.clone();
        if let Some(manifest) = manifest {
            source.reference = source.reference.with_digest(manifest);
        }
        Ok(source)
    }

    /// Takes over what is shown and mounted, and returns what is not.
    fn adopt(&self, known: Vec<LazyLayer>, shown: &[ShownLayer]) -> Vec<LazyLayer> {
        let shown: HashSet<_> = shown.iter().map(|it| it.number).collect();
        let Some(dir) = known.first().and_then(|it| it.dir.ancestors().nth(2)) else {
            return known;
        };
        let bound = mounted_below(dir);
        let served = |it: &LazyLayer| shown.contains(&it.number) && bound.contains(&it.dir);
        let (served, missing): (Vec<_>, Vec<_>) = known.into_iter().partition(served);
        for layer in served {
            let cell = Arc::new(OnceCell::new_with(Some(layer.source.clone())));
            self.mounted().insert(layer.number, (layer, cell));
        }
        missing
    }

    /// Starts another mount process whenever one has ended.
    async fn supervise(self: Arc<Self>) {
        let mut ended_at_once = 0;
        loop {
            let started = Instant::now();
            self.process.ended().await;
            if self.ending.load(Ordering::Relaxed) {
                return;
            }
            if started.elapsed() > RESTART_PAUSE {
                ended_at_once = 0;
            } else {
                ended_at_once += 1;
                sleep(RESTART_PAUSE).await;
            }
            if ended_at_once == MAX_ENDED_AT_ONCE {
                // It has been cut off by the kernel, or nobody can serve it.
                self.process.give_up_mount();
            }
            tracing::error!("the mount process ended unexpectedly; starting another");
            let known: Vec<_> = self.mounted().values().map(|(layer, _)| layer.clone()).collect();
            let numbered = known.iter().map(LazyLayer::numbered).collect();
            match self.process.go_on(numbered).await {
                Ok(Serving::Kept(shown)) => {
                    let shown: HashSet<_> = shown.iter().map(|it| it.number).collect();
                    // Those that are being mounted are asked for again.
                    self.mounted()
                        .retain(|number, (_, cell)| cell.get().is_none() || shown.contains(number));
                    tracing::info!(layers = shown.len(), "the mount process was replaced");
                }
                Ok(Serving::New) => {
                    self.mounted().clear();
                    for layer in known {
                        let this = Arc::clone(&self);
                        tokio::spawn(async move {
                            if let Err(error) = this.mount(&layer).await {
                                let number = layer.number;
                                tracing::warn!(number, "cannot mount a layer again: {error:#}");
                            }
                        });
                    }
                }
                Err(error) => tracing::error!("cannot start a mount process: {error:#}"),
            }
        }
    }

    fn mounted(&self) -> std::sync::MutexGuard<'_, HashMap<u32, (LazyLayer, Mount)>> {
        lock(&self.mounted)
    }
}

impl LazyLayer {
    fn numbered(&self) -> NumberedLayer {
        NumberedLayer { number: self.number, source: self.source.clone() }
    }
}

/// Mounts a directory on another, in the place of what is mounted there.
fn bind(from: &Path, dir: &Path) -> Result<()> {
    unbind(dir)?;
    rustix::mount::mount_bind(from, dir)
        .with_context(|| format!("cannot mount {} on {}", from.display(), dir.display()))
}

/// Unmounts what is mounted on a directory, if anything is; what is in use goes with its users.
fn unbind(dir: &Path) -> Result<()> {
    match rustix::mount::unmount(dir, UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot unmount {}", dir.display())),
    }
}
