//! `lazystar snapshotter`.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::cache::Cache;
use crate::cli::{Global, SnapshotterArgs};
use crate::image::OpenOptions;
use crate::keychain::{CriCredentials, Keychain};
use crate::mount;
use crate::oci::Platform;
use crate::open::LayerOpener;
use crate::registry::{Client, ClientOptions};
use crate::snapshotter::cri::ImageProxy;
use crate::snapshotter::lazy::LazyLayers;
use crate::snapshotter::lookup::Lookup;
use crate::snapshotter::snapshots::Snapshotter;
use crate::snapshotter::{serve, serve_images};

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
        client: Client::new(ClientOptions {
            keychain: Keychain::of_snapshotter(&root),
            ..ClientOptions::default()
        }),
        plain_http: global.plain_http,
        platform: global.platform.clone().unwrap_or_else(Platform::host),
        manifests: Some(cache.manifests()),
    };
    let lookup = if args.no_lookup {
        None
    } else {
        Some(Lookup::new(&args.containerd, &args.registry, options.clone())?)
    };
    let opener = LayerOpener { cache, allow_unverified: global.allow_unverified };
    let lazy = LazyLayers::new(opener, options);
    let snapshotter = Snapshotter::open(&root, lazy, mount::in_user_namespace())
        .with_context(|| format!("cannot keep snapshots in {}", root.display()))?;
    let snapshotter = snapshotter.with_lookup(lookup);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let end = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
    };
    let images = image_proxy(args, &root)?;
    serve(Arc::new(snapshotter), images, &args.address, end).await
}

/// CRI's image service, for the snapshotter's own socket; for another it is served from here.
fn image_proxy(args: &SnapshotterArgs, root: &Path) -> Result<Option<ImageProxy>> {
    let Some(behind) = &args.image_service else { return Ok(None) };
    let credentials = CriCredentials::open(CriCredentials::file(root));
    let images = ImageProxy::new(behind, credentials)?;
    let Some(address) = args.image_service_listen.clone() else { return Ok(Some(images)) };
    tokio::spawn(async move {
        if let Err(error) = serve_images(images, &address).await {
            tracing::error!("{error:#}");
        }
    });
    Ok(None)
}
