//! Whatever dies and whenever, containers go on, and nothing is lost: the daemon and the mount process are killed while a
//! container reads, writes and is committed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lazystar_tests::processes;
use rustix::process::{Pid, Signal, kill_process};

use crate::containerd::{Containerd, container_name};
use crate::registry::Registry;
use crate::rig::{need, run, test};

/// Reads much of the image again and again, out of the cache of the snapshotter where it can, and writes down what it read.
const READER: &str = r#"
while :; do
    find /usr/bin /usr/lib -xdev -type f -size -300k 2>>/errors | sort | head -n 1500 >/list
    xargs -d '\n' sha256sum </list >/sums.new 2>>/errors || echo failed >>/errors
    mv /sums.new /sums
    echo round >>/rounds
done"#;
const ROUNDS: usize = 8;

impl Containerd<'_> {
    /// The mount process.
    pub(crate) fn mount_process(&self) -> Option<Pid> {
        processes::mount_process(&self.work.path().join("lazy"))
    }

    pub(crate) fn kill_mount_process(&self) {
        let pid = self.mount_process().expect("there is a mount process");
        kill_process(pid, Signal::KILL).expect("it runs");
    }

    /// Starts a container that reads and writes; gives its name and the directory that it writes to.
    fn start_reader(&self, image: &str) -> (String, PathBuf) {
        let name = container_name();
        let image = self.name(image);
        let flags = ["run", "--detach", "--snapshotter=stargz", "--net-host"];
        let command = [&*image, &name, "sh", "-c", READER];
        run(self.ctr(&[&flags[..], &command[..]].concat()));
        let mounts =
            run(self.ctr(&["snapshots", "--snapshotter=stargz", "mounts", "/nowhere", &name]));
        let upper = mounts.split(',').find_map(|option| option.strip_prefix("upperdir="));
        (name, PathBuf::from(upper.unwrap_or_else(|| panic!("no upper directory in {mounts}"))))
    }

    fn containerd_connects_again(&self) {
        self.wait_until("containerd connects again", || {
            let listed = self.ctr(&["snapshots", "--snapshotter=stargz", "ls"]).output();
            listed.is_ok_and(|output| output.status.success())
        });
    }
}

/// What the container has to say once it has gone through the image again.
fn next_round(upper: &Path) -> String {
    let rounds = || fs::read_to_string(upper.join("rounds")).unwrap_or_default().lines().count();
    let (before, started) = (rounds(), Instant::now());
    // The second one has begun after this call.
    while rounds() < before + 2 {
        let errors = fs::read_to_string(upper.join("errors")).unwrap_or_default();
        assert!(errors.is_empty(), "{errors}");
        assert!(started.elapsed() < Duration::from_secs(60), "the container hangs");
        thread::sleep(Duration::from_millis(50));
    }
    fs::read_to_string(upper.join("sums")).expect("it is written as a whole")
}

/// Copies an image from one registry to another.
fn push(from: &str, to: &str) {
    let insecure = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--quiet"]).args(insecure);
    command.args([format!("docker://{from}"), format!("docker://{to}")]);
    run(command);
}

/// Makes the kernel ask again for what it has read.
fn drop_caches() {
    // Where that is not allowed, some of what is read comes out of memory.
    let _ = fs::write("/proc/sys/vm/drop_caches", "3");
}

