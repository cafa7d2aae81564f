//! `lazystar snapshotter`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::{cache_limit, open_cache, open_options};
use crate::cli::{Global, SnapshotterArgs};
use crate::config::{Config, Loaded, Verification};
use crate::mount;
use crate::open::LayerOpener;
use crate::snapshotter::lazy::LazyLayers;
use crate::snapshotter::mount_process::client::{CHILD, Launch};
use crate::snapshotter::mount_process::layers::ImageLayers;
use crate::snapshotter::mount_process::{self, server};
use crate::snapshotter::snapshots::Snapshotter;
use crate::snapshotter::{End, serve};

pub(super) async fn run(global: &Global, args: &SnapshotterArgs) -> Result<()> {
    let Loaded { config, notes } = Config::load(global.config.as_deref())?;
    let root = &args.root;
    fs::create_dir_all(root)
        .with_context(|| format!("cannot make the directory {}", root.display()))?;
    let root = root.canonicalize()?;
    if std::env::var_os(CHILD).is_some() {
        mount_layers(global, &root, &config).await
    } else {
        notes.iter().for_each(|note| tracing::info!("configuration, {note}"));
        daemon(args, &root).await
    }
}

/// The mount process.
async fn mount_layers(global: &Global, root: &Path, config: &Config) -> Result<()> {
    let device = server::inherited_device()?;
    let dir = global.cache_dir.clone().unwrap_or_else(|| root.join("cache"));
    let cache = open_cache(&dir, cache_limit(global, config))?;
    let options = open_options(global, config, &cache);
    let allow_unverified = global.allow_unverified || config.verification != Verification::Required;
    let layers = ImageLayers::new(LayerOpener { cache, allow_unverified }, options, config);
    let socket = mount_process::socket(root);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        served = server::serve(device, &socket, layers) => served,
        _ = terminate.recv() => Ok(()),
    }
}

async fn daemon(args: &SnapshotterArgs, root: &Path) -> Result<()> {
    let launch = Launch {
        program: std::env::current_exe().context("cannot find this program")?,
        args: std::env::args_os().collect(),
    };
    let lazy = LazyLayers::new(root, launch);
    let snapshotter = Snapshotter::open(root, lazy, mount::in_user_namespace())
        .with_context(|| format!("cannot keep snapshots in {}", root.display()))?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let end = async move {
        let how = tokio::select! {
            _ = interrupt.recv() => End::Everything,
            _ = terminate.recv() => End::KeepMounts,
        };
        tracing::info!("stopping");
        how
    };
    serve(Arc::new(snapshotter), &args.address, end).await
}
