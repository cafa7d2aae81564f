//! What the way to a registry is like, and how requests should be cut for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lazystar_core::layer::FetchPolicy;

use crate::lock::lock;

/// How much a new observation counts against all before it.
const WEIGHT: f64 = 0.2;
/// Shorter answers say little about the rate: they fit into the first packets.
const RATE_SAMPLE: u64 = 128 << 10;

/// The measured round trip and rate to one registry; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Link(Arc<Mutex<Measured>>);

#[derive(Debug, Default)]
struct Measured {
    /// Seconds from a request to the first byte of its answer.
    latency: Option<f64>,
    /// Bytes a second of one answer.
    rate: Option<f64>,
}

impl Link {
    /// Takes into account a request that was answered after `latency` and took `transfer` more
    /// for `bytes` bytes.
    pub fn observe(&self, latency: Duration, transfer: Duration, bytes: u64) {
        let mut measured = lock(&self.0);
        blend(&mut measured.latency, latency.as_secs_f64());
        if bytes >= RATE_SAMPLE {
            blend(&mut measured.rate, bytes as f64 / transfer.as_secs_f64().max(1e-6));
        }
    }

    /// How to cut requests. What fits into the pipe during one round trip costs as much time as
    /// the round trip that it saves, so that is what a request may bring along unasked.
    #[must_use]
    pub fn policy(&self) -> FetchPolicy {
        let measured = lock(&self.0);
        let (Some(latency), Some(rate)) = (measured.latency, measured.rate) else {
            return FetchPolicy::default();
        };
        let in_flight = (latency * rate) as u64;
        let default = FetchPolicy::default();
        FetchPolicy {
            gap: (in_flight / 8).clamp(default.gap, 256 << 10),
            min_span: (in_flight / 2).clamp(default.min_span, 1 << 20),
            max_span: in_flight.clamp(default.max_span, 4 << 20),
            max_ahead: (in_flight * 4).clamp(default.max_ahead, 32 << 20),
        }
    }
}

fn blend(mean: &mut Option<f64>, sample: f64) {
    *mean = Some(mean.map_or(sample, |mean| mean + (sample - mean) * WEIGHT));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_fat_link_asks_for_more_at_once() {
        let near = Link::default();
        near.observe(Duration::from_micros(100), Duration::from_millis(1), 1 << 20);
        assert_eq!(near.policy(), FetchPolicy::default());

        let far = Link::default();
        far.observe(Duration::from_millis(50), Duration::from_millis(40), 1 << 20);
        let policy = far.policy();
        assert!(policy.min_span > 500 << 10 && policy.gap > 128 << 10, "{policy:?}");
    }
}