#[test]
fn a_running_container_outlives_the_daemon_and_the_mount_process() {
    test("a_running_container_outlives_the_daemon_and_the_mount_process", |rig| {
        let mut it = Containerd::start(rig)?;
        let image = rig.image(&["debian:ctr-esgz", "debian:esgz"])?;
        it.pull_lazily(&image);
        let (name, upper) = it.start_reader(&image);
        let expected = next_round(&upper);
        assert!(expected.lines().count() > 1000, "{expected}");
        let descriptors = |pid: Pid| {
            fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).map_or(0, Iterator::count)
        };
        let mounts = it.mounts().len();
        for round in 0..ROUNDS {
            drop_caches();
            thread::sleep(Duration::from_millis(37 * (round as u64 % 5)));
            match round % 4 {
                0 | 2 => {
                    let killed = it.mount_process();
                    it.kill_mount_process();
                    it.wait_until("another mount process serves", || {
                        it.mount_process().is_some_and(|pid| Some(pid) != killed)
                    });
                }
                1 => {
                    it.kill_lazystar(Signal::KILL);
                    it.start_lazystar();
                }
                _ => {
                    it.kill_lazystar(Signal::TERM);
                    it.start_lazystar();
                }
            }
            assert_eq!(next_round(&upper), expected, "round {round}");
        }
        it.containerd_connects_again();
        assert_eq!(it.run("stargz", &image, "echo works"), "works\n");
        assert_eq!(it.mounts().len(), mounts, "{:?}", it.mounts());
        let open = descriptors(it.mount_process().expect("it runs"));
        assert!(open < 60, "{open} descriptors in the mount process");
        // What the container wrote can be committed and run.
        run(it.ctr(&["task", "kill", "--signal", "KILL", &name]));
        it.wait_until("the task ends", || !run(it.ctr(&["task", "ls"])).contains("RUNNING"));
        run(it.ctr(&["task", "rm", &name]));
        it.kill_mount_process();
        run(it.ctr(&["snapshots", "--snapshotter=stargz", "commit", "committed", &name]));
        run(it.ctr(&["snapshots", "--snapshotter=stargz", "view", "seen", "committed"]));
        let seen = it.work.path().join("seen");
        fs::create_dir(&seen).expect("the rig is writable");
        let seen_text = seen.to_str().expect("the rig's path is UTF-8");
        let mount =
            run(it.ctr(&["snapshots", "--snapshotter=stargz", "mounts", seen_text, "seen"]));
        let mut command = Command::new("sh");
        command.args(["-c", &mount]);
        run(command);
        let sums = fs::read_to_string(seen.join("sums"));
        let _ = Command::new("umount").arg(&seen).status();
        assert_eq!(sums.expect("it was committed"), expected);
        Ok(())
    });
}

#[test]
fn when_everything_is_killed_new_containers_run_without_the_registry() {
    test("when_everything_is_killed_new_containers_run_without_the_registry", |rig| {
        need(&["skopeo"])?;
        let mut it = Containerd::start(rig)?;
        let image = rig.image(&["debian:ctr-esgz", "debian:esgz"])?;
        let registry = Registry::start(&it.work.path().join("registry"), None)?;
        let copy = format!("{}/debian:lazy", registry.address);
        push(&it.name(&image), &copy);
        run(it.ctr(&["images", "rpull", "--plain-http", &copy]));
        let runs = |it: &Containerd<'_>| {
            let container = container_name();
            let flags = ["run", "--rm", "--snapshotter=stargz", "--net-host"];
            run(it.ctr(&[&flags[..], &[&copy, &container, "dpkg", "--version"]].concat()))
        };
        let expected = runs(&it);
        // The tag names another image by now: what is mounted stays what it was.
        let other = it.name(&rig.image(&["layers:ctr-esgz"])?);
        push(&other, &copy);
        it.kill_mount_process();
        assert_eq!(runs(&it), expected);
        drop(registry);
        it.kill_mount_process();
        assert_eq!(runs(&it), expected);
        it.kill_mount_process();
        it.kill_lazystar(Signal::KILL);
        it.start_lazystar();
        it.containerd_connects_again();
        assert_eq!(runs(&it), expected);
        it.kill_lazystar(Signal::INT);
        assert_eq!(it.mounts(), [""; 0], "an interrupt ends everything");
        assert!(it.mount_process().is_none());
        it.start_lazystar();
        it.containerd_connects_again();
        assert_eq!(runs(&it), expected);
        Ok(())
    });
}
