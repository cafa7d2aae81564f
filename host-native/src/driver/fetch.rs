//! Carrying out one request of the engine: its turn, its transfer, what an outage does to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lazystar_core::fetch::{FetchFailure, FetchRequest, Priority};
use tokio::time::{sleep, timeout};

use super::LazyLayer;
use crate::lock::lock;
use crate::registry::Urgency;
use crate::source::FetchError;

/// The pause before hosts that are away are asked again for a reader that waits; it doubles three
/// times.
const OUTAGE_PAUSE: Duration = Duration::from_millis(250);
/// Who reads again at once what just failed at its deadline is the kernel, for the same reader.
const AGAIN: Duration = Duration::from_millis(250);
/// How long it waits then.
const ONCE_MORE: Duration = Duration::from_millis(500);

/// How far a request has come.
struct Transfer {
    at: u64,
    /// When bytes last came.
    progress: Instant,
    /// How long none may come.
    deadline: Duration,
}

impl LazyLayer {
    /// Fetches what the engine wants. While no host gives it, a reader waits as the outage policy
    /// says.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        request: FetchRequest,
        urgency: &Urgency,
    ) -> Result<(), FetchError> {
        let outage = self.blob.outage();
        let asked = Instant::now();
        let _permit = match request.priority {
            Priority::Demand => self.demand.acquire().await,
            Priority::Prefetch => tokio::select! {
                permit = self.prefetch.acquire() => permit,
                () = urgency.raised() => self.demand.acquire().await,
            },
        };
        let mut transfer = Transfer {
            at: request.range.start,
            // Who waited for others that got nothing has waited as they have.
            progress: asked.max(*lock(&self.progress)),
            deadline: if self.failed_just_now(&request) { ONCE_MORE } else { outage.deadline },
        };
        let mut failures = 0;
        loop {
            let error = match self.transfer(&request, urgency, &mut transfer).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let left = transfer.deadline.saturating_sub(transfer.progress.elapsed());
            let changed = matches!(error, FetchError::Changed { .. });
            let waits = (outage.wait || changed) && urgency.is_urgent() && !left.is_zero();
            if !waits || !error.is_transient() {
                if left.is_zero() && urgency.is_urgent() {
                    *lock(&self.failed) = Some((request.range, Instant::now()));
                }
                return Err(error);
            }
            if failures == 0 {
                let (blob, range) = (self.blob.name(), request.range);
                tracing::warn!(blob, %range, "a reader waits, up to {left:.0?} more: {error}");
            }
            if changed {
                transfer.at = request.range.start;
            }
            sleep(OUTAGE_PAUSE.saturating_mul(1 << failures.min(3)).min(left)).await;
            failures += 1;
        }
    }

    /// Asks once for what is left of a request, and takes what comes.
    async fn transfer(
        self: &Arc<Self>,
        request: &FetchRequest,
        urgency: &Urgency,
        transfer: &mut Transfer,
    ) -> Result<(), FetchError> {
        let asked = Instant::now();
        let left = transfer.at..request.range.end;
        let length = left.end - left.start;
        let mut stream = self.patiently(transfer, self.blob.fetch_as(left, urgency)).await??;
        let answered = Instant::now();
        if request.priority == Priority::Demand {
            self.metrics.demanded(length);
        }
        self.metrics.answered(answered - asked);
        self.keep_whole();
        while let Some(piece) = self.patiently(transfer, stream.next()).await? {
            let piece = piece?;
            self.metrics.fetched(piece.len() as u64);
            let at = transfer.at;
            self.turn(|engine| engine.layer.handle_fetched(request.id, at, &piece));
            transfer.at += piece.len() as u64;
            transfer.progress = Instant::now();
            *lock(&self.progress) = transfer.progress;
        }
        self.link.observe(answered - asked, answered.elapsed(), length);
        Ok(())
    }

    /// Waits for a step of a transfer, but not longer than a reader should wait without any.
    async fn patiently<T>(
        &self,
        transfer: &Transfer,
        step: impl Future<Output = T>,
    ) -> Result<T, FetchError> {
        let deadline = transfer.deadline;
        let left = deadline.saturating_sub(transfer.progress.elapsed());
        let mut step = std::pin::pin!(step);
        match timeout(left, &mut step).await {
            Ok(done) => Ok(done),
            // It makes progress of its own, or says why not.
            Err(_) if self.blob.comes_whole() => Ok(step.await),
            Err(_) => Err(FetchError::Timeout { origin: self.blob.name(), after: deadline }),
        }
    }

    /// Whether a part of what is wanted has just failed at its deadline.
    fn failed_just_now(&self, request: &FetchRequest) -> bool {
        lock(&self.failed)
            .take_if(|(range, at)| {
                let overlaps = range.start < request.range.end && request.range.start < range.end;
                overlaps && at.elapsed() < AGAIN
            })
            .is_some()
    }

    /// Takes all of a blob into the cache that comes as a whole, since it is coming anyway.
    pub(super) fn keep_whole(self: &Arc<Self>) {
        // A cache with a limit would lose what is in use to what may never be.
        if !self.blob.comes_whole()
            || self.cache.has_limit()
            || self.taking.swap(true, Ordering::Relaxed)
        {
            return;
        }
        let layer = Arc::clone(self);
        self.runtime.spawn(async move {
            match layer.ensure(0..layer.toc.flat_size(), Priority::Prefetch).await {
                Ok(()) => layer.blob.drop_whole(),
                Err(error) => tracing::warn!(%error, "cannot take a whole blob into the cache"),
            }
            layer.taking.store(false, Ordering::Relaxed);
        });
    }
}

/// What the engine is told of an error.
pub(super) fn failure(error: &FetchError) -> FetchFailure {
    match error {
        FetchError::NotFound { .. } => FetchFailure::Gone,
        FetchError::Denied { .. } => FetchFailure::Denied,
        error if error.is_transient() => FetchFailure::Transient,
        _ => FetchFailure::Protocol,
    }
}
