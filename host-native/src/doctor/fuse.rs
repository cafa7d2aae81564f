//! Whether FUSE can be used.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use super::{Finding, Machine};

const AREA: &str = "fuse";

pub(super) fn examine(machine: &Machine) -> Vec<Finding> {
    let mut findings = vec![module(machine), device(machine)];
    if machine.uid != 0 {
        findings.push(match machine.finds("fusermount3") {
            true => Finding::ok(AREA, "fusermount3 is installed"),
            false => Finding::problem(
                AREA,
                "fusermount3 is not installed, which users other than root mount with",
                "install the package fuse3",
            ),
        });
    }
    findings
}

fn module(machine: &Machine) -> Finding {
    match machine.has_file_system("fuse") {
        true => Finding::ok(AREA, "the kernel has FUSE"),
        false => Finding::problem(
            AREA,
            "the kernel has no FUSE",
            "load its module: `modprobe fuse`, and list it in /etc/modules-load.d",
        ),
    }
}

fn device(machine: &Machine) -> Finding {
    let path = machine.at("/dev/fuse");
    let metadata = match std::fs::metadata(&path) {
        Ok(metadata) if metadata.file_type().is_char_device() || !is_real(machine) => metadata,
        _ => {
            return Finding::problem(
                AREA,
                "there is no device /dev/fuse",
                "load the module fuse; in a container, pass the device in: --device /dev/fuse",
            );
        }
    };
    let mode = metadata.permissions().mode();
    let is_owner = metadata.uid() == machine.uid;
    if machine.uid == 0 || mode & 0o006 == 0o006 || (is_owner && mode & 0o600 == 0o600) {
        return Finding::ok(AREA, "/dev/fuse may be opened");
    }
    Finding::problem(
        AREA,
        format!("/dev/fuse has mode {:o}, so that {} may not open it", mode & 0o777, machine.user),
        "`chmod 666 /dev/fuse`, as udev does: it gives nobody more than fusermount3 gives anyway",
    )
}

/// Whether this is no directory that stands for a machine, where files stand for devices.
fn is_real(machine: &Machine) -> bool {
    machine.sysroot.as_os_str() == "/"
}
