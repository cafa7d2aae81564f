//! `lazystar buildkitd`: two processes as one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::Client;
use crate::{PATIENCE, binary, block_on};

/// Stands in for buildkitd: says what it is given, and ends with 7 when it is told to.
const STAND_IN: &str = r#"#!/bin/sh
printf '%s\n' "$@" >DIR/args
trap 'echo term >DIR/signal; exit 7' TERM
trap 'echo usr1 >DIR/signal' USR1
echo >DIR/ready
while :; do sleep 0.02; done
"#;

struct Work(TempDir);

impl Work {
    fn new() -> Self {
        let work = Self(tempfile::tempdir().expect("a directory"));
        let program = work.at("buildkitd");
        let text = STAND_IN.replace("DIR", &work.0.path().display().to_string());
        fs::write(&program, text).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
        work
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, binary: &Path, program: &Path) -> Command {
        let mut command = Command::new(binary);
        command.args(["buildkitd", "--log-level", "warn", "--buildkitd"]).arg(program);
        command.arg("--").arg("--root").arg(self.at("state")).arg("--debug");
        command.stdin(Stdio::null());
        command
    }
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn mounts_below(dir: &Path) -> usize {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    let dir = dir.display().to_string();
    mounts
        .lines()
        .filter(|line| line.split(' ').nth(1).is_some_and(|it| it.starts_with(&dir)))
        .count()
}

#[test]
fn both_run_and_both_end() {
    let Some(binary) = binary("both_run_and_both_end") else { return };
    let work = Work::new();
    let mut running = work.command(&binary, &work.at("buildkitd")).spawn().expect("it runs");
    let pid = Pid::from_child(&running);
    wait_for("buildkitd is not started", || work.at("ready").exists());
    let socket = work.at("state/lazystar/snapshotter.sock");
    let args = fs::read_to_string(work.at("args")).expect("it says what it is given");
    let expected = format!(
        "--oci-worker-snapshotter=stargz\n--oci-worker-proxy-snapshotter-path={}\n--root\n{}\n--debug\n",
        socket.display(),
        work.at("state").display()
    );
    assert_eq!(args, expected);
    let client = Client::new(socket.clone(), "stargz");
    block_on(async {
        client.prepare("active", "", &[]).await.expect("a snapshot");
        client.remove("active").await.expect("it is there");
    });

    // A snapshotter that dies is replaced under buildkitd.
    let root = work.at("state/lazystar");
    let served_by = || {
        let mut command = Command::new(&binary);
        command.args(["status", "--json", "--root"]).arg(&root);
        let output = command.output().expect("it runs");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).ok()?["pid"].as_i64()
    };
    let first = served_by().expect("it serves");
    let killed = Pid::from_raw(i32::try_from(first).expect("a pid")).expect("a pid");
    kill_process(killed, Signal::KILL).expect("it runs");
    wait_for("no other snapshotter", || served_by().is_some_and(|now| now != first));

    let signalled = || fs::read_to_string(work.at("signal")).unwrap_or_default();
    kill_process(pid, Signal::USR1).expect("it runs");
    wait_for("signals are not passed on", || signalled() == "usr1\n");
    kill_process(pid, Signal::TERM).expect("it runs");
    let status = running.wait().expect("it ends");
    assert_eq!((status.code(), signalled()), (Some(7), "term\n".to_owned()));
    assert!(UnixStream::connect(&socket).is_err(), "the snapshotter is still there");
    assert_eq!(mounts_below(work.0.path()), 0);
}

#[test]
fn without_a_buildkitd_nothing_stays() {
    let Some(binary) = binary("without_a_buildkitd_nothing_stays") else { return };
    let work = Work::new();
    let output = work.command(&binary, Path::new("no-such-buildkitd")).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("there is no no-such-buildkitd; install BuildKit"), "{said}");
    assert!(UnixStream::connect(work.at("state/lazystar/snapshotter.sock")).is_err());
    assert_eq!(mounts_below(work.0.path()), 0);
}
