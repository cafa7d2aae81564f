//! The corpus that all hosts of the engine share, under the limits of a sandbox.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use lazystar_core::Digest;
use lazystar_plugin::layers::{Descriptor, Format, Limit, OpenStep, ReadStep, Span};
use lazystar_plugin::oci::{self, Document};
use lazystar_plugin::overlay::{Change, Located, Location};
use lazystar_plugin::types::{Assurance, ByteRange, Entry, EntryKind, ErrorCode, Subject};
use lazystar_plugin::{Error, Handle, Limits, Sandbox};
use lazystar_tests::corpus;
use serde_json::{Map, Value, json};

use crate::with;

/// The corpus in a directory: `lazystar_tests::corpus` says what is in it.
fn written() -> &'static Path {
    static WRITTEN: OnceLock<PathBuf> = OnceLock::new();
    WRITTEN.get_or_init(|| corpus::written(env!("CARGO_TARGET_TMPDIR")).unwrap())
}

fn read(name: &str) -> Vec<u8> {
    fs::read(written().join(name)).unwrap()
}

fn parse(name: &str) -> Value {
    serde_json::from_slice(&read(name)).unwrap()
}

#[test]
fn the_corpus_ends_as_in_core() {
    let (cases, expected) = (parse("cases.json"), parse("expected.json"));
    // What no case needs: whoever needs more is stopped, and that is no outcome.
    let engine = with(Limits { memory: 384 << 20, call: Duration::from_secs(10) });
    let cases_of = |part: &str| cases[part].as_array().unwrap().clone();
    let images: Vec<_> = cases_of("images")
        .iter()
        .enumerate()
        .map(|(number, case)| image(&engine.sandbox().unwrap(), case, number))
        .collect();
    let documents: Vec<_> = cases_of("documents")
        .iter()
        .map(|name| document(&engine.sandbox().unwrap(), &read(name.as_str().unwrap())))
        .collect();
    let found = json!({ "images": images, "documents": documents });
    if let Err(differences) = corpus::compare(&expected, &found, &cases) {
        panic!("{differences}");
    }
}

/// An error of the component as the corpus has it; a trap is none.
fn failure(error: Error) -> Value {
    match error {
        Error::Engine(code) => code_of(code),
        other => panic!("{other}"),
    }
}

fn code_of(code: ErrorCode) -> Value {
    let text = |tag: &str, message: String| json!({ "tag": tag, "message": message });
    match code {
        ErrorCode::NotLazy => json!({ "tag": "not-lazy" }),
        ErrorCode::Malformed(it) => {
            json!({ "tag": "malformed", "range": it.blob_range.map(range), "message": it.message })
        }
        ErrorCode::DigestMismatch(it) => {
            let subject = match it.subject {
                Subject::TableOfContents => json!(["table-of-contents", null]),
                Subject::File(id) => json!(["file", id]),
                Subject::Document => json!(["document", null]),
            };
            json!({
                "tag": "digest-mismatch", "subject": subject, "expected": it.expected,
                "actual": it.actual, "range": it.blob_range.map(range),
            })
        }
        ErrorCode::LimitExceeded(it) => {
            json!({ "tag": "limit-exceeded", "subject": it.subject, "maximum": it.maximum })
        }
        ErrorCode::Unverifiable(message) => text("unverifiable", message),
        ErrorCode::Unsupported(message) => text("unsupported", message),
        other => panic!("{other:?} is of no case"),
    }
}

fn range(range: ByteRange) -> Value {
    json!([range.offset, range.length])
}

fn image(sandbox: &Sandbox, case: &Value, number: usize) -> Value {
    let (mut opened, mut shown) = (Vec::new(), Vec::new());
    for layer in case["layers"].as_array().unwrap() {
        let mut blob = read(layer["blob"].as_str().unwrap());
        for flip in layer["flips"].as_array().unwrap() {
            blob[flip[0].as_u64().unwrap() as usize] ^= flip[1].as_u64().unwrap() as u8;
        }
        // Pieces of other sizes for every case, the last one first.
        let piece = [1 << 20, 3, 7, 100, 1000][number % 5];
        let result = open(sandbox, layer, &blob, piece);
        shown.push(match result {
            Ok(handle) => {
                opened.push(handle);
                show(sandbox, handle, &blob, piece).unwrap()
            }
            Err(error) => json!({ "error": failure(error) }),
        });
    }
    let whole = opened.len() > 1 && opened.len() == shown.len();
    let tree = whole.then(|| tree(sandbox, &opened).unwrap());
    json!({ "layers": shown, "tree": tree })
}

