//! The native host of Lazystar: registries, cache, mounts and the command line.

pub mod as_text;
pub mod cache;
pub mod cli;
pub mod codec;
pub mod commands;
pub mod config;
pub mod containerd;
pub mod demo;
pub mod doctor;
pub mod driver;
pub mod filter;
pub mod image;
pub mod keychain;
pub mod link;
mod lock;
pub mod metrics;
pub mod mount;
pub mod oci;
pub mod open;
pub mod pack;
pub mod proto;
pub mod pull;
pub mod reference;
pub mod registry;
#[cfg(feature = "wasm-engine")]
pub mod sandbox;
pub mod show;
pub mod snapshotter;
pub mod socket;
pub mod source;
pub mod systemd;
pub mod user_dirs;
pub mod workers;
