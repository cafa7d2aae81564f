//! The `lazystar` binary.

use std::process::ExitCode;

use clap::Parser;
use lazystar::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse_from(lazystar::cli::translated(std::env::args_os()));
    match lazystar::commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lazystar: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.into_iter().any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
