//! What core makes of the corpus, in the terms of the interface in `wit/`.
//!
//! Of an image:
//!
//! * `layers`: of each the error that opening it ends with, or `summary` and `entries`. These go by
//!   identifier: attributes; of directories `children`, of symbolic links `target`, of regular files
//!   `chunks` and `content`, which is the digest and number of the bytes that can be read and the
//!   error after them.
//! * `tree`, if there are several layers and all of them are open: `paths`, with layer and
//!   identifier, the `differences` of each layer, and `efficiency`.
//!
//! Errors have the case of `error-code` as their `tag`, and its fields.

use std::sync::Arc;

use lazystar_core::footer::{self, FooterError};
use lazystar_core::image::{ChangeKind, Image as Merged, ImageNode};
use lazystar_core::layer::{FetchPolicy, ReadError};
use lazystar_core::oci::{Config, Descriptor, Document, DocumentError, Platform};
use lazystar_core::open::{OpenError, OpenOptions, OpenOutput, Opener};
use lazystar_core::toc::{Assurance, EntryFault, Kind, NodeId, Toc, TocError};
use lazystar_core::verify::ChunkFault;
use lazystar_core::{ByteRange, Digest, Limits};
use serde_json::{Map, Value, json};

use super::{Image, Layer, TOC_DIGEST};
use crate::script_host::{Answers, ScriptHost};

/// The limits that the interface promises unless others are set.
const DEFAULTS: Limits = Limits {
    toc_compressed_bytes: 32 << 20,
    toc_bytes: 256 << 20,
    entries: 1_000_000,
    text_bytes: 64 << 20,
    chunk_bytes: 32 << 20,
    member_bytes: 64 << 20,
    ..Limits::DEFAULT
};

/// The name of an assurance.
#[must_use]
pub fn assurance(assurance: Assurance) -> &'static str {
    match assurance {
        Assurance::Verified => "verified",
        Assurance::Consistent => "consistent",
        Assurance::Unverified => "unverified",
    }
}

/// What becomes of an image.
#[must_use]
pub fn image(image: &Image) -> Value {
    let opened: Vec<_> = image.layers.iter().map(open).collect();
    let shown = image.layers.iter().zip(&opened).map(|(layer, opened)| match opened {
        Ok(toc) => show(layer, toc),
        Err(error) => json!({ "error": error }),
    });
    let shown: Vec<_> = shown.collect();
    let tocs: Option<Vec<_>> = opened.into_iter().map(Result::ok).collect();
    let tree = tocs.filter(|tocs| tocs.len() > 1).map(tree);
    json!({ "layers": shown, "tree": tree })
}

fn range(range: ByteRange) -> Value {
    json!([range.start, range.len()])
}

fn open(layer: &Layer) -> Result<Arc<Toc>, Value> {
    let (blob, limits) = (layer.bytes(), layer.limits.unwrap_or(DEFAULTS));
    let annotation = |name: &str| layer.annotations.get(name).filter(|value| !value.is_empty());
    let toc_digest = annotation(TOC_DIGEST).map(|text| {
        text.parse().map_err(|error| {
            let message = format!("the annotation {TOC_DIGEST} is {error}");
            json!({ "tag": "unverifiable", "message": message })
        })
    });
    let position = annotation("io.containers.zstd-chunked.manifest-position")
        .or_else(|| annotation("io.github.containers.zstd-chunked.manifest-position"));
    let options = OpenOptions {
        toc_digest: toc_digest.transpose()?,
        toc_start: position.and_then(|text| text.split(':').next()?.parse().ok()),
        unverified: layer.accept == Assurance::Unverified,
        limits,
    };
    let mut opener = Opener::new(blob.len() as u64, options);
    let mut asked = ByteRange { start: blob.len() as u64, end: blob.len() as u64 };
    while let Some(output) = opener.poll_output() {
        match output {
            OpenOutput::Fetch(request) => {
                asked.start = asked.start.min(request.range.start);
                let bytes = &blob[request.range.start as usize..request.range.end as usize];
                opener.handle_fetched(request.id, request.range.start, bytes);
            }
            OpenOutput::ExternalToc => opener.handle_external_toc(Ok(&layer.toc)),
        }
    }
    let toc = opener.finish().map_err(|error| open_error(&error, asked, &limits))?;
    let enough = match layer.accept {
        Assurance::Verified => toc.assurance() == Assurance::Verified,
        Assurance::Consistent => toc.assurance() != Assurance::Unverified,
        Assurance::Unverified => true,
    };
    if enough {
        return Ok(Arc::new(toc));
    }
    let message = format!(
        "the layer's descriptor does not state the digest of its table of contents (annotation {TOC_DIGEST})"
    );
    Err(json!({ "tag": "unverifiable", "message": message }))
}

