//! Chunks of 4 MiB, through functions with types and through values.

use lazystar_core::write::Format;
use lazystar_plugin::layers::{Descriptor, ReadStep, Span};
use lazystar_plugin::{Source, Trust};
use wasmtime::component::{Component, Func, Instance, Linker, Val};
use wasmtime::{Engine, Store};

use crate::{compiled, component};
use lazystar_tests::layers::{build, file, noise, options};

const CHUNK: usize = 4 << 20;

/// A file of two chunks that hardly shrink, and the rest of a third.
fn layer() -> (Vec<u8>, Vec<u8>, Vec<(String, String)>) {
    let content = noise(2 * CHUNK + 1000, 1);
    let built = build(options(Format::Estargz, CHUNK as u32, 0), &[file("f", &content)]);
    let annotations = built.summary.annotations().into_iter();
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value)).collect();
    (content, built.blob, annotations)
}

#[test]
fn a_chunk_of_4_mib_goes_through_functions_with_types() {
    let (content, blob, annotations) = layer();
    let sandbox = compiled().sandbox().unwrap();
    let descriptor = Descriptor {
        media_type: String::new(),
        digest: String::new(),
        size: blob.len() as u64,
        annotations,
    };
    let layer = sandbox.open(&descriptor, Trust::Verified, &blob).unwrap();
    // From the cache of a host, whole, in one call; and out again in calls of at most 1 MiB.
    let file = sandbox
        .call(|api, store| api.lazystar_engine_layers().layer().call_lookup(store, layer, "f"))
        .unwrap()
        .unwrap();
    let span = Span { file: file.id, offset: 0, length: file.size };
    let reader = sandbox
        .call(|api, store| api.lazystar_engine_layers().layer().call_read(store, layer, &[span]))
        .unwrap()
        .unwrap();
    let mut read = Vec::new();
    let mut cached = content.chunks(CHUNK);
    loop {
        let step = sandbox
            .call(|api, store| api.lazystar_engine_layers().reader().call_poll(store, reader, 0));
        match step.unwrap().unwrap() {
            ReadStep::Done => break,
            ReadStep::Data(data) => {
                assert!(data.bytes.len() <= 1 << 20);
                read.extend(data.bytes);
            }
            ReadStep::Need(needs) => {
                for digest in needs.iter().flat_map(|need| &need.chunks) {
                    let chunk = cached.next().unwrap();
                    let supplied = sandbox.call(|api, store| {
                        let layers = api.lazystar_engine_layers();
                        layers.reader().call_supply_chunk(store, reader, digest, chunk)
                    });
                    supplied.unwrap().unwrap();
                }
            }
        }
    }
    assert!(read == content);
    // And from the blob, where a range is one call.
    let mut read = Vec::new();
    let whole = Whole(blob);
    sandbox
        .read(layer, &[span], &whole, |data| {
            read.extend(data.bytes);
            Ok(())
        })
        .unwrap();
    assert!(read == content);
}

/// Answers every range with one call.
struct Whole(Vec<u8>);

impl Source for Whole {
    fn fetch(
        &self,
        ranges: &[lazystar_plugin::types::ByteRange],
        give: &mut lazystar_plugin::Give<'_>,
    ) -> Result<(), lazystar_plugin::Error> {
        for range in ranges {
            let (start, end) = (range.offset as usize, (range.offset + range.length) as usize);
            give(range.offset, &self.0[start..end])?;
        }
        Ok(())
    }
}

/// The component by names and values, as the APIs for C and Python call it.
struct Dynamic {
    store: Store<()>,
    instance: Instance,
}

impl Dynamic {
    fn new() -> Self {
        let engine = Engine::default();
        let component = Component::from_file(&engine, component()).unwrap();
        let mut store = Store::new(&engine, ());
        let instance = Linker::new(&engine).instantiate(&mut store, &component).unwrap();
        Self { store, instance }
    }

    fn function(&mut self, name: &str) -> Func {
        let layers = "lazystar:engine/layers@0.1.0";
        let interface = self.instance.get_export_index(&mut self.store, None, layers).unwrap();
        let export = self.instance.get_export_index(&mut self.store, Some(&interface), name);
        self.instance.get_func(&mut self.store, export.unwrap()).unwrap()
    }

