"""The benchmark through the package for Python: `python python.py DIRECTORY`; prints seconds as JSON."""

import json
from pathlib import Path
import sys
import time

from lazystar._abi import Instance, Interface

directory = Path(sys.argv[1])
inputs = json.loads(directory.joinpath("cases.json").read_text())
plain = directory.joinpath("plain").read_bytes()
engine = Instance(Interface(), 1 << 30, 60)
call = engine.call


def best(run):
    begin, runs, fastest = time.monotonic(), 0, float("inf")
    while runs < 3 or time.monotonic() - begin < 0.5:
        start = time.process_time()
        run()
        fastest = min(fastest, time.process_time() - start)
        runs += 1
    return fastest


def supply(method, handle, case, ranges):
    before = case["size"] - len(case["bytes"])
    for offset, length in ranges:
        end = offset + length
        if offset < before:
            call(method, handle, offset, bytes(min(end, before) - offset))
        if end > before:
            start = max(offset, before)
            call(method, handle, start, case["bytes"][start - before:end - before])


def open_layer(case):
    opener = call("layers.[constructor]opener", ("", "", case["size"], list(case["annotations"].items())))
    call("layers.[method]opener.accept", opener, "unverified")
    while (step := call("layers.[method]opener.poll", opener)).tag != "done":
        if step.tag == "need":
            supply("layers.[method]opener.supply", opener, case, step.value)
        else:
            call("layers.[method]opener.supply-toc", opener, case["json"])
    return call("layers.[static]opener.finish", opener)


def reader_of(layer):
    file = call("layers.[method]layer.lookup", layer, "f")
    return call("layers.[method]layer.read", layer, [(file.id, 0, file.size)])


def plan(layer, files):
    reader = call("layers.[method]layer.read", layer, [(file, 0, 1 << 40) for file in files])
    step = call("layers.[method]reader.poll", reader, 0)
    assert step.tag == "need" and sum(len(need.chunks) for need in step.value) == len(files)
    reader.close()


def read(case, layer):
    reader, size = reader_of(layer), 0
    while (step := call("layers.[method]reader.poll", reader, 0)).tag != "done":
        if step.tag == "data":
            size += len(step.value.bytes)
        else:
            supply("layers.[method]reader.supply", reader, case, [need.blob_range for need in step.value])
    reader.close()
    assert size == len(plain)


def cached(case, layer):
    reader, at, chunk = reader_of(layer), 0, inputs["chunk"]
    while (step := call("layers.[method]reader.poll", reader, 0)).tag != "done":
        if step.tag == "need":
            for digest in (digest for need in step.value for digest in need.chunks):
                call("layers.[method]reader.supply-chunk", reader, digest, plain[at:at + chunk])
                at += chunk
    reader.close()


seconds = {}
for case in inputs["cases"]:
    case["bytes"] = directory.joinpath(case["tail"]).read_bytes()
    case["json"] = directory.joinpath(case["toc"]).read_bytes()
    layer = open_layer(case)
    run = {"open": lambda: open_layer(case).close(), "hash": lambda: call("oci.digest-of", case["json"]),
           "plan": lambda: plan(layer, inputs["planned"]),
           "plan one by one": lambda: [plan(layer, [file]) for file in inputs["planned"]],
           "read": lambda: read(case, layer), "cached": lambda: cached(case, layer)}[case["kind"]]
    seconds[case["name"]] = best(run)
    layer.close()
print(json.dumps(seconds))
