//! What core promises of any layer, checked against layers of every format, hand-written ones and
//! hosts that answer in every manner.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail its test")]

mod corpus;
mod hostile;
mod image;
mod reading;
mod rows;
mod seeds;
mod tree;
