//! Sending bodies at the speed of a stated link.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep_until};

use super::Shared;

/// Bytes sent at once without a stated bandwidth: large, since each costs a trip to another thread.
const STEP: usize = 256 << 10;
/// Bytes sent at once with one: small, so that connections share the link fairly.
const SHAPED_STEP: usize = 16 << 10;
/// Unused time that may be caught up with. Timers wake about a millisecond late, and without this
/// the link would be slower than stated.
const SLACK: Duration = Duration::from_millis(4);

/// A link that all connections share.
#[derive(Debug)]
pub(super) struct Link {
    bandwidth: Option<u64>,
    /// When the link has sent all that it was given.
    free: Mutex<Instant>,
}

impl Link {
    pub(super) fn new(bandwidth: Option<u64>) -> Self {
        Self {
            bandwidth: bandwidth.filter(|bandwidth| *bandwidth > 0),
            free: Mutex::new(Instant::now()),
        }
    }

    const fn step(&self) -> usize {
        if self.bandwidth.is_some() { SHAPED_STEP } else { STEP }
    }

    /// Waits until `count` bytes have gone over the link.
    async fn carry(&self, count: usize) {
        let Some(bandwidth) = self.bandwidth else { return };
        let cost = Duration::from_secs_f64(count as f64 / bandwidth as f64);
        let now = Instant::now();
        let done = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let earliest = now.checked_sub(SLACK).unwrap_or(now);
            *free = (*free).max(earliest) + cost;
            *free
        };
        if done > now {
            sleep_until(done).await;
        }
    }
}

/// The next `length` bytes of `file`.
pub(super) fn stream(
    shared: Arc<Shared>,
    file: File,
    length: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold((shared, file, length), |(shared, mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let step = left.min(shared.link.step() as u64) as usize;
        let mut buffer = BytesMut::with_capacity(step);
        while buffer.len() < step {
            let room = (step - buffer.len()) as u64;
            if (&mut file).take(room).read_buf(&mut buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        shared.link.carry(step).await;
        shared.sent(step);
        Ok(Some((buffer.freeze(), (shared, file, left - step as u64))))
    })
}
