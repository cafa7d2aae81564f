//! Node with the component in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

fn here() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/wasm"))
}

/// The component as JavaScript.
pub(crate) struct Engine {
    directory: TempDir,
    /// What the component imports.
    pub(crate) imports: Value,
}

/// The engine, or why there is none.
fn engine() -> &'static Result<Engine, String> {
    static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let component = here().join("../../host-wasm/dist/engine.wasm");
        if !component.exists() {
            return Err("the component is not built (host-wasm/build)".to_owned());
        }
        if !here().join("node_modules").exists() {
            return Err("jco is not installed (npm ci --prefix tests/wasm)".to_owned());
        }
        if Command::new("node").arg("--version").output().is_err() {
            return Err("node is not installed".to_owned());
        }
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("package.json"), r#"{ "type": "module" }"#).unwrap();
        let mut command = Command::new("node");
        command.arg(here().join("transpile.mjs")).arg(component).arg(directory.path());
        let imports = parse(command.output().unwrap());
        Ok(Engine { directory, imports })
    })
}

/// The engine; says why a test is skipped when there is none.
pub(crate) fn engine_for(test: &str) -> Option<&'static Engine> {
    engine().as_ref().map_err(|reason| println!("SKIP {test}: {reason}")).ok()
}

impl Engine {
    /// Runs a scenario of `run.mjs`.
    pub(crate) fn run(&self, scenario: &str, job: &Value) -> Value {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), job.to_string()).unwrap();
        let engine: PathBuf = self.directory.path().join("engine.js");
        let mut command = Command::new("node");
        command.arg(here().join("run.mjs")).arg(engine).arg(scenario).arg(file.path());
        parse(command.output().unwrap())
    }
}

fn parse(output: Output) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stdout)))
}
