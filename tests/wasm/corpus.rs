//! The corpus ends in every host as it does in core. `host-wasm/plugin/tests` has it for wasmtime.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use lazystar_tests::corpus;
use serde_json::Value;

use crate::node::{VARIANTS, parse, variant_for};
use crate::packages::python;

fn written() -> &'static Path {
    static WRITTEN: OnceLock<PathBuf> = OnceLock::new();
    WRITTEN.get_or_init(|| corpus::written(env!("CARGO_TARGET_TMPDIR")).unwrap())
}

fn check(found: &Value) {
    let file = |name: &str| serde_json::from_slice(&fs::read(written().join(name)).unwrap());
    let (expected, cases) = (file("expected.json").unwrap(), file("cases.json").unwrap());
    if let Err(differences) = corpus::compare(&expected, found, &cases) {
        panic!("{differences}");
    }
}

#[test]
fn the_corpus_ends_in_node_as_in_core() {
    for (variant, name) in VARIANTS.iter().enumerate() {
        let test = format!("the_corpus_ends_in_node_as_in_core ({name})");
        let Some(engine) = variant_for(&test, variant) else { continue };
        check(&engine.corpus(written()));
    }
}

#[test]
fn the_corpus_ends_in_python_as_in_core() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("wasm/corpus.py");
    match python() {
        Ok(python) => {
            let mut command = Command::new(python.join("bin/python"));
            check(&parse(command.arg(script).arg(written()).output().unwrap()));
        }
        Err(reason) => println!("SKIP the_corpus_ends_in_python_as_in_core: {reason}"),
    }
}

#[test]
fn a_host_that_differs_is_found_out() {
    let list = |text: &str| serde_json::json!({ "images": [text], "documents": [] });
    assert!(corpus::compare(&list("a"), &list("a"), &list("case")).is_ok());
    assert!(corpus::compare(&list("a"), &list("b"), &list("case")).is_err());
    let nothing = serde_json::json!({ "images": [], "documents": [] });
    assert!(corpus::compare(&list("a"), &nothing, &list("case")).is_err());
}
