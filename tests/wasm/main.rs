//! The component, run in Node.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail its test")]

mod layers;
mod node;
mod packages;
mod read;
mod refuse;
mod wit;
