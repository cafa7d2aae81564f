//! Whether the root directory can hold what overlayfs writes to.

use std::path::{Path, PathBuf};

use super::{Finding, Machine};
use crate::mount::{in_user_namespace, overlay};

const AREA: &str = "storage";
/// File systems that cannot hold an upper directory, by the number that statfs gives
/// (linux/magic.h).
const UNFIT: [(u64, &str); 4] =
    [(0x794c_7630, "overlayfs"), (0x6969, "NFS"), (0x6573_5546, "FUSE"), (0xff53_4d42, "CIFS")];
/// Less free space than this and a first image may not fit.
const FREE: u64 = 2 << 30;

pub(super) fn examine(machine: &Machine) -> Vec<Finding> {
    let Some(dir) = existing(&machine.root) else { return Vec::new() };
    let Ok(status) = rustix::fs::statfs(&dir) else { return Vec::new() };
    let free = status.f_bavail.saturating_mul(status.f_bsize.unsigned_abs());
    let mut findings = vec![fitness(&machine.root, &dir, status.f_type as u64, machine.uid)];
    if free < FREE {
        findings.push(Finding::warning(
            AREA,
            format!("{} has {} MiB left", machine.root.display(), free >> 20),
            "make room, or set cache_limit in [lazystar] of the configuration",
        ));
    }
    findings
}

pub(super) fn fitness(root: &Path, dir: &Path, magic: u64, uid: u32) -> Finding {
    let root = root.display();
    let magic = magic & 0xffff_ffff;
    if let Some((_, name)) = UNFIT.iter().find(|(unfit, _)| *unfit == magic) {
        return Finding::problem(
            AREA,
            format!("{root} is on {name}, which overlayfs cannot write to"),
            "choose another place with --root, on ext4, XFS or Btrfs; in a container, a volume",
        );
    }
    if uid != 0 {
        return Finding::ok(AREA, format!("{root} is on a file system that overlayfs can use"));
    }
    match overlay::probe(dir, in_user_namespace()) {
        Ok(()) => Finding::ok(AREA, format!("overlayfs works in {root}")),
        Err(error) => Finding::problem(
            AREA,
            format!("overlayfs does not work in {root}: {error:#}"),
            "run it as root of the machine with CAP_SYS_ADMIN; choose another place with --root",
        ),
    }
}

/// The directory, or the nearest above it that is there.
fn existing(dir: &Path) -> Option<PathBuf> {
    dir.ancestors().find(|dir| dir.is_dir()).map(Path::to_owned)
}
