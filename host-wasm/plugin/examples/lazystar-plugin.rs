//! Looks into images through the sandbox: what a runtime that embeds the engine does, with the native host's
//! registries, OCI layouts and files behind it.
//!
//! ```text
//! cargo run --package lazystar-plugin --example lazystar-plugin -- ls IMAGE /etc
//! ```

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::{Parser, Subcommand};
use lazystar::image::{Image as Source, OpenOptions};
use lazystar::reference::ImageRef;
use lazystar::sandbox;
use lazystar_plugin::types::EntryKind;
use lazystar_plugin::{Engine, Image, Limits, Trust, write_tar};

/// Looks into images, with the engine in a sandbox.
#[derive(Parser)]
#[command(name = "lazystar-plugin")]
struct Cli {
    /// The component
    #[arg(long, default_value = "host-wasm/dist/engine.wasm")]
    component: PathBuf,
    /// Keep what the component compiles to in this directory
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Talk to registries without TLS
    #[arg(long)]
    plain_http: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List a directory
    Ls {
        image: ImageRef,
        #[arg(default_value = "/")]
        path: String,
    },
    /// Write files to standard output
    Cat { image: ImageRef, paths: Vec<String> },
    /// Write a directory to standard output, as a tar
    Tar {
        image: ImageRef,
        #[arg(default_value = "/")]
        path: String,
    },
    /// Check every chunk of an image
    Verify { image: ImageRef },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let (Command::Ls { image, .. }
    | Command::Cat { image, .. }
    | Command::Tar { image, .. }
    | Command::Verify { image }) = &cli.command;

    // What fetches: the native host.
    let runtime = tokio::runtime::Runtime::new()?;
    let options = OpenOptions { plain_http: cli.plain_http, ..OpenOptions::default() };
    let source = Arc::new(runtime.block_on(Source::open(image, &options))?);
    let least = match image {
        ImageRef::File(_) => Trust::Consistent,
        _ => Trust::Verified,
    };

    // What reads: the component. It sees descriptors and bytes, and can reach nothing.
    let engine = Engine::from_file(&cli.component, &Limits::default(), cli.cache.as_deref())?;
    let layers = sandbox::layers(&source, runtime.handle());
    let image = Image::of_layers(engine.sandbox()?, layers, least)?;

    let mut out = BufWriter::new(io::stdout().lock());
    match &cli.command {
        Command::Ls { path, .. } => {
            for entry in image.children(&image.lookup(path, true)?)? {
                let is_directory = matches!(entry.target.entry.kind, EntryKind::Directory);
                writeln!(out, "{}{}", entry.name, if is_directory { "/" } else { "" })?;
            }
        }
        Command::Cat { paths, .. } => {
            let files: Result<Vec<_>, _> = paths.iter().map(|it| image.lookup(it, true)).collect();
            image.read(&files?, |_, bytes| Ok(out.write_all(bytes)?))?;
        }
        Command::Tar { path, .. } => write_tar(&image, &image.lookup(path, true)?, path, &mut out)?,
        Command::Verify { .. } => {
            let found = image.verify()?;
            writeln!(out, "{} files, {} bytes: all as digested", found.files, found.bytes)?;
        }
    }
    Ok(out.flush()?)
}
