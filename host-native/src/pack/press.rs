//! Sections compressed on all cores, and put together again in their order.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use lazystar_core::footer::Compression;
use lazystar_core::write::{CompressFailed, Compressor, Pressed, Section};

use crate::codec;
use crate::workers::Workers;

/// Sections are handed to a thread when they have this many bytes together: small files would cost
/// more to hand over than to compress.
const BATCH: usize = 256 << 10;
/// Plain bytes that are on their way, for each thread and at least; a thread that has a section of
/// the usual chunk size finds the next one waiting.
const AHEAD: usize = 8 << 20;
const LEAST_AHEAD: usize = 24 << 20;
const MOST_AHEAD: usize = 96 << 20;

type Kind = (Compression, Option<i32>);
type Batch = Result<Vec<Pressed>, CompressFailed>;

thread_local! {
    /// The compressor that this thread used last; making one costs as much as a small file.
    static COMPRESSOR: RefCell<Option<(Kind, Box<dyn Compressor + Send>)>> = RefCell::default();
}

/// Sections on their way through the threads.
#[derive(Debug)]
pub(super) struct Press {
    workers: Workers,
    kind: Kind,
    limit: usize,
    batch: Vec<Section>,
    batch_len: usize,
    under_way: VecDeque<(usize, Receiver<Batch>)>,
    under_way_len: usize,
}

impl Press {
    /// `level` has been tried before.
    pub(super) fn new(workers: Workers, compression: Compression, level: Option<i32>) -> Self {
        let limit = (workers.threads().get().saturating_mul(AHEAD)).clamp(LEAST_AHEAD, MOST_AHEAD);
        Self {
            workers,
            kind: (compression, level),
            limit,
            batch: Vec::new(),
            batch_len: 0,
            under_way: VecDeque::new(),
            under_way_len: 0,
        }
    }

    pub(super) fn add(&mut self, section: Section) {
        self.batch_len += section.plain_len();
        self.batch.push(section);
        if self.batch_len >= BATCH {
            self.hand_over();
        }
    }

    /// Hands over what waits for more.
    pub(super) fn hand_over(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let (batch, kind) = (std::mem::take(&mut self.batch), self.kind);
        let len = std::mem::take(&mut self.batch_len);
        let (sender, receiver) = sync_channel(1);
        // Whoever waited may have given up meanwhile.
        self.workers.run(move || drop(sender.send(press(batch, kind))));
        self.under_way.push_back((len, receiver));
        self.under_way_len += len;
    }

    /// The next sections in order: those that are ready; waits if too much is under way, or for `all`.
    pub(super) fn take(&mut self, all: bool) -> Result<Option<Vec<Pressed>>, CompressFailed> {
        let Some((len, receiver)) = self.under_way.front() else { return Ok(None) };
        let batch = if all || self.under_way_len > self.limit {
            // A thread that died has dropped its end.
            receiver.recv().map_err(|_| CompressFailed)?
        } else {
            match receiver.try_recv() {
                Ok(batch) => batch,
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Disconnected) => return Err(CompressFailed),
            }
        };
        self.under_way_len -= len;
        self.under_way.pop_front();
        batch.map(Some)
    }
}

fn press(batch: Vec<Section>, kind: Kind) -> Batch {
    COMPRESSOR.with_borrow_mut(|kept| {
        if kept.as_ref().is_none_or(|(known, _)| *known != kind) {
            let compressor = codec::compressor(kind.0, kind.1).map_err(|_| CompressFailed)?;
            *kept = Some((kind, compressor));
        }
        let Some((_, compressor)) = kept else { return Err(CompressFailed) };
        batch.into_iter().map(|section| section.press(compressor)).collect()
    })
}
