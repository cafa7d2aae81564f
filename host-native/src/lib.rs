//! The native host of Lazystar: registries, cache, mounts and the command line.

pub mod codec;
pub mod pack;
