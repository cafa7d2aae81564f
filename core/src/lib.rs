//! The engine of Lazystar.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod codec;
pub mod digest;
pub mod fetch;
pub mod footer;
pub mod image;
pub mod layer;
pub mod limits;
pub mod open;
pub mod range;
pub mod toc;
pub mod verify;

pub use digest::Digest;
pub use limits::Limits;
pub use range::ByteRange;
pub use toc::Toc;
