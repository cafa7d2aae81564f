//! Calls in any order with any arguments, decided by bytes: what a fuzzer drives the interface with.
//!
//! Handles exist in WebAssembly alone; what is behind them is called here.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::Engine;
use crate::bindings::exports::lazystar::engine::layers::{
    Descriptor, GuestLayer as _, GuestOpener as _, GuestReader as _, Limit, OpenStep, ReadStep,
    Span,
};
use crate::bindings::exports::lazystar::engine::oci::Guest as _;
use crate::bindings::exports::lazystar::engine::overlay::{
    GuestDifferences as _, GuestRootfs as _, GuestWalk as _, Location,
};
use crate::bindings::exports::lazystar::engine::types::{Assurance, ByteRange};
use crate::layer::OpenLayer;
use crate::opener::LayerOpener;
use crate::overlay::{LayerChanges, MergedTree, TreeWalk};
use crate::reader::FileReader;

/// Objects of a kind that are kept at a time.
const KEPT: usize = 4;

/// A sound layer.
#[derive(Debug)]
pub struct Blob {
    /// The blob.
    pub bytes: Vec<u8>,
    /// Its table of contents.
    pub toc: Vec<u8>,
    /// The annotations of its descriptor.
    pub annotations: Vec<(String, String)>,
    /// What its files hold, by identifier.
    pub contents: BTreeMap<u32, Vec<u8>>,
}

/// Numbers out of the script; zeros when it is used up.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Small numbers mostly, and the largest.
    fn number(&mut self) -> u64 {
        match self.byte() {
            byte @ 0..200 => u64::from(byte),
            byte @ 200..230 => u64::from(byte) << 8 | u64::from(self.byte()),
            byte @ 230..243 => u64::from(u32::MAX) - u64::from(byte - 230),
            byte => u64::MAX - u64::from(byte - 243),
        }
    }

    fn small(&mut self) -> u32 {
        self.number() as u32
    }

    fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    fn one_of<'b, T>(&mut self, list: &'b [T]) -> Option<&'b T> {
        let choice = usize::from(self.byte());
        list.get(choice.checked_rem(list.len())?)
    }
}

fn keep<T>(list: &mut Vec<T>, item: T) {
    if list.len() == KEPT {
        list.remove(0);
    }
    list.push(item);
}

#[derive(Default)]
struct State<'a> {
    openers: Vec<(LayerOpener, &'a Blob)>,
    layers: Vec<(OpenLayer, &'a Blob)>,
    readers: Vec<(FileReader, Vec<Span>, &'a Blob)>,
    trees: Vec<MergedTree>,
    walks: Vec<TreeWalk>,
    changes: Vec<LayerChanges>,
    /// What was read: a chunk, sometimes.
    seen: Vec<Vec<u8>>,
}

/// Makes the calls of a script on an instance whose host has `blobs`.
///
/// # Panics
/// When a call does, or gives content that is not in the layer.
pub fn run(blobs: &[Blob], script: &[u8]) {
    let mut script = Script(script);
    let mut state = State::default();
    while !script.0.is_empty() {
        match script.byte() % 8 {
            0 => open(&mut state, blobs, &mut script),
            1 => drive_opener(&mut state, &mut script),
            2 => ask_layer(&state, &mut script),
            3 => read(&mut state, &mut script),
            4 | 5 => drive_reader(&mut state, &mut script),
            6 => merge(&mut state, &mut script),
            _ => documents(&mut script),
        }
    }
}

fn open<'a>(state: &mut State<'a>, blobs: &'a [Blob], script: &mut Script<'_>) {
    let Some(blob) = script.one_of(blobs) else { return };
    let odd = script.byte();
    let mut descriptor = Descriptor {
        media_type: String::new(),
        digest: String::new(),
        size: blob.bytes.len() as u64,
        annotations: blob.annotations.clone(),
    };
    if odd % 8 == 1 {
        descriptor.size = script.number();
    } else if odd % 8 == 2 {
        let value = String::from_utf8_lossy(script.bytes()).into_owned();
        if let Some((_, it)) = descriptor.annotations.first_mut() {
            *it = value;
        }
    }
    let opener = LayerOpener::new(descriptor);
    if odd < 128 {
        // All the way, so that most scripts get to what comes after.
        while let Ok(step) = opener.poll() {
            match step {
                OpenStep::Need(ranges) => {
                    for range in ranges {
                        let Some(bytes) = part(blob, &range) else { return };
                        let _ = opener.supply(range.offset, bytes.to_vec());
                    }
                }
                OpenStep::ExternalToc => drop(opener.supply_toc(blob.toc.clone())),
                OpenStep::Done => break,
            }
        }
        if let Ok(layer) = opener.into_layer() {
            keep(&mut state.layers, (layer, blob));
        }
    } else {
        keep(&mut state.openers, (opener, blob));
    }
}

fn part<'a>(blob: &'a Blob, range: &ByteRange) -> Option<&'a [u8]> {
    blob.bytes.get(range.offset as usize..)?.get(..range.length as usize)
}

