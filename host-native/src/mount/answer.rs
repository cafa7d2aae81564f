//! Answers to reads, for readers that may be killed while they wait.
//!
//! The kernel lets a killed process go only when its read is answered, unless the file system takes
//! its request for interruption, which this one is never given. So whoever waits is looked at.

use std::fs;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use fuser::{Errno, ReplyData};

use crate::lock::lock;

/// How often readers that wait are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// The bit of SIGKILL in the masks of `/proc`. Every signal that ends a process sets it.
const KILLED: u64 = 1 << 8;

/// The answer that a reader is to get. Dropped without one, it is an I/O error.
#[derive(Debug)]
pub struct Answer(State);

#[derive(Debug)]
enum State {
    Now { reply: ReplyData, reader: u32 },
    Later(Arc<Slot>),
}

/// An answer, until somebody has given it.
type Slot = Mutex<Option<ReplyData>>;

impl Answer {
    /// The answer to the thread `reader`.
    #[must_use]
    pub fn new(reply: ReplyData, reader: u32) -> Self {
        Self(State::Now { reply, reader })
    }

    /// Gives what was read.
    pub fn data(self, bytes: &[u8]) {
        if let Some(reply) = self.take() {
            reply.data(bytes);
        }
    }

    /// Gives an error.
    pub fn error(self, error: Errno) {
        if let Some(reply) = self.take() {
            reply.error(error);
        }
    }

    /// The answer to a reader that waits from now on: if it is killed, it is answered before.
    #[must_use]
    pub fn later(self) -> Self {
        let State::Now { reply, reader } = self.0 else { return self };
        let slot = Arc::new(Mutex::new(Some(reply)));
        watch(reader, &slot);
        Self(State::Later(slot))
    }

    fn take(self) -> Option<ReplyData> {
        match self.0 {
            State::Now { reply, .. } => Some(reply),
            State::Later(slot) => lock(&slot).take(),
        }
    }
}

/// Readers that wait, and who looks at them.
#[derive(Default)]
struct Watch {
    waiting: Mutex<Vec<(u32, Weak<Slot>)>>,
    more: Condvar,
}

fn watch(reader: u32, slot: &Arc<Slot>) {
    static WATCH: OnceLock<Option<&'static Watch>> = OnceLock::new();
    let watch = WATCH.get_or_init(|| {
        let watch: &'static Watch = Box::leak(Box::default());
        let thread = thread::Builder::new().name("killed readers".to_owned());
        match thread.spawn(|| watch.run()) {
            Ok(_) => Some(watch),
            Err(error) => {
                tracing::warn!(%error, "readers that are killed wait for their answer");
                None
            }
        }
    });
    let Some(watch) = watch else { return };
    lock(&watch.waiting).push((reader, Arc::downgrade(slot)));
    watch.more.notify_one();
}

impl Watch {
    fn run(&self) -> ! {
        loop {
            let waiting = lock(&self.waiting);
            let none = |waiting: &mut Vec<_>| waiting.is_empty();
            drop(self.more.wait_while(waiting, none).unwrap_or_else(PoisonError::into_inner));
            thread::sleep(LOOK);
            let mut looked_at = std::mem::take(&mut *lock(&self.waiting));
            looked_at.retain(|(reader, slot)| {
                let Some(slot) = slot.upgrade() else { return false };
                if !is_killed(*reader) {
                    return true;
                }
                if let Some(reply) = lock(&slot).take() {
                    reply.error(Errno::EINTR);
                }
                false
            });
            lock(&self.waiting).append(&mut looked_at);
        }
    }
}

/// Whether a thread will end as soon as it may.
fn is_killed(thread: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    pending(&status) & KILLED != 0
}

/// The signals that a thread or its process has yet to take.
fn pending(status: &str) -> u64 {
    let masks = status
        .lines()
        .filter_map(|line| line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:")));
    masks
        .filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .fold(0, |all, mask| all | mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_signals_are_those_of_thread_and_process() {
        let status = "Name:\tcat\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000001\nSigBlk:\t00000000000000ff\n";
        assert_eq!(pending(status), KILLED | 1);
        assert_eq!(pending(""), 0);
        assert!(!is_killed(std::process::id()));
        assert!(!is_killed(u32::MAX));
    }
}
