//! What a directory shows, and changes that are made to one.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// Path to mode, owner and content of everything in a directory. Times are not part of it: what is compared was made at
/// different moments.
pub(crate) type Listing = BTreeMap<String, (u32, u32, u32, Vec<u8>)>;

/// Lists a directory and all below it.
pub(crate) fn list(root: &Path) -> Listing {
    let mut found = Listing::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).expect("it is there");
        let content = match metadata.file_type() {
            kind if kind.is_dir() => {
                left.extend(
                    fs::read_dir(&path)
                        .expect("it reads")
                        .map(|entry| entry.expect("it reads").path()),
                );
                Vec::new()
            }
            kind if kind.is_file() => fs::read(&path).expect("it reads"),
            kind if kind.is_symlink() => {
                fs::read_link(&path).expect("it reads").into_os_string().into_encoded_bytes()
            }
            _ => Vec::new(),
        };
        let name = path.strip_prefix(root).expect("it is below").to_string_lossy().into_owned();
        found.insert(name, (metadata.mode(), metadata.uid(), metadata.gid(), content));
    }
    found
}

/// Writes a file of mode 0644, and the directories that it is in.
pub(crate) fn write(root: &Path, name: &str, content: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("it is below the root")).expect("it is writable");
    fs::write(&path, content).expect("it is writable");
}

/// Makes a directory and those that it is in.
pub(crate) fn dir(root: &Path, name: &str) {
    fs::create_dir_all(root.join(name)).expect("it is writable");
}

/// Removes a file, or a directory with all in it.
pub(crate) fn remove(root: &Path, name: &str) {
    let path = root.join(name);
    let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    removed.expect("it is writable");
}

/// Renames a file or directory.
pub(crate) fn rename(root: &Path, from: &str, to: &str) {
    fs::rename(root.join(from), root.join(to)).expect("it is writable");
}

/// Changes the mode of a file or directory.
pub(crate) fn mode(root: &Path, name: &str, mode: u32) {
    fs::set_permissions(root.join(name), Permissions::from_mode(mode)).expect("it is writable");
}

/// Changes the owner of a directory and of all below it.
pub(crate) fn own(root: &Path, name: &str, owner: u32) {
    let mut left = vec![root.join(name)];
    while let Some(path) = left.pop() {
        lchown(&path, Some(owner), Some(owner)).expect("root may");
        if path.is_dir() && !path.is_symlink() {
            left.extend(
                fs::read_dir(&path).expect("it reads").map(|entry| entry.expect("it reads").path()),
            );
        }
    }
}
