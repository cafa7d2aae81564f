//! What the kernel can do.

use super::{Finding, Machine};

const AREA: &str = "kernel";

pub(super) fn examine(machine: &Machine) -> Vec<Finding> {
    vec![overlay(machine), version(machine)]
}

fn overlay(machine: &Machine) -> Finding {
    match machine.has_file_system("overlay") {
        true => Finding::ok(AREA, "the kernel has overlayfs"),
        false => Finding::problem(
            AREA,
            "the kernel has no overlayfs, which stacks the layers",
            "load its module: `modprobe overlay`, and list it in /etc/modules-load.d",
        ),
    }
}

fn version(machine: &Machine) -> Finding {
    let release = machine.text("/proc/sys/kernel/osrelease");
    let release = release.trim();
    let Some(version) = parse(release) else {
        return Finding::warning(
            AREA,
            format!("the version {release:?} of the kernel cannot be read"),
            "check that it is Linux 5.11 or later",
        );
    };
    let lacks: Vec<_> = [
        ((5, 11), "overlayfs in user namespaces (rootless containers and builds)"),
        ((6, 9), "reads that go on when the mount process is killed"),
    ]
    .into_iter()
    .filter(|(since, _)| version < *since)
    .map(|((major, minor), what)| format!("{what} (since {major}.{minor})"))
    .collect();
    let erofs = if version >= (6, 12) { ", and can mount EROFS images from files" } else { "" };
    if lacks.is_empty() {
        return Finding::ok(AREA, format!("Linux {release} has all that is used{erofs}"));
    }
    let what = format!("Linux {release} lacks {}", lacks.join(" and "));
    if version < (5, 11) && machine.uid != 0 {
        return Finding::problem(AREA, what, "install a newer kernel, or run it as root");
    }
    Finding::warning(AREA, what, "install a newer kernel where that matters")
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
