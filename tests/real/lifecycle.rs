//! However a mount ends, nothing of it stays; and an ordinary user can have one.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use lazystar_tests::tree::Tree;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::rig::{Rig, Skip, need, need_fuse, need_root, run, test};

const IMAGES: [&str; 2] = ["layers:ctr-esgz", "debian:esgz"];
/// How long ending may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// An account that every system has (`nobody`).
const NOBODY: u32 = 65_534;

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn is_mounted(dir: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    mounts.lines().any(|line| line.split(' ').nth(1) == dir.to_str())
}

/// Mounts in the foreground, which makes the serving process a child of the test.
fn mount(rig: &Rig, image: &str, work: &Path) -> Child {
    let dir = work.join("mounted");
    fs::create_dir(&dir).expect("the rig is writable");
    let reference = format!("{}/{image}", rig.registry);
    let child = Command::new(rig.binary())
        .args(["mount", "--foreground", "--cache-dir"])
        .arg(work.join("cache"))
        .arg(reference)
        .arg(&dir)
        .spawn()
        .expect("the binary runs");
    wait_until("it mounts", || is_mounted(&dir));
    child
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    kill_process(pid, signal).expect("the process is there");
}

#[test]
fn signals_leave_nothing_mounted() {
    test("signals_leave_nothing_mounted", |rig| {
        need_fuse()?;
        for name in [Signal::INT, Signal::TERM, Signal::HUP] {
            let work = rig.work();
            let mut child = mount(rig, &rig.image(&IMAGES)?, work.path());
            fs::read_dir(work.path().join("mounted")).expect("it can be listed");
            signal(&child, name);
            let status = child.wait().expect("it ends");
            assert!(status.success(), "{name:?}: {status}");
            assert!(!is_mounted(&work.path().join("mounted")), "{name:?}");
        }
        Ok(())
    });
}

#[test]
fn unmounting_by_other_means_ends_the_process() {
    test("unmounting_by_other_means_ends_the_process", |rig| {
        need_fuse()?;
        need_root()?;
        let work = rig.work();
        let mut child = mount(rig, &rig.image(&IMAGES)?, work.path());
        let mut umount = Command::new("umount");
        umount.arg(work.path().join("mounted"));
        run(umount);
        assert!(child.wait().expect("it ends").success());
        Ok(())
    });
}

#[test]
fn after_a_kill_what_is_left_can_be_unmounted_and_mounted_again() {
    test("after_a_kill_what_is_left_can_be_unmounted_and_mounted_again", |rig| {
        need_fuse()?;
        need_root()?;
        let image = rig.image(&IMAGES)?;
        let work = rig.work();
        let mut child = mount(rig, &image, work.path());
        let dir = work.path().join("mounted");
        signal(&child, Signal::KILL);
        child.wait().expect("it ends");
        fs::read_dir(&dir).expect_err("nobody serves it");
        run(rig.lazystar(["umount".as_ref(), dir.as_os_str()]));
        assert!(!is_mounted(&dir));
        let again = rig.mount(&format!("{}/{image}", rig.registry), work.path());
        fs::read_dir(&again.directory).expect("it is served again");
        again.unmount();
        Ok(())
    });
}

/// The whole life of a mount as `nobody`, who is the only one let in: it prints the tree as a tar.
const AS_NOBODY: &str = r#"
    "$1" mount --cache-dir "$2/cache" "$3" "$2/mounted"
    tar --create --xattrs --xattrs-include='*' --file "$2/tree.tar" --directory "$2/mounted" .
    "$1" umount "$2/mounted"
"#;

/// The same in a user namespace, where `nobody` is root and may write.
const IN_NAMESPACE: &str = r#"
    "$1" mount --rw "$2/written" --cache-dir "$2/cache" "$3" "$2/mounted"
    diff <(ls -A "$2/mounted") <("$1" ls --cache-dir "$2/cache" "$3")
    echo hello >"$2/mounted/greeting"
    grep -qx hello "$2/written/upper/greeting"
    "$1" umount "$2/mounted"
"#;

/// Runs a script as `nobody` with the binary, a directory of its own and an image as arguments;
/// gives that directory.
fn as_nobody(rig: &Rig, image: &str, wrapper: &[&str], script: &str) -> Result<TempDir, Skip> {
    need_fuse()?;
    need_root()?;
    need(&["setpriv", "fusermount3", "unshare"])?;
    let mode = fs::metadata("/dev/fuse").map_or(0, |it| it.permissions().mode());
    if mode & 0o006 != 0o006 {
        return Err(Skip("/dev/fuse is for root alone here (udev makes it mode 0666)".into()));
    }
    // Where everybody may enter, with a binary that everybody may run.
    let work = tempfile::tempdir().expect("a temporary directory");
    let binary = work.path().join("lazystar");
    fs::copy(rig.binary(), &binary).expect("there is room");
    for path in [work.path(), &binary] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).expect("it is ours");
    }
    let home = work.path().join("home");
    fs::create_dir_all(home.join("mounted")).expect("it is ours");
    for dir in [home.clone(), home.join("mounted")] {
        chown(&dir, Some(NOBODY), Some(NOBODY)).expect("root may");
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args(wrapper);
    command.args(["bash", "-euc", script, "bash"]).args([&binary, &home]);
    command.arg(format!("{}/{image}", rig.registry));
    run(command);
    assert!(!is_mounted(&home.join("mounted")));
    Ok(work)
}

#[test]
fn root_of_a_user_namespace_may_write() {
    test("root_of_a_user_namespace_may_write", |rig| {
        let image = rig.image(&IMAGES)?;
        let mut probe = Command::new("setpriv");
        probe.args(["--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "-Urm", "true"]);
        if !probe.status().is_ok_and(|status| status.success()) {
            return Err(Skip("ordinary users may not make user namespaces here".into()));
        }
        as_nobody(rig, &image, &["unshare", "-Urm"], IN_NAMESPACE).map(drop)
    });
}

#[test]
fn an_ordinary_user_sees_the_whole_tree() {
    test("an_ordinary_user_sees_the_whole_tree", |rig| {
        let image = rig.image(&["debian:esgz", "debian:ctr-esgz"])?;
        let work = as_nobody(rig, &image, &[], AS_NOBODY)?;
        let mut found = Tree::of_tar(&work.path().join("home/tree.tar")).expect("the tar reads");
        found.forget("");
        let expected = rig.expected(&image);
        let differences: Vec<_> = expected
            .differences(&found)
            .into_iter()
            .filter(|line| !line.starts_with(':'))
            .take(20)
            .collect();
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        Ok(())
    });
}
