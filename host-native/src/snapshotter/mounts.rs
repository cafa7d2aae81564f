//! How snapshots are to be mounted: what containerd and BuildKit get told, in the order of options
//! that they expect.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

use super::record::{Chain, Kind};
use crate::proto::types::Mount;

/// What a snapshot adds to its parent.
#[must_use]
pub fn fs_dir(snapshots: &Path, id: u64) -> PathBuf {
    snapshots.join(id.to_string()).join("fs")
}

/// overlayfs's own directory of an active snapshot.
#[must_use]
pub fn work_dir(snapshots: &Path, id: u64) -> PathBuf {
    snapshots.join(id.to_string()).join("work")
}

/// The mounts that show the topmost snapshot of a chain, which is active or a view.
#[must_use]
pub fn of(snapshots: &Path, chain: &Chain, user_xattrs: bool) -> Vec<Mount> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let Some(((_, top), below)) = chain.split_first() else { return Vec::new() };
    let own = || text(fs_dir(snapshots, top.id));
    let lower: Vec<_> = below.iter().map(|(_, it)| text(fs_dir(snapshots, it.id))).collect();
    let mount = match (top.kind, &*lower) {
        (Kind::Active, []) => bind(own(), "rw"),
        (_, []) => bind(own(), "ro"),
        (Kind::View | Kind::Committed, [only]) => bind(only.clone(), "ro"),
        (kind, lower) => {
            let mut options = Vec::new();
            if kind == Kind::Active {
                options.push(format!("workdir={}", text(work_dir(snapshots, top.id))));
                options.push(format!("upperdir={}", own()));
            }
            options.push(format!("lowerdir={}", lower.join(":")));
            if user_xattrs {
                options.push("userxattr".to_owned());
            }
            let overlay = || "overlay".to_owned();
            Mount { r#type: overlay(), source: overlay(), target: String::new(), options }
        }
    };
    vec![mount]
}

fn bind(source: String, access: &str) -> Mount {
    let options = vec![access.to_owned(), "rbind".to_owned()];
    Mount { r#type: "bind".to_owned(), source, target: String::new(), options }
}

/// What is mounted on `dir` and below it, in the order in which it was mounted.
#[must_use]
pub fn mounted_below(dir: &Path) -> Vec<PathBuf> {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    // Fields are separated by blanks; the fifth is the mount point.
    let points = mounts.split(|byte| *byte == b'\n').filter_map(|line| {
        let point = line.split(|byte| *byte == b' ').nth(4)?;
        Some(PathBuf::from(OsString::from_vec(unescaped(point))))
    });
    points.filter(|point| point.starts_with(dir)).collect()
}

/// Takes away what is mounted on `dir` and below it. Containers that use it keep it.
pub fn detach_below(dir: &Path) {
    for point in mounted_below(dir).iter().rev() {
        if let Err(error) = rustix::mount::unmount(point, UnmountFlags::DETACH) {
            tracing::warn!(dir = %point.display(), %error, "cannot detach what is left mounted");
        }
    }
}

/// The kernel writes blanks, newlines and backslashes as a backslash and three octal digits.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut left = text;
    while let Some((first, rest)) = left.split_first() {
        let digits = rest.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                left = &rest[3..];
            }
            _ => {
                bytes.push(*first);
                left = rest;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::record::{Labels, Record, Usage};
    use super::*;

    fn shape(kinds: &[Kind], user_xattrs: bool) -> (String, String, Vec<String>) {
        let record = |(at, kind): (usize, &Kind)| {
            let (labels, usage) = (Labels::new(), Usage::default());
            let id = at as u64 + 1;
            let (parent, source) = (String::new(), None);
            let record =
                Record { id, kind: *kind, parent, labels, created: 0, updated: 0, usage, source };
            (id.to_string(), record)
        };
        let chain = kinds.iter().enumerate().map(record).collect();
        let mount = of(Path::new("/s"), &chain, user_xattrs).remove(0);
        (mount.r#type, mount.source, mount.options)
    }

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescaped(br"/a\040b/c\134d\9"), br"/a b/c\d\9");
    }

    #[test]
    fn shapes_are_those_that_clients_know() {
        use Kind::{Active, Committed, View};
        let is = |kinds: &[Kind], kind: &str, source: &str, options: &[&str]| {
            let options = options.iter().map(|it| (*it).to_owned()).collect();
            assert_eq!(shape(kinds, false), (kind.to_owned(), source.to_owned(), options));
        };
        is(&[Active], "bind", "/s/1/fs", &["rw", "rbind"]);
        is(&[View], "bind", "/s/1/fs", &["ro", "rbind"]);
        is(&[View, Committed], "bind", "/s/2/fs", &["ro", "rbind"]);
        is(&[View, Committed, Committed], "overlay", "overlay", &["lowerdir=/s/2/fs:/s/3/fs"]);
        is(
            &[Active, Committed],
            "overlay",
            "overlay",
            &["workdir=/s/1/work", "upperdir=/s/1/fs", "lowerdir=/s/2/fs"],
        );
        assert_eq!(
            shape(&[Active, Committed], true).2.last().map(String::as_str),
            Some("userxattr")
        );
    }
}
