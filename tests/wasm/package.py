"""What the test of the packages wants to know, asked of the one for Python: `python package.py REGISTRY`."""

import hashlib
import json
import sys

from lazystar import EngineError, Image, Registry


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def failure(what):
    try:
        what()
    except EngineError as error:
        return type(error).__name__
    return None


registry = Registry(sys.argv[1], "team/app")
with Image.open(registry, "good") as image:
    print(json.dumps({
        "names": list(image.readdir()),
        "replaced": image.read("/dir/file-1").decode(),
        "digest": sha256(image.read("/dir/file-700001")),
        "part": sha256(image.read("/dir/file-300000", 99990, 20)),
        "link": image.readlink("/link"),
        "found": [it.path for it in image.walk("/", "FILE-700") if it.path.endswith("1")],
        "removed": sum(it.change == "removed" for it in image.differences(1)),
        "waste": next(it.path for it in image.efficiency(200).worst if it.path.startswith("/many/")),
        "missing": failure(lambda: image.stat("/not/there")),
        "directory": failure(lambda: image.read("/dir")),
        "altered": failure(lambda: Image.open(registry, "bad").read("/dir/file-300000")),
        "ordinary": failure(lambda: Image.open(registry, "ordinary")),
    }))
