//! The mount process: it serves the lazy layers of a snapshotter through one FUSE mount, and outlives
//! the daemon that started it.
//!
//! ```text
//! ROOT/layers         the FUSE mount, a directory for each layer, named by its number
//! ROOT/layers.sock    where the process is told which layers to show
//! ROOT/layers.log     what it has to say
//! ```
//!
//! Daemon and mount process both hold the FUSE device, so the mount survives either of them. A
//! daemon that starts finds the process by its socket. When the process dies, the daemon starts
//! another one on the same device, which shows the same layers under the same inode numbers, and
//! answers what the dead one had not: whoever was reading notices a pause. When both die, the mount
//! is dead, and what was made on top of it fails with "Transport endpoint is not connected".

pub mod client;
pub mod layers;
pub mod protocol;
pub mod server;

use std::path::{Path, PathBuf};

/// Where the layers are mounted.
#[must_use]
pub fn mount_point(root: &Path) -> PathBuf {
    root.join("layers")
}

/// The socket of the process.
#[must_use]
pub fn socket(root: &Path) -> PathBuf {
    root.join("layers.sock")
}

/// The log of the process.
#[must_use]
pub fn log(root: &Path) -> PathBuf {
    root.join("layers.log")
}
