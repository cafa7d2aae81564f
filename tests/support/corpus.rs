//! One corpus for every host of the engine: images and documents, good, odd and hostile, and what
//! core makes of each, in the terms of the WIT interface.
//!
//! [`write()`] puts it into a directory:
//!
//! * `cases.json`: `images`, each a list of layers, and `documents`. Blobs and tables of contents are
//!   names of files beside it; a layer says which bytes of its blob to flip.
//! * `expected.json`: the outcomes, in the same order. [`outcome`] has their shape.

pub mod hostile;
pub mod images;
pub mod outcome;
pub mod trees;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lazystar_core::Digest;
use lazystar_core::Limits;
use lazystar_core::toc::Assurance;
use lazystar_core::write::{Format, Landmark};
use serde_json::{Value, json};

use crate::layers::{
    Built, FORMATS, Item, PREFIXES, build, build_with, dir, estargz_by_hand, estargz_footer, file,
    hardlink, noise, options, symlink,
};
use crate::naive;
use crate::scratch::scratch;
use crate::script_host::Random;
use hostile::{HOLES, REPEATED_XATTRS, at_the_limits, damaged, faults, toc, tocs};
use images::{images, random_layer};
use trees::{files, trees};

/// The annotation with the digest of a table of contents.
pub const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";

/// A layer, and how to open it.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The blob before bytes of it are flipped.
    pub blob: Vec<u8>,
    /// Positions, and what to XOR the byte there with.
    pub flips: Vec<(usize, u8)>,
    /// The table of contents, for when it is elsewhere.
    pub toc: Vec<u8>,
    /// What the manifest says.
    pub annotations: BTreeMap<String, String>,
    /// How far content must be trusted.
    pub accept: Assurance,
    /// The limits to set, or none: those of the interface.
    pub limits: Option<Limits>,
}

impl Layer {
    /// A blob of which nothing is known.
    #[must_use]
    pub fn of_blob(blob: Vec<u8>) -> Self {
        let (flips, toc, annotations) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { blob, flips, toc, annotations, accept: Assurance::Unverified, limits: None }
    }

    /// A layer as a manifest has it.
    #[must_use]
    pub fn of(built: Built) -> Self {
        let annotations = built.summary.annotations().into_iter();
        Self {
            annotations: annotations.map(|(key, value)| (key.to_owned(), value)).collect(),
            toc: built.toc,
            // Legacy layers have no digests.
            accept: match built.summary.toc_digest {
                Some(_) => Assurance::Verified,
                None => Assurance::Unverified,
            },
            ..Self::of_blob(built.blob)
        }
    }

    /// An eStargz layer with the given table of contents, whose members end at 1000.
    fn of_toc(json: &[u8], limits: Option<Limits>) -> Self {
        let blob = estargz_by_hand(&[0; 1000], json);
        Self { accept: Assurance::Consistent, limits, ..Self::of_blob(blob) }
    }

    /// The blob with its bytes flipped.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.blob.clone();
        for (at, bits) in &self.flips {
            bytes[*at] ^= bits;
        }
        bytes
    }
}

/// An image: its layers, the bottom one first.
#[derive(Clone, Debug)]
pub struct Image {
    /// What it is about.
    pub name: String,
    /// The layers.
    pub layers: Vec<Layer>,
}

/// All images of the corpus.
#[must_use]
pub fn cases() -> Vec<Image> {
    let mut cases = Vec::new();
    let mut add = |name: String, layers: Vec<Layer>| cases.push(Image { name, layers });
    good(&mut add);
    hostile_tocs(&mut add);
    altered(&mut add);
    misdescribed(&mut add);
    merged(&mut add);
    seeds(&mut add);
    cases
}

type Add<'a> = dyn FnMut(String, Vec<Layer>) + 'a;

fn good(add: &mut Add<'_>) {
    for (at, (name, chunk, min, items)) in trees().into_iter().enumerate() {
        for (format, prefix) in FORMATS.into_iter().zip(PREFIXES.into_iter().cycle().skip(at)) {
            let items: Vec<_> = items.iter().map(|item| item.clone().prefixed(prefix)).collect();
            let built = build(options(format, chunk, min), &items);
            add(format!("{name}, {format:?}, prefix {prefix:?}"), vec![Layer::of(built)]);
        }
    }
    for format in FORMATS {
        for (chunk, min) in [(0, 0), (500, 0), (500, 900), (7, 100_000)] {
            for landmark in [None, Some((3, Landmark::Prefetch)), Some((0, Landmark::NoPrefetch))] {
                let built = build_with(options(format, chunk, min), &files(), landmark);
                let name = format!("files, {format:?}, chunks {chunk}/{min}, {landmark:?}");
                add(name, vec![Layer::of(built)]);
            }
        }
    }
}

