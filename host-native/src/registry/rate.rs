//! How many requests a registry takes, learned from its refusals.
//!
//! A registry that never answers 429 is never waited for. One that does gets a token bucket: as
//! many requests a second as it took before it refused, fewer after each further refusal, more for
//! as long as there is none. Who has a reader waiting goes before who has not.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::lock::lock;

/// Answers of which the rate before a refusal is computed.
const REMEMBERED: usize = 256;
/// Refusals of requests that were sent together count once.
const TOGETHER: Duration = Duration::from_secs(1);
/// How much of what was taken before a refusal is asked for after it.
const CAUTION: f64 = 0.9;
/// The lowest rate, in requests a second.
const LOWEST: f64 = 0.2;
/// The rate after a refusal before which nothing was taken.
const UNMEASURED: f64 = 10.0;
/// How long it takes without a refusal to ask for half as much again.
const RECOVERY: f64 = 60.0;
/// How long it takes without a refusal to forget the limit.
const FORGET: Duration = Duration::from_secs(600);
/// How often a request that nobody waits for looks whether it may go.
const LOOK: Duration = Duration::from_millis(50);

/// Whether somebody waits for a request; it may turn out later that somebody does.
#[derive(Clone, Debug)]
pub(crate) struct Urgency(Arc<Wanted>);

#[derive(Debug)]
struct Wanted {
    urgent: AtomicBool,
    raised: Notify,
}

impl Urgency {
    pub(crate) fn new(urgent: bool) -> Self {
        Self(Arc::new(Wanted { urgent: AtomicBool::new(urgent), raised: Notify::new() }))
    }

    /// Says that somebody waits now.
    pub(crate) fn raise(&self) {
        self.0.urgent.store(true, Ordering::Relaxed);
        self.0.raised.notify_waiters();
    }

    pub(crate) fn is_urgent(&self) -> bool {
        self.0.urgent.load(Ordering::Relaxed)
    }

    /// Ends when somebody waits.
    pub(crate) async fn raised(&self) {
        let mut raised = std::pin::pin!(self.0.raised.notified());
        raised.as_mut().enable();
        if !self.is_urgent() {
            raised.await;
        }
    }
}

impl Default for Urgency {
    fn default() -> Self {
        Self::new(true)
    }
}

/// The limits of all hosts, by their names.
#[derive(Default)]
pub(super) struct Rates(Mutex<HashMap<String, Arc<Mutex<Bucket>>>>);

struct Bucket {
    /// When requests were answered with anything but a refusal, the latest last.
    taken: VecDeque<Instant>,
    limit: Option<Limit>,
    /// Requests with a reader behind them that wait for their turn.
    urgent: usize,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    /// Requests a second.
    rate: f64,
    tokens: f64,
    filled: Instant,
    /// Nothing is sent before.
    until: Instant,
    refused: Instant,
}

impl Rates {
    /// Waits until `host` may be asked; `false` if that is not before `deadline`.
    pub(super) async fn admit(&self, host: &str, urgency: &Urgency, deadline: Instant) -> bool {
        let bucket = self.bucket(host);
        let mut waiting = None;
        loop {
            let now = Instant::now();
            let urgent = urgency.is_urgent();
            let Some(wait) = lock(&bucket).take(now, urgent) else { return true };
            let earliest = if urgent { now + wait } else { now };
            if earliest > deadline {
                return false;
            }
            if urgent && waiting.is_none() {
                lock(&bucket).urgent += 1;
                waiting = Some(Waiting(Arc::clone(&bucket)));
            }
            if urgent {
                sleep(wait).await;
            } else {
                // Whether others still go first is looked at again soon.
                let _ = timeout(wait.min(LOOK), urgency.raised()).await;
            }
        }
    }

    /// Takes into account how `host` answered: with 429, after which it wants a pause, or not.
    pub(super) fn answered(&self, host: &str, refused: Option<Duration>) {
        lock(&self.bucket(host)).answered(Instant::now(), refused);
    }

    /// Requests a second that `host` is asked for at most, if it has a limit.
    pub(super) fn of(&self, host: &str) -> Option<f64> {
        lock(&self.bucket(host)).limit.map(|limit| limit.rate)
    }

    fn bucket(&self, host: &str) -> Arc<Mutex<Bucket>> {
        let mut all = lock(&self.0);
        if let Some(bucket) = all.get(host) {
            return Arc::clone(bucket);
        }
        let new = Bucket { taken: VecDeque::new(), limit: None, urgent: 0 };
        Arc::clone(all.entry(host.to_owned()).or_insert_with(|| Arc::new(Mutex::new(new))))
    }
}

