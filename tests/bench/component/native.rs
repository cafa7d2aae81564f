//! Makes the inputs of the benchmark in a directory, and does natively what the component does with them:
//! `cargo bench --package lazystar-tests --bench component -- DIRECTORY`; prints seconds as JSON.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, or stops")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use lazystar_core::Toc;
use lazystar_core::codec::PortableCodec;
use lazystar_core::fetch::Priority;
use lazystar_core::layer::{FetchPolicy, Layer, Output, Presence};
use lazystar_core::open::{OpenOptions, OpenOutput, Opener};
use lazystar_core::toc::{ChunkIndex, Kind, NodeId};
use lazystar_core::verify::verify;
use lazystar_core::write::Format;
use lazystar_tests::layers::{build, estargz_by_hand, file, options};
use lazystar_tests::script_host::Random;
use lazystar_tests::synthetic;
use serde_json::{Value, json};

/// Files whose reading is planned, and how far apart they are.
const PLANNED: u32 = 5000;
const STRIDE: u32 = 40;
const CHUNK: u32 = 4 << 20;

/// A layer of which only the last bytes are needed.
struct Input {
    size: u64,
    tail: Vec<u8>,
    toc: Vec<u8>,
    annotations: BTreeMap<String, String>,
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
    Input { size: payload + blob.len() as u64, tail: blob, toc, annotations: BTreeMap::new() }
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

/// What this thread has had of a processor.
fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// The fastest of several runs: the one that others disturbed least.
fn best<T>(mut run: impl FnMut() -> T) -> f64 {
    let runs = (0..5).map(|_| {
        let start = cpu_seconds();
        black_box(run());
        cpu_seconds() - start
    });
    runs.fold(f64::INFINITY, f64::min)
}

fn open(input: &Input) -> Arc<Toc> {
    let toc_digest = input.annotations.get(lazystar_tests::corpus::TOC_DIGEST);
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

/// What is to be fetched for one file after the other.
fn plan(toc: &Arc<Toc>, files: &[NodeId]) -> u64 {
    let policy = FetchPolicy { min_span: 0, max_ahead: 0, ..FetchPolicy::default() };
    let mut wanted = 0;
    for file in files {
        let mut layer = Layer::new(Arc::clone(toc), policy);
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

fn main() {
    let directory = env::args().nth(1).filter(|it| !it.starts_with('-')).expect("no directory");
    let directory = Path::new(&directory);
    fs::create_dir_all(directory).unwrap();
    let content = text(64 << 20);
    fs::write(directory.join("plain"), &content).unwrap();
    let (mut cases, mut seconds) = (Vec::new(), serde_json::Map::new());
    let mut add = |name: &str, kind: &str, amount: usize, input: &Input, taken: f64| {
        let file = |part: &str, bytes: &[u8]| {
            let file = format!("{name}-{part}").replace(' ', "-");
            fs::write(directory.join(&file), bytes).unwrap();
            file
        };
        cases.push(json!({
            "name": name, "kind": kind, "amount": amount, "size": input.size, "annotations": input.annotations,
            "tail": file("tail", &input.tail), "toc": file("toc", &input.toc),
        }));
        seconds.insert(name.to_owned(), taken.into());
    };
    for entries in [10_000, 200_000] {
        let input = synthetic(entries, true);
        let taken = best(|| open(&input));
        add(&format!("parse {entries}"), "open", input.toc.len(), &input, taken);
        let input = synthetic(entries, false);
        let taken = best(|| open(&input));
        add(&format!("open {entries}"), "open", input.toc.len(), &input, taken);
    }
    let input = synthetic(200_000, true);
    let toc = open(&input);
    let regular = (0..toc.node_count()).map(NodeId).filter(|it| toc.kind(*it) == Kind::Regular);
    let files: Vec<_> = regular.step_by(STRIDE as usize / 2).take(PLANNED as usize).collect();
    add("plan", "plan", files.len(), &input, best(|| plan(&toc, &files)));
    let numbers: Vec<_> = files.iter().map(|file| file.0).collect();
    for (name, format) in [
        ("inflate", Format::LegacyStargz),
        ("inflate and verify", Format::Estargz),
        ("unzstd and verify", Format::ZstdChunked),
    ] {
        let input = packed(format, &content);
        let toc = open(&input);
        assert_eq!(read(&input, &toc), content.len() as u64);
        add(name, "read", content.len(), &input, best(|| read(&input, &toc)));
    }
    let input = packed(Format::Estargz, &content);
    let toc = open(&input);
    let check = || {
        for (at, chunk) in (0..).zip(content.chunks(CHUNK as usize)) {
            black_box(verify(&toc, ChunkIndex(at), chunk).unwrap().bytes().to_vec());
        }
    };
    add("verify", "cached", content.len(), &input, best(check));
    let inputs = json!({ "cases": cases, "planned": numbers, "chunk": CHUNK });
    fs::write(directory.join("cases.json"), inputs.to_string()).unwrap();
    println!("{}", Value::Object(seconds));
}
