//! Threads for work that keeps a core busy: one for each core, shared by all layers.
//!
//! tokio's own threads for blocking work would grow with the work, and memory with them.

use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use crate::lock::lock;

type Job = Box<dyn FnOnce() + Send>;

/// Threads that wait for jobs. Clones are the same threads; they end with the last of them.
#[derive(Clone, Debug)]
pub struct Workers {
    queue: Sender<Job>,
    threads: NonZeroUsize,
}

/// Runs `job` on one of the [shared](Workers::shared) threads, after those that came before it.
pub fn run(job: impl FnOnce() + Send + 'static) {
    Workers::shared().run(job);
}

impl Workers {
    /// The threads that everybody uses, one for each core.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Workers> = OnceLock::new();
        SHARED
            .get_or_init(|| Self::new(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)))
    }

    /// That many threads.
    #[must_use]
    pub fn new(threads: NonZeroUsize) -> Self {
        let (queue, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..threads.get() {
            let receiver = Arc::clone(&receiver);
            let started =
                thread::Builder::new().name("worker".into()).spawn(move || work(&receiver));
            if let Err(error) = started {
                tracing::error!(%error, "cannot start a worker thread");
            }
        }
        Self { queue, threads }
    }

    /// How many there are.
    #[must_use]
    pub const fn threads(&self) -> NonZeroUsize {
        self.threads
    }

    /// Runs `job` on one of them, after those that came before it.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        if let Err(job) = self.queue.send(Box::new(job)) {
            // No thread could be started: then it is done here.
            (job.0)();
        }
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let next = lock(jobs).recv();
        match next {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}
