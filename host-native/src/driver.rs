//! The loop around the engine: the only place where layers meet the network and the cache.
//!
//! A read that the cache can answer never comes here. A miss gives the engine its range, and what
//! the engine asks for is carried out: fetches are tasks, members are decoded, verified and stored
//! where their bytes arrived or on a worker thread. The engine's lock is held only while it
//! decides, never while anything waits.

mod fetch;
pub mod reads;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use lazystar_core::Toc;
use lazystar_core::fetch::{FetchFailure, FetchId, FetchRequest, Priority};
use lazystar_core::layer::{FetchPolicy, Layer, Output, ReadError, ReadId};
use lazystar_core::range::ByteRange;
use lazystar_core::toc::{Landmark, NodeId};
use lazystar_core::verify::MemberJob;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;

use crate::cache::LayerCache;
use crate::codec::NativeCodec;
use crate::link::Link;
use crate::lock::lock;
use crate::metrics::{LayerMetrics, METRICS};
use crate::registry::Urgency;
use crate::source::Blob;
use crate::workers;
use reads::{ReadFile, Reads};

/// Requests that readers wait for, at the same time, for one layer. Registries and their caches
/// take this many from one client without complaint.
const DEMAND_FETCHES: usize = 16;
/// Requests that nobody waits for yet.
const PREFETCH_FETCHES: usize = 4;
/// Members with fewer compressed bytes are decoded where they arrive: waking a worker costs more.
const INLINE_DECODE: usize = 64 << 10;
/// How often a range is fetched that a small cache loses again before it is read.
pub const READ_ATTEMPTS: u32 = 4;
const NO_MARK: u64 = u64::MAX;

thread_local! {
    static CODEC: std::cell::RefCell<NativeCodec> = std::cell::RefCell::default();
}

/// A layer that is being read: tables, cache, blob and the engine between them.
pub struct LazyLayer {
    toc: Arc<Toc>,
    cache: Arc<LayerCache>,
    blob: Blob,
    link: Link,
    runtime: Handle,
    engine: Mutex<Engine>,
    /// See [`Layer::readahead_mark`].
    mark: AtomicU64,
    demand: Semaphore,
    prefetch: Semaphore,
    metrics: Arc<LayerMetrics>,
    reads: Reads,
    /// Whether all of the blob is being taken into the cache.
    taking: AtomicBool,
    /// When bytes last came.
    progress: Mutex<Instant>,
    /// What failed last at its deadline, and when.
    failed: Mutex<Option<(ByteRange, Instant)>>,
}

struct Engine {
    layer: Layer,
    waiters: HashMap<ReadId, Waiter>,
    fetches: HashMap<FetchId, Fetch>,
}

struct Fetch {
    task: AbortHandle,
    urgency: Urgency,
}

type Waiter = Box<dyn FnOnce(Result<(), ReadError>) + Send>;

impl LazyLayer {
    /// A layer whose missing chunks come from `blob`; the work is done on `runtime`.
    #[must_use]
    pub fn new(
        cache: Arc<LayerCache>,
        toc: Arc<Toc>,
        blob: Blob,
        link: Link,
        runtime: Handle,
    ) -> Arc<Self> {
        let layer = Layer::new(Arc::clone(&toc), FetchPolicy::default());
        // What comes from a file has no digest of its blob.
        let digest = blob.digest().unwrap_or_else(|| toc.digest());
        let metrics = LayerMetrics::of(&digest.to_string(), toc.blob_size());
        let engine = Engine { layer, waiters: HashMap::new(), fetches: HashMap::new() };
        let layer = Arc::new(Self {
            toc,
            cache,
            blob,
            link,
            runtime,
            engine: Mutex::new(engine),
            mark: AtomicU64::new(NO_MARK),
            demand: Semaphore::new(DEMAND_FETCHES),
            prefetch: Semaphore::new(PREFETCH_FETCHES),
            metrics,
            reads: Reads::default(),
            taking: AtomicBool::new(false),
            progress: Mutex::new(Instant::now()),
            failed: Mutex::default(),
        });
        // Opening it may have brought all of it.
        layer.keep_whole();
        layer
    }

