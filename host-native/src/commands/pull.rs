//! `lazystar pull` and `fetch`.

use std::sync::Arc;

use anyhow::{Context, Result};
use humansize::{BINARY, format_size};
use indicatif::ProgressBar;
use serde::Serialize;

use super::{cache, check_platform, configured, open_options, usual_keychain, with_spinner};
use crate::cli::{FetchArgs, Global, PullArgs};
use crate::containerd::Containerd;
use crate::image::Image;
use crate::open::LayerOpener;
use crate::progress::bar;
use crate::pull::fetch::{Fetch, FetchedBlob};
use crate::pull::{Pull, PulledLayer};
use crate::reference::ImageRef;
use crate::registry::Client;

#[derive(Serialize)]
struct Pulled {
    image: String,
    digest: Option<String>,
    namespace: String,
    snapshotter: String,
    layers: Vec<PulledLayer>,
}

#[derive(Serialize)]
struct Fetched {
    image: String,
    namespace: String,
    blobs: Vec<FetchedBlob>,
}

pub(super) async fn pull(global: &Global, args: &PullArgs) -> Result<()> {
    let config = configured(global)?;
    let cache = cache(global, &config)?;
    let containerd = Containerd::new(&args.containerd.address, &args.containerd.namespace)?;
    let options = open_options(global, &config, usual_keychain(&config), &cache);
    let image = ImageRef::Registry(args.image.clone());
    let opened = async {
        let opened = Image::open(&image, &options).await;
        let opened = Arc::new(opened.with_context(|| format!("cannot open {image}"))?);
        check_platform(&opened, &options.platform).await?;
        anyhow::Ok(opened)
    };
    let opened = with_spinner(format!("opening {image}"), opened).await?;
    let pull = Pull {
        containerd,
        snapshotter: args.snapshotter.clone(),
        allow_unverified: global.allow_unverified,
        opener: LayerOpener { cache, allow_unverified: global.allow_unverified },
        progress: progress(&format!("pulling {image}")),
    };
    let layers = pull.run(&args.image, &opened).await;
    pull.progress.finish_and_clear();
    let pulled = Pulled {
        image: args.image.to_string(),
        digest: opened.documents.first().map(|(document, _)| document.digest.to_string()),
        namespace: args.containerd.namespace.clone(),
        snapshotter: args.snapshotter.clone(),
        layers: layers?,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&pulled)?);
    } else {
        pulled.print();
    }
    Ok(())
}

pub(super) async fn fetch(global: &Global, args: &FetchArgs) -> Result<()> {
    let config = configured(global)?;
    let fetch = Fetch {
        containerd: Containerd::new(&args.containerd.address, &args.containerd.namespace)?,
        client: Client::new(config.client_options(usual_keychain(&config))),
        plain_http: global.plain_http,
        progress: progress(&format!("fetching {}", args.image)),
    };
    let blobs = fetch.run(&args.image).await;
    fetch.progress.finish_and_clear();
    let fetched = Fetched {
        image: args.image.to_string(),
        namespace: args.containerd.namespace.clone(),
        blobs: blobs?,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&fetched)?);
        return Ok(());
    }
    let new: Vec<_> = fetched.blobs.iter().filter(|blob| blob.fetched).collect();
    let size = format_size(new.iter().map(|blob| blob.size).sum::<u64>(), BINARY);
    let (new, all) = (new.len(), fetched.blobs.len());
    println!("{}: fetched {new} of {all} blobs, {size}", fetched.image);
    Ok(())
}

impl Pulled {
    fn print(&self) {
        println!("{}", self.image);
        for layer in &self.layers {
            let size = format_size(layer.size, BINARY);
            let what = match (layer.lazy, layer.downloaded) {
                (true, _) => "lazy",
                (false, true) => "downloaded",
                (false, false) => "there",
            };
            let reason = layer.reason.as_ref().map(|reason| format!(": {reason}"));
            println!("  {}  {size:>10}  {what}{}", layer.digest, reason.unwrap_or_default());
        }
    }
}

/// Shows how far downloads are.
fn progress(what: &str) -> ProgressBar {
    bar("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}", 0, what)
}
