//! Lazystar against real parts: a registry, the kernel, the reference converter, containerd, skopeo, umoci.
//!
//! The parts come from `tests/rig`; `LAZYSTAR_RIG` names the directory that it filled, `LAZYSTAR_BIN` the binary
//! (else `target/release/lazystar`). A test whose part is missing prints `SKIP name: reason` and passes.

mod buildkit;
mod clients;
mod containerd;
mod containerd2;
mod convert;
mod cri;
mod docker;
mod explore;
mod failures;
mod interop;
mod lifecycle;
mod mounts;
mod record;
mod registries;
mod registry;
mod restart;
mod rig;
mod rootless;
mod sandbox;
mod tokens;
mod writable;
