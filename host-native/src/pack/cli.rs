//! `lazystar pack`.

use std::fs::{self, File};
use std::io::{self, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use humansize::{BINARY, format_size};
use indicatif::{ProgressBar, ProgressStyle};
use lazystar_core::write::{Format, Options};
use serde_json::json;

use super::{
    Glob, ImageConfig, LayerBlob, PackOptions, Packed, Wanted, pack_directory, pack_tar,
    write_oci_layout,
};

/// `lazystar pack`.
#[derive(Args, Debug)]
pub struct PackArgs {
    /// A directory, a tar file (plain, gzip or zstd), or - for a tar on standard input
    pub path: PathBuf,
    /// Write the layer to this file
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The format of the layer
    #[arg(long, value_enum, default_value_t)]
    pub format: PackFormat,
    /// Bytes of a file in one chunk, the unit of fetching and verification
    #[arg(long, value_name = "BYTES", default_value_t = lazystar_core::write::DEFAULT_CHUNK_SIZE)]
    pub chunk_size: u32,
    /// Put small files together until this many compressed bytes; 0 keeps each on its own
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub min_chunk_size: u32,
    /// Compression level: 0 to 12 for gzip [default: 6], 1 to 22 for zstd [default: 3]
    #[arg(long)]
    pub level: Option<i32>,
    /// Put this path, or what matches this pattern, first, to be fetched ahead; may be repeated
    #[arg(long, value_name = "PATH", value_parser = Wanted::parse)]
    pub prioritized: Vec<Wanted>,
    /// Leave out what matches this pattern, as `*.pyc` or /var/cache/**; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<Glob>,
    /// Give everything to this owner and group
    #[arg(long, value_name = "UID:GID", value_parser = owner)]
    pub owner: Option<(u32, u32)>,
    /// Give everything this time, in seconds since 1970 [default: its own, but none later than
    /// SOURCE_DATE_EPOCH of the environment]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub mtime: Option<i64>,
    /// Make an image of the layer too, in this OCI layout directory
    #[arg(long, value_name = "DIR", requires = "tag")]
    pub oci_layout: Option<PathBuf>,
    /// The tag of that image
    #[arg(long, requires = "oci_layout")]
    pub tag: Option<String>,
    /// Print a report as JSON
    #[arg(long)]
    pub json: bool,
}

/// The formats that can be written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum PackFormat {
    /// eStargz
    #[default]
    Estargz,
    /// Legacy stargz, which nobody can verify
    Stargz,
    /// zstd:chunked, as stargz-snapshotter writes it
    ZstdChunked,
}

/// Runs the command.
///
/// # Errors
/// When the input cannot be packed or the output not written.
pub fn run(args: &PackArgs) -> Result<()> {
    let partial = partial_path(&args.output)?;
    let packed = pack_to(args, &partial);
    let packed = packed.inspect_err(|_| {
        // What is there of it is of no use, and the error matters more.
        let _ = fs::remove_file(&partial);
    })?;
    fs::rename(&partial, &args.output)
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    let image = match (&args.oci_layout, &args.tag) {
        (Some(dir), Some(tag)) => {
            let layer = LayerBlob { path: &args.output, summary: &packed.summary };
            Some(write_oci_layout(dir, &[layer], &ImageConfig::default(), tag)?)
        }
        _ => None,
    };
    let summary = &packed.summary;
    let toc_digest = summary.toc_digest.map(|digest| digest.to_string());
    if args.json {
        let report = json!({
            "digest": summary.blob_digest.to_string(),
            "size": summary.blob_size,
            "diffId": summary.diff_id.to_string(),
            "uncompressedSize": summary.uncompressed_size,
            "tocDigest": toc_digest,
            "annotations": summary.annotations().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "manifestDigest": image.map(|digest| digest.to_string()),
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        let sizes = (
            format_size(summary.blob_size, BINARY),
            format_size(summary.uncompressed_size, BINARY),
        );
        println!("layer    {}", summary.blob_digest);
        println!("size     {} of {}", sizes.0, sizes.1);
        println!("diff ID  {}", summary.diff_id);
        println!("TOC      {}", toc_digest.as_deref().unwrap_or("without a digest"));
        if let Some(digest) = image {
            println!("image    {digest}");
        }
    }
    Ok(())
}

fn owner(text: &str) -> Result<(u32, u32), String> {
    let numbers =
        text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    numbers.ok_or_else(|| "write two numbers, as 0:0".to_owned())
}

/// What `SOURCE_DATE_EPOCH` says, if anything.
fn epoch() -> Result<Option<i64>> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let Some(text) = std::env::var_os(NAME).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let seconds = text.to_str().and_then(|text| text.parse().ok());
    seconds.map(Some).with_context(|| format!("{NAME} is {text:?}, which is no number of seconds"))
}

fn partial_path(output: &Path) -> Result<PathBuf> {
    let Some(name) = output.file_name() else {
        bail!("{} is not a file name", output.display());
    };
    let mut partial = name.to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    Ok(output.with_file_name(partial))
}

fn pack_to(args: &PackArgs, partial: &Path) -> Result<Packed> {
    let layer = Options {
        format: match args.format {
            PackFormat::Estargz => Format::Estargz,
            PackFormat::Stargz => Format::LegacyStargz,
            PackFormat::ZstdChunked => Format::ZstdChunked,
        },
        chunk_size: args.chunk_size,
        min_chunk_size: args.min_chunk_size,
        ..Options::default()
    };
    let options = PackOptions {
        layer,
        level: args.level,
        prioritised: args.prioritized.clone(),
        excluded: args.exclude.clone(),
        owner: args.owner,
        mtime: args.mtime,
        mtime_limit: epoch()?,
        spool_dir: args.output.parent().filter(|dir| !dir.as_os_str().is_empty()).map(Into::into),
        ..PackOptions::default()
    };
    let out =
        File::create(partial).with_context(|| format!("cannot write {}", args.output.display()))?;
    let bar = progress();
    let out = bar.wrap_write(io::BufWriter::new(out));
    let name = args.path.display();
    let packed = if args.path.as_os_str() == "-" {
        pack_tar(io::stdin().lock(), &options, out)
    } else if args.path.is_dir() {
        pack_directory(&args.path, &options, out)
    } else {
        let tar = File::open(&args.path).with_context(|| format!("cannot read {name}"))?;
        let reader: Box<dyn Read> = Box::new(BufReader::with_capacity(1 << 20, tar));
        pack_tar(reader, &options, out)
    };
    bar.finish_and_clear();
    packed.with_context(|| format!("cannot pack {name}"))
}

fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{spinner} {binary_bytes} written, {binary_bytes_per_sec}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