fn drive_opener(state: &mut State<'_>, script: &mut Script<'_>) {
    let Some((opener, blob)) = state.openers.pop() else { return };
    match script.byte() % 8 {
        0 => {
            let least = [Assurance::Verified, Assurance::Consistent, Assurance::Unverified];
            drop(script.one_of(&least).map(|least| opener.accept(*least)));
        }
        1 => {
            let limits = [
                Limit::TocCompressedBytes,
                Limit::TocBytes,
                Limit::Entries,
                Limit::ChunkBytes,
                Limit::MemberBytes,
            ];
            let limit = script.one_of(&limits).copied();
            drop(limit.map(|limit| opener.set_limit(limit, script.number())));
        }
        2 => drop(opener.supply(script.number(), script.bytes().to_vec())),
        3 => drop(opener.supply_toc(script.bytes().to_vec())),
        4 => {
            if let Ok(layer) = opener.into_layer() {
                keep(&mut state.layers, (layer, blob));
            }
            return;
        }
        _ => {
            if let Ok(OpenStep::Need(ranges)) = opener.poll() {
                for range in ranges {
                    let Some(bytes) = part(blob, &range) else { continue };
                    let skip = usize::from(script.byte()).min(bytes.len());
                    let (_, bytes) = bytes.split_at(skip);
                    let _ = opener.supply(range.offset + skip as u64, bytes.to_vec());
                }
            }
        }
    }
    keep(&mut state.openers, (opener, blob));
}

fn ask_layer(state: &State<'_>, script: &mut Script<'_>) {
    let Some((layer, _)) = script.one_of(&state.layers) else { return };
    let (id, start, maximum) = (script.small(), script.small(), script.small());
    match script.byte() % 7 {
        0 => drop(layer.children(id, start, maximum)),
        1 => drop(layer.chunks(id, start, maximum)),
        2 => drop(layer.stat(Vec::from([id, start, maximum]))),
        3 => drop(layer.read_links(Vec::from([id, start]))),
        4 => drop(layer.xattrs(id)),
        5 => drop(layer.lookup(String::from_utf8_lossy(script.bytes()).into_owned())),
        _ => drop(layer.summary()),
    }
}

fn read(state: &mut State<'_>, script: &mut Script<'_>) {
    let Some((layer, blob)) = script.one_of(&state.layers) else { return };
    let count = script.byte() % 8;
    let files: Vec<_> = blob.contents.keys().copied().collect();
    let spans: Vec<_> = (0..count)
        .map(|_| {
            let file = script.one_of(&files).copied();
            let file = file.filter(|_| script.byte() < 250);
            Span {
                file: file.unwrap_or_else(|| script.small()),
                offset: script.number(),
                length: script.number(),
            }
        })
        .collect();
    if let Ok(reader) = layer.reader(spans.clone()) {
        keep(&mut state.readers, (reader, spans, blob));
    }
}

fn drive_reader(state: &mut State<'_>, script: &mut Script<'_>) {
    let Some((reader, spans, blob)) = script.one_of(&state.readers) else { return };
    match script.byte() % 8 {
        0 => drop(reader.supply(script.number(), script.bytes().to_vec())),
        1 => drop(reader.supply_chunk(
            String::from_utf8_lossy(script.bytes()).into_owned(),
            script.bytes().to_vec(),
        )),
        _ => match reader.poll(script.small()) {
            Ok(ReadStep::Need(needs)) => {
                for need in needs {
                    let choice = script.byte();
                    let cached = need.chunks.first().zip(script.one_of(&state.seen));
                    match (choice % 8, cached) {
                        (0 | 1, Some((digest, bytes))) => {
                            drop(reader.supply_chunk(digest.clone(), bytes.clone()));
                        }
                        (damaged, _) => {
                            let bytes = part(blob, &need.blob_range).expect("inside the blob");
                            let mut some = bytes.to_vec();
                            some.truncate(usize::from(choice) * 64);
                            if let (7, Some(byte)) = (damaged, some.first_mut()) {
                                *byte ^= 1;
                            }
                            drop(reader.supply(need.blob_range.offset, some));
                        }
                    }
                }
            }
            Ok(ReadStep::Data(data)) => {
                let file = spans.get(data.span as usize).expect("a span that was asked for").file;
                let content = blob.contents.get(&file).expect("a file of the layer");
                let rest = content.get(data.offset as usize..).expect("inside the file");
                assert!(!data.bytes.is_empty() && rest.starts_with(&data.bytes));
                keep(&mut state.seen, data.bytes);
            }
            Ok(ReadStep::Done) | Err(_) => {}
        },
    }
}

fn merge(state: &mut State<'_>, script: &mut Script<'_>) {
    let at = Location { layer: script.small(), entry: script.small() };
    let (start, maximum) = (script.small(), script.small());
    let operation = script.byte() % 9;
    if operation == 0 {
        keep(&mut state.trees, MergedTree::of(state.layers.iter().map(|(layer, _)| layer)));
    }
    let Some(tree) = script.one_of(&state.trees) else { return };
    let text = |script: &mut Script<'_>| String::from_utf8_lossy(script.bytes()).into_owned();
    match operation {
        1 => drop(tree.root()),
        2 => drop(tree.lookup(text(script), start % 2 == 0)),
        3 => drop(tree.stat(Vec::from([at, at]))),
        4 => drop(tree.children(at, start, maximum)),
        5 => drop(tree.efficiency(maximum)),
        6 => {
            if let Ok(walk) = tree.walk_from(at, text(script)) {
                keep(&mut state.walks, walk);
            }
        }
        7 => {
            if let Ok(changes) = tree.changes_of(at.layer) {
                keep(&mut state.changes, changes);
            }
        }
        _ => {
            drop(script.one_of(&state.walks).map(|walk| walk.next(maximum)));
            drop(script.one_of(&state.changes).map(|changes| changes.next(maximum)));
        }
    }
}

fn documents(script: &mut Script<'_>) {
    let document = script.bytes().to_vec();
    let digest = Engine::digest_of(document.clone());
    assert!(Engine::verify(document.clone(), digest.clone()).is_ok());
    let other = String::from_utf8_lossy(script.bytes()).into_owned();
    assert!(Engine::verify(document.clone(), other).is_err());
    let _ = Engine::parse(document.clone(), Some(digest));
    let _ = Engine::parse_configuration(document, None);
}
