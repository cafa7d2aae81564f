//! `lazystar optimize`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use lazystar_core::Digest;

use super::convert::{ConvertArgs, convert};
use super::{Opened, source_options, with_spinner};
use crate::cli::Global;
use crate::convert::ConvertOptions;
use crate::driver::LazyLayer;
use crate::mount;
use crate::oci::Execution;
use crate::reference::ImageRef;
use crate::temporary::TemporaryDir;
use crate::trace::Trace;
use crate::workload::{Ended, Workload};

/// `lazystar optimize`.
#[derive(Args, Debug)]
pub struct OptimizeArgs {
    /// What to make of what, and what else comes first.
    #[command(flatten)]
    pub conversion: ConvertArgs,
    /// Stop the command after this many seconds; for what does not end by itself
    #[arg(long, value_name = "SECONDS")]
    pub period: Option<u64>,
    /// Set a variable of the environment of the command, as NAME=value; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Start the command in this directory [default: the image's]
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Run the command as this user [default: the image's]
    #[arg(long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Keep what was recorded in this file
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// What to run, after `--` [default: what the image runs]
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

pub(super) async fn run(global: &Global, args: &OptimizeArgs) -> Result<()> {
    let mut hot = args.conversion.hot.read()?;
    let work = TemporaryDir::new(&std::env::temp_dir().join("lazystar-optimize"))?;
    let trace = record(global, args, work.path()).await?;
    if trace.accesses.is_empty() {
        tracing::warn!("the command read no file of the image");
    }
    if let Some(path) = &args.record {
        write_record(path, &trace)?;
    }
    drop(work);
    hot.add_trace(&trace);
    convert(global, &args.conversion, hot).await
}

/// Writes a file of records.
pub(super) fn write_record(path: &Path, trace: &Trace) -> Result<()> {
    fs::write(path, trace.to_text()?).with_context(|| format!("cannot write {}", path.display()))
}

/// Runs the command and records what it reads.
async fn record(global: &Global, args: &OptimizeArgs, work: &Path) -> Result<Trace> {
    let original = Opened::new(global, &args.conversion.source).await?;
    let (config, _) = original.image.config().await?;
    let manifest = original.manifest_digest();
    let layers = match original.layers.iter().all(Result::is_ok) {
        true => original.lazy()?,
        false => {
            // Only lazy layers can be watched.
            let copy = with_spinner(
                format!("preparing {}", args.conversion.source),
                prepare(global, &args.conversion.source, work),
            );
            Opened::new(global, &copy.await?).await?.lazy()?
        }
    };
    let own = config.config;
    let execution = Execution {
        working_dir: args.cwd.clone().unwrap_or(own.working_dir),
        user: args.user.clone().unwrap_or(own.user),
        ..own
    };
    let mut workload = Workload::of(&execution, &args.command)?;
    workload.env.extend(args.env.iter().cloned());
    workload.period = args.period.map(Duration::from_secs);
    watch(&workload, manifest, layers, work).await
}

async fn watch(
    workload: &Workload,
    manifest: Digest,
    layers: Vec<Arc<LazyLayer>>,
    work: &Path,
) -> Result<Trace> {
    let (root, written) = (work.join("root"), work.join("written"));
    for dir in [&root, &written] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let by_root = rustix::process::geteuid().is_root();
    let writable = by_root.then_some(written.as_path());
    let mounted = mount::mount(layers.clone(), &root, writable)?;
    let unmounter = mounted.unmounter();
    let ended = workload.run(&root, work).await;
    tokio::task::spawn_blocking(move || unmounter.unmount()).await??;
    if ended? == Ended::Stopped {
        eprintln!("the command was stopped");
    }
    Ok(Trace::of(manifest, layers.iter().map(|layer| layer.files_read())))
}

/// A lazy copy of an image that is not lazy, made quickly.
async fn prepare(global: &Global, source: &ImageRef, work: &Path) -> Result<ImageRef> {
    let copy = ImageRef::OciLayout { dir: work.join("copy"), tag: Some("copy".to_owned()) };
    let options = ConvertOptions { level: Some(1), ..ConvertOptions::default() };
    let open = source_options(global)?;
    let converted = crate::convert::convert(source, &copy, &open, &options).await;
    converted.with_context(|| format!("cannot make a lazy copy of {source}"))?;
    Ok(copy)
}
