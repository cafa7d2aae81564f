//! Which hosts of a plan are well: those that failed lately are asked after the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Url;
use tokio::time::Instant;

use super::endpoint::{Capabilities, Endpoint, Plan};
use crate::lock::lock;

/// How long a host that failed once is asked after all others; doubles with each further failure.
const FIRST_REST: Duration = Duration::from_secs(5);
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Hosts that failed, by where their API begins.
#[derive(Default)]
pub(super) struct Health(Mutex<HashMap<Url, Resting>>);

struct Resting {
    until: Instant,
    /// In a row.
    failures: u32,
}

impl Health {
    /// The hosts of `plan` that are capable of what is wanted, best first: those that are well in
    /// their own order, then the others by when they have rested.
    pub(super) fn order(&self, plan: &Plan, wanted: Capabilities) -> Vec<Arc<Endpoint>> {
        let now = Instant::now();
        let resting = lock(&self.0);
        let mut hosts: Vec<_> =
            plan.endpoints().iter().filter(|it| it.capabilities.include(wanted)).collect();
        // The sort is stable.
        hosts.sort_by_key(|it| resting.get(&it.base).map(|it| it.until).filter(|it| *it > now));
        hosts.into_iter().cloned().collect()
    }

    /// Lets a host rest; for how long, if it did not rest already.
    pub(super) fn failed(&self, endpoint: &Endpoint) -> Option<Duration> {
        let now = Instant::now();
        let mut all = lock(&self.0);
        let resting =
            all.entry(endpoint.base.clone()).or_insert(Resting { until: now, failures: 0 });
        if resting.until > now {
            return None;
        }
        let rest = FIRST_REST.saturating_mul(1 << resting.failures.min(8)).min(LONGEST_REST);
        resting.failures += 1;
        resting.until = now + rest;
        Some(rest)
    }

    /// Takes into account that a host did what it should.
    pub(super) fn worked(&self, endpoint: &Endpoint) {
        let mut all = lock(&self.0);
        if !all.is_empty() {
            all.remove(&endpoint.base);
        }
    }
}
