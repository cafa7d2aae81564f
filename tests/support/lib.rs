//! What the tests share.

pub mod fault_registry;
pub mod proxy;
pub mod tree;
