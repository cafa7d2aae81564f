//! Tells the program which revision it is built from, and its builder what has to be built before.

use std::path::Path;
use std::process::Command;

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn main() {
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