fn hostile_tocs(add: &mut Add<'_>) {
    let of_entries = |entries: &str| Layer::of_toc(toc(entries).as_bytes(), Some(Limits::DEFAULT));
    for (at, (entries, fault)) in faults().into_iter().enumerate() {
        add(format!("entry {at}, {fault:?}"), vec![of_entries(&entries)]);
    }
    let sound = at_the_limits().into_iter().chain([HOLES.into(), REPEATED_XATTRS.into()]);
    for (at, entries) in sound.enumerate() {
        add(format!("sound {at}"), vec![of_entries(&entries)]);
    }
    for (at, (json, limits, error)) in tocs().into_iter().enumerate() {
        // The interface sets no others.
        let settable =
            Limits { entries: limits.entries, toc_bytes: limits.toc_bytes, ..Limits::DEFAULT };
        if limits == settable || !matches!(error, lazystar_core::toc::TocError::OverLimit { .. }) {
            add(format!("TOC {at}, {error}"), vec![Layer::of_toc(&json, Some(settable))]);
        }
    }
    for (at, (blob, error)) in damaged().into_iter().enumerate() {
        let layer = Layer { accept: Assurance::Consistent, ..Layer::of_blob(blob) };
        add(format!("damaged {at}, {error:?}"), vec![layer]);
    }
    // More than an instance of the component holds, unless it is refused in time.
    let link = format!(r#"","type":"symlink","linkName":"{}"}}"#, "x".repeat(4090));
    let links: Vec<_> = (0..17_000).map(|at| format!("{{\"name\":\"{at}{link}")).collect();
    add("too much text".into(), vec![Layer::of_toc(toc(&links.join(",")).as_bytes(), None)]);
    for toc_start in [0, 5, 1000, u64::MAX, i64::MAX as u64, 1 << 63] {
        let blob = [&[0; 20][..], &estargz_footer(toc_start)].concat();
        add(format!("TOC at {toc_start}"), vec![Layer::of_blob(blob)]);
    }
}

/// A layer that is small, and has something of everything.
fn small(format: Format) -> Built {
    let items = [
        dir("d/").owner(5, 6),
        file("d/a", noise(300, 1)).xattr("user.a", [0xff, 0]),
        file("b", "bb").mtime(1_700_000_000),
        hardlink("link", "b"),
        symlink("s", "d/a"),
    ];
    build(options(format, 100, 0), &items)
}

fn altered(add: &mut Add<'_>) {
    for format in FORMATS {
        let built = small(format);
        for at in (0..built.blob.len()).step_by(4) {
            let flips = vec![(at, 1 << (at / 4 % 8))];
            let layer = Layer { flips, ..Layer::of(built.clone()) };
            // What nothing vouches for is read as far as it goes.
            let blind = at % 8 == 0;
            let layer = if blind {
                Layer { annotations: BTreeMap::new(), accept: Assurance::Unverified, ..layer }
            } else {
                layer
            };
            add(format!("{format:?} with byte {at} altered, blind {blind}"), vec![layer]);
        }
        for len in [0, 1, 20, 47, 50, 60, built.blob.len() - 1] {
            let blob = built.blob[built.blob.len() - len..].to_vec();
            add(format!("the last {len} bytes, {format:?}"), vec![Layer::of_blob(blob)]);
        }
    }
}

/// What a manifest may say of a layer, and what a host may accept.
fn misdescribed(add: &mut Add<'_>) {
    let layer = || Layer::of(small(Format::Estargz));
    let annotated = |digest: &str| Layer {
        annotations: BTreeMap::from([(TOC_DIGEST.to_owned(), digest.to_owned())]),
        ..layer()
    };
    let of_nothing = Digest::of(b"").to_string();
    for digest in ["", "nonsense", "sha256:00", "sha512:00", &of_nothing] {
        add(format!("the digest {digest:?}"), vec![annotated(digest)]);
    }
    let legacy = || Layer::of(small(Format::LegacyStargz));
    for accept in [Assurance::Verified, Assurance::Consistent, Assurance::Unverified] {
        let bare = Layer { accept, annotations: BTreeMap::new(), ..layer() };
        add(format!("no digest, {accept:?} wanted"), vec![bare]);
        add(format!("no digests at all, {accept:?} wanted"), vec![Layer { accept, ..legacy() }]);
    }
    let limits: [(&str, Limits); 6] = [
        ("entries", Limits { entries: 3, ..Limits::DEFAULT }),
        ("TOC", Limits { toc_bytes: 100, ..Limits::DEFAULT }),
        ("compressed TOC", Limits { toc_compressed_bytes: 100, ..Limits::DEFAULT }),
        ("chunk", Limits { chunk_bytes: 99, ..Limits::DEFAULT }),
        ("member", Limits { member_bytes: 99, ..Limits::DEFAULT }),
        ("compressed member", Limits { member_bytes: 700, ..Limits::DEFAULT }),
    ];
    for (name, limits) in limits {
        add(format!("limit of {name}"), vec![Layer { limits: Some(limits), ..layer() }]);
    }
    // More compressed than plain: within the limit until it is fetched.
    let mut random = Random::new(5);
    let bytes: Vec<_> = (0..1000).map(|_| random.below(256) as u8).collect();
    let built = build(options(Format::ZstdChunked, 0, 0), &[file("f", bytes), file("g", "g")]);
    let limits = Some(Limits { member_bytes: 1000, ..Limits::DEFAULT });
    add("a member that grows".into(), vec![Layer { limits, ..Layer::of(built) }]);
    for position in ["0:1:2:1", "nonsense", "18446744073709551615:1:1:1", ""] {
        let mut layer = Layer::of(small(Format::ZstdChunked));
        let name = "io.github.containers.zstd-chunked.manifest-position";
        layer.annotations.insert(name.into(), position.into());
        add(format!("the position {position:?}"), vec![layer]);
    }
}

fn merged(add: &mut Add<'_>) {
    let mut random = Random::new(12);
    let random = (0..60).map(|at| {
        let layers = (0..2 + random.below(3)).map(|_| random_layer(&mut random)).collect();
        (format!("random {at}"), layers)
    });
    let named = images().into_iter().map(|(name, layers)| (name.to_owned(), layers));
    for (at, (name, layers)) in named.chain(random).enumerate() {
        let layer = |items: &Vec<Item>| {
            debug_assert!(naive::tree(items).is_some());
            Layer::of(build(options(FORMATS[at % FORMATS.len()], 0, 0), items))
        };
        add(format!("image: {name}"), layers.iter().map(layer).collect());
    }
}

/// What the fuzz targets start from.
fn seeds(add: &mut Add<'_>) {
    for (name, seed) in corpus("layer") {
        add(format!("fuzz/layer/{name}"), vec![Layer::of_blob(seed[1.min(seed.len())..].to_vec())]);
    }
    for (name, seed) in corpus("toc") {
        let json = &seed[1.min(seed.len())..];
        add(format!("fuzz/toc/{name}"), vec![Layer::of_toc(json, None)]);
        let blob = build(options(Format::EstargzExternalToc, 0, 0), &[]).blob;
        let layer = Layer { toc: json.to_vec(), ..Layer::of_blob(blob) };
        add(format!("fuzz/toc/{name}, external"), vec![layer]);
    }
    for (name, seed) in corpus("footer") {
        add(
            format!("fuzz/footer/{name}"),
            vec![Layer::of_blob(seed[8.min(seed.len())..].to_vec())],
        );
    }
    for (name, seed) in corpus("chunk") {
        let Some(([low, high], member)) = seed.split_first_chunk() else { continue };
        let size = usize::from(u16::from_le_bytes([*low, *high])) * 3;
        let entry = format!(r#"{{"name":"f","type":"reg","size":{size},"offset":0}}"#);
        let blob = estargz_by_hand(member, toc(&entry).as_bytes());
        add(format!("fuzz/chunk/{name}"), vec![Layer::of_blob(blob)]);
    }
}

/// The committed seeds of a fuzz target.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/fuzz/corpus").join(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{target}: {error}"));
    let mut seeds: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("the directory can be read");
            let seed = fs::read(entry.path()).expect("the seed can be read");
            (entry.file_name().to_string_lossy().into_owned(), seed)
        })
        .collect();
    seeds.sort();
    seeds
}

