//! Finds the parts, runs commands, mounts images.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use lazystar_tests::tree::Tree;
use tempfile::TempDir;

/// Why a test cannot run here.
pub(crate) struct Skip(pub(crate) String);

/// Runs the body of the test `name`; a part that it lacks is printed, everything else that goes wrong panics.
pub(crate) fn test(name: &str, body: impl FnOnce(&Rig) -> Result<(), Skip>) {
    if let Err(Skip(reason)) = Rig::find().and_then(|rig| body(&rig)) {
        println!("SKIP {name}: {reason}");
    }
}

/// What `tests/rig` made.
pub(crate) struct Rig {
    directory: PathBuf,
    lazystar: PathBuf,
    /// `host:port` of the registry.
    pub(crate) registry: String,
}

impl Rig {
    fn find() -> Result<Self, Skip> {
        let directory = env::var_os("LAZYSTAR_RIG")
            .ok_or_else(|| Skip("LAZYSTAR_RIG is not set".to_owned()))?;
        let directory = PathBuf::from(directory);
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let lazystar = env::var_os("LAZYSTAR_BIN")
            .map_or_else(|| package.join("../target/release/lazystar"), PathBuf::from);
        if !lazystar.is_file() {
            return Err(Skip(format!("no binary at {}", lazystar.display())));
        }
        let registry = fs::read_to_string(directory.join("registry.addr"))
            .unwrap_or_default()
            .trim()
            .to_owned();
        if TcpStream::connect(&registry).is_err() {
            return Err(Skip("the rig's registry does not run".to_owned()));
        }
        fs::create_dir_all(directory.join("tmp")).expect("the rig is writable");
        Ok(Self { directory, lazystar, registry })
    }

    /// The images in the registry, as `name:tag`.
    pub(crate) fn images(&self) -> Vec<String> {
        let pushed = fs::read_dir(self.directory.join("pushed")).into_iter().flatten().flatten();
        let mut images: Vec<_> =
            pushed.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        images.sort();
        images
    }

    /// The first of `wanted` that the registry has.
    pub(crate) fn image(&self, wanted: &[&str]) -> Result<String, Skip> {
        let images = self.images();
        let found = wanted.iter().find(|name| images.iter().any(|image| image == *name));
        found
            .map(|name| (*name).to_owned())
            .ok_or_else(|| Skip(format!("the rig has no image {}", wanted.join(", "))))
    }

    /// An image that is not like the others, which the registry has.
    pub(crate) fn special(&self, image: &'static str) -> Result<&'static str, Skip> {
        self.file(&format!("special/{image}")).map(|_| image)
    }

    /// A file of the rig.
    pub(crate) fn file(&self, name: &str) -> Result<PathBuf, Skip> {
        let path = self.directory.join(name);
        if path.exists() { Ok(path) } else { Err(Skip(format!("the rig has no {name}"))) }
    }

    /// A directory for one test, on the rig's own file system.
    pub(crate) fn work(&self) -> TempDir {
        tempfile::tempdir_in(self.directory.join("tmp")).expect("the rig is writable")
    }

    /// The tree that `image`, a `name:tag`, should show.
    pub(crate) fn expected(&self, image: &str) -> Arc<Tree> {
        static TREES: Mutex<BTreeMap<String, Arc<Tree>>> = Mutex::new(BTreeMap::new());
        let name = image.split(':').next().expect("split yields one part at least");
        let mut trees = TREES.lock().unwrap_or_else(PoisonError::into_inner);
        let read = || {
            Arc::new(
                Tree::of_tar(&self.directory.join(format!("{name}.tar"))).expect("the tar reads"),
            )
        };
        Arc::clone(trees.entry(name.to_owned()).or_insert_with(read))
    }

    /// The same rig, to test another binary with.
    pub(crate) fn with_binary(&self, lazystar: PathBuf) -> Self {
        Self { directory: self.directory.clone(), lazystar, registry: self.registry.clone() }
    }

    /// The binary under test.
    pub(crate) fn binary(&self) -> &Path {
        &self.lazystar
    }

    /// `lazystar` with `arguments`.
    pub(crate) fn lazystar<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "300"]).arg(&self.lazystar).args(arguments);
        command
    }

    /// Mounts `image`, a full reference, with the cache and everything else in `work`.
    pub(crate) fn mount(&self, image: &str, work: &Path) -> Mounted<'_> {
        self.try_mount(image, work, &[]).unwrap_or_else(|error| panic!("mount {image}: {error}"))
    }

    /// Mounts `image` with more options; fails with what the command printed.
    pub(crate) fn try_mount(
        &self,
        image: &str,
        work: &Path,
        options: &[&OsStr],
    ) -> Result<Mounted<'_>, String> {
        let directory = work.join("mounted");
        fs::create_dir_all(&directory).expect("the rig is writable");
        let log = work.join("mount.log");
        let cache = work.join("cache");
        let mut command = self.lazystar(["mount", "--plain-http", "--cache-dir"].map(OsStr::new));
        command.arg(cache).args(options).arg(image).arg(&directory);
        // To a file: a pipe would stay open for as long as the daemon lives.
        let output = File::create(&log).expect("the rig is writable");
        command.stdout(output.try_clone().expect("a file descriptor")).stderr(output);
        let status = command.status().expect("timeout is installed");
        let mounted = Mounted { rig: self, directory, work: work.to_owned() };
        if status.success() {
            Ok(mounted)
        } else {
            Err(format!("{status}: {}", fs::read_to_string(&log).unwrap_or_default().trim()))
        }
    }
}

/// A mounted image; unmounted when dropped.
pub(crate) struct Mounted<'rig> {
    rig: &'rig Rig,
    /// Where the root of the image is.
    pub(crate) directory: PathBuf,
    work: PathBuf,
}

impl Mounted<'_> {
    /// Unmounts, and checks that nothing of it stays behind.
    pub(crate) fn unmount(self) {
        run(self.rig.lazystar(["umount".as_ref(), self.directory.as_os_str()]));
        assert_eq!(mounts_below(&self.work), [""; 0], "still mounted");
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        for directory in mounts_below(&self.work).iter().rev() {
            // What a failed test leaves must not block the removal of its directory.
            let _ = Command::new("umount").args(["--lazy", directory]).status();
        }
    }
}

fn mounts_below(work: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    targets.filter(|target| Path::new(target).starts_with(work)).map(str::to_owned).collect()
}

/// Runs `command` to success; gives what it printed.
pub(crate) fn run(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{printed}{errors}", output.status);
    printed.into_owned()
}

/// A shell command, for pipes; `$1` and so on are `arguments`.
pub(crate) fn shell<A: AsRef<OsStr>>(
    script: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("set -euo pipefail; {script}"), "bash"]).args(arguments);
    command
}

/// Skips where one of `tools` is not installed.
pub(crate) fn need(tools: &[&str]) -> Result<(), Skip> {
    let paths = env::var_os("PATH").unwrap_or_default();
    let installed =
        |tool: &str| env::split_paths(&paths).any(|directory| directory.join(tool).is_file());
    match tools.iter().find(|tool| !installed(tool)) {
        Some(tool) => Err(Skip(format!("{tool} is not installed"))),
        None => Ok(()),
    }
}

/// Skips where the test is not run by root.
pub(crate) fn need_root() -> Result<(), Skip> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(Skip("needs root".to_owned())) }
}

/// Skips where nothing can be mounted.
pub(crate) fn need_fuse() -> Result<(), Skip> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map(drop)
        .map_err(|error| Skip(format!("/dev/fuse: {error}")))
}