/// Cuts a range of a blob into pieces.
fn pieces(blob: &[u8], range: ByteRange, piece: usize) -> Vec<(u64, &[u8])> {
    let bytes = &blob[range.offset as usize..(range.offset + range.length) as usize];
    let starts = (range.offset..).step_by(piece);
    let mut pieces: Vec<_> = starts.zip(bytes.chunks(piece)).collect();
    pieces.reverse();
    pieces
}

fn open(sandbox: &Sandbox, layer: &Value, blob: &[u8], piece: usize) -> Result<Handle, Error> {
    let annotations = layer["annotations"].as_object().unwrap().iter();
    let descriptor = Descriptor {
        media_type: String::new(),
        digest: String::new(),
        size: blob.len() as u64,
        annotations: annotations
            .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
            .collect(),
    };
    let opener = sandbox.call(|api, store| {
        api.lazystar_engine_layers().opener().call_constructor(store, &descriptor)
    })?;
    let least = match layer["accept"].as_str().unwrap() {
        "verified" => Assurance::Verified,
        "consistent" => Assurance::Consistent,
        _ => Assurance::Unverified,
    };
    sandbox.call(|api, store| {
        api.lazystar_engine_layers().opener().call_accept(store, opener, least)
    })??;
    for (name, maximum) in layer["limits"].as_object().unwrap() {
        let limit = match name.as_str() {
            "toc-compressed-bytes" => Limit::TocCompressedBytes,
            "toc-bytes" => Limit::TocBytes,
            "entries" => Limit::Entries,
            "chunk-bytes" => Limit::ChunkBytes,
            "member-bytes" => Limit::MemberBytes,
            other => panic!("the limit {other}"),
        };
        let maximum = maximum.as_u64().unwrap();
        sandbox.call(|api, store| {
            api.lazystar_engine_layers().opener().call_set_limit(store, opener, limit, maximum)
        })??;
    }
    loop {
        let step = sandbox
            .call(|api, store| api.lazystar_engine_layers().opener().call_poll(store, opener))??;
        match step {
            OpenStep::Done => break,
            OpenStep::ExternalToc => {
                let json = read(layer["toc"].as_str().unwrap());
                sandbox.call(|api, store| {
                    api.lazystar_engine_layers().opener().call_supply_toc(store, opener, &json)
                })??;
            }
            OpenStep::Need(ranges) => {
                for (at, bytes) in ranges.iter().flat_map(|it| pieces(blob, *it, piece)) {
                    sandbox.call(|api, store| {
                        api.lazystar_engine_layers().opener().call_supply(store, opener, at, bytes)
                    })??;
                }
            }
        }
    }
    Ok(sandbox
        .call(|api, store| api.lazystar_engine_layers().opener().call_finish(store, opener))??)
}

fn show(sandbox: &Sandbox, layer: Handle, blob: &[u8], piece: usize) -> Result<Value, Error> {
    let summary = sandbox
        .call(|api, store| api.lazystar_engine_layers().layer().call_summary(store, layer))?;
    let mut entries = Map::new();
    for start in (0..summary.entries).step_by(1000) {
        let ids: Vec<_> = (start..summary.entries.min(start + 1000)).collect();
        let page = sandbox.call(|api, store| {
            api.lazystar_engine_layers().layer().call_stat(store, layer, &ids)
        })?;
        for entry in page? {
            let shown = show_entry(sandbox, layer, &entry, blob, piece)?;
            entries.insert(entry.id.to_string(), shown);
        }
    }
    let format = match summary.format {
        Format::Estargz => "estargz",
        Format::EstargzExternalToc => "estargz-external-toc",
        Format::Stargz => "stargz",
        Format::ZstdChunked => "zstd-chunked",
    };
    let assurance = match summary.assurance {
        Assurance::Verified => "verified",
        Assurance::Consistent => "consistent",
        Assurance::Unverified => "unverified",
    };
    let summary = json!({
        "format": format, "blob-size": summary.blob_size, "entries": summary.entries,
        "chunks": summary.chunks, "toc-digest": summary.toc_digest, "assurance": assurance,
    });
    Ok(json!({ "summary": summary, "entries": entries }))
}

