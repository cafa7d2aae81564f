//! Images that somebody has tampered with: an error that changes nothing, or an image that is sound.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use indicatif::ProgressBar;
use lazystar::convert::{ConvertError, ConvertOptions, Flavour, Report};
use lazystar::image::Image;
use lazystar::oci::Descriptor;
use lazystar::pack::layout::Layout;
use lazystar::reference::ImageRef;
use lazystar::verify::verify_layer;
use lazystar_core::Digest;
use lazystar_core::write::Format;
use lazystar_tests::layers::{estargz_by_hand, file, gzip, options as layer_options, symlink};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{
    OCI, layers, layout_ref, lies, open, options, partial_files, tar, to, verify, write_image,
};

/// Header fields of a tar: where, and how long.
const FIELDS: [(usize, usize); 10] = [
    (0, 100),   // name
    (100, 8),   // mode
    (108, 8),   // owner
    (124, 12),  // size
    (136, 12),  // time
    (156, 1),   // type
    (157, 100), // target
    (257, 8),   // magic
    (329, 16),  // device
    (345, 155), // prefix
];

const NOT_LAZY: &str = "it is not lazily readable";

/// What is done to bytes.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// A field of a block is filled with a pattern, and the checksum of that as a header made right.
    Field(Index, (usize, usize), Vec<u8>),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Flip(at, by) => {
                let at = at.index(bytes.len());
                bytes[at] ^= by;
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Insert(at, new) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, new.iter().copied());
            }
            Self::Remove(at, len) => {
                let at = at.index(bytes.len());
                let end = bytes.len().min(at + len);
                bytes.drain(at..end);
            }
            Self::Field(block, (start, len), pattern) => {
                let blocks = bytes.chunks_exact_mut(512).count().max(1);
                let Some(header) = bytes.chunks_exact_mut(512).nth(block.index(blocks)) else {
                    return;
                };
                for (at, byte) in header[*start..start + len].iter_mut().enumerate() {
                    *byte = pattern.get(at).or_else(|| pattern.last()).copied().unwrap_or(0);
                }
                header[148..156].fill(b' ');
                let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
                header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let few = prop::collection::vec(any::<u8>(), 1..40);
    let patterns =
        [&b"\x80\0\0\0\x7f\xff"[..], b"\xff", b"7", b"\0", b"/", b"../", b"9", b"x", b"S"];
    let pattern = select(patterns.map(<[u8]>::to_vec).to_vec());
    prop_oneof![
        (any::<Index>(), 1..=255_u8).prop_map(|(at, by)| Change::Flip(at, by)),
        any::<Index>().prop_map(Change::Cut),
        (any::<Index>(), few).prop_map(|(at, new)| Change::Insert(at, new)),
        (any::<Index>(), 1..2000_usize).prop_map(|(at, len)| Change::Remove(at, len)),
        (any::<Index>(), select(&FIELDS[..]), pattern)
            .prop_map(|(block, field, pattern)| Change::Field(block, field, pattern)),
    ]
}

fn changes(most: usize) -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(change(), 0..=most)
}

/// What is said in a document instead of something else; nothing is not said at all.
fn instead() -> impl Strategy<Value = Option<Value>> {
    select(vec![
        None,
        Some(Value::Null),
        Some(json!([])),
        Some(json!({})),
        Some(json!([{}])),
        Some(json!(-1)),
        Some(json!(u64::MAX)),
        Some(json!(1.5)),
        Some(json!("")),
        Some(json!("x")),
        Some(json!("../../x")),
        Some(json!(Digest::of(b"else").to_string())),
        Some(json!(format!("{OCI}.index.v1+json"))),
        Some(json!(format!("{OCI}.layer.v1.tar+gzip"))),
    ])
}

/// Says it in the place that `at` picks.
fn tamper(document: &mut Value, at: Index, instead: Option<Value>) {
    fn places(value: &Value, here: String, all: &mut Vec<String>) {
        let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
        match value {
            Value::Object(fields) => fields
                .iter()
                .for_each(|(key, value)| places(value, format!("{here}/{}", escaped(key)), all)),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .for_each(|(at, value)| places(value, format!("{here}/{at}"), all)),
            _ => {}
        }
        all.push(here);
    }
    let mut all = Vec::new();
    places(document, String::new(), &mut all);
    let place = at.get(&all);
    match (instead, place.rsplit_once('/')) {
        (Some(instead), _) => *document.pointer_mut(place).unwrap() = instead,
        (None, Some((parent, key))) => match document.pointer_mut(parent) {
            Some(Value::Object(fields)) => drop(fields.remove(key)),
            Some(Value::Array(items)) => drop(items.remove(key.parse().unwrap())),
            _ => {}
        },
        (None, None) => {}
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap()).block_on(work)
}

