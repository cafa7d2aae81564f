//! Node with the component in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use lazystar_tests::scratch::scratch;
use serde_json::Value;

fn here() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/wasm"))
}

/// The component as JavaScript.
pub(crate) struct Engine {
    directory: PathBuf,
    /// What the component imports.
    pub(crate) imports: Value,
}

/// The variants of the component that are built: for every host, and for those with SIMD.
pub(crate) const VARIANTS: [&str; 2] = ["engine", "engine.simd"];

/// A variant of the engine, or why there is none.
fn engine(variant: usize) -> &'static Result<Engine, String> {
    static ENGINES: [OnceLock<Result<Engine, String>>; VARIANTS.len()] =
        [const { OnceLock::new() }; VARIANTS.len()];
    ENGINES[variant].get_or_init(|| {
        let file = format!("../../host-wasm/dist/{}.wasm", VARIANTS[variant]);
        let component = here().join(file);
        if !component.exists() {
            return Err("the component is not built (host-wasm/build)".to_owned());
        }
        if !here().join("node_modules").exists() {
            return Err("jco is not installed (npm ci --prefix tests/wasm)".to_owned());
        }
        if Command::new("node").arg("--version").output().is_err() {
            return Err("node is not installed".to_owned());
        }
        let directory = scratch(env!("CARGO_TARGET_TMPDIR"), VARIANTS[variant]).unwrap();
        fs::write(directory.join("package.json"), r#"{ "type": "module" }"#).unwrap();
        let mut command = Command::new("node");
        command.arg(here().join("transpile.mjs")).arg(component).arg(&directory);
        let imports = parse(command.output().unwrap());
        Ok(Engine { directory, imports })
    })
}

/// The engine; says why a test is skipped when there is none.
pub(crate) fn engine_for(test: &str) -> Option<&'static Engine> {
    variant_for(test, 0)
}

/// As [`engine_for`], one of [`VARIANTS`].
pub(crate) fn variant_for(test: &str, variant: usize) -> Option<&'static Engine> {
    engine(variant).as_ref().map_err(|reason| println!("SKIP {test}: {reason}")).ok()
}

impl Engine {
    /// Runs a scenario of `run.mjs`.
    pub(crate) fn run(&self, scenario: &str, job: &Value) -> Value {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), job.to_string()).unwrap();
        parse(self.node("run.mjs").arg(scenario).arg(file.path()).output().unwrap())
    }

    /// What this host makes of a corpus.
    pub(crate) fn corpus(&self, directory: &Path) -> Value {
        parse(self.node("corpus.mjs").arg(directory).output().unwrap())
    }

    fn node(&self, script: &str) -> Command {
        let mut command = Command::new("node");
        command.arg(here().join(script)).arg(self.directory.join("engine.js"));
        command
    }
}

pub(crate) fn parse(output: Output) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stdout)))
}
