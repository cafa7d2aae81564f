//! What on this machine keeps images from being lazy, and what to do about it.
//!
//! Each check reads files and asks the kernel; nothing is changed.

mod containerd;
mod docker;
mod fuse;
mod kernel;
pub mod registry;
mod rootless;
mod storage;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Where `/dev`, `/etc`, `/proc` and `/sys` are below; `/` but for tests.
    pub sysroot: PathBuf,
    /// Who runs the snapshotter.
    pub uid: u32,
    /// The name of that user.
    pub user: String,
    /// Where programs are.
    pub path: Vec<PathBuf>,
    /// containerd's configuration.
    pub containerd_config: PathBuf,
    /// The configuration of Docker's daemon.
    pub docker_config: PathBuf,
    /// The snapshotter's socket.
    pub address: PathBuf,
    /// The snapshotter's root directory.
    pub root: PathBuf,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but not for everybody or not as well as it could.
    Warning,
    /// Keeps images from being lazy.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it belongs to: `fuse`, `kernel`, `containerd` and so on.
    pub area: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found, in one sentence.
    pub what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    /// Something that is as it should be.
    #[must_use]
    pub fn ok(area: &'static str, what: impl Into<String>) -> Self {
        Self { area, level: Level::Ok, what: what.into(), fix: None }
    }

    /// Something that could be better.
    #[must_use]
    pub fn warning(area: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { area, level: Level::Warning, what: what.into(), fix: Some(fix.into()) }
    }

    /// Something that has to be repaired.
    #[must_use]
    pub fn problem(area: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { area, level: Level::Problem, what: what.into(), fix: Some(fix.into()) }
    }
}

impl Machine {
    /// Looks at everything.
    #[must_use]
    pub fn examine(&self) -> Vec<Finding> {
        let mut findings = fuse::examine(self);
        findings.extend(kernel::examine(self));
        findings.extend(storage::examine(self));
        if self.uid != 0 {
            findings.extend(rootless::examine(self));
        }
        findings.push(self.socket());
        findings.extend(containerd::examine(self));
        findings.extend(docker::examine(self));
        findings
    }

    fn socket(&self) -> Finding {
        let address = self.address.display();
        match UnixStream::connect(&self.address) {
            Ok(_) => Finding::ok("socket", format!("{address} is served")),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Finding::warning(
                "socket",
                format!("{address} may not be entered by this user"),
                "run the doctor as the user that runs the snapshotter",
            ),
            Err(error) => Finding::problem(
                "socket",
                format!("nobody serves {address} ({error})"),
                "start the snapshotter: `lazystar snapshotter`, or its systemd unit",
            ),
        }
    }

    /// Where a path of the machine is.
    fn at(&self, path: &str) -> PathBuf {
        self.sysroot.join(path.trim_start_matches('/'))
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    fn has_file_system(&self, name: &str) -> bool {
        let known = self.text("/proc/filesystems");
        known.lines().any(|line| line.split_whitespace().last() == Some(name))
    }

    fn finds(&self, program: &str) -> bool {
        self.path.iter().any(|dir| dir.join(program).is_file())
    }
}

/// Reads a file that may not be there; why it cannot be read otherwise.
fn read(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}
