//! Does natively what the component does with the inputs of the benchmark, which are in a directory or else are made
//! there: `cargo bench --package lazystar-tests --bench component -- DIRECTORY`; prints seconds as JSON.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, or stops")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::slice;
use std::sync::Arc;

use lazystar_core::codec::PortableCodec;
use lazystar_core::fetch::Priority;
use lazystar_core::layer::{FetchPolicy, Layer, Output, Presence};
use lazystar_core::open::{OpenOptions, OpenOutput, Opener};
use lazystar_core::toc::{ChunkIndex, Kind, NodeId};
use lazystar_core::verify::verify;
use lazystar_core::write::Format;
use lazystar_core::{Digest, Toc};
use lazystar_tests::corpus::TOC_DIGEST;
use lazystar_tests::layers::{build, estargz_by_hand, file, options};
use lazystar_tests::processor_time::best;
use lazystar_tests::script_host::Random;
use lazystar_tests::synthetic;
use serde_json::{Value, json};

/// Files whose reading is planned, as many as the component asks for at once, and how far apart they are.
const PLANNED: usize = 1000;
const STRIDE: usize = 20;
const CHUNK: u32 = 4 << 20;

/// A layer of which only the last bytes are needed.
struct Input {
    size: u64,
    tail: Vec<u8>,
    toc: Vec<u8>,
    annotations: BTreeMap<String, String>,
}

impl Input {
    fn write(&self, directory: &Path, name: &str, kind: &str, amount: usize) -> Value {
        let file = |part: &str, bytes: &[u8]| {
            let file = format!("{name}-{part}").replace(' ', "-");
            fs::write(directory.join(&file), bytes).unwrap();
            file
        };
        json!({
            "name": name, "kind": kind, "amount": amount, "size": self.size, "annotations": self.annotations,
            "tail": file("tail", &self.tail), "toc": file("toc", &self.toc),
        })
    }

    fn read(directory: &Path, case: &Value) -> Self {
        let file = |part: &str| fs::read(directory.join(case[part].as_str().unwrap())).unwrap();
        Self {
            size: case["size"].as_u64().unwrap(),
            tail: file("tail"),
            toc: file("toc"),
            annotations: serde_json::from_value(case["annotations"].clone()).unwrap(),
        }
    }
}

/// Text that shrinks to about a third.
fn text(len: usize) -> Vec<u8> {
    let mut random = Random::new(7);
    let words: Vec<Vec<u8>> = (0..4000)
        .map(|_| (0..2 + random.below(9)).map(|_| b'a' + random.below(26) as u8).collect())
        .collect();
    let mut text = Vec::with_capacity(len + 12);
    while text.len() < len {
        text.extend(&words[random.below(words.len() as u64) as usize]);
        text.push(b' ');
    }
    text.truncate(len);
    text
}

fn synthetic(entries: u32, external: bool) -> Input {
    let json = synthetic::toc_json(entries);
    let payload = synthetic::footer(entries).payload_end;
    let blob = if external {
        let empty = build(options(Format::EstargzExternalToc, 0, 0), &[]).blob;
        empty[empty.len() - 51..].to_vec()
    } else {
        // The position in the footer is the only thing that depends on what comes before.
        let mut blob = estargz_by_hand(b"", json.as_bytes());
        let position = blob.len() - 51 + 16;
        blob[position..position + 16].copy_from_slice(format!("{payload:016x}").as_bytes());
        blob
    };
    let toc = json.into_bytes();
    let digest = (TOC_DIGEST.to_owned(), Digest::of(&toc).to_string());
    Input { size: payload + blob.len() as u64, tail: blob, toc, annotations: [digest].into() }
}

fn packed(format: Format, content: &[u8]) -> Input {
    let built = build(options(format, CHUNK, 0), &[file("f", content)]);
    let annotations = built.summary.annotations().into_iter();
    Input {
        size: built.blob.len() as u64,
        annotations: annotations.map(|(key, value)| (key.to_owned(), value)).collect(),
        tail: built.blob,
        toc: built.toc,
    }
}

fn open(input: &Input) -> Arc<Toc> {
    let toc_digest = input.annotations.get(TOC_DIGEST);
    let options = OpenOptions {
        toc_digest: toc_digest.map(|digest| digest.parse().unwrap()),
        unverified: true,
        ..OpenOptions::default()
    };
    let mut opener = Opener::new(input.size, options);
    while let Some(output) = opener.poll_output() {
        match output {
            OpenOutput::Fetch(request) => {
                let bytes = part(input, request.range.start, request.range.end);
                opener.handle_fetched(request.id, request.range.end - bytes.len() as u64, bytes);
                let missing = request.range.len() - bytes.len() as u64;
                // Before the table there is payload, which nobody looks at.
                opener.handle_fetched(request.id, request.range.start, &vec![0; missing as usize]);
            }
            OpenOutput::ExternalToc => opener.handle_external_toc(Ok(&input.toc)),
        }
    }
    Arc::new(opener.finish().unwrap())
}

