//! `lazystar-plugin`: looks into images through the sandboxed component.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lazystar::image::OpenOptions;
use lazystar::reference::ImageRef;
use lazystar_plugin::types::EntryKind;
use lazystar_plugin::{Engine, Error, Image, Limits, Source, Trust, open, write_tar};
use tokio::runtime::Runtime;

/// Looks into lazily readable images with the engine in a sandbox: what a registry sends is parsed,
/// decompressed and verified inside a WebAssembly component that can do nothing else.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    /// The component [default: engine.wasm beside this program, or host-wasm/dist/engine.wasm]
    #[arg(long, global = true, value_name = "FILE")]
    component: Option<PathBuf>,
    /// Keep compiled code here
    #[arg(long, global = true, value_name = "DIR")]
    code_cache: Option<PathBuf>,
    /// Memory for the sandbox, in MiB
    #[arg(long, global = true, value_name = "MIB", default_value_t = 512)]
    memory: usize,
    /// Talk to registries without TLS
    #[arg(long, global = true)]
    plain_http: bool,
    /// Also open layers whose content nothing vouches for
    #[arg(long, global = true)]
    allow_unverified: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List a directory
    Ls {
        /// The image: [HOST/]REPOSITORY[:TAG], oci:DIR[:TAG] or file:BLOB
        image: ImageRef,
        /// A directory in it
        #[arg(default_value = "/")]
        path: String,
    },
    /// Write files to standard output
    Cat {
        /// The image
        image: ImageRef,
        /// Files in it
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Write a directory as a tar to standard output
    Tar {
        /// The image
        image: ImageRef,
        /// A directory in it
        #[arg(default_value = "/")]
        path: String,
    },
    /// Check every chunk of every layer
    Verify {
        /// The image
        image: ImageRef,
    },
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lazystar-plugin: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Error> {
    let limits = Limits { memory: cli.memory << 20, ..Limits::default() };
    let component = cli.component.clone().unwrap_or_else(default_component);
    let engine = Engine::from_file(&component, &limits, cli.code_cache.as_deref())?;
    let (Command::Ls { image, .. }
    | Command::Cat { image, .. }
    | Command::Tar { image, .. }
    | Command::Verify { image }) = &cli.command;
    let options = OpenOptions { plain_http: cli.plain_http, ..OpenOptions::default() };
    let least = if cli.allow_unverified { Trust::Unverified } else { Trust::Verified };
    let runtime = Runtime::new()?;
    let mut image = open(&engine, image, &options, least, runtime.handle())?;
    let mut out = io::BufWriter::new(io::stdout());
    match &cli.command {
        Command::Ls { path, .. } => ls(&mut image, path, &mut out)?,
        Command::Cat { paths, .. } => {
            let files = paths.iter().map(|path| image.lookup(path, true));
            let files = files.collect::<Result<Vec<_>, _>>()?;
            image.read(&files, |_, bytes| Ok(out.write_all(bytes)?))?;
        }
        Command::Tar { path, .. } => {
            let directory = image.lookup(path, true)?;
            write_tar(&mut image, &directory, path, &mut out)?;
        }
        Command::Verify { .. } => {
            let found = image.verify()?;
            let (files, bytes) = (found.files, found.bytes);
            writeln!(out, "{files} files, {bytes} bytes: every chunk is what the image says")?;
        }
    }
    Ok(out.flush()?)
}

fn ls<S: Source>(image: &mut Image<S>, path: &str, out: &mut impl Write) -> Result<(), Error> {
    let found = image.lookup(path, true)?;
    if !matches!(found.entry.kind, EntryKind::Directory) {
        return Ok(writeln!(out, "{path}")?);
    }
    for entry in image.children(&found)? {
        writeln!(out, "{}", entry.name)?;
    }
    Ok(())
}

fn default_component() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name("engine.wasm"));
    let beside = beside.filter(|file| file.exists());
    beside.unwrap_or_else(|| Path::new("host-wasm/dist/engine.wasm").to_owned())
}
