//! What the commands do.

mod buildkitd;
pub mod convert;
mod demo;
mod doctor;
pub mod explore;
mod inspect;
mod look;
mod mount;
pub mod optimize;
mod pull;
mod record;
mod snapshotter;
mod status;
pub mod verify;

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use indicatif::ProgressBar;
use lazystar_core::Digest;
use lazystar_core::footer::FooterError;
use lazystar_core::image::Image as ImageTree;
use lazystar_core::open::OpenError;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::EnvFilter;

use crate::cache::{Cache, Quota};
use crate::cli::{Cli, Command, EngineKind, Global};
use crate::config::Config;
use crate::driver::LazyLayer;
use crate::image::{Image, OpenOptions};
use crate::keychain::Keychain;
use crate::oci::Platform;
use crate::open::{LayerError, LayerOpener, Layers};
use crate::reference::ImageRef;
use crate::registry::{Client, ClientOptions};

/// Runs a command line.
///
/// # Errors
/// When the command fails; the error is one sentence for its user.
pub fn run(cli: Cli) -> Result<()> {
    start_log(&cli)?;
    let global = &cli.global;
    check_engine(&cli)?;
    match &cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Snapshotter(args) => block_on(snapshotter::run(global, args)),
        Command::Doctor(args) => block_on(doctor::run(global, args)),
        Command::Buildkitd(args) => block_on(buildkitd::run(global, args)),
        Command::Pull(args) => block_on(pull::pull(global, args)),
        Command::Fetch(args) => block_on(pull::fetch(global, args)),
        Command::Status { root, json } => block_on(status::status(root, *json)),
        Command::Explain { image, root, json } => {
            block_on(status::explain(global, image, root, *json))
        }
        Command::Record(args) => block_on(record::run(global, args)),
        Command::Convert(args) => block_on(convert::run(global, args)),
        Command::Optimize(args) => block_on(optimize::run(global, args)),
        Command::Verify(args) => block_on(verify::run(global, args)),
        Command::Pack(args) => crate::pack::cli::run(args),
        Command::Mount(args) => mount::run(global, args),
        Command::Umount { dir } => crate::mount::unmount_dir(dir),
        Command::Ls(args) => block_on(look::ls(global, args)),
        Command::Cat { image, paths } => block_on(look::cat(global, image, paths)),
        Command::Stat { image, paths, json } => block_on(look::stat(global, image, paths, *json)),
        Command::Tree { image, path, depth, json } => {
            block_on(look::tree(global, image, path, *depth, *json))
        }
        Command::Explore(args) => block_on(explore::run(global, args)),
        Command::Inspect { image, json } => block_on(inspect::inspect(global, image, *json)),

        Command::TocDigest { blob } => block_on(inspect::toc_digest(global, blob)),
    }
}

fn check_engine(cli: &Cli) -> Result<()> {
    use Command::{Cat, Ls, Mount, Stat, Tree};
    match (&cli.global.engine, &cli.command) {
        (EngineKind::Native, _) => Ok(()),
        (EngineKind::Wasm, Cat { .. } | Ls(_) | Mount(_) | Stat { .. } | Tree { .. }) => Ok(()),
        (EngineKind::Wasm, _) => bail!("--engine wasm is for mount, ls, cat, stat and tree"),
    }
}

fn start_log(cli: &Cli) -> Result<()> {
    let is_daemon = matches!(cli.command, Command::Snapshotter(_));
    let usual = if is_daemon { LevelFilter::INFO } else { LevelFilter::WARN };
    // `RUST_LOG` wins, for what a level alone cannot say.
    let level = cli.global.log_level.unwrap_or(usual);
    let level = EnvFilter::new(format!("error,lazystar={level}"));
    let filter = EnvFilter::try_from_default_env().unwrap_or(level);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let log = log.with_target(false);
    // Scripts look for fields of the daemon's log at the top of each object.
    let started =
        if is_daemon { log.json().flatten_event(true).try_init() } else { log.try_init() };
    started.map_err(|error| anyhow!("cannot start the log: {error}"))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")
}

fn block_on(command: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = runtime()?;
    let result = runtime.block_on(command);
    // Fetches ahead that are still under way are for nobody now.
    runtime.shutdown_background();
    result
}

/// An image for one platform alone has no list to choose from: it is of the platform asked for or
/// it is not.
async fn check_platform(image: &Image, platform: &Platform) -> Result<()> {
    let (config, _) = image.config().await?;
    let known = !config.os.is_empty();
    if known && (config.os != platform.os || config.architecture != platform.architecture) {
        let (os, architecture) = (&config.os, &config.architecture);
        bail!("{} is for {os}/{architecture} alone, not for {platform}", image.reference);
    }
    Ok(())
}

/// Waits for `work`, saying so on a terminal when it takes longer than a second.
async fn with_spinner<T>(what: String, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Ok(result) = tokio::time::timeout(Duration::from_secs(1), &mut work).await {
        return result;
    }
    // Draws nothing where standard error is no terminal.
    let spinner = ProgressBar::new_spinner().with_message(what);
    spinner.enable_steady_tick(Duration::from_millis(100));
    let result = work.await;
    spinner.finish_and_clear();
    result
}

/// What `--config` says; without it nothing is configured.
fn configured(global: &Global) -> Result<Config> {
    let file = global.config.as_deref();
    file.map_or_else(|| Ok(Config::default()), |file| Ok(Config::load(Some(file))?.config))
}

