//! The component, run in Node and Python.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail its test")]

mod corpus;
mod layers;
mod node;
mod packages;
mod read;
mod refuse;
mod wit;
