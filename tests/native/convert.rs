//! Converting images: what comes out, what is not done twice, and what is never done by halves.

mod archives;
mod bad_layers;
mod formats;
mod hostile;
mod packing;
mod platforms;
mod progress;
mod registries;
mod round_trips;
mod verifying;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::ProgressBar;
use lazystar::cache::Cache;
use lazystar::convert::{ConvertError, ConvertOptions, Outcome, Report, convert};
use lazystar::image::{Image, OpenOptions};
use lazystar::keychain::Keychain;
use lazystar::oci::Descriptor;
use lazystar::open::LayerOpener;
use lazystar::pack::layout::Layout;
use lazystar::reference::ImageRef;
use lazystar::verify::{Verified, verify_layer};
use lazystar_core::Digest;
use lazystar_core::image::Image as Tree;
use lazystar_core::tar::{Kind, encode_header, padding};
use lazystar_core::write::{Format, Options};
use lazystar_tests::layers::{Item, dir, file, gzip, hardlink, noise, special, symlink};
use serde_json::{Value, json};

const OCI: &str = "application/vnd.oci.image";

/// The tar of `items`, its end included.
fn tar(items: &[Item]) -> Vec<u8> {
    let mut tar = Vec::new();
    for item in items {
        tar.extend(encode_header(&item.entry).unwrap());
        tar.extend(&item.data);
        tar.resize(tar.len() + padding(item.data.len() as u64), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// Layers of every kind of entry, one compressed in each way.
fn layers() -> Vec<(Vec<u8>, &'static str, Vec<u8>)> {
    let long = format!("{}/{}", "d".repeat(150), "n".repeat(150));
    let lowest = tar(&[
        dir("./").mode(0o755),
        dir("bin/").mode(0o1777).owner(50, 100).mtime(1_700_000_000),
        hardlink("early", "bin/tool"),
        file("bin/tool", noise(10_000, 1)).mode(0o4755).xattr("user.x", b"\xff\0"),
        hardlink("alias", "bin/tool"),
        symlink("bin/link", "../../x"),
        file("empty", b""),
        special("dev/null", Kind::CharDevice, (1, 3)),
        special("dev/disk", Kind::BlockDevice, (259, 300_000)),
        special("pipe", Kind::Fifo, (0, 0)),
        file(&long, b"long"),
        file("caf\u{e9}", b"not ASCII"),
        file("nines", "9".repeat(70_000)),
    ]);
    let middle = tar(&[
        file("a", b"one"),
        file("bin/.wh.tool", b""),
        file("a", b"the later one"),
        file(".prefetch.landmark", b"\x0f"),
        file("../up", b"escaped"),
    ]);
    let top = tar(&[dir("/opt/"), file("/opt/e", noise(40_000, 2)), file("x/../y", b"y")]);
    let zstd = zstd::bulk::compress(&top, 3).unwrap();
    let gz = [gzip(&middle[..700]), gzip(&middle[700..])].concat();
    vec![(lowest.clone(), "tar", lowest), (gz, "tar+gzip", middle), (zstd, "tar+zstd", top)]
}

/// Writes an image to a layout; everything in it has a field that nobody knows.
fn write_image(dir: &Path, layers: &[(Vec<u8>, &str, Vec<u8>)]) -> ImageRef {
    let layout = Layout::create(dir).unwrap();
    let config = json!({
        "architecture": "amd64", "os": "linux", "x-config": [1, null],
        "config": { "Cmd": ["/bin/tool"], "x-inner": "kept" },
        "history": [{ "created_by": "somebody" }],
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|it| Digest::of(&it.2).to_string()).collect::<Vec<_>>(),
        },
    })
    .to_string();
    let blob = |bytes: &[u8], media_type: String, extra: Value| {
        let digest = layout.put(bytes).unwrap().to_string();
        let mut descriptor =
            json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        descriptor["x-descriptor"] = extra;
        descriptor
    };
    let layers = layers
        .iter()
        .enumerate()
        .map(|(at, (bytes, kind, _))| blob(bytes, format!("{OCI}.layer.v1.{kind}"), at.into()));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": format!("{OCI}.manifest.v1+json"),
        "layers": layers.collect::<Vec<_>>(),
        "config": blob(config.as_bytes(), format!("{OCI}.config.v1+json"), "c".into()),
        "annotations": { "org.example": "kept" }, "x-manifest": { "a": 1.5 },
    })
    .to_string();
    layout.put(manifest.as_bytes()).unwrap();
    let descriptor = Descriptor::of(&format!("{OCI}.manifest.v1+json"), manifest.as_bytes());
    layout.tag(descriptor, "image").unwrap();
    layout_ref(dir, "image")
}

fn layout_ref(dir: &Path, tag: &str) -> ImageRef {
    ImageRef::OciLayout { dir: dir.to_owned(), tag: Some(tag.to_owned()) }
}

fn open() -> OpenOptions {
    OpenOptions {
        client: super::client(Keychain::Anonymous),
        platform: "linux/amd64".parse().unwrap(),
        ..OpenOptions::default()
    }
}

fn options(format: Format) -> ConvertOptions {
    let mut layer = Options::default();
    (layer.format, layer.chunk_size) = (format, 20_000);
    ConvertOptions { layer, ..ConvertOptions::default() }
}

async fn to(
    from: &ImageRef,
    to: &ImageRef,
    options: &ConvertOptions,
) -> Result<Report, ConvertError> {
    convert(from, to, &open(), options).await
}

/// What the files at `paths` hold, read lazily.
async fn contents(image: &ImageRef, paths: &[&str]) -> Vec<Vec<u8>> {
    let cache = tempfile::tempdir().unwrap();
    let image = Arc::new(Image::open(image, &open()).await.unwrap());
    let opener = LayerOpener { cache: Cache::open(cache.path()).unwrap(), allow_unverified: false };
    let layers = opener.open_all(&image).await;
    let layers: Vec<_> = layers.into_iter().map(Result::unwrap).collect();
    let tree = Tree::new(layers.iter().map(|layer| Arc::clone(layer.toc())).collect());
    let mut contents = Vec::new();
    for path in paths {
        let at = tree.resolve(path.as_bytes(), false).unwrap();
        let layer = &layers[at.layer as usize];
        let flat = layer.toc().flat_range(at.node);
        let mut bytes = vec![0; usize::try_from(flat.end - flat.start).unwrap()];
        layer.read(flat.start, &mut bytes).await.unwrap();
        contents.push(bytes);
    }
    contents
}

/// Checks all layers; what is wrong with them.
async fn verify(image: &ImageRef) -> Vec<Verified> {
    let image = Arc::new(Image::open(image, &open()).await.unwrap());
    let (config, _) = image.config().await.unwrap();
    let mut verified = Vec::new();
    for (at, diff_id) in config.rootfs.diff_ids.into_iter().enumerate() {
        let layer = verify_layer(&image, at, Some(diff_id), false, ProgressBar::hidden());
        verified.push(layer.await.unwrap());
    }
    verified
}

fn lies(verified: &[Verified]) -> Vec<&str> {
    verified.iter().flat_map(|layer| &layer.lies).map(String::as_str).collect()
}

/// Files of a layout that nothing of it names.
fn partial_files(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join("blobs/sha256")).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| file.to_string_lossy().contains("partial")).collect()
}

fn outcomes(report: &Report) -> Vec<Outcome> {
    report.images.iter().flat_map(|image| &image.layers).map(|layer| layer.outcome).collect()
}
