//! Threads for work that keeps a core busy: one for each core, shared by all layers.
//!
//! tokio's own threads for blocking work would grow with the work, and memory with them.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use crate::lock::lock;

type Job = Box<dyn FnOnce() + Send>;

/// Runs `job` on one of the threads, after those that came before it.
pub fn run(job: impl FnOnce() + Send + 'static) {
    static QUEUE: OnceLock<Sender<Job>> = OnceLock::new();
    let queue = QUEUE.get_or_init(start);
    if let Err(job) = queue.send(Box::new(job)) {
        // No thread could be started: then it is done here.
        (job.0)();
    }
}

fn start() -> Sender<Job> {
    let (sender, receiver) = channel();
    let receiver = Arc::new(Mutex::new(receiver));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..cores {
        let receiver = Arc::clone(&receiver);
        let started = thread::Builder::new().name("worker".into()).spawn(move || work(&receiver));
        if let Err(error) = started {
            tracing::error!(%error, "cannot start a worker thread");
        }
    }
    sender
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
