//! `lazystar mount`.
//!
//! In the background is a child that runs the same command in the foreground and reports through
//! a pipe, so that the parent can end with the right status once the mount is there.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use lazystar_core::Digest;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[cfg(feature = "wasm-engine")]
use super::open_sandboxed;
use super::{Opened, cache_dir, runtime};
use crate::cli::{EngineKind, Global, MountArgs};
use crate::driver::LazyLayer;
use crate::mount::{self, Mounted};
use crate::trace::Trace;

/// Set for the child, which writes `ready` to standard output when the mount is there.
const CHILD: &str = "LAZYSTAR_MOUNT_CHILD";
const READY: &[u8] = b"ready\n";

pub(super) fn run(global: &Global, args: &MountArgs) -> Result<()> {
    let is_child = std::env::var_os(CHILD).is_some();
    if args.foreground || is_child { serve(global, args, is_child) } else { start_child() }
}

fn start_child() -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).env(CHILD, "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().context("cannot start the background process")?;
    let mut said = Vec::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_end(&mut said).context("cannot hear from the background process")?;
    }
    if said == READY {
        return Ok(());
    }
    // It has said why on standard error, which is ours.
    let status = child.wait().context("cannot wait for the background process")?;
    std::process::exit(status.code().unwrap_or(1))
}

fn serve(global: &Global, args: &MountArgs, is_child: bool) -> Result<()> {
    let runtime = runtime()?;
    let (mounted, record, signals) = match global.engine {
        EngineKind::Native => mount_layers(&runtime, global, args)?,
        #[cfg(feature = "wasm-engine")]
        EngineKind::Wasm => {
            if args.record.is_some() {
                anyhow::bail!("--record needs --engine native");
            }
            let image = runtime.block_on(open_sandboxed(global, &args.image))?;
            let tree = crate::sandbox::SandboxedTree::new(image, runtime.handle().clone())?;
            let signals = catch_signals(&runtime)?;
            (mount::mount_tree(tree, &args.dir, args.rw.as_deref())?, None, signals)
        }
        #[cfg(not(feature = "wasm-engine"))]
        EngineKind::Wasm => anyhow::bail!(crate::cli::NO_WASM_ENGINE),
    };
    unmount_on_signals(&runtime, signals, &mounted, record.clone());
    if is_child {
        detach(global)?;
    } else {
        eprintln!("{} is mounted on {}; Ctrl-C unmounts it", args.image, args.dir.display());
    }
    let result = mounted.wait().context("serving the mount failed");
    let recorded = record.map_or(Ok(()), |record| record.write());
    runtime.shutdown_background();
    result.and(recorded)
}

/// What was read, to be written when the mount ends.
#[derive(Clone)]
struct Record {
    path: PathBuf,
    manifest: Digest,
    layers: Vec<Arc<LazyLayer>>,
}

impl Record {
    fn write(&self) -> Result<()> {
        let trace = Trace::of(self.manifest, self.layers.iter().map(|layer| layer.files_read()));
        super::optimize::write_record(&self.path, &trace)
    }
}

fn mount_layers(
    runtime: &Runtime,
    global: &Global,
    args: &MountArgs,
) -> Result<(Mounted, Option<Record>, Vec<Signal>)> {
    let opened = runtime.block_on(Opened::new(global, &args.image))?;
    let manifest = opened.manifest_digest();
    let layers = opened.lazy()?;
    let signals = catch_signals(runtime)?;
    let mounted = mount::mount(layers.clone(), &args.dir, args.rw.as_deref())?;
    let prefetched = layers.clone();
    if !args.no_prefetch {
        runtime.spawn(async move {
            for layer in prefetched {
                layer.prefetch(0).await;
            }
        });
    }
    let path = args.record.as_ref().map(std::path::absolute).transpose()?;
    Ok((mounted, path.map(|path| Record { path, manifest, layers }), signals))
}

/// Tells the parent that the mount is there and lets go of its terminal. What there is to say from
/// now on goes to `mount.log` in the cache directory.
fn detach(global: &Global) -> Result<()> {
    let mut out = std::io::stdout();
    out.write_all(READY).and_then(|()| out.flush()).context("cannot report to the parent")?;
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    let path = cache_dir(global).join("mount.log");
    let log = File::options().append(true).create(true).open(&path);
    let log = log.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(rustix::stdio::dup2_stderr(&log)?)
}

/// Before there is a mount, so that none is left behind by a signal that comes at that moment.
fn catch_signals(runtime: &Runtime) -> Result<Vec<Signal>> {
    let _inside = runtime.enter();
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    Ok(kinds.into_iter().map(signal).collect::<std::io::Result<_>>()?)
}

fn unmount_on_signals(
    runtime: &Runtime,
    mut signals: Vec<Signal>,
    mounted: &Mounted,
    record: Option<Record>,
) {
    let unmounter = mounted.unmounter();
    runtime.spawn(async move {
        let any =
            futures_util::future::select_all(signals.iter_mut().map(|it| Box::pin(it.recv())));
        any.await;
        let work = move || {
            unmounter.unmount()?;
            record.map_or(Ok(()), |record| record.write())
        };
        let done = tokio::task::spawn_blocking(work).await;
        match done {
            Ok(Ok(())) => std::process::exit(0),
            Ok(Err(error)) => eprintln!("lazystar: {error:#}"),
            Err(error) => eprintln!("lazystar: {error}"),
        }
        std::process::exit(1);
    });
}