/// Manifests, indexes and configurations, and what only looks like one.
#[must_use]
pub fn documents() -> Vec<String> {
    let digest = Digest::of(b"");
    let descriptor = format!(r#"{{"mediaType":"m","digest":"{digest}","size":5}}"#);
    let annotated = format!(
        r#"{{"mediaType":"m","digest":"{digest}","size":7,"annotations":{{"b":"\u00e9","a":""}}}}"#
    );
    let platform = r#""platform":{"os":"linux","architecture":"arm64","variant":"v8"}"#;
    let member = descriptor.strip_suffix('}').unwrap_or_default();
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor},{annotated}]}}"#
    );
    let config = r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["a","b"]},
        "history":[{"created_by":"x"},{"created_by":"y","empty_layer":true},{}],
        "config":{"Env":["A=b"],"Entrypoint":["/e"],"Cmd":null,"WorkingDir":"/w","User":"1:2","Labels":{"k":"v"}}}"#;
    let mut documents = vec![
        manifest.clone(),
        format!(r#"{{"schemaVersion":2,"manifests":[{member},{platform}}},{descriptor}]}}"#),
        format!(r#"{{"schemaVersion":2,"manifests":[],"layers":[],"config":{descriptor}}}"#),
        format!(r#"{{"schemaVersion":1,"config":{descriptor},"layers":[]}}"#),
        format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{{"size":-1}}]}}"#),
        r#"{"schemaVersion":2,"manifests":null}"#.into(),
        config.into(),
        r#"{"rootfs":{}}"#.into(),
        r#"{"rootfs":{"diff_ids":[1]}}"#.into(),
        "{}".into(),
        "[]".into(),
        "{".into(),
        String::new(),
        format!("[{}]", "0,".repeat(300_000)),
        "[".repeat(100),
        format!("{{\"x\":\"{}\"}}", "y".repeat(1 << 20)),
    ];
    for text in [&manifest[..], config] {
        for at in (0..text.len()).step_by(9).filter(|at| text.is_char_boundary(*at)) {
            documents.push(text[..at].into());
        }
    }
    documents
}

