//! The engine as a WebAssembly component: the interface in `wit/` over `lazystar-core`.
//!
//! Everything that decides is in core. What is here turns its state machines, which name requests by
//! numbers and give events, into resources that are polled and ask for whatever is still missing; and
//! it turns core's values into those of the interface. It exports and never imports.
//!
//! No input traps: there is no indexing and no `unwrap` here, core is tested with hostile input, and
//! everything that a blob could inflate is under a limit.

#![cfg_attr(target_arch = "wasm32", no_std)]
#![deny(unsafe_code)]

extern crate alloc;

mod convert;
mod layer;
mod oci;
mod opener;
#[cfg(fuzzing)]
pub mod operations;
mod overlay;
mod reader;

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
    reason = "generated: the interface is documented in wit/, and the canonical ABI is pointers"
)]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "engine" });

    #[cfg(target_arch = "wasm32")]
    export!(Engine with_types_in self);
    #[cfg(target_arch = "wasm32")]
    use super::Engine;
}

/// What exports the interfaces.
#[derive(Debug)]
pub(crate) struct Engine;

impl bindings::exports::lazystar::engine::layers::Guest for Engine {
    type Opener = opener::LayerOpener;
    type Layer = layer::OpenLayer;
    type Reader = reader::FileReader;
}

impl bindings::exports::lazystar::engine::overlay::Guest for Engine {
    type Rootfs = overlay::MergedTree;
    type Walk = overlay::TreeWalk;
    type Differences = overlay::LayerChanges;
}

#[cfg(target_arch = "wasm32")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// Nothing is known to panic; should something, the instance ends here.
#[cfg(all(target_arch = "wasm32", not(test)))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
