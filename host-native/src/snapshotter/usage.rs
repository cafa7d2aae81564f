//! What a directory takes on the disk.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::record::{Result, SnapshotError, Usage};

/// Adds up a directory and all below it on the same file system; files with several names count
/// once. What vanishes meanwhile does not count.
///
/// # Errors
/// When the directory cannot be read.
pub fn scan(dir: &Path) -> Result<Usage> {
    let failed = |cause| {
        let what = format!("cannot measure {}", dir.display());
        SnapshotError::Io { what, cause }
    };
    let device = fs::symlink_metadata(dir).map_err(failed)?.dev();
    let mut usage = Usage::default();
    let mut seen = HashSet::new();
    let mut left: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(failed)?,
        };
        if metadata.dev() != device || !seen.insert(metadata.ino()) {
            continue;
        }
        usage.size += metadata.blocks() * 512;
        usage.inodes += 1;
        if metadata.is_dir() {
            match fs::read_dir(&path) {
                Ok(entries) => left.extend(entries.flatten().map(|entry| entry.path())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
    Ok(usage)
}
