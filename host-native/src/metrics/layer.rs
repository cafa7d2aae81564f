//! The figures of one layer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use prometheus::{Counter, Histogram, IntCounter, IntGauge};

use super::METRICS;
use crate::lock::lock;

/// Operations, as containerd-stargz-grpc calls them: reads, those among them that waited for a
/// registry, and requests to it.
const READS: &str = "on_demand_read_access_count";
const REMOTE_READS: &str = "on_demand_remote_registry_fetch_count";
const READ: &str = "read_on_demand";
const REQUEST: &str = "remote_registry_get";
const SERVED: &str = "on_demand_bytes_served";
const FETCHED: &str = "on_demand_bytes_fetched";
const MOUNT: &str = "mount";

static KNOWN: Mutex<Option<HashMap<String, Weak<LayerMetrics>>>> = Mutex::new(None);

/// Counters of one layer, shared by all that read it. Adding to them takes no lock.
#[derive(Debug)]
pub struct LayerMetrics {
    digest: String,
    reads: IntCounter,
    remote_reads: IntCounter,
    served: IntGauge,
    on_demand: IntGauge,
    fetched: IntGauge,
    stalls: Counter,
    stall: Histogram,
    request: Histogram,
}

impl LayerMetrics {
    /// The figures of the layer with this digest, whose blob has `size` bytes.
    #[must_use]
    pub fn of(digest: &str, size: u64) -> Arc<Self> {
        let mut known = lock(&KNOWN);
        let known = known.get_or_insert_default();
        if let Some(metrics) = known.get(digest).and_then(Weak::upgrade) {
            return metrics;
        }
        let mount = [digest, ""];
        METRICS.layer_size.with_label_values(&mount).set(i64::try_from(size).unwrap_or(i64::MAX));
        let metrics = Arc::new(Self {
            digest: digest.to_owned(),
            reads: METRICS.operations.with_label_values(&[READS, digest]),
            remote_reads: METRICS.operations.with_label_values(&[REMOTE_READS, digest]),
            served: METRICS.served.with_label_values(&[SERVED, digest]),
            on_demand: METRICS.served.with_label_values(&[FETCHED, digest]),
            fetched: METRICS.layer_fetched.with_label_values(&mount),
            stalls: METRICS.stall_seconds.with_label_values(&[digest]),
            stall: METRICS.microseconds.with_label_values(&[READ, digest]),
            request: METRICS.milliseconds.with_label_values(&[REQUEST, digest]),
        });
        known.insert(digest.to_owned(), Arc::downgrade(&metrics));
        metrics
    }

    /// Counts a read that was answered at once.
    pub fn hit(&self, bytes: u64) {
        self.reads.inc();
        self.add(&self.served, bytes);
        METRICS.from_cache.inc_by(bytes);
    }

    /// Counts a read that waited for `bytes`.
    pub fn waited(&self, bytes: u64, time: Duration) {
        self.reads.inc();
        self.remote_reads.inc();
        self.add(&self.served, bytes);
        self.stalls.inc_by(time.as_secs_f64());
        self.stall.observe(time.as_secs_f64() * 1e6);
    }

    /// Counts bytes of the blob that arrived.
    pub fn fetched(&self, bytes: u64) {
        self.add(&self.fetched, bytes);
    }

    /// Counts a request that began to be answered after `time`.
    pub fn answered(&self, time: Duration) {
        self.request.observe(time.as_secs_f64() * 1e3);
    }

    /// Counts bytes that were asked for because somebody waits for them.
    pub fn demanded(&self, bytes: u64) {
        self.add(&self.on_demand, bytes);
    }

    /// Counts how long it took until the layer could be read.
    pub fn mounted(&self, time: Duration) {
        let mounts = METRICS.milliseconds.with_label_values(&[MOUNT, &self.digest]);
        mounts.observe(time.as_secs_f64() * 1e3);
    }

    fn add(&self, gauge: &IntGauge, bytes: u64) {
        gauge.add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

impl Drop for LayerMetrics {
    fn drop(&mut self) {
        let mut known = lock(&KNOWN);
        let Some(known) = known.as_mut() else { return };
        // Somebody may have begun to read it again.
        if known.get(&self.digest).is_some_and(|it| it.strong_count() > 0) {
            return;
        }
        known.remove(&self.digest);
        let digest = &*self.digest;
        // What was never used is not there to be removed.
        for operation in [READS, REMOTE_READS] {
            let _ = METRICS.operations.remove_label_values(&[operation, digest]);
        }
        for bytes in [SERVED, FETCHED] {
            let _ = METRICS.served.remove_label_values(&[bytes, digest]);
        }
        for operation in [REQUEST, MOUNT] {
            let _ = METRICS.milliseconds.remove_label_values(&[operation, digest]);
        }
        let _ = METRICS.microseconds.remove_label_values(&[READ, digest]);
        let _ = METRICS.stall_seconds.remove_label_values(&[digest]);
        for gauges in [&METRICS.layer_size, &METRICS.layer_fetched] {
            let _ = gauges.remove_label_values(&[digest, ""]);
        }
    }
}
