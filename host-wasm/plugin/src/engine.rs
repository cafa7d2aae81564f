//! The component, compiled.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{Component, Linker};
use wasmtime::{Cache, CacheConfig, Config, StoreLimits, StoreLimitsBuilder};

use crate::bindings::EnginePre;
use crate::clock::{Clock, TICK};
use crate::error::Error;
use crate::sandbox::Sandbox;

/// What an image may use up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of memory of a sandbox.
    pub memory: usize,
    /// How long a call into the component may take. The longest is the parsing of a table of
    /// contents: about a second for a million files.
    pub call: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 512 << 20, call: Duration::from_secs(10) }
    }
}

/// The component, compiled for this machine. Clones are cheap; sandboxes are made from it in
/// microseconds.
#[derive(Clone)]
pub struct Engine {
    component: EnginePre<StoreLimits>,
    limits: Limits,
    clock: Arc<Clock>,
}

impl Engine {
    /// Compiles a component, or takes from the directory `cache` what was compiled before.
    ///
    /// # Errors
    /// When it is not the component that this crate is for, or imports anything.
    pub fn new(component: &[u8], limits: &Limits, cache: Option<&Path>) -> Result<Self, Error> {
        Self::compile(component, limits, cache)
            .map_err(|error| Error::Component(format!("{error:#}")))
    }

    /// As [`new`](Self::new), of a component in a file.
    ///
    /// # Errors
    /// When the file cannot be read, or as `new`.
    pub fn from_file(file: &Path, limits: &Limits, cache: Option<&Path>) -> Result<Self, Error> {
        let component = std::fs::read(file)
            .map_err(|error| Error::Component(format!("{}: {error}", file.display())))?;
        Self::new(&component, limits, cache)
    }

    fn compile(bytes: &[u8], limits: &Limits, cache: Option<&Path>) -> wasmtime::Result<Self> {
        let mut config = Config::new();
        config.epoch_interruption(true);
        if let Some(directory) = cache {
            let mut of = CacheConfig::new();
            of.with_directory(directory);
            config.cache(Some(Cache::new(of)?));
        }
        let engine = wasmtime::Engine::new(&config)?;
        let component = Component::new(&engine, bytes)?;
        // Nothing is added to the linker: a component that imports anything is refused here.
        let component = EnginePre::new(Linker::new(&engine).instantiate_pre(&component)?)?;
        let clock = Arc::new(Clock::start(&engine)?);
        Ok(Self { component, limits: *limits, clock })
    }

    /// A sandbox with nothing in it, for one image.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn sandbox(&self) -> Result<Sandbox, Error> {
        let limits =
            StoreLimitsBuilder::new().memory_size(self.limits.memory).instances(10).build();
        let ticks = self.limits.call.as_millis().div_ceil(TICK.as_millis()) + 1;
        let ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
        Sandbox::new(&self.component, limits, ticks, Arc::clone(&self.clock))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("limits", &self.limits).finish_non_exhaustive()
    }
}