    fn call(&mut self, name: &str, arguments: &[Val]) -> wasmtime::Result<Val> {
        let function = self.function(name);
        let mut results = [Val::Bool(false)];
        function.call(&mut self.store, arguments, &mut results)?;
        let [result] = results;
        match result {
            Val::Result(Ok(value)) => Ok(value.map_or(Val::Bool(true), |value| *value)),
            Val::Result(Err(error)) => panic!("{name}: {error:?}"),
            other => Ok(other),
        }
    }
}

fn bytes(bytes: &[u8]) -> Val {
    Val::List(bytes.iter().map(|byte| Val::U8(*byte)).collect())
}

fn field<'a>(record: &'a Val, name: &str) -> &'a Val {
    let Val::Record(fields) = record else { panic!("{record:?}") };
    &fields.iter().find(|(field, _)| field == name).unwrap().1
}

#[test]
fn a_chunk_of_4_mib_goes_through_values() {
    let (content, blob, annotations) = layer();
    let mut host = Dynamic::new();
    let pair = |(key, value)| Val::Tuple(vec![Val::String(key), Val::String(value)]);
    let annotations = annotations.into_iter().map(pair).collect();
    let descriptor = Val::Record(vec![
        ("media-type".into(), Val::String(String::new())),
        ("digest".into(), Val::String(String::new())),
        ("size".into(), Val::U64(blob.len() as u64)),
        ("annotations".into(), Val::List(annotations)),
    ]);
    let opener = host.call("[constructor]opener", &[descriptor]).unwrap();
    drive(&mut host, "opener", &opener, &blob, &mut |_| {});
    let layer = host.call("[static]opener.finish", &[opener]).unwrap();
    let file = host.call("[method]layer.lookup", &[layer.clone(), Val::String("f".into())]);
    let file = field(&file.unwrap(), "id").clone();
    let span = Val::Record(vec![
        ("file".into(), file),
        ("offset".into(), Val::U64(0)),
        ("length".into(), Val::U64(content.len() as u64)),
    ]);
    let reader = host.call("[method]layer.read", &[layer, Val::List(vec![span])]).unwrap();
    let mut read = Vec::new();
    drive(&mut host, "reader", &reader, &blob, &mut |data| {
        let Val::List(items) = field(data, "bytes") else { panic!("{data:?}") };
        // wasmtime takes 3.2 MiB of a list of bytes through this API, and traps beyond.
        assert!(items.len() <= 1 << 20);
        read.extend(items.iter().map(|item| match item {
            Val::U8(byte) => *byte,
            other => panic!("{other:?}"),
        }));
    });
    assert!(read == content);
}

/// The loop of an opener or reader. Ranges are brought whole: what goes in is not limited.
fn drive(host: &mut Dynamic, of: &str, handle: &Val, blob: &[u8], each: &mut dyn FnMut(&Val)) {
    loop {
        let mut arguments = vec![handle.clone()];
        if of == "reader" {
            arguments.push(Val::U32(0));
        }
        let step = host.call(&format!("[method]{of}.poll"), &arguments).unwrap();
        let Val::Variant(case, value) = step else { panic!("{step:?}") };
        match (case.as_str(), value) {
            ("done", _) => return,
            ("data", Some(data)) => each(&data),
            ("need", Some(needs)) => {
                let Val::List(needs) = *needs else { panic!("{needs:?}") };
                for need in &needs {
                    let range = if of == "reader" { field(need, "blob-range") } else { need };
                    let number = |name| match field(range, name) {
                        Val::U64(number) => *number as usize,
                        other => panic!("{other:?}"),
                    };
                    let (offset, length) = (number("offset"), number("length"));
                    let arguments = [
                        handle.clone(),
                        Val::U64(offset as u64),
                        bytes(&blob[offset..offset + length]),
                    ];
                    host.call(&format!("[method]{of}.supply"), &arguments).unwrap();
                }
            }
            (other, _) => panic!("{other}"),
        }
    }
}
