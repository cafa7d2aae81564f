"""What the package for Python makes of the corpus: `python corpus.py DIRECTORY`; prints outcomes as JSON, in the shape
that tests/support/corpus/outcome.rs describes."""

import hashlib
import json
from pathlib import Path
import sys

from lazystar import EngineError
from lazystar._abi import Instance, Interface

directory = Path(sys.argv[1])
cases = json.loads(directory.joinpath("cases.json").read_text())
engine = Instance(Interface(), 512 << 20, 10)


def call(name, *arguments):
    return engine.call(name, *arguments)


def failure(error):
    """The error of a call as the corpus has it."""
    tag, detail = error.tag, error.detail
    if tag == "malformed":
        return {"tag": tag, "range": detail.blob_range, "message": detail.message}
    if tag == "digest-mismatch":
        return {"tag": tag, "subject": detail.subject, "expected": detail.expected, "actual": detail.actual,
                "range": detail.blob_range}
    if tag == "limit-exceeded":
        return {"tag": tag, "subject": detail.subject, "maximum": detail.maximum}
    return {"tag": tag} if detail is None else {"tag": tag, "message": detail}


def attempt(what, *arguments):
    try:
        return what(*arguments)
    except EngineError as error:
        return {"error": failure(error)}


def supply(method, handle, blob, ranges):
    """Brings ranges in two pieces, the last one first."""
    for offset, length in ranges:
        middle = length // 2
        for start, end in ((middle, length), (0, middle)):
            call(method, handle, offset + start, blob[offset + start:offset + end])


def open_layer(described, blob):
    size = len(blob)
    opener = call("layers.[constructor]opener", ("", "", size, list(described["annotations"].items())))
    call("layers.[method]opener.accept", opener, described["accept"])
    for limit, maximum in described["limits"].items():
        call("layers.[method]opener.set-limit", opener, limit, maximum)
    while (step := call("layers.[method]opener.poll", opener)).tag != "done":
        if step.tag == "need":
            supply("layers.[method]opener.supply", opener, blob, step.value)
        else:
            call("layers.[method]opener.supply-toc", opener, directory.joinpath(described["toc"]).read_bytes())
    return call("layers.[static]opener.finish", opener)


def content(layer, entry, blob):
    reader = call("layers.[method]layer.read", layer, [(entry.id, 0, entry.size)])
    hasher, size, error = hashlib.sha256(), 0, None
    try:
        while (step := call("layers.[method]reader.poll", reader, 0)).tag != "done":
            if step.tag == "data":
                hasher.update(step.value.bytes)
                size += len(step.value.bytes)
            else:
                supply("layers.[method]reader.supply", reader, blob, [need.blob_range for need in step.value])
    except EngineError as caught:
        error = failure(caught)
    reader.close()
    return {"digest": "sha256:" + hasher.hexdigest(), "bytes": size, "error": error}


def pages(method, layer, node):
    start = 0
    while start is not None:
        items, start = call(method, layer, node, start, 1000)
        yield from items


def show_entry(layer, entry, blob):
    kind, node = entry.kind, entry.id
    shown = {
        "kind": kind.tag, "device": kind.value, "size": entry.size, "mode": entry.mode, "uid": entry.uid,
        "gid": entry.gid, "links": entry.links, "opaque": entry.opaque, "modified": entry.modified,
        "xattrs": {it.name: it.value.hex() for it in call("layers.[method]layer.xattrs", layer, node)}}
    if kind.tag == "directory":
        shown["children"] = {it.name: it.entry.id for it in pages("layers.[method]layer.children", layer, node)}
    elif kind.tag == "symlink":
        shown["target"], = call("layers.[method]layer.read-links", layer, [node])
    elif kind.tag == "regular":
        shown["chunks"] = list(pages("layers.[method]layer.chunks", layer, node))
        shown["content"] = content(layer, entry, blob)
    return shown


def show(layer, blob):
    it = call("layers.[method]layer.summary", layer)
    summary = {"format": it.format, "blob-size": it.blob_size, "entries": it.entries, "chunks": it.chunks,
               "toc-digest": it.toc_digest, "assurance": it.assurance}
    entries = {}
    for start in range(0, it.entries, 1000):
        ids = list(range(start, min(start + 1000, it.entries)))
        for entry in call("layers.[method]layer.stat", layer, ids):
            entries[str(entry.id)] = show_entry(layer, entry, blob)
    return {"summary": summary, "entries": entries}


def tree(layers):
    rootfs = call("overlay.[constructor]rootfs", layers)
    root = call("overlay.[method]rootfs.root", rootfs)

    def place(it):
        return it and (it.layer, it.entry.id)

    def items(method, handle):
        while page := call(method, handle, 1000):
            yield from page
        handle.close()

    walk = call("overlay.[method]rootfs.walk", rootfs, place(root), "")
    paths = {it.path: place(it.target) for it in items("overlay.[method]walk.next", walk)}
    differences = [
        (layer, it.path, it.change, place(it.before), place(it.after))
        for layer in range(len(layers))
        for it in items("overlay.[method]differences.next", call("overlay.[method]rootfs.differences", rootfs, layer))]
    stored, visible, worst = call("overlay.[method]rootfs.efficiency", rootfs, 200)
    rootfs.close()
    return {"paths": paths, "differences": differences,
            "efficiency": {"stored": stored, "visible": visible, "worst": worst}}


def image(described):
    opened, shown = [], []
    for layer in described["layers"]:
        blob = bytearray(directory.joinpath(layer["blob"]).read_bytes())
        for at, bits in layer["flips"]:
            blob[at] ^= bits

        def read():
            opened.append(open_layer(layer, blob))
            return show(opened[-1], blob)

        shown.append(attempt(read))
    merged = tree(opened) if len(opened) == len(shown) > 1 else None
    for layer in opened:
        layer.close()
    return {"layers": shown, "tree": merged}


def document(name):
    data = directory.joinpath(name).read_bytes()

    def parse():
        tag, value = call("oci.parse", data, None)
        return {tag: value if tag == "index" else value._asdict()}

    def configuration():
        it = call("oci.parse-configuration", data, None)._asdict()
        return {name.replace("_", "-"): value for name, value in it.items()}

    return {"document": attempt(parse), "configuration": attempt(configuration)}


print(json.dumps({"images": [image(it) for it in cases["images"]],
                  "documents": [document(it) for it in cases["documents"]]}))