fn show_entry(
    sandbox: &Sandbox,
    layer: Handle,
    entry: &Entry,
    blob: &[u8],
    piece: usize,
) -> Result<Value, Error> {
    let id = entry.id;
    let (kind, device) = match entry.kind {
        EntryKind::Directory => ("directory", None),
        EntryKind::Regular => ("regular", None),
        EntryKind::Symlink => ("symlink", None),
        EntryKind::CharacterDevice(it) => ("character-device", Some((it.major, it.minor))),
        EntryKind::BlockDevice(it) => ("block-device", Some((it.major, it.minor))),
        EntryKind::Fifo => ("fifo", None),
        EntryKind::Whiteout => ("whiteout", None),
    };
    let xattrs = sandbox
        .call(|api, store| api.lazystar_engine_layers().layer().call_xattrs(store, layer, id))??;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let xattrs: Map<_, _> = xattrs.into_iter().map(|it| (it.name, hex(&it.value).into())).collect();
    let mut shown = json!({
        "kind": kind, "device": device, "size": entry.size, "mode": entry.mode, "uid": entry.uid,
        "gid": entry.gid, "links": entry.links, "opaque": entry.opaque, "xattrs": xattrs,
        "modified": [entry.modified.seconds, entry.modified.nanoseconds],
    });
    match entry.kind {
        EntryKind::Directory => {
            let (mut children, mut next) = (Map::new(), Some(0));
            while let Some(start) = next {
                let page = sandbox.call(|api, store| {
                    let layers = api.lazystar_engine_layers();
                    layers.layer().call_children(store, layer, id, start, 100)
                })??;
                children.extend(page.entries.into_iter().map(|it| (it.name, it.entry.id.into())));
                next = page.next;
            }
            shown["children"] = children.into();
        }
        EntryKind::Symlink => {
            let targets = sandbox.call(|api, store| {
                api.lazystar_engine_layers().layer().call_read_links(store, layer, &[id])
            })??;
            shown["target"] = targets[0].clone().into();
        }
        EntryKind::Regular => {
            let (mut chunks, mut next) = (Vec::new(), Some(0));
            while let Some(start) = next {
                let page = sandbox.call(|api, store| {
                    let layers = api.lazystar_engine_layers();
                    layers.layer().call_chunks(store, layer, id, start, 100)
                })??;
                chunks.extend(
                    page.chunks.into_iter().map(|it| {
                        json!([it.offset, it.length, it.blob_range.map(range), it.digest])
                    }),
                );
                next = page.next;
            }
            shown["chunks"] = chunks.into();
            shown["content"] = content(sandbox, layer, entry, blob, piece)?;
        }
        _ => {}
    }
    Ok(shown)
}

/// What can be read of a file, and the error after it.
fn content(
    sandbox: &Sandbox,
    layer: Handle,
    file: &Entry,
    blob: &[u8],
    piece: usize,
) -> Result<Value, Error> {
    let span = Span { file: file.id, offset: 0, length: file.size };
    let reader = sandbox.call(|api, store| {
        api.lazystar_engine_layers().layer().call_read(store, layer, &[span])
    })??;
    let mut bytes = Vec::new();
    let error = loop {
        let step = sandbox
            .call(|api, store| api.lazystar_engine_layers().reader().call_poll(store, reader, 0))?;
        match step {
            Err(code) => break Some(code_of(code)),
            Ok(ReadStep::Done) => break None,
            Ok(ReadStep::Data(data)) => {
                assert_eq!(data.offset, bytes.len() as u64);
                bytes.extend(data.bytes);
            }
            Ok(ReadStep::Need(needs)) => {
                for (at, bytes) in needs.iter().flat_map(|it| pieces(blob, it.blob_range, piece)) {
                    sandbox.call(|api, store| {
                        api.lazystar_engine_layers().reader().call_supply(store, reader, at, bytes)
                    })??;
                }
            }
        }
    };
    sandbox.drop_handle(reader)?;
    Ok(json!({ "digest": Digest::of(&bytes).to_string(), "bytes": bytes.len(), "error": error }))
}

