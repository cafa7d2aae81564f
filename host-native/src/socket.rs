//! Unix sockets to listen on.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tokio::net::UnixListener;

/// Listens on a socket that only its owner may use, taking the place of one that nobody serves.
/// `advice` says what to do where somebody does.
///
/// # Errors
/// When somebody serves it, or it cannot be made.
pub fn listen(address: &Path, advice: &str) -> Result<UnixListener> {
    refuse_served(address, advice)?;
    if let Some(dir) = address.parent() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.with_context(|| format!("cannot make the directory {}", dir.display()))?;
    }
    match fs::symlink_metadata(address) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(found) if !found.file_type().is_socket() => {
            bail!("cannot listen on {}: there is a file that is no socket", address.display())
        }
        _ => fs::remove_file(address)
            .with_context(|| format!("cannot replace {}", address.display()))?,
    }
    let listener = UnixListener::bind(address)
        .with_context(|| format!("cannot listen on {}", address.display()))?;
    fs::set_permissions(address, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Fails where somebody serves a socket.
///
/// # Errors
/// When somebody does.
pub fn refuse_served(address: &Path, advice: &str) -> Result<()> {
    if UnixStream::connect(address).is_ok() {
        bail!("{} is served by another process{advice}", address.display());
    }
    Ok(())
}
