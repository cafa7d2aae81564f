//! Tells the program which revision it is built from, and its builder what has to be built before.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// Where the page of the explorer is when it was built.
const PAGE: &str = "../host-wasm/dist/explorer";

/// The files below `dir`, where there is one.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Writes a list of the page's files, which is empty while there is no page.
fn embed_page() -> io::Result<()> {
    // Cargo builds anew each time what depends on something that is not there.
    let watched = Path::new(PAGE).ancestors().find(|dir| dir.is_dir());
    println!(
        "cargo::rerun-if-changed={}",
        watched.unwrap_or_else(|| Path::new("build.rs")).display()
    );
    let mut list = "static FILES: &[(&str, &[u8])] = &[\n".to_owned();
    if Path::new(PAGE).is_dir() {
        let root = fs::canonicalize(PAGE)?;
        for file in files(&root)? {
            let name = file.strip_prefix(&root).map_err(io::Error::other)?;
            let _ = writeln!(list, "    ({name:?}, include_bytes!({file:?})),");
        }
    }
    list.push_str("];\n");
    let out = std::env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    fs::write(Path::new(&out).join("explorer_page.rs"), list)
}

fn main() {
    if let Err(error) = embed_page() {
        println!("cargo::error=cannot embed the explorer's page from {PAGE}: {error}");
    }
    println!("cargo::rerun-if-env-changed=LAZYSTAR_REVISION");
    // What HEAD says, and what the branch that it names says.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD".to_owned()].into_iter().chain(branch) {
        if let Some(path) = git(&["rev-parse", "--git-path", &name]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let given = std::env::var("LAZYSTAR_REVISION").ok().filter(|it| !it.is_empty());
    let revision = given.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!("cargo::rustc-env=LAZYSTAR_REVISION={}", revision.as_deref().unwrap_or("unknown"));
    if std::env::var_os("CARGO_FEATURE_WASM_ENGINE").is_some() {
        let component = "../host-wasm/dist/engine.wasm";
        println!("cargo::rerun-if-changed={component}");
        if !Path::new(component).is_file() {
            println!(
                "cargo::error=the feature wasm-engine needs the component: run host-wasm/build first"
            );
        }
    }
}
