//! The packages for Node and Python, installed from their archives, read an image in a registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use lazystar_core::Digest;
use lazystar_core::write::Format;
use lazystar_tests::fault_registry::{Fault, FaultRegistry};
use lazystar_tests::scratch::scratch;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::layers::{Packed, pack, pack_upper};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What every package prints of the images `good` and `bad`.
fn expected() -> Value {
    json!({
        "names": ["dir", "hard", "link"],
        "replaced": "replaced",
        "digest": Digest::of(&content("dir/file-700001")).to_string(),
        "part": Digest::of(&content("dir/file-300000")[99_990..100_010]).to_string(),
        "link": "dir/file-1",
        "found": ["/dir/file-700001"],
        "removed": 1201 + 1,
        "waste": "/many/0049",
        "missing": "NotFound",
        "directory": "WrongKind",
        "altered": "DigestMismatch",
        "ordinary": "NotLazy",
    })
}

fn content(name: &str) -> Vec<u8> {
    crate::layers::files().into_iter().find(|(it, _)| it == name).unwrap().1
}

/// A registry with the image `good`, one `bad` whose blob is not what its table of contents says, and
/// one `ordinary`.
fn registry(runtime: &Runtime) -> FaultRegistry {
    let registry = runtime.block_on(FaultRegistry::start(Fault::BearerAnonymous)).unwrap();
    let layers = [pack(Format::Estargz, 0), pack_upper(Format::ZstdChunked)];
    let descriptor = |layer: &Packed, blob: &[u8]| {
        let annotations: serde_json::Map<_, _> =
            layer.summary.annotations().into_iter().map(|(key, it)| (key, it.into())).collect();
        let digest = registry.add_blob(blob.to_vec().into());
        json!({ "mediaType": "", "digest": digest.to_string(), "size": blob.len(), "annotations": annotations })
    };
    let config =
        json!({ "mediaType": "", "digest": registry.add_blob("{}".into()).to_string(), "size": 2 });
    let add = |tag: &str, layers: Vec<Value>| {
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        let bytes = manifest.to_string();
        let digest = registry.add_manifest(tag, MANIFEST, bytes.clone().into());
        json!({ "mediaType": MANIFEST, "digest": digest.to_string(), "size": bytes.len(),
                "platform": { "os": "linux", "architecture": "amd64" } })
    };
    let good = add("unused", layers.iter().map(|it| descriptor(it, &it.blob)).collect());
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [good] });
    registry.add_manifest("good", INDEX, index.to_string().into());
    let mut altered = layers[0].blob.clone();
    let needle = &content("dir/file-300000")[1000..1032];
    let at = altered.windows(32).position(|window| window == needle).unwrap();
    altered[at] ^= 1;
    add("bad", vec![descriptor(&layers[0], &altered)]);
    add(
        "ordinary",
        vec![
            json!({ "mediaType": "", "digest": registry.add_blob(vec![7; 500].into()).to_string(), "size": 500 }),
        ],
    );
    registry
}

/// The archive of a package, or why there is none.
fn archive(ending: &str) -> Result<PathBuf, String> {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host-wasm/dist");
    let files = fs::read_dir(dist).into_iter().flatten().filter_map(Result::ok).map(|it| it.path());
    let found = files.into_iter().find(|path| path.to_string_lossy().ends_with(ending));
    found.ok_or_else(|| format!("no package ends in {ending} (host-wasm/packages)"))
}

/// Runs what a package's script makes of the registry, and compares.
fn check(program: &mut Command) {
    let runtime = Runtime::new().unwrap();
    let registry = registry(&runtime);
    let output = program.arg(format!("http://{}", registry.address())).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found, expected());
}

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("wasm").join(file)
}

#[test]
fn the_package_for_node_reads_an_image() {
    let test = "the_package_for_node_reads_an_image";
    let archive = match archive(".tgz") {
        Ok(archive) => archive,
        Err(reason) => return println!("SKIP {test}: {reason}"),
    };
    let directory = tempfile::tempdir().unwrap();
    // What `npm install ARCHIVE` does; the package needs no other.
    let modules = directory.path().join("node_modules/lazystar");
    fs::create_dir_all(&modules).unwrap();
    let mut unpack = Command::new("tar");
    unpack.args(["--strip-components=1", "-xzf"]).arg(archive).arg("-C").arg(&modules);
    assert!(unpack.status().unwrap().success());
    let script = directory.path().join("package.mjs");
    fs::copy(here("package.mjs"), &script).unwrap();
    check(Command::new("node").arg(script));
}

#[test]
fn the_package_for_python_reads_an_image() {
    let test = "the_package_for_python_reads_an_image";
    match python() {
        Ok(python) => check(Command::new(python.join("bin/python")).arg(here("package.py"))),
        Err(reason) => println!("SKIP {test}: {reason}"),
    }
}

/// A Python that has the package and wasmtime, or why there is none.
pub(crate) fn python() -> &'static Result<PathBuf, String> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let archive = archive(".whl")?;
        let directory = scratch(env!("CARGO_TARGET_TMPDIR"), "python").unwrap();
        let run = |program: &Path, arguments: &[&str]| {
            let output = Command::new(program)
                .args(arguments)
                .arg(if arguments[0] == "-m" { &directory } else { &archive })
                .output();
            match output {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(String::from_utf8_lossy(&output.stderr)
                    .lines()
                    .last()
                    .unwrap_or("it failed")
                    .to_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
        run(Path::new("python3"), &["-m", "venv"])
            .map_err(|why| format!("no python3 with venv: {why}"))?;
        let pip = directory.join("bin/pip");
        run(&pip, &["install", "--quiet"])
            .map_err(|why| format!("pip cannot install wasmtime: {why}"))?;
        Ok(directory)
    })
}
