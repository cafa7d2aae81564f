//! The engine of Lazystar.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod digest;
pub mod tar;
pub mod write;

pub use digest::Digest;
