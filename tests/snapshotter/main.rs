//! What containerd expects of a snapshotter, asked through a socket: of containerd's own overlayfs, which shows that the
//! checks are right, and of `lazystar snapshotter`.
//!
//! The checks are those of containerd's snapshotter test suite, by what they check. They need root, to mount.

mod buildkitd;
mod checks;
mod client;
mod deploy;
mod drop_in;
mod files;
mod hostile;
mod removal;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use client::Client;

/// How long a daemon may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends with its owner.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::INT,
        );
        let _ = self.0.wait();
    }
}

impl Daemon {
    fn start(mut command: Command, socket: &Path) -> Self {
        let daemon = Self(command.stdin(Stdio::null()).spawn().expect("the program runs"));
        let started = Instant::now();
        while UnixStream::connect(socket).is_err() {
            assert!(started.elapsed() < PATIENCE, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }
}

fn skip(name: &str, reason: &str) {
    println!("SKIP {name}: {reason}");
}

fn installed(tool: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|directory| directory.join(tool).is_file())
}

/// The binary under test, for root, who may mount; otherwise says why `test` is skipped.
fn binary(test: &str) -> Option<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        skip(test, "needs root");
        return None;
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/lazystar");
    let binary = std::env::var_os("LAZYSTAR_BIN").map_or(built, PathBuf::from);
    if !binary.is_file() {
        skip(test, &format!("no binary at {}", binary.display()));
        return None;
    }
    Some(binary)
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("threads can be started").block_on(work)
}

/// Runs all checks, and fails with the names of those that fail.
fn check_all(client: &Client) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("threads can be started");
    let mut failed = Vec::new();
    for (name, check) in checks::ALL {
        let run = || runtime.block_on(async { check(client, name).await });
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}

#[test]
fn the_checks_hold_for_containerd_itself() {
    let name = "the_checks_hold_for_containerd_itself";
    if !rustix::process::geteuid().is_root() {
        return skip(name, "needs root");
    }
    if !installed("containerd") {
        return skip(name, "containerd is not installed");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("sock");
    let config = dir.path().join("config.toml");
    let text = format!(
        "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/run\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\n  address = \"{0}/sock\"\n[ttrpc]\n  address = \"{0}/ttrpc\"\n",
        dir.path().display()
    );
    fs::write(&config, text).expect("the directory is writable");
    let mut command = Command::new("containerd");
    command.arg("--config").arg(&config).stderr(Stdio::null());
    let _daemon = Daemon::start(command, &socket);
    check_all(&Client::new(socket, "overlayfs"));
}

#[test]
fn lazystar_passes_the_checks() {
    let name = "lazystar_passes_the_checks";
    let Some(binary) = binary(name) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("sock");
    let root = dir.path().join("root");
    let mut command = Command::new(binary);
    command.args(["snapshotter", "--log-level", "warn", "--address"]).arg(&socket);
    command.arg("--root").arg(&root);
    let _daemon = Daemon::start(command, &socket);
    check_all(&Client::new(socket, "lazystar"));
    let left = fs::read_dir(root.join("snapshots")).expect("it is there").count();
    assert_eq!(left, 0, "directories of removed snapshots");
}