/// Converts it, and checks what there is then.
fn convert(source: &ImageRef, target: &Path, how: &ConvertOptions) -> Result<Report, ConvertError> {
    let image = layout_ref(target, "it");
    block_on(async {
        let result = to(source, &image, how).await;
        if target.exists() {
            assert!(partial_files(target).is_empty());
        }
        match &result {
            Ok(_) => {
                // What is no image any more passes through as it is, with layers that are not lazy.
                let verified = verify(&image).await;
                let lies: Vec<_> =
                    lies(&verified).into_iter().filter(|it| !it.contains(NOT_LAZY)).collect();
                assert_eq!(lies, [""; 0]);
            }
            Err(_) => assert!(!target.join("index.json").exists()),
        }
        result
    })
}

#[test]
fn times_beyond_nanoseconds_are_no_lies() {
    for time in [253_402_300_799, 0o777_777_777_777, 9_223_372_037, -9_223_372_037, -62_135_596_800]
    {
        let work = TempDir::new().unwrap();
        let tar = tar(&[file("late", b"x").mtime(time)]);
        let source = write_image(&work.path().join("source"), &[(tar.clone(), "tar", tar)]);
        convert(&source, &work.path().join("target"), &options(Format::Estargz)).unwrap();
    }
}

proptest! {
    #[test]
    fn any_layer_is_converted_or_refused(
        plain in changes(3),
        packed in changes(1),
        kind in 0..3_usize,
        which in 0..3_usize,
        lossless in any::<bool>(),
    ) {
        let work = TempDir::new().unwrap();
        let mut tar = layers()[which].2.clone();
        plain.iter().for_each(|change| change.apply(&mut tar));
        let (mut blob, kind) = match kind {
            0 => (tar.clone(), "tar"),
            1 => (gzip(&tar), "tar+gzip"),
            _ => (zstd::bulk::compress(&tar, 1).unwrap(), "tar+zstd"),
        };
        packed.iter().for_each(|change| change.apply(&mut blob));
        let source = write_image(&work.path().join("source"), &[(blob, kind, tar.clone())]);
        let mut how = options(if lossless { Format::EstargzExternalToc } else { Format::Estargz });
        how.layer.lossless = lossless;
        // What is verified then has the DiffID that the configuration says: that of the tar itself.
        let _ = convert(&source, &work.path().join("target"), &how);
    }

    #[test]
    fn any_document_is_converted_or_refused(
        which in 0..3_usize,
        at in any::<Index>(),
        instead in instead(),
        all_platforms in any::<bool>(),
    ) {
        let work = TempDir::new().unwrap();
        let dir = work.path().join("source");
        let source = write_image(&dir, &layers());
        let mut index = read(&dir.join("index.json"));
        let mut manifest = document(&dir, &index["manifests"][0]);
        match which {
            0 => {
                let mut config = document(&dir, &manifest["config"]);
                tamper(&mut config, at, instead);
                let text = config.to_string();
                let digest = Layout::create(&dir).unwrap().put(text.as_bytes()).unwrap();
                manifest["config"]["digest"] = digest.to_string().into();
                manifest["config"]["size"] = text.len().into();
                retag(&dir, &manifest);
            }
            1 => {
                tamper(&mut manifest, at, instead);
                retag(&dir, &manifest);
            }
            _ => {
                tamper(&mut index, at, instead);
                fs::write(dir.join("index.json"), index.to_string()).unwrap();
            }
        }
        let how = ConvertOptions { all_platforms, ..options(Format::Estargz) };
        let _ = convert(&source, &work.path().join("target"), &how);
    }

    #[test]
    fn any_archive_is_converted_or_refused(
        old in any::<bool>(),
        outer in changes(2),
        at in any::<Index>(),
        instead in prop::option::of(instead()),
    ) {
        let work = TempDir::new().unwrap();
        let path = work.path().join("archive.tar");
        let mut bytes = if old {
            let (tar_layer, ..) = &layers()[0];
            let diff_id = Digest::of(tar_layer).to_string();
            let mut config = json!({
                "architecture": "amd64", "os": "linux",
                "rootfs": { "type": "layers", "diff_ids": [diff_id, diff_id] },
            });
            let mut saved = json!([{
                "Config": "c.json", "RepoTags": ["a:b"],
                "Layers": ["one/layer.tar", "two/layer.tar"],
            }]);
            if let Some(instead) = instead {
                let document = if at.index(2) == 0 { &mut saved } else { &mut config };
                tamper(document, at, instead);
            }
            tar(&[
                file("one/layer.tar", tar_layer),
                symlink("two/layer.tar", "../one/layer.tar"),
                file("c.json", config.to_string()),
                file("manifest.json", saved.to_string()),
            ])
        } else {
            let source = write_image(&work.path().join("source"), &layers()[..1]);
            let archive = ImageRef::DockerArchive { path: path.clone(), name: Some("a:b".into()) };
            let docker = ConvertOptions { flavour: Some(Flavour::Docker), ..options(Format::Estargz) };
            block_on(to(&source, &archive, &docker)).unwrap();
            fs::read(&path).unwrap()
        };
        outer.iter().for_each(|change| change.apply(&mut bytes));
        fs::write(&path, bytes).unwrap();
        let archive = ImageRef::DockerArchive { path, name: None };
        let _ = convert(&archive, &work.path().join("target"), &options(Format::Estargz));
    }

    /// A lazy layer is verified as sound only where it is what its manifest says.
    #[test]
    fn any_blob_is_verified_as_what_it_is(
        changed in changes(2),
        at in any::<Index>(),
        instead in prop::option::of(instead()),
        restated in any::<bool>(),
    ) {
        let work = TempDir::new().unwrap();
        let items = [file("d/f", [7; 9000]), symlink("l", "d/f"), file("e", "e")];
        let honest = lazystar_tests::layers::build(
            layer_options(Format::EstargzExternalToc, 4000, 0), &items);
        let mut toc: Value = serde_json::from_slice(&honest.toc).unwrap();
        if let Some(instead) = instead {
            tamper(&mut toc, at, instead);
        }
        let toc = toc.to_string();
        let members = &honest.blob[..honest.blob.len() - 46];
        let sound = estargz_by_hand(members, toc.as_bytes());
        let mut blob = sound.clone();
        changed.iter().for_each(|change| change.apply(&mut blob));
        let dir = work.path().join("it");
        let stated = if restated { &blob } else { &sound };
        let image = write_image(&dir, &[(stated.clone(), "tar+gzip", Vec::new())]);
        let mut manifest = document(&dir, &read(&dir.join("index.json"))["manifests"][0]);
        let path = blob_of(&dir, &manifest["layers"][0]);
        fs::write(path, &blob).unwrap();
        manifest["layers"][0]["annotations"] = json!({
            "containerd.io/snapshot/stargz/toc.digest": Digest::of(toc.as_bytes()).to_string(),
        });
        retag(&dir, &manifest);
        let verified = block_on(async {
            let image = Arc::new(Image::open(&image, &open()).await?);
            verify_layer(&image, 0, None, false, ProgressBar::hidden()).await
        });
        if let Ok(verified) = verified && blob != *stated {
            prop_assert!(!verified.lies.is_empty(), "{verified:?}");
        }
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn blob_of(dir: &Path, descriptor: &Value) -> PathBuf {
    let digest = descriptor["digest"].as_str().unwrap();
    dir.join("blobs/sha256").join(&digest["sha256:".len()..])
}

fn document(dir: &Path, descriptor: &Value) -> Value {
    read(&blob_of(dir, descriptor))
}

/// Puts another manifest in the place of the image's.
fn retag(dir: &Path, manifest: &Value) {
    let layout = Layout::create(dir).unwrap();
    let text = manifest.to_string();
    layout.put(text.as_bytes()).unwrap();
    let media_type = format!("{OCI}.manifest.v1+json");
    layout.tag(Descriptor::of(&media_type, text.as_bytes()), "image").unwrap();
}