fn open_error(error: &OpenError, asked: ByteRange, limits: &Limits) -> Value {
    let message = error.to_string();
    match error {
        OpenError::Footer(FooterError::Absent) => json!({ "tag": "not-lazy" }),
        OpenError::Toc(TocError::Digest { expected, actual }) => {
            mismatch("table-of-contents", None, *expected, *actual, Some(asked))
        }
        OpenError::Toc(TocError::OverLimit { what, limit }) => over_limit(what, *limit),
        OpenError::Toc(TocError::Entry { fault: EntryFault::TooLarge, .. }) => {
            over_limit(&message, limits.chunk_bytes)
        }
        OpenError::Toc(TocError::Entry { fault: EntryFault::NoDigest, .. }) => {
            json!({ "tag": "unverifiable", "message": message })
        }
        _ => json!({ "tag": "malformed", "range": range(asked), "message": message }),
    }
}

fn over_limit(subject: &str, maximum: u64) -> Value {
    json!({ "tag": "limit-exceeded", "subject": subject, "maximum": maximum })
}

fn mismatch(
    subject: &str,
    file: Option<NodeId>,
    expected: Digest,
    actual: Digest,
    place: Option<ByteRange>,
) -> Value {
    json!({
        "tag": "digest-mismatch", "subject": [subject, file.map(|file| file.0)],
        "expected": expected.to_string(), "actual": actual.to_string(), "range": place.map(range),
    })
}

fn show(layer: &Layer, toc: &Arc<Toc>) -> Value {
    let format = match toc.format() {
        footer::Format::EStargz => "estargz",
        footer::Format::EStargzExternalToc => "estargz-external-toc",
        footer::Format::Stargz => "stargz",
        footer::Format::ZstdChunked => "zstd-chunked",
    };
    let summary = json!({
        "format": format, "blob-size": toc.blob_size(), "entries": toc.node_count(),
        "chunks": toc.chunks().len(), "toc-digest": toc.digest().to_string(),
        "assurance": assurance(toc.assurance()),
    });
    let policy = FetchPolicy { gap: 0, min_span: 0, max_span: 0, max_ahead: 0 };
    let mut host = ScriptHost::of(Arc::clone(toc), &layer.bytes(), policy, Answers::Whole);
    let member_limit = layer.limits.unwrap_or(DEFAULTS).member_bytes;
    let mut entries = Map::new();
    for node in (0..toc.node_count()).map(NodeId) {
        let mut shown = attributes(toc, node);
        match toc.kind(node) {
            Kind::Directory => {
                let children = toc.entries(node);
                let children: Map<_, _> =
                    children.map(|it| (text(it.name), json!(it.node.0))).collect();
                shown["children"] = children.into();
            }
            Kind::Symlink => shown["target"] = text(toc.readlink(node)).into(),
            Kind::Regular => {
                shown["chunks"] = chunks(toc, node);
                shown["content"] = content(&mut host, node, member_limit);
            }
            _ => {}
        }
        entries.insert(node.0.to_string(), shown);
    }
    json!({ "summary": summary, "entries": entries })
}

fn attributes(toc: &Toc, node: NodeId) -> Value {
    let attr = toc.attr(node);
    let (kind, device) = match attr.kind {
        Kind::Directory => ("directory", None),
        Kind::Regular => ("regular", None),
        Kind::Symlink => ("symlink", None),
        Kind::CharDevice => ("character-device", Some(attr.device)),
        Kind::BlockDevice => ("block-device", Some(attr.device)),
        Kind::Fifo => ("fifo", None),
        Kind::Whiteout => ("whiteout", None),
    };
    let xattrs: Map<_, _> = toc.xattrs(node).map(|(key, it)| (text(key), hex(it).into())).collect();
    json!({
        "kind": kind, "device": device, "size": attr.size, "mode": attr.mode, "uid": attr.uid,
        "gid": attr.gid, "links": attr.nlink, "opaque": toc.is_opaque(node), "xattrs": xattrs,
        "modified": [attr.mtime_nanos.div_euclid(1_000_000_000), attr.mtime_nanos.rem_euclid(1_000_000_000)],
    })
}

fn chunks(toc: &Toc, file: NodeId) -> Value {
    let start = toc.flat_range(file).start;
    let chunks = toc.file_chunks(file).iter().map(|chunk| {
        let place = (!chunk.is_hole()).then(|| range(toc.member_span(chunk.member)));
        let digest = chunk.digest().map(|digest| digest.to_string());
        json!([chunk.flat - start, chunk.len, place, digest])
    });
    chunks.collect()
}

