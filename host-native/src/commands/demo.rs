//! `lazystar demo`: the whole job on one machine, beside the same work by a full pull.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use humansize::{BINARY, format_size};
use lazystar_core::Digest;
use serde::Serialize;

use super::{open_tree, runtime};
use crate::cli::{DemoArgs, EngineKind, Global};
use crate::demo::registry::{Registry, RegistryOptions, Served};
use crate::demo::sample::{self, Sample};
use crate::image::{Image, OpenOptions};
use crate::mount;
use crate::pack::{self, ImageConfig, LayerBlob, PackOptions, Packed};
use crate::reference::ImageRef;
use crate::temporary::TemporaryDir;

const TAG: &str = "latest";

/// What one way of getting at the image cost.
#[derive(Serialize)]
struct Figures {
    /// Seconds until the file system is there.
    ready: f64,
    /// Seconds until the workload is done.
    done: f64,
    requests: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Report {
    files: usize,
    content: u64,
    blob: u64,
    latency_ms: u64,
    bandwidth_mbit: u64,
    mount: String,
    workload_files: usize,
    workload_bytes: u64,
    lazy: Figures,
    full_pull: Figures,
}

pub(super) fn run(args: &DemoArgs) -> Result<()> {
    let dir = TemporaryDir::new(&std::env::temp_dir().join("lazystar-demo"))?;
    let say = |text: String| {
        if !args.json {
            println!("{text}");
        }
    };
    let (sample, packed) = pack_sample(&dir)?;
    say(format!(
        "sample    {} files of this machine, {}, packed as eStargz into {}",
        sample.files.len(),
        format_size(sample.bytes, BINARY),
        format_size(packed.summary.blob_size, BINARY)
    ));

    let runtime = runtime()?;
    let registry = runtime.block_on(Registry::start(RegistryOptions {
        layout: dir.path().join("layout"),
        latency: Duration::from_millis(args.latency),
        bandwidth: Some(args.bandwidth * 1_000_000 / 8),
    }))?;
    let reference: ImageRef = registry.reference(TAG).parse()?;
    say(format!(
        "registry  {reference}, {} ms round trip, {} Mbit/s",
        args.latency, args.bandwidth
    ));

    let (mount, lazy) = run_lazily(&runtime, &registry, &reference, &sample, &dir)?;
    say(format!("mount     {mount}"));
    let full_pull = run_pulled(&runtime, &registry, &reference, &sample, &dir)?;
    runtime.block_on(registry.stop());
    runtime.shutdown_background();

    let report = Report {
        files: sample.files.len(),
        content: sample.bytes,
        blob: packed.summary.blob_size,
        latency_ms: args.latency,
        bandwidth_mbit: args.bandwidth,
        mount,
        workload_files: sample.workload.len(),
        workload_bytes: sample.workload_bytes(),
        lazy,
        full_pull,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    Ok(())
}

fn pack_sample(dir: &TemporaryDir) -> Result<(Sample, Packed)> {
    let tar = dir.path().join("sample.tar");
    let sample = Sample::gather(BufWriter::new(File::create(&tar)?))
        .context("cannot gather a sample of this machine's files")?;
    let blob = dir.path().join("layer");
    let reader = BufReader::with_capacity(1 << 20, File::open(&tar)?);
    let packed =
        pack::pack_tar(reader, &PackOptions::default(), BufWriter::new(File::create(&blob)?))?;
    let layer = LayerBlob { path: &blob, summary: &packed.summary };
    pack::write_oci_layout(&dir.path().join("layout"), &[layer], &ImageConfig::default(), TAG)?;
    fs::remove_file(&tar)?;
    Ok((sample, packed))
}

/// Mounts the image, or opens it where that is not allowed, and runs the workload.
fn run_lazily(
    runtime: &tokio::runtime::Runtime,
    registry: &Registry,
    reference: &ImageRef,
    sample: &Sample,
    dir: &TemporaryDir,
) -> Result<(String, Figures)> {
    let global = Global {
        plain_http: true,
        config: None,
        platform: None,
        cache_dir: Some(dir.path().join("cache")),
        cache_limit: None,
        allow_unverified: false,
        engine: EngineKind::Native,
        log_level: None,
    };
    registry.reset();
    let start = Instant::now();
    let (tree, layers) = runtime.block_on(open_tree(&global, reference))?;
    let at = dir.path().join("mounted");
    fs::create_dir(&at)?;
    let mounted = mount::mount(layers.clone(), &at, None);
    let ready = start.elapsed();
    let how = match mounted {
        Ok(mounted) => {
            let unmounter = mounted.unmounter();
            let read = sample.run(|path| Ok(fs::read(at.join(path))?));
            let done = start.elapsed();
            unmounter.unmount()?;
            mounted.wait()?;
            read?;
            (
                if rustix::process::geteuid().is_root() {
                    "FUSE and mount(2)"
                } else {
                    "fusermount3"
                }
                .to_owned(),
                done,
            )
        }
        Err(error) => {
            let read = |path: &str| {
                let node = tree.resolve(path.as_bytes(), true)?;
                let layer = &layers[node.layer as usize];
                let flat = layer.toc().flat_range(node.node);
                let mut bytes = vec![0; usize::try_from(flat.end - flat.start)?];
                runtime.block_on(layer.read(flat.start, &mut bytes))?;
                Ok(bytes)
            };
            sample.run(read)?;
            (format!("none, files are read without: {error:#}"), start.elapsed())
        }
    };
    Ok((how.0, Figures::new(ready, how.1, registry.served())))
}

/// Downloads and unpacks the image, then runs the workload.
fn run_pulled(
    runtime: &tokio::runtime::Runtime,
    registry: &Registry,
    reference: &ImageRef,
    sample: &Sample,
    dir: &TemporaryDir,
) -> Result<Figures> {
    registry.reset();
    let start = Instant::now();
    let blob = runtime.block_on(async {
        let options = OpenOptions { plain_http: true, ..OpenOptions::default() };
        let image = Image::open(reference, &options).await?;
        let Some(layer) = image.layers.first() else { bail!("the sample has no layer") };
        let blob = layer.blob.fetch_all(0..layer.descriptor.size).await?;
        ensure!(Digest::of(&blob) == layer.descriptor.digest, "the blob is not what was packed");
        Ok(blob)
    })?;
    let at = dir.path().join("pulled");
    sample::unpack(&blob, &at)?;
    let ready = start.elapsed();
    sample.run(|path| Ok(fs::read(at.join(path))?))?;
    Ok(Figures::new(ready, start.elapsed(), registry.served()))
}

impl Figures {
    fn new(ready: Duration, done: Duration, served: Served) -> Self {
        Self {
            ready: ready.as_secs_f64(),
            done: done.as_secs_f64(),
            requests: served.requests,
            bytes: served.bytes,
        }
    }
}

impl Report {
    fn print(&self) {
        let Self { lazy, full_pull, .. } = self;
        println!(
            "workload  {} files, {}, every byte compared with the original\n",
            self.workload_files,
            format_size(self.workload_bytes, BINARY)
        );
        println!("{:<22}{:>12}{:>12}{:>10}", "", "lazystar", "full pull", "ratio");
        let line = |what: &str, lazy: String, full: String, ratio: f64| {
            println!("{what:<22}{lazy:>12}{full:>12}{ratio:>10.3}");
        };
        let seconds = |value: f64| format!("{value:.3} s");
        let size = |bytes: u64| format_size(bytes, BINARY);
        line(
            "file system ready",
            seconds(lazy.ready),
            seconds(full_pull.ready),
            lazy.ready / full_pull.ready,
        );
        line(
            "workload done",
            seconds(lazy.done),
            seconds(full_pull.done),
            lazy.done / full_pull.done,
        );
        let ratio = |one: u64, other: u64| one as f64 / other.max(1) as f64;
        line(
            "bytes fetched",
            size(lazy.bytes),
            size(full_pull.bytes),
            ratio(lazy.bytes, full_pull.bytes),
        );
        println!("{:<22}{:>12}{:>12}", "requests", lazy.requests, full_pull.requests);
    }
}
