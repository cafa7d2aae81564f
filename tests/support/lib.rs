//! What the tests share.

pub mod certificates;
pub mod corpus;
pub mod fault_registry;
pub mod http;
pub mod layers;
pub mod naive;
pub mod operations;
pub mod processes;
pub mod processor_time;
pub mod proxy;
pub mod push_registry;
pub mod scratch;
pub mod script_host;
pub mod synthetic;
pub mod tree;
