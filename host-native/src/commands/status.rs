//! `lazystar status` and `explain`.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use humansize::{BINARY, format_size};
use serde::Serialize;

use super::inspect::{LayerReport, Report};
use crate::cli::Global;
use crate::reference::ImageRef;
use crate::snapshotter::control::{self, LayerStatus, NotLazy, Status};

pub(super) async fn status(root: &Path, json: bool) -> Result<()> {
    let status = control::ask(root).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print(&status);
    }
    Ok(())
}

/// What is known of a layer from its image, and from the snapshotter.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    #[serde(flatten)]
    layer: LayerReport,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mounted: Vec<LayerStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_lazy: Vec<NotLazy>,
}

pub(super) async fn explain(
    global: &Global,
    image: &ImageRef,
    root: &Path,
    json: bool,
) -> Result<()> {
    let report = Report::of(global, image).await?;
    let asked = control::ask(root).await;
    let explained: Vec<_> = report
        .layers
        .into_iter()
        .map(|layer| Explanation::new(layer, asked.as_ref().ok()))
        .collect();
    if json {
        println!("{}", serde_json::to_string_pretty(&explained)?);
        return Ok(());
    }
    println!("image     {}", report.image);
    for (at, layer) in explained.iter().enumerate() {
        layer.print(at + 1, asked.is_ok());
    }
    if let Err(error) = asked {
        println!("\n{error:#}");
    }
    Ok(())
}

impl Explanation {
    fn new(layer: LayerReport, status: Option<&Status>) -> Self {
        let is_it = |digest: lazystar_core::Digest| digest.to_string() == layer.digest;
        let mounted = status.into_iter().flat_map(|it| &it.layers);
        let mounted = mounted.filter(|it| is_it(it.layer)).cloned().collect();
        let not_lazy = status.into_iter().flat_map(|it| &it.not_lazy);
        let not_lazy = not_lazy
            .filter(|it| it.source.as_ref().is_some_and(|source| is_it(source.layer)))
            .cloned()
            .collect();
        Self { layer, mounted, not_lazy }
    }

    fn print(&self, number: usize, asked: bool) {
        println!("\nlayer {number}   {}", self.layer.digest);
        match &self.layer.reason {
            None => println!("  lazy      it can be"),
            Some(reason) => println!("  lazy      it cannot be: {reason}"),
        }
        for it in &self.mounted {
            println!("  mounted   as snapshot {}, {}", it.snapshot, cached(it));
        }
        for it in &self.not_lazy {
            println!("  not lazy  as snapshot {}, {}: {}", it.snapshot, ago(it.at), it.reason);
        }
        if asked && self.mounted.is_empty() && self.not_lazy.is_empty() {
            println!("  mounted   no; no client asked the snapshotter for it");
        }
    }
}

fn print(status: &Status) {
    println!(
        "snapshotter {}, process {}: {} snapshots, {} of them lazy",
        status.version,
        status.pid,
        status.snapshots,
        status.layers.len()
    );
    for layer in &status.layers {
        let digest = layer.layer.to_string();
        println!("\n{}  {}", layer.image, &digest[..digest.len().min(19)]);
        println!("  snapshot  {}", layer.snapshot);
        println!(
            "  {}",
            if layer.mounted { "mounted" } else { "not mounted: see `lazystar explain`" }
        );
        println!(
            "  content   {} in {} entries, {}",
            size(layer.size),
            layer.entries,
            cached(layer)
        );
    }
    if !status.not_lazy.is_empty() {
        println!("\nnot lazy:");
    }
    for it in &status.not_lazy {
        let name = it.source.as_ref().map_or(&it.snapshot, |source| &source.image);
        println!("  {name}, {}: {}", ago(it.at), it.reason);
    }
}

fn cached(layer: &LayerStatus) -> String {
    let share = layer.cached.saturating_mul(100) / layer.size.max(1);
    format!("{} cached ({} %)", size(layer.cached), share.min(100))
}

fn size(bytes: u64) -> String {
    format_size(bytes, BINARY)
}

fn ago(nanos: u64) -> String {
    let then = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
    let passed = SystemTime::now().duration_since(then).unwrap_or_default().as_secs();
    match passed {
        0..60 => format!("{passed} s ago"),
        60..3600 => format!("{} min ago", passed / 60),
        3600..86400 => format!("{} h ago", passed / 3600),
        _ => format!("{} days ago", passed / 86400),
    }
}