fn tree(sandbox: &Sandbox, layers: &[Handle]) -> Result<Value, Error> {
    let place = |it: &Located| json!([it.layer, it.entry.id]);
    let tree = sandbox.call(|api, store| {
        api.lazystar_engine_overlay().rootfs().call_constructor(store, layers)
    })?;
    let root = sandbox
        .call(|api, store| api.lazystar_engine_overlay().rootfs().call_root(store, tree))??;
    let root = Location { layer: root.layer, entry: root.entry.id };
    let walk = sandbox.call(|api, store| {
        api.lazystar_engine_overlay().rootfs().call_walk(store, tree, root, "")
    })??;
    let mut paths = Map::new();
    loop {
        let page = sandbox
            .call(|api, store| api.lazystar_engine_overlay().walk().call_next(store, walk, 7))?;
        if page.is_empty() {
            break;
        }
        paths.extend(page.into_iter().map(|it| (it.path, place(&it.target))));
    }
    let mut differences = Vec::new();
    for layer in 0..layers.len() as u32 {
        let list = sandbox.call(|api, store| {
            api.lazystar_engine_overlay().rootfs().call_differences(store, tree, layer)
        })??;
        loop {
            let page = sandbox.call(|api, store| {
                api.lazystar_engine_overlay().differences().call_next(store, list, 7)
            })?;
            if page.is_empty() {
                break;
            }
            differences.extend(page.into_iter().map(|it| {
                let change = match it.change {
                    Change::Added => "added",
                    Change::Modified => "modified",
                    Change::MetadataOnly => "metadata-only",
                    Change::Duplicated => "duplicated",
                    Change::Removed => "removed",
                };
                let (before, after) = (it.before.as_ref().map(place), it.after.as_ref().map(place));
                json!([layer, it.path, change, before, after])
            }));
        }
    }
    let found = sandbox.call(|api, store| {
        api.lazystar_engine_overlay().rootfs().call_efficiency(store, tree, 200)
    })?;
    let worst: Vec<_> =
        found.worst.iter().map(|it| json!([it.path, it.bytes, it.layers])).collect();
    let efficiency = json!({ "stored": found.stored, "visible": found.visible, "worst": worst });
    Ok(json!({ "paths": paths, "differences": differences, "efficiency": efficiency }))
}

fn document(sandbox: &Sandbox, bytes: &[u8]) -> Value {
    let descriptor = |it: &Descriptor| json!([it.media_type, it.digest, it.size, it.annotations]);
    let platform = |it: &oci::Platform| json!([it.os, it.architecture, it.variant]);
    let parsed =
        sandbox.call(|api, store| api.lazystar_engine_oci().call_parse(store, bytes, None));
    let document = match parsed.unwrap() {
        Ok(Document::Index(entries)) => {
            let entries = entries
                .iter()
                .map(|it| json!([descriptor(&it.manifest), it.platform.as_ref().map(platform)]));
            json!({ "index": entries.collect::<Vec<_>>() })
        }
        Ok(Document::Manifest(it)) => {
            let layers: Vec<_> = it.layers.iter().map(descriptor).collect();
            json!({ "manifest": { "config": descriptor(&it.config), "layers": layers } })
        }
        Err(code) => json!({ "error": code_of(code) }),
    };
    let parsed = sandbox
        .call(|api, store| api.lazystar_engine_oci().call_parse_configuration(store, bytes, None));
    let configuration = match parsed.unwrap() {
        Ok(it) => {
            let history = it.history.iter().map(|step| json!([step.created_by, step.empty_layer]));
            json!({
                "platform": platform(&it.platform), "diff-ids": it.diff_ids, "env": it.env,
                "history": history.collect::<Vec<_>>(), "entrypoint": it.entrypoint, "cmd": it.cmd,
                "working-dir": it.working_dir, "user": it.user, "labels": it.labels,
            })
        }
        Err(code) => json!({ "error": code_of(code) }),
    };
    json!({ "document": document, "configuration": configuration })
}
