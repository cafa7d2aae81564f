//! What `lazystar demo` needs to show the whole job on one machine.

pub mod registry;
pub mod sample;
