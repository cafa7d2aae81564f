//! What users other than root need.

use super::{Finding, Machine};

const AREA: &str = "rootless";
/// Ids that an image may use.
const IDS: u64 = 65_536;

pub(super) fn examine(machine: &Machine) -> Vec<Finding> {
    let mut findings = vec![
        ids(machine, "/etc/subuid", "newuidmap", "--add-subuids"),
        ids(machine, "/etc/subgid", "newgidmap", "--add-subgids"),
    ];
    let switched_off = [
        ("/proc/sys/kernel/unprivileged_userns_clone", "kernel.unprivileged_userns_clone=1"),
        ("/proc/sys/user/max_user_namespaces", "user.max_user_namespaces=15000"),
    ];
    for (file, setting) in switched_off {
        if machine.text(file).trim() == "0" {
            findings.push(Finding::problem(
                AREA,
                "user namespaces are switched off",
                format!("`sysctl -w {setting}`, and keep it in /etc/sysctl.d"),
            ));
        }
    }
    findings
}

fn ids(machine: &Machine, file: &str, program: &str, flag: &str) -> Finding {
    let user = &machine.user;
    let uid = machine.uid.to_string();
    let text = machine.text(file);
    let granted: u64 = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let whose = fields.next()?;
            let count = fields.nth(1)?.parse::<u64>().ok()?;
            (whose == user || whose == uid).then_some(count)
        })
        .sum();
    if granted < IDS {
        return Finding::problem(
            AREA,
            format!("{file} grants {user} {granted} ids, where images use {IDS}"),
            format!("`usermod {flag} 100000-165535 {user}`, with a range that nobody else has"),
        );
    }
    if !machine.finds(program) {
        return Finding::problem(
            AREA,
            format!("{program} is not installed, which maps the ids of {file}"),
            "install the package uidmap (on Fedora: shadow-utils)",
        );
    }
    Finding::ok(AREA, format!("{file} grants {user} {granted} ids"))
}
