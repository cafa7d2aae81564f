//! A stand-alone buildkitd with its OCI worker on Lazystar, started by `lazystar buildkitd`: the example of BuildKit's own
//! document on lazy pulling.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::rig::{Rig, Skip, need, need_fuse, need_root, run, test};

const PATIENCE: Duration = Duration::from_secs(60);

/// `lazystar buildkitd`, ended when dropped.
struct Buildkit<'a> {
    process: Child,
    work: &'a Path,
}

impl<'a> Buildkit<'a> {
    fn start(rig: &Rig, work: &'a Path) -> Self {
        // Its own defaults lie in /etc and /run, where another one may be.
        fs::write(work.join("buildkitd.toml"), "").expect("the rig is writable");
        let log = File::create(work.join("log")).expect("the rig is writable");
        let mut command = Command::new(rig.binary());
        command.args(["buildkitd", "--"]);
        command.arg("--config").arg(work.join("buildkitd.toml"));
        command.arg("--root").arg(work.join("state"));
        command.arg(format!("--addr=unix://{}", work.join("sock").display()));
        command.args(["--oci-worker-net=host", "--containerd-worker=false"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let started = Instant::now();
        let mut buildkit = Self { process: command.spawn().expect("it starts"), work };
        loop {
            let listed = buildkit.buildctl(&["debug", "workers"]).output();
            if listed.is_ok_and(|listed| listed.status.success()) {
                return buildkit;
            }
            let ended = buildkit.process.try_wait().expect("it is ours");
            let is_late = started.elapsed() > PATIENCE;
            assert!(ended.is_none() && !is_late, "{}", buildkit.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn buildctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "120", "buildctl"]);
        command.arg(format!("--addr=unix://{}", self.work.join("sock").display()));
        command.args(arguments).env("TMPDIR", self.work).env("HOME", self.work);
        command
    }

    fn build(&self, output: &str) -> String {
        let context = format!("context={}", self.work.join("context").display());
        let dockerfile = format!("dockerfile={}", self.work.join("context").display());
        let mut command = self.buildctl(&["build", "--progress=plain", "--frontend=dockerfile.v0"]);
        command.args(["--local", &context, "--local", &dockerfile, "--output", output]);
        let built = command.output().expect("timeout is installed");
        let said = String::from_utf8_lossy(&built.stderr).into_owned();
        assert!(built.status.success(), "{said}\n{}", self.log());
        said
    }

    fn log(&self) -> String {
        fs::read_to_string(self.work.join("log")).unwrap_or_default()
    }

    fn stop(mut self) -> Option<i32> {
        self.signal();
        self.process.wait().expect("it is ours").code()
    }

    fn signal(&self) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
    }
}

impl Drop for Buildkit<'_> {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.signal();
            let _ = self.process.wait();
        }
    }
}

#[test]
fn buildkit_builds_on_a_lazy_image() {
    test("buildkit_builds_on_a_lazy_image", |rig| {
        need_root()?;
        need_fuse()?;
        need(&["buildkitd", "buildctl", "runc"])?;
        let golang = rig.image(&["golang:ctr-esgz", "golang:esgz"])?;
        let work = rig.work();
        let (work, context) = (work.path(), work.path().join("context"));
        fs::create_dir(&context).expect("the rig is writable");
        let hello =
            "package main\nimport \"fmt\"\nfunc main() { fmt.Println(\"Hello, world!\") }\n";
        fs::write(context.join("hello.go"), hello).expect("the rig is writable");
        let dockerfile = format!(
            "FROM {}/{golang} AS dev\nCOPY ./hello.go /hello.go\nRUN HOME=/tmp go build -o /hello /hello.go\n\
             FROM scratch\nCOPY --from=dev /hello /\n",
            rig.registry
        );
        fs::write(context.join("Dockerfile"), dockerfile).expect("the rig is writable");
        let buildkit = Buildkit::start(rig, work);
        let out = work.join("out");
        let output = format!("type=local,dest={}", out.display());
        buildkit.build(&output);
        assert_eq!(run(Command::new(out.join("hello"))), "Hello, world!\n");
        let log = buildkit.log();
        assert!(log.contains(r#""remote-snapshot-prepared":"true""#), "{log}");
        assert!(!log.contains(r#""remote-snapshot-prepared":"false""#), "{log}");
        // The layer of the Go image alone has 250 MB.
        assert!(megabytes(&work.join("state/runc-stargz/content"))? < 50);
        let again = buildkit.build(&output);
        assert_eq!(again.matches("CACHED").count(), 3, "all steps of the second build: {again}");
        // Some versions of buildkitd call a signal an error.
        assert!(matches!(buildkit.stop(), Some(0 | 1)));
        let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
        let left: Vec<_> =
            mounts.lines().filter(|it| it.contains(&*work.to_string_lossy())).collect();
        assert!(left.is_empty(), "{left:?}");
        Ok(())
    });
}

fn megabytes(dir: &Path) -> Result<u64, Skip> {
    let mut command = Command::new("du");
    command.arg("-sm").arg(dir);
    let printed = run(command);
    Ok(printed
        .split_whitespace()
        .next()
        .and_then(|it| it.parse().ok())
        .expect("du prints a number"))
}
