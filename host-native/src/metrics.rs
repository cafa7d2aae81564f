//! Figures for Prometheus.
//!
//! Names that begin with `stargz_fs_` are those of containerd-stargz-grpc, for dashboards that
//! know them; ours begin with `lazystar_`. A layer's figures go when nobody reads it any more.

mod combine;
mod layer;
mod serve;

use std::sync::LazyLock;

use lazystar_core::footer::FooterError;
use lazystar_core::open::OpenError;
use prometheus::core::Collector;
use prometheus::{
    CounterVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

pub use combine::combined;
pub use layer::LayerMetrics;
pub use serve::{serve, serve_debug};

use crate::image::ImageError;
use crate::open::LayerError;
use crate::source::FetchError;

/// What is counted in this process.
pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// Who gave what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The registry that the image is named after.
    Registry,
    /// A host that stands in for it.
    Mirror,
    /// A token server.
    Tokens,
}

/// Why a layer is not lazy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The client does not say which layer it wants.
    NoLabels,
    /// The layer has no table of contents.
    NotConverted,
    /// Nothing vouches for its content, or it is not what was vouched for.
    Unverified,
    /// The registry has no such image or layer.
    NotFound,
    /// The registry denies access.
    Denied,
    /// The registry cannot be reached or does not answer in time.
    Unreachable,
    /// The registry answers wrongly, byte ranges ignored included.
    BadRegistry,
    /// Something on this machine: disk, kernel, this program.
    Local,
}

/// All figures.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    bytes: IntCounterVec,
    /// What reads got without waiting, in bytes.
    pub(crate) from_cache: IntCounter,
    pub(crate) verify_failures: IntCounter,
    fallbacks: IntCounterVec,
    cache_bytes: IntGauge,
    stall_seconds: CounterVec,
    milliseconds: HistogramVec,
    microseconds: HistogramVec,
    operations: IntCounterVec,
    served: IntGaugeVec,
    layer_size: IntGaugeVec,
    layer_fetched: IntGaugeVec,
}

/// Requests and bytes of one host.
#[derive(Clone)]
pub(crate) struct HostMetrics {
    pub(crate) requests: IntCounter,
    pub(crate) bytes: IntCounter,
}

/// The figures of this process, in the text format of Prometheus.
#[must_use]
pub fn render() -> String {
    let families = METRICS.registry.gather();
    TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| {
        tracing::error!(%error, "cannot write metrics");
        String::new()
    })
}

/// Counts a layer that is not lazy.
pub fn count_fallback(reason: Reason) {
    METRICS.fallbacks.with_label_values(&[reason.name()]).inc();
}

/// Says what the cache takes on the disk.
pub fn set_cache_bytes(bytes: u64) {
    METRICS.cache_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
}

impl Metrics {
    fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let by_source = ["host", "source"];
        let by_operation = ["operation_type", "layer"];
        let by_mount = ["digest", "mountpoint"];
        let bytes = counters(
            r,
            "lazystar_bytes_total",
            "Bytes of content, by the host that they came from, or from the cache.",
            &by_source,
        );
        Self {
            requests: counters(r, "lazystar_requests_total", "Requests sent.", &by_source),
            from_cache: bytes.with_label_values(&["", "cache"]),
            bytes,
            verify_failures: added(
                r,
                IntCounter::new(
                    "lazystar_verify_failures_total",
                    "Chunks that were not what the table of contents says.",
                ),
            ),
            fallbacks: counters(
                r,
                "lazystar_fallbacks_total",
                "Layers that could not be lazy.",
                &["reason"],
            ),
            cache_bytes: added(
                r,
                IntGauge::new("lazystar_cache_bytes", "What the cache takes on the disk."),
            ),
            stall_seconds: added(
                r,
                CounterVec::new(
                    Opts::new("lazystar_stall_seconds_total", "Time that reads waited."),
                    &["layer"],
                ),
            ),
            milliseconds: histograms(r, "milliseconds", 15),
            microseconds: histograms(r, "microseconds", 11),
            operations: counters(r, "stargz_fs_operation_count", "Operations.", &by_operation),
            served: gauges(r, "stargz_fs_bytes_served", "Bytes served.", &by_operation),
            layer_size: gauges(r, "stargz_fs_layer_size_bytes", "Size of the blob.", &by_mount),
            layer_fetched: gauges(
                r,
                "stargz_fs_layer_fetched_size_bytes",
                "Bytes of the blob that were fetched.",
                &by_mount,
            ),
            registry,
        }
    }

    pub(crate) fn host(&self, host: &str, source: Source) -> HostMetrics {
        let labels = [host, source.name()];
        HostMetrics {
            requests: self.requests.with_label_values(&labels),
            bytes: self.bytes.with_label_values(&labels),
        }
    }
}

