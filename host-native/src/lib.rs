//! The native host of Lazystar: registries, cache, mounts and the command line.
