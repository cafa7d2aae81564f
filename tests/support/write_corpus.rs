//! Writes the corpus into a directory, for hosts of the engine that are built on their own.

use std::env;
use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    let directory = env::args_os().nth(1).ok_or_else(|| io::Error::other("no directory given"))?;
    lazystar_tests::corpus::write(Path::new(&directory))
}
