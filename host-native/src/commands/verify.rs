//! `lazystar verify`.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures_util::stream::{self, StreamExt};
use serde::Serialize;

use super::{check_platform, source_options};
use crate::cli::Global;
use crate::image::{Image, OpenOptions, Source};
use crate::oci::{Document, Platform};
use crate::progress::bar;
use crate::reference::ImageRef;
use crate::verify::{Verified, verify_layer};

/// Layers that are read at the same time.
const LAYERS_AT_ONCE: usize = 2;

/// `lazystar verify`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// The image
    pub image: ImageRef,
    /// Check all platforms of the image
    #[arg(long, conflicts_with = "platform")]
    pub all_platforms: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    image: String,
    platforms: Vec<PlatformReport>,
    lie_count: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlatformReport {
    platform: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    layers: Vec<Verified>,
}

pub(super) async fn run(global: &Global, args: &VerifyArgs) -> Result<()> {
    let options = source_options(global)?;
    let mut platforms = Vec::new();
    for platform in chosen(args, &options).await? {
        let options = OpenOptions { platform, ..options.clone() };
        let image = Image::open(&args.image, &options).await;
        let image = Arc::new(image.with_context(|| format!("cannot open {}", args.image))?);
        if args.all_platforms || global.platform.is_some() {
            check_platform(&image, &options.platform).await?;
        }
        platforms.push(of_platform(&image, &options.platform, global.allow_unverified).await?);
    }
    let layers = platforms.iter().flat_map(|platform| &platform.layers);
    let lie_count = layers.map(|layer| layer.lie_count).sum();
    let report = Report { image: args.image.to_string(), platforms, lie_count };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    match lie_count {
        0 => Ok(()),
        1 => bail!("{} is not what it says: one thing is wrong", args.image),
        count => bail!("{} is not what it says: {count} things are wrong", args.image),
    }
}

/// The platforms to check.
async fn chosen(args: &VerifyArgs, options: &OpenOptions) -> Result<Vec<Platform>> {
    if !args.all_platforms {
        return Ok(vec![options.platform.clone()]);
    }
    let source = Source::open(&args.image, options).await;
    let source = source.with_context(|| format!("cannot open {}", args.image))?;
    Ok(match Document::parse(&source.bytes, &source.top.media_type)? {
        Document::Index(index) => index
            .manifests
            .into_iter()
            .filter_map(|entry| entry.platform)
            // What says something about an image is of no platform.
            .filter(|platform| platform.os != "unknown")
            .collect(),
        Document::Manifest(_) => vec![options.platform.clone()],
    })
}

async fn of_platform(
    image: &Arc<Image>,
    platform: &Platform,
    ordinary: bool,
) -> Result<PlatformReport> {
    let (config, _) = image.config().await?;
    let diff_ids = config.rootfs.diff_ids;
    let total = image.layers.iter().map(|layer| layer.descriptor.size).sum();
    let bar = bar("{bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta} left", total, "");
    let layers = (0..image.layers.len())
        .map(|at| verify_layer(image, at, diff_ids.get(at).copied(), ordinary, bar.clone()));
    let layers: Vec<_> = stream::iter(layers).buffered(LAYERS_AT_ONCE).collect().await;
    bar.finish_and_clear();
    let mut checked = Vec::new();
    for (at, layer) in layers.into_iter().enumerate() {
        let digest = image.layers[at].descriptor.digest;
        let number = at + 1;
        checked.push(layer.with_context(|| format!("cannot read layer {number} ({digest})"))?);
    }
    Ok(PlatformReport {
        platform: platform.to_string(),
        digest: image.manifest_digest.map(|digest| digest.to_string()),
        layers: checked,
    })
}

fn print(report: &Report) {
    println!("{}", report.image);
    for platform in &report.platforms {
        if let Some(digest) = &platform.digest {
            println!("{}  {digest}", platform.platform);
        }
        for layer in &platform.layers {
            let Verified { digest, format, entries, chunks, lies, lie_count } = layer;
            let verdict = if *lie_count == 0 { "right" } else { "WRONG" };
            println!("  {digest}  {format}, {entries} entries, {chunks} chunks: {verdict}");
            for lie in lies {
                println!("    {lie}");
            }
            if *lie_count > lies.len() {
                println!("    and {} more", lie_count - lies.len());
            }
        }
    }
}