/// Chunk by chunk, up to the first that cannot be read.
fn content(host: &mut ScriptHost, file: NodeId, member_limit: u64) -> Value {
    let toc = Arc::clone(&host.toc);
    let start = toc.flat_range(file).start;
    let (mut bytes, mut error) = (Vec::new(), None);
    for chunk in toc.file_chunks(file) {
        if !chunk.is_hole() && toc.member_span(chunk.member).len() > member_limit {
            let subject = format!("compressed bytes in a member of file {}", file.0);
            error = Some(over_limit(&subject, member_limit));
            break;
        }
        let flat = chunk.flat_range();
        match host.read_at(file, flat.start - start..flat.end - start) {
            Ok(read) => bytes.extend(read),
            Err(ReadError::Chunk(fault)) => {
                error = Some(chunk_error(&fault, file));
                break;
            }
            Err(other) => panic!("{other}: this host brings everything"),
        }
    }
    json!({ "digest": Digest::of(&bytes).to_string(), "bytes": bytes.len(), "error": error })
}

fn chunk_error(fault: &ChunkFault, file: NodeId) -> Value {
    match fault {
        ChunkFault::Digest { expected, actual, range } => {
            mismatch("file", Some(file), *expected, *actual, Some(*range))
        }
        ChunkFault::Decode { range: place, .. } => {
            json!({ "tag": "malformed", "range": range(*place), "message": fault.to_string() })
        }
        other => panic!("{other}: an error that the interface does not know"),
    }
}

fn tree(tocs: Vec<Arc<Toc>>) -> Value {
    let layers = tocs.len() as u32;
    let image = Merged::new(tocs);
    let located = |node: ImageNode| json!([node.layer, node.node.0]);
    let mut paths = Map::new();
    let mut walk = image.walk(image.root());
    while let Some((path, node)) = walk.next_object() {
        paths.insert(text(path), located(node));
    }
    let mut differences = Vec::new();
    for layer in 0..layers {
        let mut changes = image.changes(layer);
        while let Some(change) = changes.next_change() {
            let kind = match change.kind {
                ChangeKind::Added => "added",
                ChangeKind::Modified => "modified",
                ChangeKind::Metadata => "metadata-only",
                ChangeKind::Duplicated => "duplicated",
                ChangeKind::Removed => "removed",
            };
            let (before, after) = (change.before.map(located), change.after.map(located));
            differences.push(json!([layer, text(change.path), kind, before, after]));
        }
    }
    let found = image.efficiency(200);
    let worst = found.worst.iter().map(|it| json!([text(&it.path), it.bytes, it.layers]));
    let worst: Vec<_> = worst.collect();
    let efficiency = json!({ "stored": found.stored, "visible": found.visible, "worst": worst });
    json!({ "paths": paths, "differences": differences, "efficiency": efficiency })
}

/// What becomes of a document: read as manifest or index, and as configuration.
#[must_use]
pub fn document(bytes: &[u8]) -> Value {
    if bytes.len() > 1 << 20 {
        let error = json!({ "error": over_limit("bytes in a document", 1 << 20) });
        return json!({ "document": error, "configuration": error });
    }
    let parsed = match Document::parse(bytes) {
        Ok(Document::Manifest { config, layers }) => {
            let layers: Vec<_> = layers.iter().map(descriptor).collect();
            json!({ "manifest": { "config": descriptor(&config), "layers": layers } })
        }
        Ok(Document::Index(manifests)) => {
            let entry =
                |it: &Descriptor| json!([descriptor(it), it.platform.as_ref().map(platform)]);
            json!({ "index": manifests.iter().map(entry).collect::<Vec<_>>() })
        }
        Err(error) => document_error(&error),
    };
    let configuration = match Config::parse(bytes) {
        Ok(it) => json!({
            "platform": platform(&it.platform), "diff-ids": it.diff_ids, "env": it.env,
            "history": it.history.iter().map(|it| json!([it.created_by, it.empty_layer])).collect::<Vec<_>>(),
            "entrypoint": it.entrypoint, "cmd": it.cmd, "working-dir": it.working_dir,
            "user": it.user, "labels": it.labels,
        }),
        Err(error) => document_error(&error),
    };
    json!({ "document": parsed, "configuration": configuration })
}

fn descriptor(it: &Descriptor) -> Value {
    json!([it.media_type, it.digest, it.size, it.annotations])
}

fn platform(it: &Platform) -> Value {
    json!([it.os, it.architecture, it.variant])
}

fn document_error(error: &DocumentError) -> Value {
    let message = error.to_string();
    let error = match error {
        DocumentError::Unsupported => json!({ "tag": "unsupported", "message": message }),
        DocumentError::TooLarge => over_limit("values in a document", 200_000),
        _ => json!({ "tag": "malformed", "range": null, "message": message }),
    };
    json!({ "error": error })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
