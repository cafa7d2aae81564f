//! Directories of whoever runs this.

use std::path::PathBuf;

use crate::mount::in_user_namespace;

/// A directory of the user's own: what the environment variable says, or else one `below_home`.
/// `None` for root, who has the machine's directories, unless it is root of a user namespace.
#[must_use]
pub fn of_user(variable: &str, below_home: Option<&str>) -> Option<PathBuf> {
    if is_root() {
        return None;
    }
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(below_home?));
    std::env::var_os(variable).map(PathBuf::from).or_else(home)
}

/// Whether this is root, who has the machine's directories.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root() && !in_user_namespace()
}
