//! `lazystar convert`.

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use humansize::{BINARY, format_size};
use indicatif::MultiProgress;
use lazystar_core::write::{DEFAULT_CHUNK_SIZE, Format, Options};

use super::{cache_dir, source_options};
use crate::cli::Global;
use crate::convert::{self, ConvertOptions, Flavour, Hot, Report};
use crate::pack::Wanted;
use crate::reference::ImageRef;
use crate::trace::Trace;
use crate::workers::Workers;

/// Which layers to write; what `convert` and `optimize` have in common.
#[derive(Args, Clone, Debug)]
pub struct OutputArgs {
    /// The format of the layers
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
    /// Put the tables of contents into an image of their own, named like DST with -esgztoc appended
    #[arg(long)]
    pub external_toc: bool,
    /// Compress anew and change nothing else: DiffIDs and configuration stay what they are
    #[arg(long, requires = "external_toc")]
    pub keep_diff_id: bool,
    /// Write OCI media types [default: those that the image has; OCI for zstd-chunked]
    #[arg(long, conflicts_with = "docker")]
    pub oci: bool,
    /// Write Docker's media types
    #[arg(long)]
    pub docker: bool,
    /// Bytes of a file in one chunk, the unit of fetching and verification
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_CHUNK_SIZE)]
    pub chunk_size: u32,
    /// Put small files together until this many compressed bytes; 0 keeps each on its own
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub min_chunk_size: u32,
    /// Compression level: 0 to 12 for gzip [default: 6], 1 to 22 for zstd [default: 3]
    #[arg(long)]
    pub level: Option<i32>,
    /// Convert all platforms of the image
    #[arg(long, conflicts_with = "platform")]
    pub all_platforms: bool,
    /// Convert layers that are lazy already, and those that were converted before
    #[arg(long)]
    pub force: bool,
    /// Compress with this many threads [default: one a core]; has no influence on the result
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Print a report as JSON
    #[arg(long)]
    pub json: bool,
}

/// The formats of layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// eStargz
    #[default]
    Estargz,
    /// zstd:chunked, as stargz-snapshotter reads it
    ZstdChunked,
    /// Legacy stargz, which nobody can verify
    Stargz,
}

/// What comes first in the layers.
#[derive(Args, Clone, Debug, Default)]
pub struct HotArgs {
    /// Put this path, or what matches this pattern, first in the layers that have it, to be fetched
    /// ahead; may be repeated
    #[arg(long, value_name = "PATH", value_parser = Wanted::parse)]
    pub prioritized: Vec<Wanted>,
    /// The same with what this file lists, one path or pattern a line
    #[arg(long, value_name = "FILE")]
    pub prioritized_list: Vec<PathBuf>,
    /// Put first what these files recorded, of `lazystar optimize`, `lazystar mount --record` or
    /// `ctr-remote`; several are merged
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub from_record: Vec<PathBuf>,
}

/// `lazystar convert`.
#[derive(Args, Debug)]
pub struct ConvertArgs {
    /// The image to convert
    pub source: ImageRef,
    /// Where to write it
    pub destination: ImageRef,
    /// What to write.
    #[command(flatten)]
    pub output: OutputArgs,
    /// What comes first.
    #[command(flatten)]
    pub hot: HotArgs,
}

pub(super) async fn run(global: &Global, args: &ConvertArgs) -> Result<()> {
    let hot = args.hot.read()?;
    convert(global, args, hot).await
}

/// Converts and reports.
pub(super) async fn convert(global: &Global, args: &ConvertArgs, hot: Hot) -> Result<()> {
    let ConvertArgs { source: from, destination: to, output, .. } = args;
    let open = source_options(global)?;
    let options = ConvertOptions {
        layer: output.layer()?,
        level: output.level,
        all_platforms: output.all_platforms,
        flavour: match (output.oci, output.docker) {
            (true, _) => Some(Flavour::Oci),
            (_, true) => Some(Flavour::Docker),
            _ => None,
        },
        force: output.force,
        hot,
        workers: output.threads.map(Workers::new),
        records: Some(cache_dir(global).join("conversions")),
        spool_dir: None,
        progress: MultiProgress::new(),
    };
    let converted = convert::convert(from, to, &open, &options).await;
    let report = converted.with_context(|| format!("cannot convert {from} to {to}"))?;
    if output.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

impl OutputArgs {
    fn layer(&self) -> Result<Options> {
        let format = match (self.format, self.external_toc) {
            (OutputFormat::Estargz, false) => Format::Estargz,
            (OutputFormat::Estargz, true) => Format::EstargzExternalToc,
            (OutputFormat::Stargz, false) => Format::LegacyStargz,
            (OutputFormat::ZstdChunked, false) => Format::ZstdChunked,
            _ => bail!(
                "--external-toc is for --format estargz: the others have their own place for it"
            ),
        };
        Ok(Options {
            format,
            chunk_size: self.chunk_size,
            min_chunk_size: self.min_chunk_size,
            lossless: self.keep_diff_id,
        })
    }
}

impl HotArgs {
    /// What the files say.
    pub(super) fn read(&self) -> Result<Hot> {
        let mut hot = Hot::default();
        let text = |path: &PathBuf| {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let traces = self.from_record.iter().map(|path| {
            let trace = Trace::parse(&text(path)?);
            trace.with_context(|| format!("{} is no file of records", path.display()))
        });
        hot.add_trace(&Trace::merge(traces.collect::<Result<Vec<_>>>()?));
        hot.add_everywhere(self.prioritized.iter().cloned());
        for path in &self.prioritized_list {
            let added = hot.add_list(&text(path)?);
            added.with_context(|| format!("{} is no list of paths", path.display()))?;
        }
        Ok(hot)
    }
}

fn print(report: &Report) {
    println!("{}", report.destination);
    println!("digest    {}", report.digest);
    if let Some(digest) = &report.toc_image {
        println!("TOCs      {digest}");
    }
    let (mut before, mut after) = (0, 0);
    for image in &report.images {
        println!("platform  {}", image.platform);
        for layer in &image.layers {
            before += layer.source_size;
            after += layer.size;
            let sizes = [layer.source_size, layer.size].map(|size| format_size(size, BINARY));
            let what = layer.outcome.name();
            println!("  {}  {:>10} -> {:>10}  {what}", layer.digest, sizes[0], sizes[1]);
            if layer.missing > 0 {
                println!(
                    "    {} of the files that were to come first are not in it",
                    layer.missing
                );
            }
        }
    }
    let sizes = [before, after].map(|size| format_size(size, BINARY));
    println!("layers    {} -> {} in {:.1} s", sizes[0], sizes[1], report.seconds);
}
