//! `lazystar snapshotter`.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::cache::Cache;
use crate::cli::{Global, SnapshotterArgs};
use crate::image::OpenOptions;
use crate::mount;
use crate::oci::Platform;
use crate::open::LayerOpener;
use crate::snapshotter::lazy::LazyLayers;
use crate::snapshotter::serve;
use crate::snapshotter::snapshots::Snapshotter;

pub(super) async fn run(global: &Global, args: &SnapshotterArgs) -> Result<()> {
    if let Some(config) = &args.config {
        bail!(
            "{} cannot be used: this version reads no configuration file; start it without --config",
            config.display()
        );
    }
    let root = &args.root;
    std::fs::create_dir_all(root)
        .with_context(|| format!("cannot make the directory {}", root.display()))?;
    let root = root.canonicalize()?;
    let dir = global.cache_dir.clone().unwrap_or_else(|| root.join("cache"));
    let cache = Cache::open(&dir)
        .with_context(|| format!("cannot use the cache directory {}", dir.display()))?;
    let options = OpenOptions {
        plain_http: global.plain_http,
        platform: global.platform.clone().unwrap_or_else(Platform::host),
        manifests: Some(cache.manifests()),
        ..OpenOptions::default()
    };
    let opener = LayerOpener { cache, allow_unverified: global.allow_unverified };
    let lazy = LazyLayers::new(opener, options);
    let snapshotter = Snapshotter::open(&root, lazy, mount::in_user_namespace())
        .with_context(|| format!("cannot keep snapshots in {}", root.display()))?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let end = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
    };
    serve(Arc::new(snapshotter), &args.address, end).await
}
