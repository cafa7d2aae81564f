//! `lazystar snapshotter`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::open_cache;
use crate::cli::{Global, SnapshotterArgs};
use crate::image::OpenOptions;
use crate::mount;
use crate::oci::Platform;
use crate::open::LayerOpener;
use crate::snapshotter::lazy::LazyLayers;
use crate::snapshotter::mount_process::client::{CHILD, Launch};
use crate::snapshotter::mount_process::layers::ImageLayers;
use crate::snapshotter::mount_process::{self, server};
use crate::snapshotter::snapshots::Snapshotter;
use crate::snapshotter::{End, serve};

pub(super) async fn run(global: &Global, args: &SnapshotterArgs) -> Result<()> {
    if let Some(config) = &args.config {
        bail!(
            "{} cannot be used: this version reads no configuration file; start it without --config",
            config.display()
        );
    }
    let root = &args.root;
    fs::create_dir_all(root)
        .with_context(|| format!("cannot make the directory {}", root.display()))?;
    let root = root.canonicalize()?;
    if std::env::var_os(CHILD).is_some() {
        mount_layers(global, &root).await
    } else {
        daemon(args, &root).await
    }
}

/// The mount process.
async fn mount_layers(global: &Global, root: &Path) -> Result<()> {
    let device = server::inherited_device()?;
    let dir = global.cache_dir.clone().unwrap_or_else(|| root.join("cache"));
    let cache = open_cache(&dir, global.cache_limit)?;
    let options = OpenOptions {
        plain_http: global.plain_http,
        platform: global.platform.clone().unwrap_or_else(Platform::host),
        manifests: Some(cache.manifests()),
        ..OpenOptions::default()
    };
    let opener = LayerOpener { cache, allow_unverified: global.allow_unverified };
    let socket = mount_process::socket(root);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        served = server::serve(device, &socket, ImageLayers::new(opener, options)) => served,
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
