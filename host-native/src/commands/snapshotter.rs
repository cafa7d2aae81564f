//! `lazystar snapshotter`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::{cache_limit, open_cache, open_options};
use crate::cache::Cache;
use crate::cli::{Global, SnapshotterArgs};
use crate::config::{Config, Loaded, Verification};
use crate::image::OpenOptions;
use crate::keychain::{CriCredentials, Keychain};
use crate::open::LayerOpener;
use crate::snapshotter::cri::ImageProxy;
use crate::snapshotter::lazy::LazyLayers;
use crate::snapshotter::lookup::Lookup;
use crate::snapshotter::mount_process::client::{CHILD, Launch};
use crate::snapshotter::mount_process::layers::ImageLayers;
use crate::snapshotter::mount_process::{self, server};
use crate::snapshotter::snapshots::Snapshotter;
use crate::snapshotter::{End, serve, serve_images};
use crate::systemd::{self, Inherited};
use crate::{metrics, mount};

pub(super) async fn run(global: &Global, args: &SnapshotterArgs) -> Result<()> {
    let Loaded { config, notes } = Config::load(global.config.as_deref())?;
    let root = &args.root;
    fs::create_dir_all(root)
        .with_context(|| format!("cannot make the directory {}", root.display()))?;
    let root = root.canonicalize()?;
    // By both processes: what is wrong with it, the daemon says.
    let dir = global.cache_dir.clone().unwrap_or_else(|| root.join("cache"));
    let cache = open_cache(&dir, cache_limit(global, &config))?;
    let keychain = Keychain::of_snapshotter(&root, config.pull_secrets.keychains());
    let options = open_options(global, &config, keychain, &cache);
    if std::env::var_os(CHILD).is_some() {
        mount_layers(global, &root, &config, cache, options).await
    } else {
        notes.iter().for_each(|note| tracing::info!("configuration, {note}"));
        daemon(args, &root, &config, options).await
    }
}

/// The mount process.
async fn mount_layers(
    global: &Global,
    root: &Path,
    config: &Config,
    cache: Cache,
    options: OpenOptions,
) -> Result<()> {
    // A process that goes on with fewer threads is worse than one that is replaced at once.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
    let device = server::inherited_device()?;
    let allow_unverified = global.allow_unverified || config.verification != Verification::Required;
    let layers = ImageLayers::new(LayerOpener { cache, allow_unverified }, options, config);
    let socket = mount_process::socket(root);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        served = server::serve(device, &socket, layers) => served,
        _ = terminate.recv() => Ok(()),
    }
}

async fn daemon(
    args: &SnapshotterArgs,
    root: &Path,
    config: &Config,
    options: OpenOptions,
) -> Result<()> {
    let launch = Launch {
        program: std::env::current_exe().context("cannot find this program")?,
        args: std::env::args_os().collect(),
    };
    let Inherited { listener, device } = systemd::inherited()?;
    let lazy = LazyLayers::new(root, launch, device);
    let snapshotter = Snapshotter::open(root, lazy, mount::in_user_namespace())
        .with_context(|| format!("cannot keep snapshots in {}", root.display()))?;
    let snapshotter = snapshotter.with_lookup(lookup(args, config, options)?);
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
    let images = image_proxy(args, root, config)?;
    let snapshotter = Arc::new(snapshotter);
    serve_figures(&snapshotter, config);
    serve(snapshotter, images, listener, &args.address, end).await
}

/// Metrics and variables, where the configuration wants them. They are no reason not to start.
fn serve_figures(snapshotter: &Arc<Snapshotter>, config: &Config) {
    let of = Arc::clone(snapshotter);
    let render = move || {
        let snapshotter = Arc::clone(&of);
        async move { snapshotter.metrics().await }
    };
    let unserved = |served: Result<()>| {
        served.err().into_iter().for_each(|error| tracing::error!("{error:#}"));
    };
    if let Some(address) = config.metrics_address.clone() {
        let render = render.clone();
        tokio::spawn(async move { unserved(metrics::serve(&address, render).await) });
    }
    if let Some(socket) = config.debug_address.clone() {
        tokio::spawn(async move { unserved(metrics::serve_debug(&socket, render).await) });
    }
}

fn lookup(args: &SnapshotterArgs, config: &Config, options: OpenOptions) -> Result<Option<Lookup>> {
    if args.no_lookup || !config.lookup.enabled {
        return Ok(None);
    }
    let containerd = args.containerd.as_ref().unwrap_or(&config.lookup.containerd_address);
    // Whoever configures mirrors of a registry says its port.
    let configured = config.registry.hosts.mirrors.keys().filter(|host| host.contains(':'));
    let registries: Vec<_> = args.registry.iter().chain(configured).cloned().collect();
    Lookup::new(containerd, &registries, options).map(Some)
}

/// CRI's image service, for the snapshotter's own socket; for another it is served from here.
fn image_proxy(args: &SnapshotterArgs, root: &Path, config: &Config) -> Result<Option<ImageProxy>> {
    let (behind, listen) = match (&args.image_service, &config.cri_keychain) {
        (Some(behind), _) => (behind, &args.image_service_listen),
        (None, Some(keychain)) => (&keychain.image_service_path, &keychain.listen_path),
        (None, None) => return Ok(None),
    };
    let credentials = CriCredentials::open(CriCredentials::file(root));
    let images = ImageProxy::new(behind, credentials)?;
    let Some(address) = listen.clone() else { return Ok(Some(images)) };
    tokio::spawn(async move {
        if let Err(error) = serve_images(images, &address).await {
            tracing::error!("{error:#}");
        }
    });
    Ok(None)
}
