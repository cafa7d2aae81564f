//! `lazystar record`.

use anyhow::{Context, Result, bail};
use lazystar_core::Digest;

use super::optimize::write_record;
use super::{cache, configured, open_image, with_spinner};
use crate::cli::{Global, RecordArgs};
use crate::reference::ImageRef;
use crate::snapshotter::mount_process::client;
use crate::trace::Trace;

pub(super) async fn run(global: &Global, args: &RecordArgs) -> Result<()> {
    let (name, root) = (&args.image, args.root.display());
    let config = configured(global)?;
    let cache = cache(global, &config)?;
    let image = ImageRef::Registry(args.image.clone());
    let opened = open_image(global, &config, &cache, &image);
    let image = with_spinner(format!("opening {name}"), opened).await?;
    let count = image.layers.len();
    let mut layers = Vec::with_capacity(count);
    let mut unknown = Vec::new();
    for (at, layer) in image.layers.iter().enumerate() {
        let shown = client::reads(&args.root, layer.descriptor.digest).await;
        let shown = shown.with_context(|| {
            format!("no snapshotter serves layers in {root}; start it, or name another --root")
        })?;
        if shown.is_empty() {
            unknown.push((at + 1).to_string());
        }
        layers.push(shown.into_iter().flatten().collect());
    }
    if unknown.len() == count {
        bail!(
            "the snapshotter in {root} has no layer of {name}, so nothing is known of what is read of it; `lazystar explain {name}` says more"
        );
    }
    if !unknown.is_empty() {
        let unknown = unknown.join(", ");
        tracing::warn!("of {count} layers not lazy, with nothing known of what is read: {unknown}");
    }
    let manifest = image.manifest_digest.unwrap_or_else(|| Digest::of(b""));
    // A layer that is there several times, on different ones, may have been read in each place.
    let trace = Trace::merge([Trace::of(manifest, layers)]);
    if trace.accesses.is_empty() {
        tracing::warn!("no container has read a file of {name} yet");
    }
    match &args.output {
        Some(path) => write_record(path, &trace),
        None => {
            print!("{}", trace.to_text()?);
            Ok(())
        }
    }
}
