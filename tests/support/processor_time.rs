//! What work costs, whatever else the machine does.

use std::fs;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// How long a run is repeated for: a JIT of the host has compiled it well by then.
const LONG_ENOUGH: Duration = Duration::from_millis(500);

/// The processor time of the fastest of at least three runs, in seconds: the one that others disturbed least.
///
/// # Panics
/// When the kernel does not say what the thread has had.
pub fn best<T>(mut run: impl FnMut() -> T) -> f64 {
    let (begin, mut runs, mut fastest) = (Instant::now(), 0, f64::INFINITY);
    while runs < 3 || begin.elapsed() < LONG_ENOUGH {
        let start = seconds_of_thread();
        black_box(run());
        fastest = fastest.min(seconds_of_thread() - start);
        runs += 1;
    }
    fastest
}

fn seconds_of_thread() -> f64 {
    // Brings up to date what the kernel otherwise adds every few milliseconds.
    thread::yield_now();
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has it");
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok());
    nanos.expect("a number") / 1e9
}
