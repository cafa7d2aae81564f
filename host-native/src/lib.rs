//! The native host of Lazystar: registries, cache, mounts and the command line.

pub mod demo;
pub mod image;
pub mod keychain;
pub mod oci;
pub mod reference;
pub mod registry;
pub mod source;
pub mod cache;
pub mod cli;
pub mod codec;
pub mod commands;
pub mod driver;
pub mod link;
pub mod mount;
pub mod open;
pub mod show;