/// A request with a reader behind it that waits.
struct Waiting(Arc<Mutex<Bucket>>);

impl Drop for Waiting {
    fn drop(&mut self) {
        lock(&self.0).urgent -= 1;
    }
}

impl Bucket {
    /// Takes a token, or says how long to wait before trying again.
    fn take(&mut self, now: Instant, urgent: bool) -> Option<Duration> {
        let limit = self.limit.as_mut()?;
        if now > limit.refused + FORGET {
            self.limit = None;
            return None;
        }
        if now < limit.until {
            return Some(limit.until - now);
        }
        let passed = now.saturating_duration_since(limit.filled).as_secs_f64();
        let capacity = (limit.rate / 4.0).max(1.0);
        limit.rate += limit.rate * 0.5 * passed / RECOVERY;
        limit.tokens = (limit.tokens + passed * limit.rate).min(capacity);
        limit.filled = now;
        let others_first = !urgent && self.urgent > 0;
        if limit.tokens >= 1.0 && !others_first {
            limit.tokens -= 1.0;
            return None;
        }
        let missing = (1.0 - limit.tokens).max(0.0) / limit.rate;
        Some(Duration::from_secs_f64(missing).max(Duration::from_millis(1)))
    }

    fn answered(&mut self, now: Instant, refused: Option<Duration>) {
        let Some(pause) = refused else {
            self.taken.push_back(now);
            if self.taken.len() > REMEMBERED {
                self.taken.pop_front();
            }
            return;
        };
        // A pause is as long as what the registry counts over, or is shorter.
        let window = pause.max(TOGETHER);
        let taken = self.taken.iter().filter(|at| **at + window >= now).count();
        let measured = match taken {
            0 => UNMEASURED,
            taken => taken as f64 * CAUTION / window.as_secs_f64(),
        };
        let until = now + pause;
        self.limit = Some(match self.limit {
            Some(limit) if now < limit.refused + TOGETHER => {
                Limit { until: until.max(limit.until), ..limit }
            }
            before => {
                let lower = before.map_or(f64::INFINITY, |limit| limit.rate * CAUTION);
                let rate = measured.min(lower).max(LOWEST);
                Limit { rate, tokens: 1.0, filled: until, until, refused: now }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket() -> Bucket {
        Bucket { taken: VecDeque::new(), limit: None, urgent: 0 }
    }

    #[test]
    fn nobody_waits_who_was_never_refused() {
        let mut bucket = bucket();
        let now = Instant::now();
        for _ in 0..10_000 {
            assert_eq!(bucket.take(now, false), None);
            bucket.answered(now, None);
        }
    }

    /// Against a registry that takes ten requests in each second.
    #[test]
    fn a_limit_is_learned_and_kept() {
        let mut bucket = bucket();
        let start = Instant::now();
        let (mut now, mut sent, mut refused) = (start, 0, 0);
        let mut second = (0, 0);
        while sent < 300 {
            if let Some(wait) = bucket.take(now, true) {
                now += wait;
                continue;
            }
            sent += 1;
            let this = (now - start).as_secs();
            second = if second.0 == this { (this, second.1 + 1) } else { (this, 1) };
            let is_refused = second.1 > 10;
            refused += u32::from(is_refused);
            bucket.answered(now, is_refused.then_some(Duration::from_secs(1)));
        }
        let took = (now - start).as_secs_f64();
        assert!(refused < 12, "{refused} of {sent} were refused");
        assert!(took < 300.0 / 10.0 * 1.7, "{took} s");
    }

    #[test]
    fn whoever_is_waited_for_goes_first() {
        let mut bucket = bucket();
        let now = Instant::now();
        bucket.answered(now, Some(Duration::ZERO));
        let later = now + Duration::from_secs(100);
        bucket.urgent = 1;
        assert!(bucket.take(later, false).is_some());
        assert_eq!(bucket.take(later, true), None);
        bucket.urgent = 0;
        assert_eq!(bucket.take(later + Duration::from_secs(100), false), None);
    }

    #[test]
    fn a_pause_is_kept_and_a_limit_is_forgotten() {
        let mut bucket = bucket();
        let now = Instant::now();
        bucket.answered(now, Some(Duration::from_secs(7)));
        assert_eq!(bucket.take(now, true), Some(Duration::from_secs(7)));
        assert!(bucket.take(now + Duration::from_secs(20), true).is_none());
        assert!(bucket.take(now + FORGET + Duration::from_secs(1), false).is_none());
        assert!(bucket.limit.is_none());
    }
}
