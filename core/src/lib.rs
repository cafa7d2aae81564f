//! The engine of Lazystar.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod digest;

pub use digest::Digest;
