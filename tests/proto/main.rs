//! The checked-in code for containerd's API is what its definitions give.

use std::fs;
use std::path::Path;

/// The definitions, in `host-native/proto/`, and the module made of each package.
const DEFINITIONS: [&str; 7] = [
    "types.proto",
    "snapshots.proto",
    "content.proto",
    "images.proto",
    "leases.proto",
    "diff.proto",
    "cri.proto",
];

#[test]
fn generated_code_is_current() {
    let native = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host-native");
    let proto = native.join("proto");
    let descriptors =
        protox::compile(DEFINITIONS, [&proto]).expect("the definitions are well-formed");
    let fresh = tempfile::tempdir().expect("a directory");
    tonic_prost_build::configure()
        // The one with passwords in it.
        .skip_debug(["runtime.v1.AuthConfig"])
        .out_dir(fresh.path())
        .compile_fds(descriptors)
        .expect("code can be made of the definitions");
    let kept = native.join("src/proto");
    let mut stale = Vec::new();
    for file in fs::read_dir(fresh.path()).expect("it was just made") {
        let file = file.expect("it was just made");
        let wanted = fs::read_to_string(file.path()).expect("code is text");
        let path = kept.join(file.file_name());
        if fs::read_to_string(&path).is_ok_and(|is| is == wanted) {
            continue;
        }
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, wanted).expect("the checkout can be written");
        } else {
            stale.push(path);
        }
    }
    assert!(stale.is_empty(), "stale, run this test with UPDATE=1: {stale:?}");
}
