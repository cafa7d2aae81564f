//! Converting images: what comes out, what is not done twice, and what is never done by halves.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::ProgressBar;
use lazystar::convert::{ConvertError, ConvertOptions, Flavour, Outcome, Report, convert};
use lazystar::image::{Image, OpenOptions};
use lazystar::keychain::Keychain;
use lazystar::oci::Descriptor;
use lazystar::pack::layout::Layout;
use lazystar::pack::{PackOptions, Packed, Wanted, pack_directory, pack_tar};
use lazystar::reference::ImageRef;
use lazystar::verify::{Verified, verify_layer};
use lazystar::workers::Workers;
use lazystar_core::Digest;
use lazystar_core::tar::{Kind, encode_header, padding};
use lazystar_core::write::{Format, Options};
use lazystar_tests::layers::{Item, dir, file, gzip, hardlink, noise, special, symlink};
use lazystar_tests::push_registry::{PushFault, PushRegistry};
use serde_json::{Value, json};
use tempfile::TempDir;

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

#[tokio::test(flavor = "multi_thread")]
async fn every_format_holds_what_was_there_and_verifies() {
    let work = TempDir::new().unwrap();
    let source = write_image(&work.path().join("source"), &layers());
    for (format, name) in [
        (Format::Estargz, "estargz"),
        (Format::EstargzExternalToc, "estargz-external-toc"),
        (Format::ZstdChunked, "zstd-chunked"),
    ] {
        for min_chunk_size in [0, 5000] {
            let mut options = options(format);
            options.layer.min_chunk_size = min_chunk_size;
            let target =
                layout_ref(&work.path().join("target"), &format!("{name}-{min_chunk_size}"));
            let report = to(&source, &target, &options).await.unwrap();
            assert_eq!(report.toc_image.is_some(), format == Format::EstargzExternalToc);
            let verified = verify(&target).await;
            assert_eq!(lies(&verified), [""; 0], "{name}");
            assert!(verified.iter().all(|layer| layer.format == name), "{verified:?}");
            // Twelve entries and a landmark; the TOC itself is an entry of some.
            assert!(verified[0].entries >= 13 && verified[0].chunks >= 8, "{verified:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_knows_survives_and_media_types_are_as_asked() {
    let work = TempDir::new().unwrap();
    let source = write_image(&work.path().join("source"), &layers());
    let dir = work.path().join("target");
    let docker = ConvertOptions { flavour: Some(Flavour::Docker), ..options(Format::Estargz) };
    to(&source, &layout_ref(&dir, "docker"), &docker).await.unwrap();
    let back = layout_ref(&dir, "back");
    to(&layout_ref(&dir, "docker"), &back, &options(Format::ZstdChunked)).await.unwrap();
    for (tag, types) in [
        ("docker", ["docker.distribution.manifest.v2", "docker.container", "tar.gzip"]),
        ("back", ["oci.image.manifest.v1", "oci.image.config.v1", "v1.tar+zstd"]),
    ] {
        let image = Image::open(&layout_ref(&dir, tag), &open()).await.unwrap();
        let manifest: Value = serde_json::from_slice(&image.documents[0].1).unwrap();
        let (config, bytes) = image.config().await.unwrap();
        let bytes: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(manifest["x-manifest"]["a"], 1.5);
        assert_eq!(manifest["annotations"]["org.example"], "kept");
        assert_eq!(manifest["layers"][2]["x-descriptor"], 2);
        assert_eq!(manifest["config"]["x-descriptor"], "c");
        assert_eq!(bytes["x-config"], json!([1, null]));
        assert_eq!(bytes["config"]["x-inner"], "kept");
        assert_eq!(bytes["history"][0]["created_by"], "somebody");
        assert_eq!(config.rootfs.diff_ids.len(), 3);
        let stated = [
            &manifest["mediaType"],
            &manifest["config"]["mediaType"],
            &manifest["layers"][0]["mediaType"],
        ];
        for (stated, expected) in stated.iter().zip(types) {
            assert!(stated.as_str().unwrap().contains(expected), "{stated} {expected}");
        }
    }
    let zstd = ConvertOptions { flavour: Some(Flavour::Docker), ..options(Format::ZstdChunked) };
    let refused = to(&source, &back, &zstd).await.unwrap_err();
    assert!(matches!(refused, ConvertError::DockerZstd));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_depends_on_no_number_of_threads() {
    let work = TempDir::new().unwrap();
    let big: Vec<Item> =
        (0..400).map(|at| file(&format!("f{at}"), noise(at * 37 % 9000, at as u64))).collect();
    let big = tar(&big);
    let source = write_image(&work.path().join("source"), &[(gzip(&big), "tar+gzip", big)]);
    for format in [Format::Estargz, Format::ZstdChunked, Format::LegacyStargz] {
        let mut digests = Vec::new();
        for threads in [1, 2, 8] {
            let workers = Some(Workers::new(NonZeroUsize::new(threads).unwrap()));
            let options = ConvertOptions { workers, ..options(format) };
            let target = layout_ref(&work.path().join(format!("{threads}")), "it");
            digests.push(to(&source, &target, &options).await.unwrap().digest);
        }
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{format:?} {digests:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lossless_conversion_keeps_diff_ids_and_configuration() {
    let work = TempDir::new().unwrap();
    // It has a landmark and a name twice, which a lossless conversion keeps.
    let source = write_image(&work.path().join("source"), &layers());
    let target = layout_ref(&work.path().join("target"), "it");
    let mut options = options(Format::EstargzExternalToc);
    options.layer.lossless = true;
    to(&source, &target, &options).await.unwrap();
    let ids = async |image: &ImageRef| {
        let image = Image::open(image, &open()).await.unwrap();
        (image.config.clone().unwrap().digest, image.config().await.unwrap().0.rootfs.diff_ids)
    };
    assert_eq!(ids(&target).await, ids(&source).await);
    assert_eq!(lies(&verify(&target).await), [""; 0]);
    options.hot.add_everywhere([Wanted::Path("a".to_owned())]);
    let other = layout_ref(&work.path().join("target"), "other");
    let refused = to(&source, &other, &options).await.unwrap_err().to_string();
    assert!(refused.contains("keeps its DiffID"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_converted_or_sent_twice() {
    let work = TempDir::new().unwrap();
    let source = write_image(&work.path().join("source"), &layers());
    let registry = PushRegistry::start().await.unwrap();
    let records = Some(work.path().join("records"));
    let options = ConvertOptions { records, ..options(Format::Estargz) };
    let target = |name: &str| format!("{}/{name}", registry.host()).parse::<ImageRef>().unwrap();
    let first = to(&source, &target("one:a"), &options).await.unwrap();
    assert_eq!(outcomes(&first), [Outcome::Converted; 3]);
    assert_eq!(lies(&verify(&target("one:a")).await), [""; 0]);
    let _ = registry.take_log();

    let again = to(&source, &target("one:b"), &options).await.unwrap();
    assert_eq!(outcomes(&again), [Outcome::Known; 3]);
    assert_eq!(again.digest, first.digest);
    let log = registry.take_log();
    assert!(!log.iter().any(|line| line.starts_with("PATCH")), "{log:?}");
    // The tag comes last.
    assert!(log.last().unwrap().contains("PUT /v2/one/manifests/b"), "{log:?}");

    // Another repository takes the blobs from there.
    let other = to(&source, &target("two:a"), &options).await.unwrap();
    assert_eq!(outcomes(&other), [Outcome::Known; 3]);
    let log = registry.take_log();
    assert_eq!(log.iter().filter(|line| line.contains("mount=")).count(), 3, "{log:?}");
    assert!(log.iter().filter(|line| line.starts_with("PATCH")).count() <= 1, "{log:?}");

    // Lazy layers stay what they are, and are taken over as well.
    let plain = ConvertOptions { records: None, ..options };
    let moved = to(&target("two:a"), &target("three:a"), &plain).await.unwrap();
    assert_eq!(outcomes(&moved), [Outcome::Lazy; 3]);
    assert_eq!(moved.digest, first.digest);
    let log = registry.take_log();
    assert_eq!(log.iter().filter(|line| line.contains("mount=")).count(), 3, "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_fails_gets_the_rest_and_no_tag_before() {
    let work = TempDir::new().unwrap();
    let big = tar(&[file("big", noise(24 << 20, 5))]);
    let mut all = layers();
    all.push((big.clone(), "tar", big));
    let source = write_image(&work.path().join("source"), &all);
    let registry = PushRegistry::start().await.unwrap();
    let target: ImageRef = format!("{}/it:a", registry.host()).parse().unwrap();
    let records = Some(work.path().join("records"));
    let options = ConvertOptions { records, ..options(Format::Estargz) };

    registry.set(PushFault::Denied);
    let denied = to(&source, &target, &options).await.unwrap_err().to_string();
    assert!(denied.contains("docker login"), "{denied}");
    registry.set(PushFault::PiecesFrom(4));
    let failed = to(&source, &target, &options).await.unwrap_err().to_string();
    assert!(failed.contains("layer 4 of 4") && failed.contains("500"), "{failed}");
    assert!(registry.manifest("it", "a").is_none());

    // What was sent is there, and goes on from there; a piece that broke off as well.
    registry.set(PushFault::HalfAPiece(2));
    let report = to(&source, &target, &options).await.unwrap();
    let [.., last] = &outcomes(&report)[..] else { panic!("it has layers") };
    assert_eq!(*last, Outcome::Converted);
    assert_eq!(outcomes(&report)[..3], [Outcome::Known; 3]);
    assert_eq!(lies(&verify(&target).await), [""; 0]);

    // A manifest that is not taken moves no tag.
    let before = registry.manifest("it", "a");
    registry.set(PushFault::Manifests);
    let mut other = options.clone();
    other.layer.chunk_size = 10_000;
    let refused = to(&source, &target, &other).await.unwrap_err().to_string();
    assert!(refused.contains("not like this"), "{refused}");
    assert_eq!(registry.manifest("it", "a"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms_attestations_and_foreign_layers_pass_through() {
    let work = TempDir::new().unwrap();
    let dir = work.path().join("source");
    let layers = layers();
    write_image(&dir, &layers[..1]);
    let layout = Layout::create(&dir).unwrap();
    let put = |value: &Value| {
        let text = value.to_string();
        (layout.put(text.as_bytes()).unwrap().to_string(), text.len())
    };
    let image = |arch: &str| {
        let foreign = Digest::of(b"somewhere else").to_string();
        let diff_ids = [foreign.clone(), Digest::of(&layers[0].2).to_string()];
        let (config, size) = put(&json!({
            "architecture": arch, "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        }));
        put(&json!({
            "schemaVersion": 2, "mediaType": format!("{OCI}.manifest.v1+json"),
            "config": { "mediaType": format!("{OCI}.config.v1+json"), "digest": config, "size": size },
            "layers": [
                { "mediaType": format!("{OCI}.layer.nondistributable.v1.tar+gzip"),
                  "digest": foreign, "size": 12, "urls": ["https://example.com/layer"] },
                { "mediaType": format!("{OCI}.layer.v1.tar"),
                  "digest": Digest::of(&layers[0].0).to_string(), "size": layers[0].0.len() },
            ],
        }))
    };
    let (amd64, arm64) = (image("amd64"), image("arm64"));
    let (statement, statement_size) = put(&json!({ "_type": "statement" }));
    let (empty, empty_size) = put(&json!({}));
    let attestation = put(&json!({
        "schemaVersion": 2, "mediaType": format!("{OCI}.manifest.v1+json"),
        "config": { "mediaType": format!("{OCI}.config.v1+json"), "digest": empty, "size": empty_size },
        "layers": [{ "mediaType": "application/vnd.in-toto+json", "digest": statement, "size": statement_size }],
    }));
    let entry = |(digest, size): &(String, usize), arch: &str, os: &str| {
        json!({
            "mediaType": format!("{OCI}.manifest.v1+json"), "digest": digest, "size": size,
            "platform": { "architecture": arch, "os": os }, "x-entry": arch,
        })
    };
    let mut about = entry(&attestation, "unknown", "unknown");
    about["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": amd64.0,
    });
    let index = json!({
        "schemaVersion": 2, "mediaType": format!("{OCI}.index.v1+json"), "x-index": true,
        "manifests": [entry(&amd64, "amd64", "linux"), entry(&arm64, "arm64", "linux"), about],
    });
    put(&index);
    let pointer = Descriptor::of(&format!("{OCI}.index.v1+json"), index.to_string().as_bytes());
    layout.tag(pointer, "index").unwrap();

    let source = layout_ref(&dir, "index");
    let target = work.path().join("target");
    let read = |digest: &str| -> Value {
        let path = target.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let all = ConvertOptions { all_platforms: true, ..options(Format::Estargz) };
    let report = to(&source, &layout_ref(&target, "all"), &all).await.unwrap();
    assert_eq!(report.images.len(), 2);
    let converted = read(&report.digest);
    assert_eq!(converted["x-index"], true);
    let entries = converted["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[1]["x-entry"], "arm64");
    // It says something about the image that there is now; itself it is what it was.
    assert_eq!(entries[2]["annotations"]["vnd.docker.reference.digest"], entries[0]["digest"]);
    assert_eq!(entries[2]["digest"], attestation.0);
    assert!(target.join("blobs/sha256").join(&statement[7..]).exists());
    let manifest = read(entries[0]["digest"].as_str().unwrap());
    assert_eq!(manifest["layers"][0]["urls"][0], "https://example.com/layer");
    let kinds: Vec<_> = report.images[0].layers.iter().map(|layer| layer.outcome).collect();
    assert_eq!(kinds, [Outcome::Foreign, Outcome::Converted]);

    // One platform keeps what is said about it, and comes alone where nothing is.
    let one = to(&source, &layout_ref(&target, "one"), &options(Format::Estargz)).await.unwrap();
    assert_eq!(read(&one.digest)["manifests"].as_array().unwrap().len(), 2);
    let arm = OpenOptions { platform: "linux/arm64".parse().unwrap(), ..open() };
    let arm = convert(&source, &layout_ref(&target, "arm"), &arm, &options(Format::Estargz)).await;
    assert!(read(&arm.unwrap().digest)["layers"].is_array());
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_read_and_written() {
    let work = TempDir::new().unwrap();
    let source = write_image(&work.path().join("source"), &layers());
    let archive = |name: &str| ImageRef::DockerArchive {
        path: work.path().join("archive.tar"),
        name: Some(name.to_owned()),
    };
    let docker = ConvertOptions { flavour: Some(Flavour::Docker), ..options(Format::Estargz) };
    let report = to(&source, &archive("example.com/a:b"), &docker).await.unwrap();
    let target = layout_ref(&work.path().join("target"), "it");
    let back = to(&archive("example.com/a:b"), &target, &docker).await.unwrap();
    assert_eq!(back.digest, report.digest);
    assert_eq!(lies(&verify(&target).await), [""; 0]);
    let missing = to(&archive("example.com/other:b"), &target, &docker).await.unwrap_err();
    assert!(missing.to_string().contains("example.com/a:b"), "{missing}");
    // Nothing is left beside it.
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 3);

    // As Docker wrote them before 25: no layout, and a layer that is a link.
    let old = work.path().join("old.tar");
    let (tar_layer, ..) = &layers()[0];
    let diff_id = Digest::of(tar_layer).to_string();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [diff_id, diff_id] },
    });
    let saved = json!([{
        "Config": "c.json", "RepoTags": ["a:b"], "Layers": ["one/layer.tar", "two/layer.tar"],
    }]);
    let items = [
        file("one/layer.tar", tar_layer),
        symlink("two/layer.tar", "../one/layer.tar"),
        file("c.json", config.to_string()),
        file("manifest.json", saved.to_string()),
    ];
    fs::write(&old, tar(&items)).unwrap();
    let old = ImageRef::DockerArchive { path: old, name: None };
    let report = to(&old, &layout_ref(&work.path().join("target"), "old"), &docker).await.unwrap();
    assert_eq!(report.images[0].layers.len(), 2);
    assert_eq!(lies(&verify(&layout_ref(&work.path().join("target"), "old")).await), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_layers_are_errors_that_change_nothing() {
    let work = TempDir::new().unwrap();
    let good = tar(&[file("a", noise(100_000, 3)), file("b", b"b")]);
    let packed = gzip(&good);
    let header = encode_header(&file("x", b"").entry).unwrap();
    let with_flag = |flag: u8| {
        let mut header = header.clone();
        header[156] = flag;
        let sum: u32 = (0..512)
            .map(|at| if (148..156).contains(&at) { 32 } else { u32::from(header[at]) })
            .sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header.resize(header.len() + 1024, 0);
        header
    };
    let mut not_utf8 = header.clone();
    not_utf8[0] = 0xff;
    let sum: u32 = (0..512)
        .map(|at| if (148..156).contains(&at) { 32 } else { u32::from(not_utf8[at]) })
        .sum();
    not_utf8[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("cut gzip", packed[..packed.len() / 2].to_vec(), "tar+gzip", "cannot read the input tar"),
        ("garbage after gzip", [&packed[..], b"garbage"].concat(), "tar+gzip", "not a gzip header"),
        ("cut tar", good[..50_000].to_vec(), "tar", "the tar ends inside it"),
        ("sparse", with_flag(b'S'), "tar", "sparse files are not supported"),
        ("unknown type", with_flag(b'7'), "tar", "type '7' is not supported"),
        ("not UTF-8", not_utf8, "tar", "name is not UTF-8"),
        ("link to nothing", tar(&[hardlink("l", "nowhere")]), "tar", "no file of this layer"),
        ("no tar at all", noise(4096, 9), "tar", "wrong header checksum"),
        (
            "huge attributes",
            tar(&[file("x", b"").xattr("user.x", vec![b'x'; 2 << 20])]),
            "tar",
            "extension header is too large",
        ),
    ];
    let target = work.path().join("target");
    for (what, bytes, kind, why) in cases {
        let dir = work.path().join(what);
        let source = write_image(&dir, &[(bytes, kind, good.clone())]);
        let error = to(&source, &layout_ref(&target, "it"), &options(Format::Estargz)).await;
        let error = error.expect_err(what).to_string();
        assert!(error.starts_with("layer 1 of 1 (sha256:"), "{what}: {error}");
        assert!(error.contains(why), "{what}: {error}");
        assert!(!target.join("index.json").exists(), "{what}");
        assert_eq!(partial_files(&target), [""; 0].map(PathBuf::from), "{what}");
    }
    // A blob that is not what its digest says: it was damaged, or changed under us.
    let dir = work.path().join("changed");
    let source = write_image(&dir, &[(good.clone(), "tar", good.clone())]);
    let blob = dir.join("blobs/sha256").join(Digest::of(&good).hex());
    let mut changed = good.clone();
    changed[600] ^= 1;
    fs::write(blob, changed).unwrap();
    let error = to(&source, &layout_ref(&target, "it"), &options(Format::Estargz)).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("changes while it is read"), "{error}");
    assert!(!target.join("index.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn verifying_tells_lies() {
    let work = TempDir::new().unwrap();
    let source = write_image(&work.path().join("source"), &layers());
    let ordinary = verify(&source).await;
    assert!(lies(&ordinary).iter().all(|lie| lie.contains("not lazily readable")), "{ordinary:?}");
    let dir = work.path().join("target");
    let target = layout_ref(&dir, "it");
    let report = to(&source, &target, &options(Format::Estargz)).await.unwrap();
    let path =
        |digest: &str| dir.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    let manifest = fs::read(path(&report.digest)).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let layout = Layout::create(&dir).unwrap();
    // Tells another story in the manifest, or with another blob, and asks what is wrong with it.
    let told = async |change: &dyn Fn(&mut Value), blob: Option<Vec<u8>>| {
        let mut manifest = manifest.clone();
        if let Some(blob) = blob {
            manifest["layers"][0]["size"] = blob.len().into();
            manifest["layers"][0]["digest"] = layout.put(&blob).unwrap().to_string().into();
        }
        change(&mut manifest);
        let text = manifest.to_string();
        layout.put(text.as_bytes()).unwrap();
        let media_type = manifest["mediaType"].as_str().unwrap();
        layout.tag(Descriptor::of(media_type, text.as_bytes()), "told").unwrap();
        let verified = verify(&layout_ref(&dir, "told")).await;
        verified.iter().flat_map(|layer| layer.lies.clone()).collect::<Vec<_>>()
    };
    let stargz = "containerd.io/snapshot/stargz/toc.digest";
    let expect = |lies: Vec<String>, what: &str| {
        assert!(lies.iter().any(|lie| lie.contains(what)), "{what}: {lies:?}");
    };
    assert_eq!(told(&|_| {}, None).await, [""; 0]);
    let other = Digest::of(b"other").to_string();
    expect(
        told(&|manifest| manifest["layers"][0]["annotations"][stargz] = other.clone().into(), None)
            .await,
        "its TOC has digest",
    );
    expect(
        told(
            &|manifest| {
                drop(manifest["layers"][0]["annotations"].as_object_mut().unwrap().remove(stargz))
            },
            None,
        )
        .await,
        "does not state the digest",
    );
    expect(
        told(
            &|manifest| {
                manifest["layers"][1]["annotations"]["io.containers.estargz.uncompressed-size"] =
                    "7".into()
            },
            None,
        )
        .await,
        "uncompressed bytes",
    );
    // The layers change places: each is right, but not where it is.
    let swapped =
        told(&|manifest| manifest["layers"].as_array_mut().unwrap().swap(0, 1), None).await;
    assert_eq!(
        swapped.iter().filter(|lie| lie.contains("its DiffID is")).count(),
        2,
        "{swapped:?}"
    );

    // Another tar under the same TOC, and another TOC over the same tar.
    let items = |content: &[u8], mode| vec![file("f", content).mode(mode), symlink("l", "f")];
    let options = lazystar_tests::layers::options(Format::EstargzExternalToc, 0, 0);
    let built = |items: &[Item]| lazystar_tests::layers::build(options, items);
    let (honest, other) = (built(&items(b"content", 0o644)), built(&items(b"CONTENT", 0o600)));
    let members = honest.blob.len() - 46;
    let blob = lazystar_tests::layers::estargz_by_hand(&honest.blob[..members], &other.toc);
    let state = |toc: &[u8]| {
        let digest = Digest::of(toc).to_string();
        move |manifest: &mut Value| {
            manifest["layers"][0]["annotations"] = json!({ stargz: digest });
        }
    };
    let lies = told(&state(&other.toc), Some(blob)).await;
    expect(lies.clone(), "wrong about the mode of \"f\"");
    expect(lies.clone(), "a chunk of \"f\" has digest");
    expect(lies, "wrong about the digest of \"f\"");
    let toc: String = String::from_utf8(honest.toc.clone()).unwrap();
    for (from, to, what) in [
        ("\"name\":\"l\"", "\"name\":\"m\"", "where its tar has \"l\""),
        ("\"offset\":", "\"offset\":1", "nothing can be decompressed from"),
        ("\"linkName\":\"f\"", "\"linkName\":\"g\"", "wrong about the target of \"l\""),
    ] {
        let toc = toc.replace(from, to);
        let blob = lazystar_tests::layers::estargz_by_hand(&honest.blob[..members], toc.as_bytes());
        expect(told(&state(toc.as_bytes()), Some(blob)).await, what);
    }
}

#[test]
fn packing_leaves_out_changes_and_puts_first_what_it_is_told() {
    let names = |toc: &[u8]| -> Vec<(String, u64, u64, String)> {
        let toc: Value = serde_json::from_slice(toc).unwrap();
        let entries = toc["entries"].as_array().unwrap().iter();
        let entry = |entry: &Value| {
            let number = |key: &str| entry[key].as_u64().unwrap_or(0);
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            (text("name"), number("uid"), number("gid"), text("modtime"))
        };
        entries.map(entry).collect()
    };
    let work = TempDir::new().unwrap();
    let at = |name: &str| work.path().join(name);
    fs::create_dir_all(at("a/cache")).unwrap();
    fs::write(at("a/cache/x"), b"x").unwrap();
    for name in ["a/1.py", "a/2.py", "a/3.pyc", "b"] {
        fs::write(at(name), name).unwrap();
    }
    let options = PackOptions {
        excluded: ["*.pyc", "/a/cache"].map(|glob| glob.parse().unwrap()).to_vec(),
        prioritised: vec!["b".into(), Wanted::parse("a/*.py").unwrap()],
        owner: Some((7, 8)),
        mtime: Some(1_000_000_000),
        ..PackOptions::default()
    };
    let expected = ["b", "a/", "a/1.py", "a/2.py", ".prefetch.landmark"]
        .map(|name| (name.to_owned(), 7, 8, "2001-09-09T01:46:40Z".to_owned()));
    let expect = |packed: Packed| {
        let mut found = names(&packed.toc_json);
        let landmark = found.last_mut().unwrap();
        assert_eq!((landmark.1, landmark.2, &*landmark.3), (0, 0, ""));
        (landmark.1, landmark.2, landmark.3) = (7, 8, expected[0].3.clone());
        assert_eq!(found, expected);
    };
    expect(pack_directory(work.path(), &options, &mut Vec::new()).unwrap());
    let items = [
        dir("a/").owner(1, 1),
        dir("a/cache/"),
        file("a/cache/x", b"x"),
        file("a/1.py", b"1").mtime(5),
        file("a/2.py", b"2"),
        file("./a/3.pyc", b"3"),
        file("b", b"b"),
    ];
    expect(pack_tar(&tar(&items)[..], &options, &mut Vec::new()).unwrap());
    let limited = PackOptions { mtime_limit: Some(3), ..PackOptions::default() };
    let packed = pack_tar(&tar(&items)[..], &limited, &mut Vec::new()).unwrap();
    assert!(names(&packed.toc_json).iter().any(|it| it.0 == "a/1.py" && it.3.ends_with(":03Z")));
    let none = PackOptions { prioritised: vec![Wanted::parse("z*").unwrap()], ..limited };
    let refused = pack_tar(&tar(&items)[..], &none, &mut Vec::new()).unwrap_err();
    assert_eq!(refused.to_string(), "the layer has no z*");
}
