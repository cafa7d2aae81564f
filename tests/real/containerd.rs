//! containerd with Lazystar as its snapshotter: images run before they are downloaded, and whatever happens to the
//! daemon, containerd goes on.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lazystar_tests::tree::Tree;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::rig::{Rig, Skip, need, need_fuse, need_root, run, test};

/// How long a daemon may take to be ready or to end, on a machine that does other things meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
/// Prints a digest of all that can be seen of /usr.
pub(crate) const DIGEST_OF_USR: &str =
    "tar --create --sort=name --format=gnu --numeric-owner /usr 2>/dev/null | sha256sum";

/// A containerd of its own, and the snapshotter that it uses.
pub(crate) struct Containerd<'rig> {
    pub(crate) rig: &'rig Rig,
    pub(crate) client: PathBuf,
    pub(crate) work: TempDir,
    containerd: Child,
    pub(crate) lazystar: Child,
    flags: Vec<String>,
}

impl<'rig> Containerd<'rig> {
    pub(crate) fn start(rig: &'rig Rig) -> Result<Self, Skip> {
        Self::start_with(rig, r#"disabled_plugins = ["io.containerd.grpc.v1.cri"]"#, &[])
    }

    /// Starts with `top` at the top of containerd's configuration, and more flags for Lazystar, in
    /// which `@SOCKET` stands for containerd's socket.
    pub(crate) fn start_with(rig: &'rig Rig, top: &str, flags: &[&str]) -> Result<Self, Skip> {
        need_root()?;
        need_fuse()?;
        need(&["containerd", "runc"])?;
        let client = rig.file("forky/usr/bin/ctr-remote")?;
        let work = rig.work();
        let dir = work.path();
        let config = dir.join("config.toml");
        let text = format!(
            r#"version = 2
root = "{0}/root"
state = "{0}/run"
{top}
[grpc]
  address = "{0}/sock"
[ttrpc]
  address = "{0}/ttrpc"
[proxy_plugins.stargz]
  type = "snapshot"
  address = "{0}/lazy.sock"
"#,
            dir.display()
        );
        fs::write(&config, text).expect("the rig is writable");
        let socket = dir.join("sock");
        let socket = socket.to_str().expect("the rig's path is UTF-8");
        let mut all = vec!["--containerd".to_owned(), socket.to_owned()];
        all.extend(flags.iter().map(|flag| flag.replace("@SOCKET", socket)));
        let flags = all;
        let lazystar = spawn_lazystar(rig, &work, &flags);
        let log = File::create(dir.join("containerd.log")).expect("the rig is writable");
        let mut command = Command::new("containerd");
        command.arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let containerd = command.spawn().expect("containerd starts");
        let this = Self { rig, client, work, containerd, lazystar, flags };
        this.wait_until("containerd answers", || {
            let mut version = this.ctr(&["version"]);
            version.output().is_ok_and(|output| output.status.success())
        });
        Ok(this)
    }

    pub(crate) fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "120"]).arg(&self.client).arg("--address");
        command.arg(self.work.path().join("sock")).args(arguments);
        command
    }

    pub(crate) fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.rig.registry)
    }

    pub(crate) fn pull_lazily(&self, image: &str) {
        run(self.ctr(&["images", "rpull", "--plain-http", &self.name(image)]));
    }

    /// Pulls all of an image, for comparison.
    pub(crate) fn pull(&self, image: &str) {
        run(self.ctr(&[
            "images",
            "pull",
            "--plain-http",
            "--snapshotter=overlayfs",
            &self.name(image),
        ]));
    }

    /// Runs a shell script in a new container and gives what it prints. That goes straight into a file: on a busy machine
    /// containerd's shim gives up after 2 s on output that it has not passed on.
    pub(crate) fn run(&self, snapshotter: &str, image: &str, script: &str) -> String {
        let container = container_name();
        let snapshotter = format!("--snapshotter={snapshotter}");
        let image = self.name(image);
        let output = self.work.path().join(&container);
        File::create(&output).expect("the rig is writable");
        let mount = format!("type=bind,src={},dst=/output,options=rbind:rw", output.display());
        let script = format!("exec >/output\n{script}");
        let flags = ["run", "--rm", &snapshotter, "--net-host", "--mount", &mount];
        let command = [&*image, &container, "sh", "-c", &script];
        run(self.ctr(&[&flags[..], &command[..]].concat()));
        fs::read_to_string(&output).expect("it is text")
    }

    /// The root file system of an image, as containerd mounts it.
    pub(crate) fn tree(&self, snapshotter: &str, image: &str) -> Tree {
        let target = self.work.path().join("mounted");
        fs::create_dir_all(&target).expect("the rig is writable");
        let target_text = target.to_str().expect("the rig's path is UTF-8");
        let snapshotter = format!("--snapshotter={snapshotter}");
        run(self.ctr(&["images", "mount", &snapshotter, &self.name(image), target_text]));
        let tree = Tree::of_directory(&target);
        run(self.ctr(&["images", "unmount", &snapshotter, "--rm", target_text]));
        let mut tree = tree.expect("the root file system can be read");
        // No tar says when a root directory was changed: containerd's was just now.
        tree.forget("");
        tree
    }

    /// How often a layer was prepared lazily, and how often not.
    pub(crate) fn prepared(&self) -> (usize, usize) {
        let log = fs::read_to_string(self.work.path().join("lazystar.log")).unwrap_or_default();
        let count =
            |value| log.matches(&format!(r#""remote-snapshot-prepared":"{value}""#)).count();
        (count("true"), count("false"))
    }

    pub(crate) fn kill_lazystar(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.lazystar), signal).expect("the daemon runs");
        self.lazystar.wait().expect("it ends");
    }

    pub(crate) fn start_lazystar(&mut self) {
        self.lazystar = spawn_lazystar(self.rig, &self.work, &self.flags);
    }

    pub(crate) fn snapshot_dirs(&self) -> usize {
        fs::read_dir(self.work.path().join("lazy/snapshots")).map_or(0, Iterator::count)
    }

    pub(crate) fn mounts(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
        let below = self.work.path().to_string_lossy().into_owned();
        mounts.lines().filter(|line| line.contains(&below)).map(str::to_owned).collect()
    }

    pub(crate) fn wait_until(&self, what: &str, done: impl Fn() -> bool) {
        let started = Instant::now();
        while !done() {
            let log = fs::read_to_string(self.work.path().join("lazystar.log")).unwrap_or_default();
            assert!(started.elapsed() < PATIENCE, "{what}; the daemon says:\n{log}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        // runc knows containers by name alone, whoever their containerd is.
        let tasks = self.ctr(&["task", "ls", "--quiet"]).output();
        let tasks = tasks.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        for task in tasks.unwrap_or_default().lines() {
            let _ = self.ctr(&["task", "rm", "--force", task]).status();
        }
        // An interrupted daemon takes its mounts with it.
        let ends = [(&mut self.containerd, Signal::TERM), (&mut self.lazystar, Signal::INT)];
        for (child, signal) in ends {
            // What a failed test leaves must not block the removal of its directory.
            let _ = kill_process(Pid::from_child(child), signal);
            let _ = child.wait();
        }
        for mount in self.mounts().iter().rev() {
            let _ = Command::new("umount").arg("--lazy").args(mount.split(' ').nth(1)).status();
        }
    }
}

/// A name that no container of another test has.
pub(crate) fn container_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("lazystar-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn spawn_lazystar(rig: &Rig, work: &TempDir, flags: &[String]) -> Child {
    let dir = work.path();
    let log = File::options().append(true).create(true).open(dir.join("lazystar.log"));
    let socket = dir.join("lazy.sock");
    let mut command = Command::new(rig.binary());
    command.arg("snapshotter").arg("--address").arg(&socket).arg("--root").arg(dir.join("lazy"));
    command.args(flags);
    command.stdin(Stdio::null()).stderr(log.expect("the rig is writable"));
    let child = command.spawn().expect("the binary runs");
    let started = Instant::now();
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(started.elapsed() < PATIENCE, "the daemon does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    child
}

#[test]
fn containerd_shows_lazy_images_as_they_are() {
    test("containerd_shows_lazy_images_as_they_are", |rig| {
        let it = Containerd::start(rig)?;
        it.pull("layers:plain");
        let expected = it.tree("overlayfs", "layers:plain");
        for image in ["layers:ctr-esgz", "layers:ctr-zstdchunked"] {
            let image = rig.image(&[image])?;
            it.pull_lazily(&image);
            let differences = expected.differences(&it.tree("stargz", &image));
            assert!(differences.is_empty(), "{image}: {differences:?}");
        }
        let (lazy, ordinary) = it.prepared();
        assert!(lazy > 1 && ordinary == 0, "{lazy} layers lazily, {ordinary} not");
        Ok(())
    });
}

#[test]
fn containers_run_on_lazy_images_in_every_form() {
    test("containers_run_on_lazy_images_in_every_form", |rig| {
        let it = Containerd::start(rig)?;
        let plain = rig.image(&["debian:plain"])?;
        it.pull(&plain);
        let expected = it.run("overlayfs", &plain, DIGEST_OF_USR);
        let images: Vec<_> =
            rig.images().into_iter().filter(|name| name.starts_with("debian:")).collect();
        for image in images.iter().filter(|image| **image != plain) {
            it.pull_lazily(image);
            assert_eq!(it.run("stargz", image, DIGEST_OF_USR), expected, "{image}");
        }
        // Images of the same content may share a snapshot.
        let (lazy, ordinary) = it.prepared();
        assert!(lazy > 0 && ordinary == 0, "{lazy} layers lazily, {ordinary} not");
        // An ordinary image goes the ordinary way, and says why.
        it.pull_lazily("layers:plain");
        assert!(it.prepared().1 > 0);
        let log = fs::read_to_string(it.work.path().join("lazystar.log")).expect("there is a log");
        assert!(log.contains("an ordinary layer"), "{log}");
        Ok(())
    });
}

#[test]
fn the_daemon_may_be_killed() {
    test("the_daemon_may_be_killed", |rig| {
        let mut it = Containerd::start(rig)?;
        let image = rig.image(&["debian:ctr-esgz", "debian:esgz"])?;
        it.pull_lazily(&image);
        let hashes = "sha256sum /usr/bin/dpkg";
        let expected = it.run("stargz", &image, hashes);
        let (name, kept) = (it.name(&image), container_name());
        run(it.ctr(&[
            "run",
            "--detach",
            "--snapshotter=stargz",
            "--net-host",
            &name,
            &kept,
            "sh",
            "-c",
            "echo written >/kept; sleep 600",
        ]));
        for signal in [Signal::KILL, Signal::TERM, Signal::KILL] {
            it.kill_lazystar(signal);
            it.start_lazystar();
            it.wait_until("containerd connects again", || {
                let listed = it.ctr(&["snapshots", "--snapshotter=stargz", "ls"]).output();
                listed.is_ok_and(|output| output.status.success())
            });
            assert_eq!(it.run("stargz", &image, hashes), expected, "after {signal:?}");
        }
        // What a container wrote is there when it starts again.
        run(it.ctr(&["task", "kill", "--signal", "KILL", &kept]));
        it.wait_until("the task ends", || !run(it.ctr(&["task", "ls"])).contains("RUNNING"));
        run(it.ctr(&["task", "rm", &kept]));
        let snapshots =
            run(it.ctr(&["snapshots", "--snapshotter=stargz", "mounts", "/nowhere", &kept]));
        let upper = snapshots.split(',').find_map(|option| option.strip_prefix("upperdir="));
        let upper = upper.unwrap_or_else(|| panic!("no upper directory in {snapshots}"));
        assert_eq!(fs::read_to_string(format!("{upper}/kept")).expect("it is there"), "written\n");
        Ok(())
    });
}

#[test]
fn removed_images_leave_nothing_behind() {
    test("removed_images_leave_nothing_behind", |rig| {
        let mut it = Containerd::start(rig)?;
        let image = rig.image(&["layers:ctr-esgz"])?;
        it.pull_lazily(&image);
        assert!(it.snapshot_dirs() > 1 && !it.mounts().is_empty());
        run(it.ctr(&["images", "rm", "--sync", &it.name(&image)]));
        it.wait_until("all snapshots are gone", || it.snapshot_dirs() == 0);
        let layers = || it.mounts().into_iter().filter(|it| it.contains("/snapshots/")).count();
        assert_eq!(layers(), 0);
        // The mount process lets go of it once the snapshot is gone.
        let cached = || fs::read_dir(it.work.path().join("lazy/cache/layers"));
        it.wait_until("the content of removed layers is gone", || {
            cached().expect("it is there").count() == 0
        });
        it.pull_lazily(&image);
        assert!(layers() > 1);
        it.kill_lazystar(Signal::INT);
        assert_eq!(it.mounts(), [""; 0], "after an orderly end");
        it.start_lazystar();
        it.wait_until("its layers are mounted again", || it.mounts().len() > 1);
        Ok(())
    });
}
