//! The engine of Lazystar.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod codec;
pub mod digest;
pub mod fetch;
pub mod footer;
pub mod image;
pub mod layer;
pub mod limits;
pub mod open;
pub mod range;
pub mod tar;
pub mod toc;
pub mod verify;
pub mod write;

pub use digest::Digest;
pub use limits::Limits;
pub use range::ByteRange;
pub use toc::Toc;
