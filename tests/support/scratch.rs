//! Directories that a whole test program uses. Nothing runs when it ends that could remove them, so they are
//! below the build's own directory and made anew each time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// An empty directory `name` in `target`, which is the caller's `env!("CARGO_TARGET_TMPDIR")`.
///
/// # Errors
/// When it cannot be emptied or made.
pub fn scratch(target: &str, name: &str) -> io::Result<PathBuf> {
    let path = Path::new(target).join(name);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(&path)?;
    Ok(path)
}