/// What of a range is in the tail.
fn part(input: &Input, start: u64, end: u64) -> &[u8] {
    let before = input.size - input.tail.len() as u64;
    &input.tail[start.max(before) as usize - before as usize..(end - before) as usize]
}

struct Nothing;
impl Presence for Nothing {
    fn has(&self, _: ChunkIndex) -> bool {
        false
    }
}

/// What is to be fetched for files that are read by the same reader.
fn plan(toc: &Arc<Toc>, files: &[NodeId]) -> u64 {
    let policy = FetchPolicy { min_span: 0, max_ahead: 0, ..FetchPolicy::default() };
    let mut layer = Layer::new(Arc::clone(toc), policy);
    let mut wanted = 0;
    for file in files {
        let _ = layer.read(toc.flat_range(*file), Priority::Demand, &Nothing);
        while let Some(output) = layer.poll_output() {
            if let Output::Fetch(request) = output {
                wanted += request.range.len();
            }
        }
    }
    wanted
}

/// Reads a whole layer out of its blob; gives the number of bytes.
fn read(input: &Input, toc: &Arc<Toc>) -> u64 {
    let mut layer = Layer::new(Arc::clone(toc), FetchPolicy::default());
    let mut codec = PortableCodec::default();
    let mut bytes = 0;
    let _ = layer.read(0..u64::MAX, Priority::Demand, &Nothing);
    while let Some(output) = layer.poll_output() {
        match output {
            Output::Fetch(request) => layer.handle_fetched(
                request.id,
                request.range.start,
                part(input, request.range.start, request.range.end),
            ),
            Output::Decode(job) => {
                let member = job.run(&mut codec);
                for chunk in member.verified() {
                    bytes += black_box(chunk.bytes().to_vec()).len() as u64;
                }
                layer.handle_decoded(&member, Ok(()));
            }
            _ => {}
        }
    }
    bytes
}

/// Makes the inputs.
fn make(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    let content = text(64 << 20);
    fs::write(directory.join("plain"), &content).unwrap();
    let mut cases = Vec::new();
    for entries in [10_000, 200_000] {
        let input = synthetic(entries, true);
        let amount = input.toc.len();
        cases.push(input.write(directory, &format!("parse {entries}"), "open", amount));
        cases.push(input.write(directory, &format!("hash {entries}"), "hash", amount));
        let input = synthetic(entries, false);
        cases.push(input.write(directory, &format!("open {entries}"), "open", amount));
    }
    let input = synthetic(200_000, true);
    let toc = open(&input);
    let regular = (0..toc.node_count()).filter(|it| toc.kind(NodeId(*it)) == Kind::Regular);
    let planned: Vec<_> = regular.step_by(STRIDE).take(PLANNED).collect();
    cases.push(input.write(directory, "plan", "plan", planned.len()));
    cases.push(input.write(directory, "plan one by one", "plan one by one", planned.len()));
    for (name, format) in [
        ("inflate", Format::LegacyStargz),
        ("inflate and verify", Format::Estargz),
        ("unzstd and verify", Format::ZstdChunked),
    ] {
        let input = packed(format, &content);
        assert_eq!(read(&input, &open(&input)), content.len() as u64);
        cases.push(input.write(directory, name, "read", content.len()));
    }
    let input = packed(Format::Estargz, &content);
    cases.push(input.write(directory, "verify", "cached", content.len()));
    let inputs = json!({ "cases": cases, "planned": planned, "chunk": CHUNK });
    fs::write(directory.join("cases.json"), inputs.to_string()).unwrap();
}

fn main() {
    let directory = env::args().nth(1).filter(|it| !it.starts_with('-')).expect("no directory");
    let directory = Path::new(&directory);
    let cases = directory.join("cases.json");
    if !cases.exists() {
        make(directory);
    }
    let inputs: Value = serde_json::from_slice(&fs::read(cases).unwrap()).unwrap();
    let planned: Vec<u32> = serde_json::from_value(inputs["planned"].clone()).unwrap();
    let planned: Vec<_> = planned.into_iter().map(NodeId).collect();
    let content = fs::read(directory.join("plain")).unwrap();
    let mut seconds = serde_json::Map::new();
    for case in inputs["cases"].as_array().unwrap() {
        let input = Input::read(directory, case);
        let toc = open(&input);
        let taken = match case["kind"].as_str().unwrap() {
            "open" => best(|| open(&input)),
            "hash" => best(|| Digest::of(&input.toc)),
            "plan" => best(|| plan(&toc, &planned)),
            "plan one by one" => {
                best(|| planned.iter().map(|file| plan(&toc, slice::from_ref(file))).sum::<u64>())
            }
            "read" => best(|| read(&input, &toc)),
            _ => best(|| {
                for (at, chunk) in (0..).zip(content.chunks(CHUNK as usize)) {
                    black_box(verify(&toc, ChunkIndex(at), chunk).unwrap().bytes().to_vec());
                }
            }),
        };
        seconds.insert(case["name"].as_str().unwrap().to_owned(), taken.into());
    }
    println!("{}", Value::Object(seconds));
}
