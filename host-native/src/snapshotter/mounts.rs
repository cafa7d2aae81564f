//! How snapshots are to be mounted: what containerd and BuildKit get told, in the order of options
//! that they expect.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

use super::store::{Chain, Kind};
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

/// Takes away what a process that was killed left mounted below `dir`. Containers that use it keep
/// it.
pub fn detach_below(dir: &Path) {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return };
    let Ok(dir) = dir.canonicalize() else { return };
    // Fields are separated by blanks; the fifth is the mount point. The last mounted comes off first.
    let points = mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    for point in points.filter(|point| point.starts_with(&dir)) {
        if let Err(error) = rustix::mount::unmount(point, UnmountFlags::DETACH) {
            tracing::warn!(dir = %point.display(), %error, "cannot detach what is left mounted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::{Labels, Record, Usage};
    use super::*;

    fn shape(kinds: &[Kind], user_xattrs: bool) -> (String, String, Vec<String>) {
        let record = |(at, kind): (usize, &Kind)| {
            let (labels, usage) = (Labels::new(), Usage::default());
            let id = at as u64 + 1;
            let (parent, manifest) = (String::new(), None);
            let record =
                Record { id, kind: *kind, parent, labels, created: 0, updated: 0, usage, manifest };
            (id.to_string(), record)
        };
        let chain = kinds.iter().enumerate().map(record).collect();
        let mount = of(Path::new("/s"), &chain, user_xattrs).remove(0);
        (mount.r#type, mount.source, mount.options)
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
