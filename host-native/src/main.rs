//! The `lazystar` binary.
fn main() {}