    /// The table of contents.
    #[must_use]
    pub fn toc(&self) -> &Arc<Toc> {
        &self.toc
    }

    /// The cache.
    #[must_use]
    pub fn cache(&self) -> &LayerCache {
        &self.cache
    }

    /// The figures.
    #[must_use]
    pub fn metrics(&self) -> &Arc<LayerMetrics> {
        &self.metrics
    }

    /// Notes that a range of the flat space, of the file `node`, is read by whoever uses the image.
    pub fn note_read(&self, node: NodeId, flat: Range<u64>) {
        self.reads.note(&self.toc, node, flat);
    }

    /// The files that were noted.
    #[must_use]
    pub fn files_read(&self) -> Vec<ReadFile> {
        self.reads.files(&self.toc)
    }

    /// Whether a range of the flat space can be read now.
    pub fn is_present(self: &Arc<Self>, flat: Range<u64>) -> bool {
        let mark = self.mark.load(Ordering::Relaxed);
        if flat.contains(&mark)
            && self
                .mark
                .compare_exchange(mark, NO_MARK, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.turn(|engine| engine.layer.advance(&*self.cache));
        }
        self.cache.is_present(flat)
    }

    /// Reads from the flat space, fetching what is not there.
    ///
    /// # Errors
    /// When a chunk cannot be had or is not what the TOC says, or the cache file cannot be read.
    pub async fn read(self: &Arc<Self>, flat: u64, out: &mut [u8]) -> Result<(), ReadError> {
        for _ in 0..READ_ATTEMPTS {
            self.ensure(flat..flat + out.len() as u64, Priority::Demand).await?;
            match self.cache.read(flat, out) {
                Ok(true) => return Ok(()),
                // The cache is so small that it went again.
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot read the cache");
                    break;
                }
            }
        }
        Err(ReadError::Fetch(FetchFailure::Storage))
    }

    /// Makes a range of the flat space present, then calls `done`, on any thread.
    pub fn request(
        self: &Arc<Self>,
        flat: Range<u64>,
        priority: Priority,
        done: impl FnOnce(Result<(), ReadError>) + Send + 'static,
    ) -> ReadId {
        self.cache.revalidate(flat.clone());
        self.turn(|engine| {
            if priority == Priority::Demand {
                engine.layer.set_policy(self.link.policy());
            }
            let read = engine.layer.read(flat, priority, &*self.cache);
            engine.waiters.insert(read, Box::new(done));
            read
        })
    }

    /// Gives up a request; its `done` is dropped.
    pub fn cancel(self: &Arc<Self>, read: ReadId) {
        self.turn(|engine| {
            engine.waiters.remove(&read);
            engine.layer.cancel(read);
        });
    }

    /// Makes a range of the flat space present. Dropping the future gives it up.
    ///
    /// # Errors
    /// When a chunk of it cannot be had or is not what the TOC says.
    pub async fn ensure(
        self: &Arc<Self>,
        flat: Range<u64>,
        priority: Priority,
    ) -> Result<(), ReadError> {
        struct Cancel<'a>(&'a Arc<LazyLayer>, Option<ReadId>);
        impl Drop for Cancel<'_> {
            fn drop(&mut self) {
                self.1.into_iter().for_each(|read| self.0.cancel(read));
            }
        }
        if self.is_present(flat.clone()) {
            return Ok(());
        }
        let (send, receive) = oneshot::channel();
        let read = self.request(flat, priority, move |result| {
            // Nobody listens when the future was dropped meanwhile.
            let _ = send.send(result);
        });
        let mut cancel = Cancel(self, Some(read));
        let result = receive.await;
        cancel.1 = None;
        result.unwrap_or(Err(ReadError::Fetch(FetchFailure::Transient)))
    }

    /// Fetches what the layer's landmark asks for; of a layer without one, what is in the first
    /// `size` bytes of its blob.
    pub async fn prefetch(self: &Arc<Self>, size: u64) {
        let end = match self.toc.landmark() {
            Landmark::Prefetch(end) => end,
            Landmark::NoPrefetch => 0,
            Landmark::None => {
                let chunks = self.toc.chunks();
                let wanted = chunks.partition_point(|chunk| chunk.member < size);
                chunks[..wanted].last().map_or(0, |chunk| chunk.flat_range().end)
            }
        };
        if end == 0 {
            return;
        }
        if let Err(error) = self.ensure(0..end, Priority::Prefetch).await {
            tracing::warn!(%error, "prefetch failed");
        }
    }

    /// Gives the engine a command or input, then carries out all that it wants.
    fn turn<R>(self: &Arc<Self>, input: impl FnOnce(&mut Engine) -> R) -> R {
        let mut jobs = Vec::new();
        let mut ended: Vec<(Waiter, Result<(), ReadError>)> = Vec::new();
        let result = {
            let mut engine = lock(&self.engine);
            let result = input(&mut engine);
            while let Some(output) = engine.layer.poll_output() {
                match output {
                    Output::Fetch(request) => {
                        let fetch = self.start(request);
                        engine.fetches.insert(request.id, fetch);
                    }
                    Output::Raise(id) => {
                        engine.fetches.get(&id).into_iter().for_each(|it| it.urgency.raise());
                    }
                    Output::Abandon(id) => {
                        engine.fetches.remove(&id).into_iter().for_each(|it| it.task.abort());
                    }
                    Output::Decode(job) => jobs.push(job),
                    Output::Done { read, result } => {
                        ended.extend(engine.waiters.remove(&read).map(|waiter| (waiter, result)));
                    }
                }
            }
            let mark = engine.layer.readahead_mark().unwrap_or(NO_MARK);
            self.mark.store(mark, Ordering::Relaxed);
            result
        };
        for (waiter, result) in ended {
            waiter(result);
        }
        // The last one is for this thread, which has nothing else to do with its bytes.
        let inline = jobs.pop_if(|job| job.compressed_len() < INLINE_DECODE);
        for job in jobs {
            let layer = Arc::clone(self);
            workers::run(move || layer.decode(&job));
        }
        inline.into_iter().for_each(|job| self.decode(&job));
        result
    }

    fn decode(self: &Arc<Self>, job: &MemberJob) {
        let member = CODEC.with_borrow_mut(|codec| job.run(codec));
        for chunk in member.verified() {
            self.cache.store(&chunk);
        }
        for (_, fault) in member.faults() {
            METRICS.verify_failures.inc();
            tracing::error!(blob = self.blob.name(), "{fault}");
        }
        self.turn(|engine| engine.layer.handle_decoded(&member, Ok(())));
    }

    fn start(self: &Arc<Self>, request: FetchRequest) -> Fetch {
        let urgency = Urgency::new(request.priority == Priority::Demand);
        let (layer, of_task) = (Arc::clone(self), urgency.clone());
        let task = self.runtime.spawn(async move {
            let result = layer.fetch(request, &of_task).await;
            if let Err(error) = &result {
                tracing::warn!(range = %request.range, %error, "fetch failed");
            }
            // When all of its bytes came, the engine knows nothing of it any more and ignores this.
            let failure = result.as_ref().err().map_or(FetchFailure::Protocol, fetch::failure);
            layer.turn(|engine| {
                engine.fetches.remove(&request.id);
                engine.layer.handle_fetch_failed(request.id, failure);
            });
        });
        Fetch { task: task.abort_handle(), urgency }
    }
}

impl std::fmt::Debug for LazyLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LazyLayer")
            .field("toc", &self.toc)
            .field("blob", &self.blob)
            .finish_non_exhaustive()
    }
}
