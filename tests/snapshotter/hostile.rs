//! Calls, files and places that are not as they should be: the status code that containerd expects or an end with a
//! sentence that says what to do, and never a snapshot that is half made.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};
use tonic::Code;

use crate::client::Client;
use crate::{Daemon, PATIENCE, binary, block_on};

const TARGET: &str = "containerd.io/snapshot.ref";
const IMAGE: &str = "containerd.io/snapshot/cri.image-ref";
const LAYER: &str = "containerd.io/snapshot/cri.layer-digest";
const TOC: &str = "containerd.io/snapshot/stargz/toc.digest";

fn command(binary: &Path, dir: &Path) -> Command {
    let mut command = Command::new(binary);
    command.args(["snapshotter", "--no-lookup", "--log-level", "error", "--address"]);
    command.arg(dir.join("sock")).arg("--root").arg(dir.join("root")).stdin(Stdio::null());
    command
}

/// What a daemon that does not start says.
fn refused(mut command: Command) -> String {
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn hostile_calls_leave_nothing_half_made() {
    let Some(binary) = binary("hostile_calls_leave_nothing_half_made") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("sock");
    let _daemon = Daemon::start(command(&binary, dir.path()), &socket);
    let client = Client::new(socket, "lazystar");
    let digest = format!("sha256:{}", "a".repeat(64));
    let huge = "x".repeat(1 << 20);
    let nowhere = "127.0.0.1:1/a:b";
    let hostile: [&[(&str, &str)]; 8] = [
        &[(IMAGE, "a\nb"), (LAYER, &digest)],
        &[(IMAGE, "../../etc/passwd"), (LAYER, &digest)],
        &[(IMAGE, nowhere), (LAYER, "sha256:../../../etc/passwd")],
        &[(IMAGE, nowhere), (LAYER, &huge)],
        &[(IMAGE, &huge), (LAYER, &digest)],
        &[(IMAGE, nowhere), (LAYER, &digest), (TOC, "\u{0}")],
        &[(IMAGE, nowhere), (LAYER, &digest), (TOC, &digest)],
        &[("\n", "\u{202e}"), ("../..", "/"), (&huge, "")],
    ];
    block_on(async {
        for (at, labels) in hostile.iter().enumerate() {
            let key = format!("key {at}/../..\n");
            let all = [labels, &[(TARGET, "../target\n")][..]].concat();
            client.prepare(&key, "", &all).await.expect("an ordinary snapshot");
            let kept = client.stat(&key).await.expect("it is there").labels;
            for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
                assert_eq!(kept.get(*name).map(String::as_str), Some(*value));
            }
            client.remove(&key).await.expect("it is there");
        }
        let code = |result: Result<Vec<_>, tonic::Status>| result.map(|_| ()).unwrap_err().code();
        assert_eq!(code(client.prepare("", "", &[]).await), Code::InvalidArgument);
        assert_eq!(code(client.prepare("a", "none", &[]).await), Code::NotFound);
        assert_eq!(code(client.prepare("a", "none", &[(TARGET, "")]).await), Code::NotFound);
        client.prepare("active", "", &[]).await.expect("a snapshot");
        assert_eq!(code(client.prepare("a", "active", &[]).await), Code::InvalidArgument);
        assert_eq!(code(client.prepare("active", "", &[]).await), Code::AlreadyExists);
        assert_eq!(code(client.view("active", "", &[]).await), Code::AlreadyExists);
        client.remove("active").await.expect("it is there");
        client.cleanup().await.expect("it cleans up");
    });
    let left = fs::read_dir(dir.path().join("root/snapshots")).expect("it is there").count();
    assert_eq!(left, 0, "directories of snapshots that there are none of");
}

#[test]
fn what_cannot_work_is_said_at_the_start() {
    let Some(binary) = binary("what_cannot_work_is_said_at_the_start") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);

    // A damaged store.
    fs::create_dir(at("root")).expect("a directory");
    fs::write(at("root/snapshots.redb"), vec![7; 10_000]).expect("written");
    let said = refused(command(&binary, dir.path()));
    assert!(said.contains("snapshots.redb; when it is damaged, move it away"), "{said}");
    fs::remove_file(at("root/snapshots.redb")).expect("it is there");

    // A socket, and a root, that another daemon serves.
    let daemon = Daemon::start(command(&binary, dir.path()), &at("sock"));
    let said = refused(command(&binary, dir.path()));
    assert!(said.contains("already open") && said.contains("snapshots.redb"), "{said}");
    let mut other = Command::new(&binary);
    other.args(["snapshotter", "--no-lookup", "--address"]).arg(at("sock"));
    other.arg("--root").arg(at("other"));
    let said = refused(other);
    assert!(said.contains("is served by another process; stop it"), "{said}");
    drop(daemon);

    // A file system that overlayfs cannot write to: its own.
    for part in ["lower", "upper", "work", "merged"] {
        fs::create_dir_all(at("stacked").join(part)).expect("a directory");
    }
    let stacked = at("stacked");
    let options =
        format!("lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work", stacked.display());
    let options = std::ffi::CString::new(options).expect("no zeros");
    let merged = stacked.join("merged");
    rustix::mount::mount("x", &merged, "overlay", MountFlags::empty(), &*options).expect("root");
    let said = refused(command(&binary, &merged));
    rustix::mount::unmount(&merged, UnmountFlags::DETACH).expect("it is mounted");
    assert!(said.contains("choose another directory with --root"), "{said}");
}

#[test]
fn a_silent_registry_delays_nothing_but_its_own_layers() {
    let Some(binary) = binary("a_silent_registry_delays_nothing_but_its_own_layers") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("sock");
    let _daemon = Daemon::start(command(&binary, dir.path()), &socket);
    // Connections are accepted, and that is all.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let image = format!("{}/a:b", silent.local_addr().expect("it is bound"));
    let digest = format!("sha256:{}", "a".repeat(64));
    let lazy = [(TARGET, "target"), (IMAGE, &*image), (LAYER, &*digest), (TOC, &*digest)];
    let client = Client::new(socket, "lazystar");
    block_on(async {
        let waiting = (0..20).map(|at| {
            let (client, lazy) = (&client, &lazy);
            async move { client.prepare(&format!("waiting {at}"), "", lazy).await.map(|_| ()) }
        });
        let mut waiting = std::pin::pin!(futures_util::future::join_all(waiting));
        let others = async {
            for round in 0..20 {
                let (key, name) = (format!("active {round}"), format!("committed {round}"));
                client.prepare(&key, "", &[]).await.expect("a snapshot");
                client.commit(&name, &key, &[]).await.expect("it is active");
                client.view(&key, &name, &[]).await.expect("a view");
                client.remove(&key).await.expect("it is there");
                client.remove(&name).await.expect("it is there");
            }
        };
        tokio::select! {
            _ = &mut waiting => panic!("the registry was not waited for"),
            done = tokio::time::timeout(Duration::from_secs(10), others) => done.expect("no delay"),
        }
    });
    // Whoever waited has gone by now, and so have their snapshots.
    block_on(async { client.cleanup().await.expect("it cleans up") });
    let left = || fs::read_dir(dir.path().join("root/snapshots")).expect("it is there").count();
    let started = Instant::now();
    while left() > 0 {
        assert!(started.elapsed() < PATIENCE, "directories of snapshots that nobody waits for");
        std::thread::sleep(Duration::from_millis(50));
    }
}
