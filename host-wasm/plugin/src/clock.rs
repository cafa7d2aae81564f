//! What stops calls that take too long.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

/// How often the clock ticks: a call is stopped that late at most.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Advances an engine's epochs, as long as a call is under way.
pub(crate) struct Clock {
    calls: Arc<AtomicUsize>,
    ticking: Thread,
}

/// A call under way.
pub(crate) struct Call<'a>(&'a Clock);

impl Clock {
    pub(crate) fn start(engine: &wasmtime::Engine) -> std::io::Result<Self> {
        let calls = Arc::new(AtomicUsize::new(0));
        let (engine, counted) = (engine.weak(), Arc::clone(&calls));
        let tick = move || {
            while let Some(engine) = engine.upgrade() {
                if counted.load(Ordering::SeqCst) == 0 {
                    drop(engine);
                    thread::park();
                } else {
                    engine.increment_epoch();
                    drop(engine);
                    thread::sleep(TICK);
                }
            }
        };
        let ticking = thread::Builder::new().name("lazystar-clock".to_owned()).spawn(tick)?;
        Ok(Self { calls, ticking: ticking.thread().clone() })
    }

    pub(crate) fn call(&self) -> Call<'_> {
        if self.calls.fetch_add(1, Ordering::SeqCst) == 0 {
            self.ticking.unpark();
        }
        Call(self)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        // It sees that the engine is gone, if it is.
        self.ticking.unpark();
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
