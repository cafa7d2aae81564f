use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::*;

/// A machine on which everything is as it should be, made of files.
struct Fixture {
    dir: tempfile::TempDir,
    machine: Machine,
    /// The snapshotter's socket.
    _served: UnixListener,
}

const CONTAINERD: &str = r#"
version = 3
imports = ["conf.d/*.toml"]
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "stargz"
  disable_snapshot_annotations = false
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = "linux"
  snapshotter = "stargz"
"#;
const DOCKER: &str =
    r#"{"features": {"containerd-snapshotter": true}, "storage-driver": "stargz"}"#;

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |path: &str| dir.path().join(path);
        let socket = at("run/stargz.sock");
        fs::create_dir_all(at("run")).expect("made");
        let served = UnixListener::bind(&socket).expect("a socket");
        let machine = Machine {
            sysroot: dir.path().to_owned(),
            uid: 1000,
            user: "alice".to_owned(),
            path: vec![at("bin")],
            containerd_config: at("etc/containerd/config.toml"),
            docker_config: at("etc/docker/daemon.json"),
            address: socket.clone(),
            root: at("var"),
        };
        let proxy = format!(
            "[proxy_plugins.stargz]\ntype = \"snapshot\"\naddress = {socket:?}\n\
             [proxy_plugins.stargz.exports]\nenable_remote_snapshot_annotations = \"true\"\n"
        );
        let fixture = Self { dir, machine, _served: served };
        for (path, text) in [
            ("dev/fuse", ""),
            ("proc/filesystems", "nodev\tsysfs\n\text4\nnodev\tfuse\nnodev\toverlay\n"),
            ("proc/sys/kernel/osrelease", "6.12.1-amd64\n"),
            ("proc/sys/user/max_user_namespaces", "15000\n"),
            ("etc/subuid", "bob:1:2\nalice:100000:65536\n"),
            ("etc/subgid", "1000:100000:65536\n"),
            ("etc/containerd/config.toml", CONTAINERD),
            ("etc/containerd/conf.d/stargz.toml", &proxy),
            ("etc/docker/daemon.json", DOCKER),
            ("bin/fusermount3", ""),
            ("bin/newuidmap", ""),
            ("bin/newgidmap", ""),
            ("bin/dockerd", ""),
            ("var/x", ""),
        ] {
            fixture.write(path, text);
        }
        let device = fixture.at("dev/fuse");
        fs::set_permissions(device, fs::Permissions::from_mode(0o666)).expect("a mode");
        fixture
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap_or(&path)).expect("made");
        fs::write(path, text).expect("written");
    }

    /// Replaces text in a file that has it.
    fn edit(&self, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.at(path)).expect("a file");
        assert!(text.contains(from), "{path} has no {from}");
        self.write(path, &text.replace(from, to));
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.at(path)).expect("removed");
    }
}

#[test]
fn a_machine_in_order_is_found_so() {
    let findings = Fixture::new().machine.examine();
    let bad: Vec<_> = findings.iter().filter(|it| it.level != Level::Ok).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    for area in ["fuse", "kernel", "storage", "rootless", "socket", "containerd", "docker"] {
        assert!(findings.iter().any(|it| it.area == area), "nothing of {area}");
    }
}

type Break = fn(&Fixture);

