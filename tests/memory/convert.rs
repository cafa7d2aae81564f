//! Writing layers: a conversion takes as much for a large layer as for a small one, but for its TOC.
//!
//! A conversion has threads, and other tests run beside it: so the test starts itself once more, for one layer.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail its test")]

use std::env;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

use lazystar::convert::{ConvertOptions, convert};
use lazystar::image::OpenOptions;
use lazystar::oci::Descriptor;
use lazystar::pack::layout::Layout;
use lazystar::reference::ImageRef;
use lazystar_core::Digest;
use lazystar_core::digest::Hasher;
use lazystar_core::tar::encode_header;
use lazystar_core::write::{Format, Writer};
use lazystar_tests::layers::{compressor, file, noise, options};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{ALL_PEAK, MIB, measure};

/// Says to the test that was started once more how many files its layer has.
const FILES: &str = "LAZYSTAR_TEST_FILES";
const FILE: usize = 3 << 20;

#[test]
fn a_larger_layer_takes_no_more_memory_to_convert() {
    if let Ok(files) = env::var(FILES) {
        return convert_a_layer(files.parse().unwrap());
    }
    let peak = |files: usize| -> isize {
        let mut again = Command::new(env::current_exe().unwrap());
        let name = "convert::a_larger_layer_takes_no_more_memory_to_convert";
        again.args(["--exact", name, "--nocapture"]).env(FILES, files.to_string());
        let output = again.output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{printed}");
        let (_, rest) = printed.split_once("peak: ").unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (small, large) = (peak(16), peak(40));
    println!("{} KiB for 48 MiB, {} KiB for 120 MiB", small / 1024, large / 1024);
    assert!(small < 100 * MIB, "{small} bytes");
    // How far the threads are ahead of each other differs from run to run.
    assert!(
        large - small < 24 * MIB,
        "{small} bytes for less than half of the layer, {large} for all of it"
    );
}

/// Converts a layer of so many files, and prints the most that all threads had allocated.
fn convert_a_layer(files: usize) {
    let work = TempDir::new().unwrap();
    let at = |name: &str| work.path().join(name);
    write_image(&at("source"), files);
    let reference = |name| ImageRef::OciLayout { dir: at(name), tag: Some("it".to_owned()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let how = ConvertOptions { force: true, ..ConvertOptions::default() };
    let (source, target, open) = (reference("source"), reference("target"), OpenOptions::default());
    let report = runtime.block_on(convert(&source, &target, &open, &how)).unwrap();
    assert!(report.images[0].layers[0].size > (files * FILE / 2) as u64);
    println!("peak: {} bytes", ALL_PEAK.load(Ordering::Relaxed));
}

/// An image whose layer is a plain tar, written without having it in memory.
fn write_image(dir: &Path, files: usize) {
    let layout = Layout::create(dir).unwrap();
    let part = noise(1 << 16, 1);
    let path = dir.join("layer");
    let mut tar = BufWriter::new(File::create(&path).unwrap());
    let mut hasher = Hasher::new();
    let mut size = 0;
    let mut write = |bytes: &[u8]| {
        tar.write_all(bytes).unwrap();
        hasher.update(bytes);
        size += bytes.len() as u64;
    };
    for number in 0..files {
        let mut entry = file(&format!("f{number}"), "").entry;
        entry.size = FILE as u64;
        write(&encode_header(&entry).unwrap());
        (0..FILE / part.len()).for_each(|_| write(&part));
    }
    write(&[0; 1024]);
    drop(tar);
    let layer = hasher.finish();
    std::fs::rename(path, layout.blob(layer)).unwrap();
    let descriptor = |kind: &str, digest: Digest, size: u64| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest.to_string(), "size": size });
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [layer.to_string()] },
    });
    let put = |value: &Value, kind: &str| {
        let bytes = value.to_string();
        descriptor(kind, layout.put(bytes.as_bytes()).unwrap(), bytes.len() as u64)
    };
    let manifest = json!({
        "schemaVersion": 2, "config": put(&config, "config.v1+json"),
        "layers": [descriptor("layer.v1.tar", layer, size)],
    });
    put(&manifest, "manifest.v1+json");
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    layout.tag(Descriptor::of(media_type, manifest.to_string().as_bytes()), "it").unwrap();
}

/// Until the TOC is compressed it is JSON, once, beside what the JSON is made of.
#[test]
fn the_end_of_a_layer_of_50_000_files_takes_the_toc_but_once() {
    const FILES: usize = 50_000;
    for format in [Format::Estargz, Format::ZstdChunked] {
        let mut writer = Writer::new(options(format, 0, 0), compressor(format)).unwrap();
        for number in 0..FILES {
            let item = file(&format!("usr/share/directory/file-{number}"), "x");
            writer.append(item.entry.clone(), &encode_header(&item.entry).unwrap()).unwrap();
            writer.data(&item.data).unwrap();
            drop(writer.take_output());
        }
        let (_, peak, _) = measure(|| writer.finish().unwrap());
        let toc = writer.toc_json().len() as isize;
        println!("{format:?}: TOC {toc} bytes, {peak} more at the end");
        // What grows has twice what it needs at most, and the compressed form is a fifth.
        assert!(toc > 10 * MIB && peak < toc * 5 / 2, "{toc} {peak}");
    }
}
