//! The first read of each file as a line in the log, for people.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::lock::lock;

/// Logs the first read of each file. It has to remember the name of everything that was looked up, so
/// it is not for every day.
#[derive(Debug, Default)]
pub struct AccessLog {
    names: Mutex<HashMap<u64, (u64, Vec<u8>)>>,
    read: Mutex<HashSet<u64>>,
}

impl AccessLog {
    /// Takes note of where an inode is.
    pub fn name(&self, inode: u64, parent: u64, name: &[u8]) {
        lock(&self.names).entry(inode).or_insert_with(|| (parent, name.to_owned()));
    }

    /// Logs that a file is read.
    pub fn read(&self, inode: u64) {
        if lock(&self.read).insert(inode) {
            tracing::debug!(path = %self.path(inode).display(), "file accessed");
        }
    }

    /// The path from the root of the mount, as far as it is known.
    fn path(&self, inode: u64) -> PathBuf {
        let names = lock(&self.names);
        let mut parts = Vec::new();
        let mut at = inode;
        while let Some((parent, name)) = names.get(&at) {
            parts.push(OsString::from_vec(name.clone()));
            // A directory that was given as its own parent would have no end.
            if *parent == at || parts.len() > names.len() {
                break;
            }
            at = *parent;
        }
        parts.iter().rev().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_put_together_of_names() {
        let log = AccessLog::default();
        log.name(2, 1, b"12");
        log.name(3, 2, b"usr");
        log.name(4, 3, b"go");
        log.name(9, 9, b"loop");
        assert_eq!(log.path(4), PathBuf::from("12/usr/go"));
        assert_eq!(log.path(9), PathBuf::from("loop"));
        assert_eq!(log.path(7), PathBuf::new());
    }
}
