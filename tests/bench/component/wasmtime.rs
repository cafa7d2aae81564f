//! The benchmark in wasmtime: `cargo bench --package lazystar-plugin --bench component -- DIRECTORY`; prints seconds as
//! JSON, and what memory an instance takes, on standard error.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a benchmark prints, or stops"
)]

use std::borrow::Cow;
use std::env;
use std::fs;
use std::path::Path;
use std::slice;
use std::time::Duration;

use lazystar_plugin::layers::{Descriptor, ReadStep, Span};
use lazystar_plugin::types::ByteRange;
use lazystar_plugin::{Engine, Error, Give, Handle, Limits, Sandbox, Source, Trust};
use lazystar_tests::processor_time::best;
use serde_json::Value;

/// A layer of which only the last bytes are here; before them are zeros.
struct Input {
    size: u64,
    tail: Vec<u8>,
    toc: Vec<u8>,
}

impl Source for Input {
    fn fetch(&self, ranges: &[ByteRange], give: &mut Give<'_>) -> Result<(), Error> {
        let before = self.size - self.tail.len() as u64;
        for range in ranges {
            let (start, end) = (range.offset, range.offset + range.length);
            if start < before {
                give(start, &vec![0; (end.min(before) - start) as usize])?;
            }
            if end > before {
                let from = start.max(before);
                give(from, &self.tail[(from - before) as usize..(end - before) as usize])?;
            }
        }
        Ok(())
    }

    fn external_toc(&self) -> Result<Cow<'_, [u8]>, Error> {
        Ok(Cow::Borrowed(&self.toc))
    }
}

fn whole(sandbox: &Sandbox, layer: Handle) -> Span {
    let file = sandbox
        .call(|api, store| api.lazystar_engine_layers().layer().call_lookup(store, layer, "f"))
        .unwrap()
        .unwrap();
    Span { file: file.id, offset: 0, length: file.size }
}

fn plan(sandbox: &Sandbox, layer: Handle, files: &[u32]) {
    let spans: Vec<_> =
        files.iter().map(|file| Span { file: *file, offset: 0, length: 1 << 40 }).collect();
    let reader = sandbox
        .call(|api, store| {
            let layers = api.lazystar_engine_layers();
            let reader = layers.layer().call_read(&mut *store, layer, &spans)?.unwrap();
            let step = layers.reader().call_poll(store, reader, 0)?.unwrap();
            let ReadStep::Need(needs) = step else { panic!("nothing to fetch") };
            assert_eq!(needs.iter().map(|need| need.chunks.len()).sum::<usize>(), files.len());
            Ok(reader)
        })
        .unwrap();
    sandbox.drop_handle(reader).unwrap();
}

/// Reads with the chunks from a cache.
fn cached(sandbox: &Sandbox, layer: Handle, plain: &[u8], chunk: usize) {
    let span = whole(sandbox, layer);
    let mut chunks = plain.chunks(chunk);
    sandbox
        .call(|api, store| {
            let layers = api.lazystar_engine_layers();
            let reader = layers.layer().call_read(&mut *store, layer, &[span])?.unwrap();
            loop {
                match layers.reader().call_poll(&mut *store, reader, 0)?.unwrap() {
                    ReadStep::Done => break,
                    ReadStep::Data(_) => {}
                    ReadStep::Need(needs) => {
                        for digest in needs.iter().flat_map(|need| &need.chunks) {
                            let bytes = chunks.next().unwrap();
                            let of = layers.reader();
                            of.call_supply_chunk(&mut *store, reader, digest, bytes)?.unwrap();
                        }
                    }
                }
            }
            reader.resource_drop(store)
        })
        .unwrap();
}

fn main() {
    let directory = env::args().nth(1).filter(|it| !it.starts_with('-')).expect("no directory");
    let directory = Path::new(&directory);
    let inputs: Value =
        serde_json::from_slice(&fs::read(directory.join("cases.json")).unwrap()).unwrap();
    let plain = fs::read(directory.join("plain")).unwrap();
    let numbers = inputs["planned"].as_array().unwrap().iter();
    let planned: Vec<_> = numbers.map(|it| it.as_u64().unwrap() as u32).collect();
    let chunk = inputs["chunk"].as_u64().unwrap() as usize;
    let component = env::var("ENGINE").unwrap_or_else(|_| "host-wasm/dist/engine.wasm".into());
    let limits = Limits { memory: 1 << 30, call: Duration::from_secs(60) };
    let engine = Engine::from_file(Path::new(&component), &limits, None).unwrap();
    let mut seconds = serde_json::Map::new();
    for case in inputs["cases"].as_array().unwrap() {
        let file = |name: &str| fs::read(directory.join(case[name].as_str().unwrap())).unwrap();
        let input =
            Input { size: case["size"].as_u64().unwrap(), tail: file("tail"), toc: file("toc") };
        let annotations = case["annotations"].as_object().unwrap().iter();
        let descriptor = Descriptor {
            media_type: String::new(),
            digest: String::new(),
            size: input.size,
            annotations: annotations
                .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
                .collect(),
        };
        let sandbox = engine.sandbox().unwrap();
        let open = || sandbox.open(&descriptor, Trust::Unverified, &input).unwrap();
        let layer = open();
        let taken = match case["kind"].as_str().unwrap() {
            "open" => best(|| sandbox.drop_handle(open()).unwrap()),
            "hash" => best(|| {
                sandbox
                    .call(|api, store| api.lazystar_engine_oci().call_digest_of(store, &input.toc))
                    .unwrap();
            }),
            "plan" => best(|| plan(&sandbox, layer, &planned)),
            "plan one by one" => best(|| {
                planned.iter().for_each(|file| plan(&sandbox, layer, slice::from_ref(file)));
            }),
            "cached" => best(|| cached(&sandbox, layer, &plain, chunk)),
            _ => best(|| {
                let mut bytes = 0;
                let span = whole(&sandbox, layer);
                let count = |data: lazystar_plugin::layers::Data| {
                    bytes += data.bytes.len();
                    Ok(())
                };
                sandbox.read(layer, &[span], &input, count).unwrap();
                assert_eq!(bytes, plain.len());
            }),
        };
        seconds.insert(case["name"].as_str().unwrap().to_owned(), taken.into());
    }
    println!("{}", Value::Object(seconds));
}
