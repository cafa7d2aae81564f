//! `install` and `uninstall`, into a directory that stands for a machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use crate::{installed, skip};

const CONTAINERD: &str = "etc/containerd/config.toml";
const DOCKER: &str = "etc/docker/daemon.json";
const UNIT: &str = "etc/systemd/system/lazystar-snapshotter.service";
const BINARY: &str = "usr/local/bin/lazystar";

struct Machine(TempDir);

impl Machine {
    fn new(files: &[(&str, &str)]) -> Self {
        let machine = Self(tempfile::tempdir().expect("a directory"));
        for (path, text) in files {
            machine.write(path, text);
        }
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.0.path().join(path)).unwrap_or_default()
    }

    /// Runs a script; gives whether it succeeded, and what it said.
    fn run(&self, script: &str, arguments: &[&str]) -> (bool, String) {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host-native/deploy");
        let mut command = Command::new(scripts.join(script));
        command.arg("--dest").arg(self.0.path()).args(arguments);
        let output = command.output().expect("bash is installed");
        let said = [&*output.stdout, &*output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    fn install(&self, arguments: &[&str]) -> String {
        let (worked, said) = self.run("install", &[&["--binary", "/bin/true"], arguments].concat());
        assert!(worked, "{said}");
        said
    }

    /// All files and what is in them.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut left = vec![self.0.path().to_owned()];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(dir).expect("a directory").flatten() {
                let path = entry.path();
                match path.is_dir() {
                    true => left.push(path),
                    false => drop(files.insert(path.clone(), fs::read(&path).expect("a file"))),
                }
            }
        }
        files
    }
}

#[test]
fn what_is_installed_can_be_taken_away() {
    let before = "version = 2\n# ours\n[plugins]\n  x = 1\n";
    let machines = [
        Machine::new(&[]),
        Machine::new(&[(CONTAINERD, before)]),
        Machine::new(&[(CONTAINERD, "")]),
    ];
    for machine in machines {
        let was = machine.files();
        let said = machine.install(&["--dry-run"]);
        assert!(said.contains("would write"), "{said}");
        assert_eq!(machine.files(), was, "a dry run changes nothing");

        machine.install(&[]);
        let installed = fs::read(machine.0.path().join(BINARY)).expect("it is there");
        assert!(installed == fs::read("/bin/true").expect("every system has it"));
        assert!(machine.text(UNIT).contains("ExecStart=/usr/local/bin/lazystar snapshotter"));
        let config: toml::Table = machine.text(CONTAINERD).parse().expect("TOML");
        let address = "/run/containerd-stargz-grpc/containerd-stargz-grpc.sock";
        assert_eq!(config["proxy_plugins"]["stargz"]["address"].as_str(), Some(address));
        assert_eq!(config["version"].as_integer(), Some(2));
        let once = machine.files();
        machine.install(&[]);
        assert_eq!(machine.files(), once, "a second time changes nothing");

        let (worked, said) = machine.run("uninstall", &["--dry-run"]);
        assert!(worked, "{said}");
        assert_eq!(machine.files(), once, "a dry run changes nothing");
        let (worked, said) = machine.run("uninstall", &[]);
        assert!(worked, "{said}");
        let mut now = machine.files();
        now.retain(|_, text| !text.is_empty());
        let was: BTreeMap<_, _> = was.into_iter().filter(|(_, text)| !text.is_empty()).collect();
        assert_eq!(now, was, "{said}");
    }
}

#[test]
fn what_somebody_else_wrote_stays() {
    let theirs = "version = 3\n[proxy_plugins.stargz]\naddress = \"/elsewhere\"\n";
    let machine = Machine::new(&[(CONTAINERD, theirs)]);
    assert!(machine.install(&[]).contains("as it is"));
    assert_eq!(machine.text(CONTAINERD), theirs);
    // Written between install and uninstall.
    let machine = Machine::new(&[]);
    machine.install(&[]);
    let more = format!("{}[debug]\n  level = \"info\"\n", machine.text(CONTAINERD));
    machine.write(CONTAINERD, &more);
    assert!(machine.run("uninstall", &[]).0);
    assert_eq!(machine.text(CONTAINERD), "version = 2\n[debug]\n  level = \"info\"\n");
}

#[test]
fn docker_is_set_up_and_set_back() {
    if !installed("jq") {
        return skip("docker_is_set_up_and_set_back", "jq is not installed");
    }
    let before = r#"{"debug": true, "features": {"buildkit": true}, "storage-driver": "overlay2"}"#;
    let machine = Machine::new(&[(DOCKER, before)]);
    machine.install(&["--docker"]);
    let json = |text: String| serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
    let set = json(machine.text(DOCKER));
    assert_eq!(set["storage-driver"], "stargz");
    assert_eq!(set["features"]["containerd-snapshotter"], true);
    assert_eq!((&set["debug"], &set["features"]["buildkit"]), (&true.into(), &true.into()));
    assert!(machine.run("uninstall", &[]).0);
    assert_eq!(json(machine.text(DOCKER)), json(before.to_owned()));
    let machine = Machine::new(&[]);
    machine.install(&["--docker"]);
    assert!(machine.run("uninstall", &[]).0);
    assert!(machine.files().is_empty(), "{:?}", machine.files().keys());
    let machine = Machine::new(&[(DOCKER, "{")]);
    let (worked, said) = machine.run("install", &["--binary", "/bin/true", "--docker"]);
    assert!(!worked && said.contains("is no JSON"), "{said}");
    assert_eq!(machine.files().len(), 1, "nothing is installed by halves");
}

#[test]
fn containers_in_use_keep_it_installed() {
    if !rustix::process::geteuid().is_root() {
        return skip("containers_in_use_keep_it_installed", "needs root");
    }
    let machine = Machine::new(&[]);
    machine.install(&[]);
    let at = |name: &str| machine.0.path().join(name);
    let layer = at("var/lib/containerd-stargz-grpc/snapshots/1/fs");
    for dir in [layer.clone(), at("upper"), at("work"), at("container")] {
        fs::create_dir_all(dir).expect("made");
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        layer.display(),
        at("upper").display(),
        at("work").display()
    );
    let options = std::ffi::CString::new(options).expect("no zero in it");
    mount("overlay", at("container"), "overlay", MountFlags::empty(), &*options).expect("mounted");
    let (refused, said) = machine.run("uninstall", &[]);
    let stays = at(BINARY).exists();
    let (forced, _) = machine.run("uninstall", &["--force"]);
    unmount(at("container"), UnmountFlags::DETACH).expect("it is mounted");
    assert!(!refused && stays, "{said}");
    assert!(said.contains(&format!("in use: {}", at("container").display())), "{said}");
    assert!(forced && !at(BINARY).exists());
    let (purged, said) = machine.run("uninstall", &["--purge"]);
    assert!(purged && !layer.exists(), "{said}");
}
