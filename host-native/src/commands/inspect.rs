//! `lazystar inspect` and `toc-digest`.

use std::path::Path;

use anyhow::{Result, bail};
use humansize::{BINARY, format_size};
use lazystar_core::toc::Landmark;
use serde::Serialize;

use super::Opened;
use crate::cli::Global;
use crate::driver::LazyLayer;
use crate::image::ImageLayer;
use crate::open::LayerError;
use crate::reference::ImageRef;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    platform: String,
    pub(super) layers: Vec<LayerReport>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LayerReport {
    pub(super) digest: String,
    media_type: String,
    /// Compressed bytes.
    size: u64,
    lazy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(flatten)]
    toc: Option<TocReport>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TocReport {
    format: &'static str,
    assurance: &'static str,
    toc_digest: String,
    /// Files, directories and other objects.
    nodes: u32,
    /// Bytes of all files.
    content: u64,
    chunks: usize,
    /// The largest chunk.
    chunk_size: u32,
    landmark: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefetch: Option<u64>,
}

pub(super) async fn inspect(global: &Global, image: &ImageRef, json: bool) -> Result<()> {
    let report = Report::of(global, image).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    Ok(())
}

pub(super) async fn toc_digest(global: &Global, blob: &Path) -> Result<()> {
    let image = ImageRef::File(blob.to_owned());
    let global = Global { allow_unverified: true, ..global.clone() };
    match Opened::new(&global, &image).await?.lazy()?.as_slice() {
        [layer] => println!("{}", layer.toc().digest()),
        _ => bail!("{} is not one layer", blob.display()),
    }
    Ok(())
}

impl LayerReport {
    fn new(layer: &ImageLayer, result: Result<&LazyLayer, &LayerError>) -> Self {
        Self {
            digest: layer.descriptor.digest.to_string(),
            media_type: layer.descriptor.media_type.clone(),
            size: layer.descriptor.size,
            lazy: result.is_ok(),
            reason: result.as_ref().err().map(ToString::to_string),
            toc: result.ok().map(TocReport::new),
        }
    }
}

impl TocReport {
    fn new(layer: &LazyLayer) -> Self {
        let toc = layer.toc();
        let real = || toc.chunks().iter().filter(|chunk| !chunk.is_hole());
        let (landmark, prefetch) = match toc.landmark() {
            Landmark::None => ("none", None),
            Landmark::NoPrefetch => ("no-prefetch", None),
            Landmark::Prefetch(end) => ("prefetch", Some(end)),
        };
        Self {
            format: toc.format().name(),
            assurance: toc.assurance().name(),
            toc_digest: toc.digest().to_string(),
            nodes: toc.node_count(),
            content: toc.chunks().iter().map(|chunk| u64::from(chunk.len)).sum(),
            chunks: real().count(),
            chunk_size: real().map(|chunk| chunk.len).max().unwrap_or(0),
            landmark,
            prefetch,
        }
    }
}

impl Report {
    pub(super) async fn of(global: &Global, image: &ImageRef) -> Result<Self> {
        let opened = Opened::new(global, image).await?;
        let (config, _) = opened.image.config().await?;
        let layers = opened.image.layers.iter().zip(&opened.layers);
        Ok(Self {
            image: image.to_string(),
            digest: opened.image.manifest_digest.map(|digest| digest.to_string()),
            platform: format!("{}/{}", config.os, config.architecture),
            layers: layers
                .map(|(layer, result)| LayerReport::new(layer, result.as_deref()))
                .collect(),
        })
    }

    fn print(&self) {
        println!("image     {}", self.image);
        if let Some(digest) = &self.digest {
            println!("digest    {digest}");
        }
        println!("platform  {}", self.platform);
        for (at, layer) in self.layers.iter().enumerate() {
            println!("\nlayer {}   {}", at + 1, layer.digest);
            println!("  type      {}", layer.media_type);
            println!("  size      {}", format_size(layer.size, BINARY));
            match (&layer.toc, &layer.reason) {
                (Some(toc), _) => toc.print(),
                (None, reason) => println!("  lazy      no: {}", reason.as_deref().unwrap_or("?")),
            }
        }
    }
}

impl TocReport {
    fn print(&self) {
        println!("  lazy      yes: {}, {}", self.format, self.assurance);
        println!("  TOC       {}", self.toc_digest);
        println!("  content   {} in {} objects", format_size(self.content, BINARY), self.nodes);
        let largest = format_size(self.chunk_size, BINARY);
        println!("  chunks    {}, the largest {largest}", self.chunks);
        match self.prefetch {
            Some(end) => println!("  landmark  prefetch, {} of content", format_size(end, BINARY)),
            None => println!("  landmark  {}", self.landmark),
        }
    }
}
