//! Directories that go with their owners.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A directory for nobody else, removed with all that is in it when dropped.
#[derive(Debug)]
pub struct TemporaryDir(PathBuf);

impl TemporaryDir {
    /// Makes a directory whose path is `name` and the number of this process.
    ///
    /// # Errors
    /// When it cannot be made, or is there already.
    pub fn new(name: &Path) -> io::Result<Self> {
        let mut path = name.as_os_str().to_owned();
        path.push(format!("-{}", std::process::id()));
        let path = PathBuf::from(path);
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot make {}: {error}", path.display()))
        })?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(dir = %self.0.display(), %error, "cannot remove a directory");
        }
    }
}
