//! `lazystar buildkitd`: a snapshotter and a buildkitd that belong together.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use futures_util::future::select_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::cli::{BuildkitdArgs, Global};
use crate::user_dirs;

/// How long the snapshotter may take until it serves.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take to unmount everything.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// The pause before a snapshotter that ended by itself is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Longest path of a unix socket (`sun_path` in unix(7)), with its terminating zero.
const MAX_SOCKET: usize = 108;
/// What is passed on to buildkitd.
const SIGNALS: [(SignalKind, Signal); 6] = [
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
];

pub(super) async fn run(global: &Global, args: &BuildkitdArgs) -> Result<()> {
    let root = match &args.root {
        Some(root) => root.clone(),
        None => buildkit_root(&args.args)?.join("lazystar"),
    };
    let socket = root.join("snapshotter.sock");
    if socket.as_os_str().len() >= MAX_SOCKET {
        bail!("{} is too long for a socket; choose a shorter --root", socket.display());
    }
    // Asked for before anything is started, so that none is lost.
    let mut signals = Vec::new();
    for (kind, passed) in SIGNALS {
        signals.push((signal(kind)?, passed));
    }
    let snapshotter = || start_snapshotter(global, &root, &socket);
    let mut serving = snapshotter().await?;
    let mut buildkitd = match start_buildkitd(args, &socket) {
        Ok(child) => child,
        Err(error) => {
            stop(&mut serving).await;
            return Err(error);
        }
    };
    let status = loop {
        let next = select_all(signals.iter_mut().map(|(signal, passed)| {
            Box::pin(async move {
                signal.recv().await;
                *passed
            })
        }));
        tokio::select! {
            status = buildkitd.wait() => break status?,
            (passed, ..) = next => send(&buildkitd, passed),
            status = serving.wait() => {
                tracing::error!("the snapshotter ended by itself ({}); starting it again", status?);
                sleep(RESTART_PAUSE).await;
                match snapshotter().await {
                    Ok(child) => serving = child,
                    Err(error) => {
                        tracing::error!("{error:#}; stopping buildkitd");
                        send(&buildkitd, Signal::TERM);
                        break buildkitd.wait().await?;
                    }
                }
            }
        }
    };
    stop(&mut serving).await;
    std::process::exit(code(status));
}

async fn start_snapshotter(global: &Global, root: &Path, socket: &Path) -> Result<Child> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.arg("snapshotter").arg("--root").arg(root).arg("--address").arg(socket);
    command.args(passed_on(global)).process_group(0).kill_on_drop(true);
    let mut child = command.spawn().context("cannot start the snapshotter")?;
    let started = Instant::now();
    while UnixStream::connect(socket).await.is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("the snapshotter ended at once, {status}; what it says is above");
        }
        if started.elapsed() > START_PATIENCE {
            bail!("the snapshotter does not serve {} in time", socket.display());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(child)
}

/// The flags of this command that are the snapshotter's, too.
fn passed_on(global: &Global) -> Vec<OsString> {
    // All of them by name, so that none is forgotten.
    let Global {
        plain_http,
        platform,
        cache_dir,
        cache_limit,
        allow_unverified,
        config,
        // Refused for this command unless it is the usual one.
        engine: _,
        log_level,
    } = global;
    let mut flags = Vec::new();
    let mut flag = |name: &str, value: &OsStr| flags.extend([name.into(), value.to_owned()]);
    config.iter().for_each(|file| flag("--config", file.as_os_str()));
    cache_dir.iter().for_each(|dir| flag("--cache-dir", dir.as_os_str()));
    cache_limit.iter().for_each(|it| flag("--cache-limit", it.as_u64().to_string().as_ref()));
    log_level.iter().for_each(|level| flag("--log-level", level.to_string().as_ref()));
    platform.iter().for_each(|it| flag("--platform", it.to_string().as_ref()));
    if *plain_http {
        flags.push("--plain-http".into());
    }
    if *allow_unverified {
        flags.push("--allow-unverified".into());
    }
    flags
}

fn start_buildkitd(args: &BuildkitdArgs, socket: &Path) -> Result<Child> {
    let program = args.buildkitd.display();
    let mut proxy = OsString::from("--oci-worker-proxy-snapshotter-path=");
    proxy.push(socket);
    let mut command = Command::new(&args.buildkitd);
    command.arg("--oci-worker-snapshotter=stargz").arg(proxy).args(&args.args);
    // Its end is not to depend on how the terminal delivers Ctrl-C.
    match command.process_group(0).spawn() {
        Ok(child) => Ok(child),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(anyhow!(
            "there is no {program}; install BuildKit, or say where its daemon is with --buildkitd FILE"
        )),
        Err(error) => Err(error).with_context(|| format!("cannot start {program}")),
    }
}

/// Where buildkitd keeps its state: as its arguments say, or by its own default.
fn buildkit_root(args: &[OsString]) -> Result<PathBuf> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--root" {
            return args.next().map(PathBuf::from).context("buildkitd's --root needs a directory");
        }
        if let Some(root) = arg.to_str().and_then(|arg| arg.strip_prefix("--root=")) {
            return Ok(PathBuf::from(root));
        }
    }
    if user_dirs::is_root() {
        return Ok(PathBuf::from("/var/lib/buildkit"));
    }
    let base = user_dirs::of_user("XDG_DATA_HOME", Some(".local/share"));
    let base =
        base.context("neither XDG_DATA_HOME nor HOME is set; name a directory with --root")?;
    Ok(base.join("buildkit"))
}

/// Has the snapshotter unmount everything and end.
async fn stop(snapshotter: &mut Child) {
    send(snapshotter, Signal::INT);
    match timeout(END_PATIENCE, snapshotter.wait()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!(%error, "cannot wait for the snapshotter"),
        Err(_) => {
            tracing::error!("the snapshotter does not end; killing it");
            let _ = snapshotter.kill().await;
        }
    }
}

fn send(child: &Child, signal: Signal) {
    // One that has ended has no number any more.
    let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else { return };
    if let Err(error) = kill_process(pid, signal) {
        tracing::warn!(%error, "cannot pass on a signal");
    }
}

/// As a shell tells how a program ended.
fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_snapshotter_gets_all_flags_that_are_its_own() {
        let global = |flags: &[OsString]| {
            let line = [OsString::from("lazystar"), OsString::from("snapshotter")];
            Cli::try_parse_from(line.iter().chain(flags)).expect("they are known").global
        };
        let line = "--plain-http --platform linux/arm64/v8 --cache-dir /c --cache-limit 20GB \
            --allow-unverified --config /f --log-level debug";
        let flags: Vec<_> = line.split_whitespace().map(OsString::from).collect();
        let (given, none) = (global(&flags), global(&[]));
        assert_eq!(format!("{:?}", global(&passed_on(&given))), format!("{given:?}"));
        assert_eq!(passed_on(&none), [""; 0]);
    }

    #[test]
    fn state_lies_where_buildkitd_keeps_its_own() {
        let of =
            |args: &[&str]| buildkit_root(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(of(&["--debug", "--root", "/a"]).ok(), Some(PathBuf::from("/a")));
        assert_eq!(of(&["--root=/b", "--root=/c"]).ok(), Some(PathBuf::from("/b")));
        assert!(of(&["--root"]).is_err());
        assert!(of(&[]).is_ok_and(|root| root.ends_with("buildkit")));
    }

    #[test]
    fn a_status_is_that_of_a_shell() {
        assert_eq!(code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(code(ExitStatus::from_raw(15)), 143);
    }
}
