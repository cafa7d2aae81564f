//! Lazystar's engine in a sandbox: the component `engine.wasm` in wasmtime.
//!
//! Everything that a registry sends is parsed, decompressed and verified inside the component, which
//! imports nothing: the worst that a hostile image can do is to use up the memory and time that
//! [`Limits`] give it, which ends in an [`Error`]. What is outside brings ranges of blobs.
//!
//! This is the page of code that a runtime needs: a [`Source`], and then
//!
//! ```no_run
//! use lazystar_plugin::{Engine, Error, Image, Limits, Source, Trust};
//!
//! fn example(manifest: &[u8], digest: &str, blobs: Vec<impl Source + Sync>) -> Result<(), Error> {
//!     let engine = Engine::from_file("host-wasm/dist/engine.wasm".as_ref(), &Limits::default(), None)?;
//!     let image = Image::open(&engine, manifest, Some(digest), Trust::Verified, blobs)?;
//!     let file = image.lookup("/etc/os-release", true)?;
//!     image.read(&[file], |_, bytes| Ok(print!("{}", String::from_utf8_lossy(bytes))))
//! }
//! ```
//!
//! Below [`Image`], [`Sandbox`] has the loop that every host of the component has, and
//! [`Sandbox::call`] for everything else in the [interface](bindings).

#![deny(unsafe_code)]

mod clock;
mod engine;
mod error;
mod image;
mod sandbox;
mod tar;

#[allow(
    missing_docs,
    missing_debug_implementations,
    unsafe_code,
    unreachable_pub,
    unused_qualifications,
    elided_lifetimes_in_paths,
    clippy::all,
    clippy::use_self,
    clippy::allow_attributes_without_reason,
    reason = "generated: the interface is documented in wit/"
)]
pub mod bindings {
    //! The interface of the component, generated from `wit/`.
    wasmtime::component::bindgen!({ path: "../../wit", world: "engine" });
}

pub use bindings::exports::lazystar::engine::types::Assurance as Trust;
pub use bindings::exports::lazystar::engine::{layers, oci, overlay, types};
pub use engine::{Engine, Limits};
pub use error::Error;
pub use image::{Image, Verified};
pub use sandbox::{Give, Handle, Sandbox, Source};
pub use tar::write_tar;