/// Writes the corpus into a directory below `target`, a caller's `env!("CARGO_TARGET_TMPDIR")`.
///
/// # Errors
/// When it cannot be written.
pub fn written(target: &str) -> io::Result<PathBuf> {
    let directory = scratch(target, "corpus")?;
    write(&directory)?;
    Ok(directory)
}

/// Writes cases and outcomes into a directory.
///
/// # Errors
/// When it cannot be written.
pub fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut files = BTreeMap::<Vec<u8>, String>::new();
    let mut name_of = |bytes: &[u8]| {
        if let Some(name) = files.get(bytes) {
            return Ok(name.clone());
        }
        let name = files.len().to_string();
        fs::write(directory.join(&name), bytes)?;
        files.insert(bytes.to_vec(), name.clone());
        io::Result::Ok(name)
    };
    let (images, documents) = (cases(), documents());
    let mut described = Vec::new();
    for image in &images {
        let mut layers = Vec::new();
        for layer in &image.layers {
            let limits = layer.limits.map(|it| {
                json!({
                    "toc-compressed-bytes": it.toc_compressed_bytes, "toc-bytes": it.toc_bytes,
                    "entries": it.entries, "chunk-bytes": it.chunk_bytes, "member-bytes": it.member_bytes,
                })
            });
            layers.push(json!({
                "blob": name_of(&layer.blob)?,
                "flips": layer.flips,
                "toc": name_of(&layer.toc)?,
                "annotations": layer.annotations,
                "accept": outcome::assurance(layer.accept),
                "limits": limits.unwrap_or_else(|| json!({})),
            }));
        }
        described.push(json!({ "name": image.name, "layers": layers }));
    }
    let expected = json!({
        "images": images.iter().map(outcome::image).collect::<Vec<_>>(),
        "documents": documents.iter().map(|it| outcome::document(it.as_bytes())).collect::<Vec<_>>(),
    });
    let names: io::Result<Vec<_>> = documents.iter().map(|it| name_of(it.as_bytes())).collect();
    let cases = json!({ "images": described, "documents": names? });
    fs::write(directory.join("cases.json"), cases.to_string())?;
    fs::write(directory.join("expected.json"), expected.to_string())
}

/// Says how what a host made of the corpus differs from what core made of it.
///
/// # Errors
/// The first few differences.
pub fn compare(expected: &Value, found: &Value, cases: &Value) -> Result<(), String> {
    let mut differences = Vec::new();
    for part in ["images", "documents"] {
        let list = |value: &Value| value[part].as_array().cloned().unwrap_or_default();
        let (expected, found, cases) = (list(expected), list(found), list(cases));
        if expected.len() != found.len() {
            differences.push(format!("{} of {} {part}", found.len(), expected.len()));
        }
        for ((expected, found), case) in expected.iter().zip(&found).zip(&cases) {
            if expected != found {
                differences.push(format!("{case}\n  expected {expected}\n  found    {found}"));
            }
        }
    }
    match differences.len() {
        0 => Ok(()),
        count => {
            differences.truncate(3);
            Err(format!("{count} differences, such as\n{}", differences.join("\n")))
        }
    }
}
