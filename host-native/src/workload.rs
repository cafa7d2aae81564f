//! Running a command in a mounted image.
//!
//! With runc or crun where root has one of them, else in a chroot of namespaces of its own, for which
//! util-linux is enough. The network is that of the machine in both.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::process::{Child, Command};

use crate::oci::Execution;

/// Where programs are looked for if an image does not say.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What Docker lets root of a container do.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];
/// Makes of a mounted image what programs expect, and goes there.
const CHROOT: &str = r#"root=$1 wd=$2; shift 2
[ ! -d "$root/proc" ] || mount -t proc proc "$root/proc"
for at in dev sys; do [ ! -d "$root/$at" ] || mount --rbind "/$at" "$root/$at"; done
exec unshare --root="$root" --wd="$wd" "$@""#;

/// A command to be run in an image.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// The directory to start in.
    pub cwd: String,
    /// User and group, by number or name.
    pub user: String,
    /// The longest that it may run; without a limit, until it ends.
    pub period: Option<Duration>,
}

/// How a workload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    ByItself,
    /// It was stopped: its time was over, or somebody pressed Ctrl-C.
    Stopped,
}

impl Workload {
    /// What an image runs, with `args` in place of its command if there are any.
    ///
    /// # Errors
    /// If neither says what to run.
    pub fn of(config: &Execution, args: &[OsString]) -> Result<Self> {
        let given = args.iter().map(|arg| arg.clone().into_string());
        let given: Result<Vec<_>, _> = given.collect();
        let Ok(given) = given else { bail!("the command is not UTF-8") };
        let own = config.entrypoint.iter().chain(&config.cmd).cloned();
        let args = if given.is_empty() { own.collect() } else { given };
        if args.is_empty() {
            bail!("the image does not say what it runs; write a command after --");
        }
        let mut env = config.env.clone();
        if !env.iter().any(|variable| variable.starts_with("PATH=")) {
            env.push(PATH.to_owned());
        }
        let cwd = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
        Ok(Self { args, env, cwd: cwd.to_owned(), user: config.user.clone(), period: None })
    }

    /// Runs it on `root`, a mounted image; `work` is a directory for what that takes.
    ///
    /// # Errors
    /// If it cannot be started, or ends with a status other than 0.
    pub async fn run(&self, root: &Path, work: &Path) -> Result<Ended> {
        let (uid, gid) = ids(&self.user, root)?;
        let by_root = rustix::process::geteuid().is_root() && !crate::mount::in_user_namespace();
        let runtime = if by_root { runtime() } else { None };
        let name = format!("lazystar-optimize-{}", std::process::id());
        let mut command = match &runtime {
            Some(runtime) => {
                let bundle = work.join("bundle");
                fs::create_dir_all(&bundle)?;
                let spec = self.spec(root, (uid, gid)).to_string();
                fs::write(bundle.join("config.json"), spec)?;
                let mut command = Command::new(runtime);
                command.arg("--root").arg(work.join("state")).arg("run").arg("--bundle");
                command.arg(bundle).arg(&name);
                command
            }
            None => self.chroot(root, (uid, gid), by_root),
        };
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let mut child =
            command.kill_on_drop(true).spawn().with_context(|| format!("cannot run {program}"))?;
        let over = async {
            match self.period {
                Some(period) => tokio::time::sleep(period).await,
                None => std::future::pending().await,
            }
        };
        let status = tokio::select! {
            status = child.wait() => status.with_context(|| format!("cannot wait for {program}"))?,
            () = over => return stop(child, runtime.as_deref(), work, &name).await,
            _ = tokio::signal::ctrl_c() => return stop(child, runtime.as_deref(), work, &name).await,
        };
        if !status.success() {
            let command = self.args.join(" ");
            bail!(
                "`{command}` ended with {status}, so what it needs is not known; correct it, or stop it after a while with --period"
            );
        }
        Ok(Ended::ByItself)
    }

    fn chroot(&self, root: &Path, (uid, gid): (u32, u32), by_root: bool) -> Command {
        let mut command = Command::new("unshare");
        if !by_root {
            command.args(["--user", "--map-root-user"]);
        }
        command.args([
            "--mount",
            "--pid",
            "--ipc",
            "--fork",
            "--kill-child",
            "sh",
            "-ec",
            CHROOT,
            "sh",
        ]);
        command.arg(root).arg(&self.cwd);
        if by_root && (uid, gid) != (0, 0) {
            command.arg(format!("--setgid={gid}")).arg(format!("--setuid={uid}"));
        }
        command.arg("--").args(&self.args).env_clear();
        command.envs(self.env.iter().filter_map(|variable| variable.split_once('=')));
        command
    }

    /// The specification of the container (OCI runtime specification).
    fn spec(&self, root: &Path, (uid, gid): (u32, u32)) -> serde_json::Value {
        let mount = |at: &str, kind: &str, options: &[&str]| json!({ "destination": at, "type": kind, "source": kind, "options": options });
        let mut mounts = vec![
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount(
                "/dev/pts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            ),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ];
        for file in ["/etc/resolv.conf", "/etc/hosts"] {
            if let Ok(source) = fs::canonicalize(file) {
                mounts.push(json!({
                    "destination": file, "type": "bind", "source": source, "options": ["bind", "ro"],
                }));
            }
        }
        let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": { "uid": uid, "gid": gid },
                "args": self.args,
                "env": self.env,
                "cwd": self.cwd,
                "capabilities": {
                    "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
                },
                "noNewPrivileges": true,
            },
            "root": { "path": root },
            "hostname": "lazystar",
            "mounts": mounts,
            "linux": {
                "namespaces": namespaces,
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
            },
        })
    }
}

async fn stop(mut child: Child, runtime: Option<&Path>, work: &Path, name: &str) -> Result<Ended> {
    if let Some(runtime) = runtime {
        let mut kill = Command::new(runtime);
        kill.arg("--root").arg(work.join("state")).args(["kill", name, "KILL"]);
        // It may have ended just now.
        let _ = kill.status().await;
    } else {
        let _ = child.start_kill();
    }
    child.wait().await.context("cannot stop the command")?;
    Ok(Ended::Stopped)
}

fn runtime() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let dirs: Vec<_> = std::env::split_paths(&path).collect();
    let find = |name: &str| dirs.iter().map(|dir| dir.join(name)).find(|file| file.is_file());
    find("runc").or_else(|| find("crun"))
}

/// User and group of `user[:group]`, by the files of the image where they are names.
fn ids(user: &str, root: &Path) -> Result<(u32, u32)> {
    let (user, group) =
        user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    if user.is_empty() {
        return Ok((0, 0));
    }
    let field = |file: &str, key: &str, by: usize, wanted: usize| -> io::Result<Option<u32>> {
        let text = match fs::read_to_string(root.join(file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let mut rows = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let row = rows.find(|row| row.get(by) == Some(&key));
        Ok(row.and_then(|row| row.get(wanted)?.parse().ok()))
    };
    let uid = match user.parse() {
        Ok(uid) => uid,
        Err(_) => field("etc/passwd", user, 0, 2)?
            .with_context(|| format!("the image has no user {user}"))?,
    };
    let gid = match group {
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => field("etc/group", group, 0, 2)?
                .with_context(|| format!("the image has no group {group}"))?,
        },
        None => field("etc/passwd", &uid.to_string(), 2, 3)?.unwrap_or(0),
    };
    Ok((uid, gid))
}