/// What everybody's keychain is: what `docker login` stored, then what the configuration names.
fn usual_keychain(config: &Config) -> Keychain {
    let others = config.pull_secrets.keychains();
    Keychain::Several([Keychain::default()].into_iter().chain(others).collect())
}

fn open_options(
    global: &Global,
    config: &Config,
    keychain: Keychain,
    cache: &Cache,
) -> OpenOptions {
    OpenOptions {
        client: Client::new(ClientOptions {
            spool: Some(cache.spool()),
            ..config.client_options(keychain)
        }),
        plain_http: global.plain_http,
        platform: global.platform.clone().unwrap_or_else(Platform::host),
        manifests: Some(cache.manifests()),
        layer: None,
    }
}

fn cache_dir(global: &Global) -> PathBuf {
    global.cache_dir.clone().unwrap_or_else(Cache::default_dir)
}

/// The most that the cache may take, in bytes.
fn cache_limit(global: &Global, config: &Config) -> Option<u64> {
    global.cache_limit.map(|limit| limit.as_u64()).or(config.cache_limit)
}

fn cache(global: &Global, config: &Config) -> Result<Cache> {
    open_cache(&cache_dir(global), cache_limit(global, config))
}

/// The least that holds what is read at once, and ahead, in bytes.
const MIN_CACHE: u64 = 64_000_000;

fn open_cache(dir: &Path, limit: Option<u64>) -> Result<Cache> {
    if let Some(limit) = limit.filter(|limit| *limit < MIN_CACHE) {
        bail!("a cache limit of {limit} bytes does not hold what is read at once; 64MB does");
    }
    let quota = limit.map(Quota::new);
    Cache::limited(dir, quota).with_context(|| {
        format!(
            "cannot use the cache directory {} (choose another with --cache-dir)",
            dir.display()
        )
    })
}

/// How images are opened, by commands that keep no content of them.
fn source_options(global: &Global) -> Result<OpenOptions> {
    let config = configured(global)?;
    let cache = cache(global, &config)?;
    Ok(open_options(global, &config, usual_keychain(&config), &cache))
}

/// An image that is for the platform asked for.
async fn open_image(
    global: &Global,
    config: &Config,
    cache: &Cache,
    reference: &ImageRef,
) -> Result<Arc<Image>> {
    let options = open_options(global, config, usual_keychain(config), cache);
    let image = Image::open(reference, &options).await;
    let image = Arc::new(image.with_context(|| format!("cannot open {reference}"))?);
    if let Some(platform) = &global.platform {
        check_platform(&image, platform).await?;
    }
    Ok(image)
}

/// An image whose layers are read in a sandbox.
#[cfg(feature = "wasm-engine")]
async fn open_sandboxed(
    global: &Global,
    reference: &ImageRef,
) -> Result<crate::sandbox::SandboxedImage> {
    let config = configured(global)?;
    let cache = cache(global, &config)?;
    let compiled = cache_dir(global).join("engine");
    let opened = async {
        let image = open_image(global, &config, &cache, reference).await?;
        crate::sandbox::open(&image, &compiled, global.allow_unverified).await
    };
    with_spinner(format!("opening {reference}"), opened).await
}

/// An image and what became of opening its layers.
struct Opened {
    image: Arc<Image>,
    layers: Layers,
}

impl Opened {
    async fn new(global: &Global, reference: &ImageRef) -> Result<Self> {
        let config = configured(global)?;
        let cache = cache(global, &config)?;
        let opened = async {
            let image = open_image(global, &config, &cache, reference).await?;
            let opener = LayerOpener { cache, allow_unverified: global.allow_unverified };
            let layers = opener.open_all(&image).await;
            Ok(Self { image, layers })
        };
        with_spinner(format!("opening {reference}"), opened).await
    }

    /// The digest of its manifest, which records name an image by; a single layer has none.
    fn manifest_digest(&self) -> Digest {
        self.image.manifest_digest.unwrap_or_else(|| Digest::of(b""))
    }

    /// The layers, when all of them can be read lazily.
    fn lazy(self) -> Result<Vec<Arc<LazyLayer>>> {
        let count = self.layers.len();
        if count == 0 {
            bail!("{} has no layers", self.image.reference);
        }
        let mut lazy = Vec::with_capacity(count);
        for (at, layer) in self.layers.into_iter().enumerate() {
            let digest = self.image.layers[at].descriptor.digest;
            lazy.push(layer.map_err(|error| {
                let hint = match &error {
                    LayerError::Open(OpenError::Footer(FooterError::Absent)) => {
                        "; run the image with an ordinary client, or make its layers lazy with `lazystar pack`"
                    }
                    _ => "",
                };
                anyhow!("layer {} of {count} ({digest}) cannot be read lazily: {error}{hint}", at + 1)
            })?);
        }
        Ok(lazy)
    }
}

/// The merged tree of an image, and its layers.
async fn open_tree(
    global: &Global,
    reference: &ImageRef,
) -> Result<(ImageTree, Vec<Arc<LazyLayer>>)> {
    let layers = Opened::new(global, reference).await?.lazy()?;
    let tree = ImageTree::new(layers.iter().map(|layer| Arc::clone(layer.toc())).collect());
    Ok((tree, layers))
}
