//! Processes of the snapshotter.

use std::fs;
use std::path::Path;

use rustix::process::Pid;

/// The mount process of the snapshotter in `root`, if one lives: known by its environment and command line.
pub fn mount_process(root: &Path) -> Option<Pid> {
    let contains = |file: &Path, part: &[u8]| {
        let text = fs::read(file).unwrap_or_default();
        text.windows(part.len()).any(|it| it == part)
    };
    let is_it = |process: &Path| {
        contains(&process.join("environ"), b"LAZYSTAR_MOUNT_PROCESS=1")
            && contains(&process.join("cmdline"), root.as_os_str().as_encoded_bytes())
            && !contains(&process.join("stat"), b") Z ")
    };
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let mut found = processes.map(|entry| entry.path()).filter(|process| is_it(process));
    found.find_map(|process| Pid::from_raw(process.file_name()?.to_str()?.parse().ok()?))
}
