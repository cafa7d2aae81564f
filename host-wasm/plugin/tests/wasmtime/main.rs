//! The component in wasmtime.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail its test")]

mod chunks;
mod corpus;
mod sandbox;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use lazystar_plugin::{Engine, Limits};
use lazystar_tests::scratch::scratch;

fn component() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/engine.wasm")
}

pub(crate) fn compiled() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| with(Limits::default()))
}

pub(crate) fn with(limits: Limits) -> Engine {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    let cache = CACHE.get_or_init(|| scratch(env!("CARGO_TARGET_TMPDIR"), "compiled").unwrap());
    Engine::from_file(&component(), &limits, Some(cache)).unwrap()
}