impl Source {
    const fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Mirror => "mirror",
            Self::Tokens => "tokens",
        }
    }
}

impl Reason {
    const fn name(self) -> &'static str {
        match self {
            Self::NoLabels => "no_labels",
            Self::NotConverted => "not_converted",
            Self::Unverified => "unverified",
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Unreachable => "unreachable",
            Self::BadRegistry => "bad_registry",
            Self::Local => "local",
        }
    }
}

impl From<&FetchError> for Reason {
    fn from(error: &FetchError) -> Self {
        match error {
            FetchError::NotFound { .. } => Self::NotFound,
            FetchError::Denied { .. } | FetchError::NotPublic { .. } => Self::Denied,
            FetchError::Timeout { .. }
            | FetchError::Unreachable { .. }
            | FetchError::Truncated { .. } => Self::Unreachable,
            FetchError::Status { .. } if error.is_transient() => Self::Unreachable,
            FetchError::Status { .. }
            | FetchError::RangeNotSatisfiable { .. }
            | FetchError::WrongRange { .. }
            | FetchError::Changed { .. }
            | FetchError::Refused { .. }
            | FetchError::Protocol { .. } => Self::BadRegistry,
            FetchError::Io { .. } => Self::Local,
        }
    }
}

impl From<&ImageError> for Reason {
    fn from(error: &ImageError) -> Self {
        match error {
            ImageError::Fetch(error) => error.into(),
            ImageError::Document(_) | ImageError::Reference(_) => Self::BadRegistry,
            ImageError::Layout { .. } | ImageError::Archive { .. } => Self::Local,
            ImageError::ExternalToc { .. } => Self::NotConverted,
        }
    }
}

impl From<&LayerError> for Reason {
    fn from(error: &LayerError) -> Self {
        match error {
            LayerError::Open(OpenError::Footer(FooterError::Absent)) => Self::NotConverted,
            LayerError::Open(_) | LayerError::Unvouched | LayerError::BadTocDigest(_) => {
                Self::Unverified
            }
            LayerError::Fetch(error) => error.into(),
            LayerError::ExternalToc(error) => error.into(),
            LayerError::Cache(_) | LayerError::Internal(_) => Self::Local,
        }
    }
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    added(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    added(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

/// Durations, in buckets of 1, 2, 4 and so on.
fn histograms(registry: &Registry, unit: &str, buckets: u32) -> HistogramVec {
    let name = format!("stargz_fs_operation_duration_{unit}");
    let mut options = HistogramOpts::new(name, format!("How long operations took, in {unit}."));
    options.buckets = (0..buckets).map(|power| f64::from(1 << power)).collect();
    added(registry, HistogramVec::new(options, &["operation_type", "layer"]))
}

fn added<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let registered = metric.and_then(|metric| {
        registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    });
    // Names and labels are constants, each used once.
    registered.unwrap_or_else(|error| unreachable!("a metric is declared wrongly: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_written_as_prometheus_reads_them() {
        METRICS.host("registry.test:5000", Source::Mirror).bytes.inc_by(7);
        count_fallback(Reason::NoLabels);
        set_cache_bytes(9);
        let layer = LayerMetrics::of("sha256:of-the-test", 100);
        layer.fetched(40);
        let text = render();
        for line in [
            r#"lazystar_bytes_total{host="registry.test:5000",source="mirror"} 7"#,
            r#"lazystar_fallbacks_total{reason="no_labels"} 1"#,
            "lazystar_cache_bytes 9",
            "# TYPE stargz_fs_operation_duration_milliseconds histogram",
            r#"stargz_fs_layer_fetched_size_bytes{digest="sha256:of-the-test",mountpoint=""} 40"#,
            r#"stargz_fs_layer_size_bytes{digest="sha256:of-the-test",mountpoint=""} 100"#,
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
        drop(layer);
        assert!(!render().contains("of-the-test"), "a layer that nobody reads is still there");
    }
}