#[test]
fn what_is_broken_is_named_with_its_repair() {
    let rows: &[(Break, Level, &str, &str, &str)] = &[
        (|it| it.remove("dev/fuse"), Level::Problem, "fuse", "no device /dev/fuse", "--device"),
        (
            |it| {
                let mode = fs::Permissions::from_mode(0o600);
                fs::set_permissions(it.at("dev/fuse"), mode).expect("a mode");
            },
            Level::Problem,
            "fuse",
            "mode 600, so that alice may not open it",
            "chmod 666",
        ),
        (
            |it| it.edit("proc/filesystems", "nodev\tfuse", "nodev\tfuseblk"),
            Level::Problem,
            "fuse",
            "the kernel has no FUSE",
            "modprobe fuse",
        ),
        (|it| it.remove("bin/fusermount3"), Level::Problem, "fuse", "fusermount3", "fuse3"),
        (
            |it| it.edit("proc/filesystems", "overlay", "overlaid"),
            Level::Problem,
            "kernel",
            "no overlayfs",
            "modprobe overlay",
        ),
        (
            |it| it.write("proc/sys/kernel/osrelease", "6.1.0-9"),
            Level::Warning,
            "kernel",
            "lacks reads that go on when the mount process is killed (since 6.9)",
            "newer kernel",
        ),
        (
            |it| it.write("proc/sys/kernel/osrelease", "5.4.0"),
            Level::Problem,
            "kernel",
            "overlayfs in user namespaces",
            "newer kernel",
        ),
        (
            |it| it.write("proc/sys/kernel/osrelease", ""),
            Level::Warning,
            "kernel",
            "cannot be read",
            "5.11",
        ),
        (
            |it| it.edit("etc/subuid", "alice", "carol"),
            Level::Problem,
            "rootless",
            "/etc/subuid grants alice 0 ids",
            "--add-subuids",
        ),
        (
            |it| it.write("etc/subgid", "alice:100000:10\nnonsense\n"),
            Level::Problem,
            "rootless",
            "/etc/subgid grants alice 10 ids",
            "--add-subgids",
        ),
        (|it| it.remove("bin/newuidmap"), Level::Problem, "rootless", "newuidmap", "uidmap"),
        (
            |it| it.write("proc/sys/user/max_user_namespaces", "0\n"),
            Level::Problem,
            "rootless",
            "user namespaces are switched off",
            "user.max_user_namespaces",
        ),
        (
            |it| it.write("proc/sys/kernel/unprivileged_userns_clone", "0\n"),
            Level::Problem,
            "rootless",
            "user namespaces are switched off",
            "kernel.unprivileged_userns_clone=1",
        ),
        (
            |it| it.remove("run/stargz.sock"),
            Level::Problem,
            "socket",
            "nobody serves",
            "lazystar snapshotter",
        ),
        (
            |it| it.remove("etc/containerd/config.toml"),
            Level::Problem,
            "containerd",
            "does not know the snapshotter: there is no",
            "[proxy_plugins.stargz]",
        ),
        (
            |it| it.edit("etc/containerd/config.toml", "version = 3", "version = "),
            Level::Problem,
            "containerd",
            "config.toml, line 2, is no TOML",
            "correct it",
        ),
        (
            |it| it.remove("etc/containerd/conf.d/stargz.toml"),
            Level::Problem,
            "containerd",
            "no proxy_plugins in",
            "[proxy_plugins.stargz]",
        ),
        (
            |it| it.edit("etc/containerd/conf.d/stargz.toml", "stargz.sock", "other.sock"),
            Level::Problem,
            "containerd",
            "containerd looks for the snapshotter \"stargz\" at",
            "set proxy_plugins.stargz.address",
        ),
        (
            |it| it.edit("etc/containerd/conf.d/stargz.toml", "\"snapshot\"", "\"content\""),
            Level::Problem,
            "containerd",
            "no proxy_plugins in",
            "[proxy_plugins.stargz]",
        ),
        (
            |it| {
                let setting = "disable_snapshot_annotations = false";
                it.edit("etc/containerd/config.toml", setting, "");
            },
            Level::Problem,
            "containerd",
            "does not tell it which layers it wants",
            "disable_snapshot_annotations = false",
        ),
        (
            |it| it.write("etc/containerd/config.toml", V2_DISABLED),
            Level::Problem,
            "containerd",
            "does not tell it which layers it wants",
            "disable_snapshot_annotations = false",
        ),
        (
            |it| it.write("etc/containerd/config.toml", V1_DISABLED),
            Level::Problem,
            "containerd",
            "does not tell it which layers it wants",
            "disable_snapshot_annotations = false",
        ),
        (
            |it| {
                let (from, to) = (
                    "snapshotter = \"stargz\"\n  disable",
                    "snapshotter = \"overlayfs\"\n  disable",
                );
                it.edit("etc/containerd/config.toml", from, to);
            },
            Level::Warning,
            "containerd",
            "Kubernetes pulls whole images: its snapshotter is \"overlayfs\"",
            "snapshotter = \"stargz\"",
        ),
        (
            |it| {
                let (from, to) =
                    ("snapshotter = \"stargz\"\n  disable", "snapshotter = \"starzg\"\n  disable");
                it.edit("etc/containerd/config.toml", from, to);
            },
            Level::Problem,
            "containerd",
            "Kubernetes is told to use the snapshotter \"starzg\", which is not there",
            "snapshotter = \"stargz\"",
        ),
        (
            |it| it.edit("etc/containerd/config.toml", "unpack_config", "unpacked"),
            Level::Warning,
            "containerd",
            "does not unpack for the snapshotter",
            "unpack_config",
        ),
        (
            |it| it.edit("etc/containerd/conf.d/stargz.toml", "enable_remote", "disable_remote"),
            Level::Problem,
            "containerd",
            "the transfer service does not tell the snapshotter",
            "enable_remote_snapshot_annotations",
        ),
        (
            |it| it.write("etc/docker/daemon.json", "{"),
            Level::Problem,
            "docker",
            "is no JSON",
            "correct it",
        ),
        (
            |it| it.edit("etc/docker/daemon.json", "true", "false"),
            Level::Problem,
            "docker",
            "not containerd's image store",
            "\"containerd-snapshotter\": true",
        ),
        (
            |it| it.edit("etc/docker/daemon.json", "stargz", "overlay2"),
            Level::Warning,
            "docker",
            "Docker uses the driver \"overlay2\"",
            "\"storage-driver\": \"stargz\"",
        ),
        (
            |it| it.remove("etc/docker/daemon.json"),
            Level::Warning,
            "docker",
            "Docker is installed, but does not use the snapshotter",
            "\"storage-driver\": \"stargz\"",
        ),
    ];
    for (damage, level, area, what, fix) in rows {
        let fixture = Fixture::new();
        damage(&fixture);
        let findings = fixture.machine.examine();
        let found = findings.iter().find(|it| it.area == *area && it.what.contains(what));
        let found = found.unwrap_or_else(|| panic!("no {what:?} in {findings:#?}"));
        assert_eq!(found.level, *level, "{found:?}");
        assert!(found.fix.as_ref().is_some_and(|it| it.contains(fix)), "{fix:?} in {found:?}");
    }
}

const V2_DISABLED: &str = r#"
version = 2
imports = ["conf.d/*.toml"]
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "stargz"
  disable_snapshot_annotations = true
"#;
const V1_DISABLED: &str = r#"
imports = ["conf.d/stargz.toml"]
[plugins.cri.containerd]
  snapshotter = "stargz"
"#;

#[test]
fn a_root_directory_on_the_wrong_file_system_is_found() {
    let dir = Path::new("/");
    for (magic, name) in [(0x794c_7630, "overlayfs"), (0x6969, "NFS")] {
        let finding = storage::fitness(dir, dir, magic, 0);
        assert_eq!(finding.level, Level::Problem);
        assert!(finding.what.contains(name), "{finding:?}");
    }
    assert_eq!(storage::fitness(dir, dir, 0xef53, 1000).level, Level::Ok);
}
