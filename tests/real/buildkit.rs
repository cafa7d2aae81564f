//! A stand-alone buildkitd with its OCI worker on Lazystar, started by `lazystar buildkitd`: the example of BuildKit's own
//! document on lazy pulling.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::containerd::Containerd;
use crate::registry::Registry;
use crate::rig::{Rig, need, need_fuse, need_root, run, test};

const PATIENCE: Duration = Duration::from_secs(60);

/// `lazystar buildkitd`, ended when dropped.
struct Buildkit<'a> {
    process: Child,
    work: &'a Path,
}

impl<'a> Buildkit<'a> {
    /// `lazystar buildkitd`.
    fn start(rig: &Rig, work: &'a Path) -> Self {
        let mut command = Command::new(rig.binary());
        command.args(["buildkitd", "--", "--oci-worker-net=host", "--containerd-worker=false"]);
        Self::start_as(command, work)
    }

    fn start_as(mut command: Command, work: &'a Path) -> Self {
        // Its own defaults lie in /etc and /run, where another one may be.
        fs::write(work.join("buildkitd.toml"), "").expect("the rig is writable");
        let log = File::create(work.join("log")).expect("the rig is writable");
        command.arg("--config").arg(work.join("buildkitd.toml"));
        command.arg("--root").arg(work.join("state"));
        command.arg(format!("--addr=unix://{}", work.join("sock").display()));
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

    fn build(&self, more: &[&str]) -> String {
        let context = format!("context={}", self.work.join("context").display());
        let dockerfile = format!("dockerfile={}", self.work.join("context").display());
        let mut command = self.buildctl(&["build", "--progress=plain", "--frontend=dockerfile.v0"]);
        command.args(["--local", &context, "--local", &dockerfile]).args(more);
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

/// Writes the hello example on `image` into `work`.
fn write_context(work: &Path, image: &str) {
    let context = work.join("context");
    fs::create_dir(&context).expect("the rig is writable");
    let hello = "package main\nimport \"fmt\"\nfunc main() { fmt.Println(\"Hello, world!\") }\n";
    fs::write(context.join("hello.go"), hello).expect("the rig is writable");
    let dockerfile = format!(
        "FROM {image} AS dev\nCOPY ./hello.go /hello.go\nRUN HOME=/tmp go build -o /hello /hello.go\n\
         FROM scratch\nCOPY --from=dev /hello /\n"
    );
    fs::write(context.join("Dockerfile"), dockerfile).expect("the rig is writable");
}

/// Builds into a directory, and checks what came out.
fn build_and_run(buildkit: &Buildkit<'_>) -> String {
    let out = buildkit.work.join("out");
    let said = buildkit.build(&["--output", &format!("type=local,dest={}", out.display())]);
    assert_eq!(run(Command::new(out.join("hello"))), "Hello, world!\n");
    said
}

#[test]
fn buildkit_builds_on_a_lazy_image() {
    test("buildkit_builds_on_a_lazy_image", |rig| {
        need_root()?;
        need_fuse()?;
        need(&["buildkitd", "buildctl", "runc"])?;
        let golang = rig.image(&["golang:ctr-esgz", "golang:esgz"])?;
        let work = rig.work();
        let work = work.path();
        write_context(work, &format!("{}/{golang}", rig.registry));
        let buildkit = Buildkit::start(rig, work);
        let elsewhere = Registry::start(&work.join("registry"), None)?;
        let built = format!("{}/built:1", elsewhere.address);
        let cache = format!("type=registry,ref={}/cache:1", elsewhere.address);
        let output = format!(
            "type=image,name={built},push=true,oci-mediatypes=true,compression=estargz,force-compression=true"
        );
        let exported =
            buildkit.build(&["--output", &output, "--export-cache", &format!("{cache},mode=max")]);
        assert!(exported.contains("writing cache image manifest"), "{exported}");
        let log = buildkit.log();
        assert!(log.contains(r#""remote-snapshot-prepared":"true""#), "{log}");
        assert!(!log.contains(r#""remote-snapshot-prepared":"false""#), "{log}");
        // The layer of the Go image alone has 250 MB.
        assert!(megabytes(&work.join("state/runc-stargz/content")) < 50);
        // What it makes is lazy in turn.
        let listed = run(rig.lazystar(["ls", "--cache-dir", &text(&work.join("cache")), &built]));
        assert_eq!(listed, "hello\n");
        let again = build_and_run(&buildkit);
        assert_eq!(again.matches("CACHED").count(), 3, "all steps of the second build: {again}");
        // And its cache serves a buildkitd that has nothing.
        run(buildkit.buildctl(&["prune", "--all"]));
        let imported = buildkit.build(&["--import-cache", &cache]);
        assert_eq!(imported.matches("CACHED").count(), 3, "{imported}");

        // Some versions of buildkitd call a signal an error.
        assert!(matches!(buildkit.stop(), Some(0 | 1)));
        let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
        let left: Vec<_> = mounts.lines().filter(|it| it.contains(&text(work))).collect();
        assert!(left.is_empty(), "{left:?}");
        Ok(())
    });
}

#[test]
fn buildkit_builds_with_its_containerd_worker() {
    test("buildkit_builds_with_its_containerd_worker", |rig| {
        need(&["buildkitd", "buildctl"])?;
        let golang = rig.image(&["golang:ctr-esgz", "golang:esgz"])?;
        let containerd = Containerd::start(rig)?;
        let work = rig.work();
        write_context(work.path(), &format!("{}/{golang}", rig.registry));
        let mut command = Command::new("buildkitd");
        command.args(["--oci-worker=false", "--containerd-worker=true"]);
        command.args(["--containerd-worker-snapshotter=stargz", "--containerd-worker-net=host"]);
        let address =
            format!("--containerd-worker-addr={}", text(&containerd.work.path().join("sock")));
        command.arg(address);
        let buildkit = Buildkit::start_as(command, work.path());
        build_and_run(&buildkit);
        let content = containerd.work.path().join("root/io.containerd.content.v1.content");
        assert!(megabytes(&content) < 50);
        assert!(matches!(buildkit.stop(), Some(0 | 1)));
        Ok(())
    });
}

fn text(path: &Path) -> String {
    path.to_str().expect("the rig's path is UTF-8").to_owned()
}

fn megabytes(dir: &Path) -> u64 {
    let mut command = Command::new("du");
    command.arg("-sm").arg(dir);
    let printed = run(command);
    printed.split_whitespace().next().and_then(|it| it.parse().ok()).expect("du prints a number")
}
