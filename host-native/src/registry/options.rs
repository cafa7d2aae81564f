//! How patient a client is, and with which credentials.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Hosts, Reach, jittered};
use crate::keychain::Keychain;

/// Deadlines, retries and credentials of a client.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Where credentials come from.
    pub keychain: Keychain,
    /// Mirrors, and how patient to be with each host.
    pub hosts: Hosts,
    /// Which addresses it connects to.
    pub reach: Reach,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long one request may wait for the head of its answer.
    pub head_timeout: Duration,
    /// How long the next bytes of an answer may take.
    pub chunk_timeout: Duration,
    /// How long all attempts at one request may take together, and how long a transfer may go on
    /// without any progress.
    pub total_timeout: Duration,
    /// How often one request is sent before its failure is believed.
    pub attempts: u32,
    /// The pause before the second attempt; doubles with each further one.
    pub backoff: Duration,
    /// The longest pause that a registry may ask for with `Retry-After`.
    pub longest_pause: Duration,
    /// How often one transfer is resumed after its connection was lost.
    pub resumptions: u32,
    /// What a reader gets while no host gives what it needs.
    pub outage: Outage,
    /// Where whole blobs are kept that came instead of ranges; without it in the system's directory
    /// for temporary files.
    pub spool: Option<PathBuf>,
}

/// What a reader gets while no host gives what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// Whether it waits for hosts to come back, rather than for the answers of one round.
    pub wait: bool,
    /// How long it waits at most, without anything coming. Then it is an error.
    pub deadline: Duration,
}

impl Outage {
    /// Waiting for hosts to come back.
    pub const WAIT: Self = Self { wait: true, deadline: Duration::from_secs(300) };
    /// An error once all hosts were asked.
    pub const ERROR: Self = Self { wait: false, deadline: Duration::from_secs(10) };
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            keychain: Keychain::default(),
            hosts: Hosts::default(),
            reach: Reach::default(),
            // Two lost SYN packets cost 3 s; what takes 10 s is down.
            connect_timeout: Duration::from_secs(10),
            // Pull-through caches fetch a whole blob before they answer.
            head_timeout: Duration::from_secs(30),
            chunk_timeout: Duration::from_secs(15),
            total_timeout: Duration::from_secs(120),
            attempts: 5,
            backoff: Duration::from_millis(100),
            longest_pause: Duration::from_secs(30),
            // With pauses only between fruitless ones: enough for a link that breaks every 100 MB.
            resumptions: 16,
            outage: Outage::WAIT,
            spool: None,
        }
    }
}

impl ClientOptions {
    /// The pause after the failed attempt number `attempt`, counted from 1.
    pub(crate) fn pause(&self, attempt: u32) -> Duration {
        let doubled = self.backoff.saturating_mul(1 << attempt.saturating_sub(1).min(16));
        jittered(doubled.min(self.longest_pause))
    }
}
