"""Images, read through the engine."""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from ._abi import Instance, Interface
from ._errors import Unsupported

#: Requests side by side.
_REQUESTS = 8
_interface = lru_cache(maxsize=None)(Interface)


class Image:
    """An image whose layers are open. Everything read is verified.

    An image has an instance of the engine of its own, and is for one thread at a time.
    """

    @classmethod
    def open(cls, source, name, *, os="linux", architecture="amd64", trust="verified", memory_limit=512 << 20,
             deadline=10):
        """Opens the image with this tag or digest: fetches its manifest and the tables of its layers.

        `trust` is how far content must be trusted: `verified`, `consistent` or `unverified`. The engine gets
        `memory_limit` bytes of memory, and `deadline` seconds for a call; without them it traps.
        """
        image = cls(source, Instance(_interface(), memory_limit, deadline))
        try:
            image._open(name, os, architecture, trust)
        except BaseException:
            image.close()
            raise
        return image

    def __init__(self, source, engine):
        self.source, self.layers = source, []
        self._engine, self._rootfs = engine, None
        self._pool = ThreadPoolExecutor(_REQUESTS)

    def _open(self, name, os, architecture, trust):
        document, digest = self.source.document(name), name if ":" in name else None
        self.digest = self._engine.call("oci.digest-of", document)
        parsed = self._engine.call("oci.parse", document, digest)
        if parsed.tag == "index":
            wanted = (os, architecture)
            found = [it for it in parsed.value if it.platform and (it.platform.os, it.platform.architecture) == wanted]
            if not found:
                raise Unsupported("unsupported", f"the image has nothing for {os}/{architecture}")
            self.digest = found[0].manifest.digest
            parsed = self._engine.call("oci.parse", self.source.document(self.digest), self.digest)
        if parsed.tag != "manifest":
            raise Unsupported("unsupported", "an index in an index")
        for descriptor in parsed.value.layers:
            self.layers.append((self._layer(descriptor, trust, name), descriptor.digest))
        self._rootfs = self._engine.call("overlay.[constructor]rootfs", [layer for layer, _ in self.layers])

    def _layer(self, descriptor, trust, name):
        opener = self._engine.call("layers.[constructor]opener", descriptor)
        self._engine.call("layers.[method]opener.accept", opener, trust)
        while True:
            step = self._engine.call("layers.[method]opener.poll", opener)
            if step.tag == "done":
                return self._engine.call("layers.[static]opener.finish", opener)
            if step.tag == "external-toc":
                raise Unsupported("unsupported", f"the table of contents of {descriptor.digest} is in another image")
            self._supply("layers.[method]opener.supply", opener, descriptor.digest, step.value)

    def _supply(self, method, handle, digest, ranges):
        fetch = lambda it: (it.offset, self.source.blob(digest, it.offset, it.length))
        for offset, data in self._pool.map(fetch, ranges):
            self._engine.call(method, handle, offset, data)

    def stat(self, path, *, follow=True):
        """What is at a path: `layer`, and `entry` with kind, size, mode, owner and so on."""
        return self._engine.call("overlay.[method]rootfs.lookup", self._rootfs, path, follow)

    def readdir(self, path="/"):
        """The names in a directory, each with what it names."""
        found, names, start = self.stat(path), {}, 0
        while start is not None:
            page = self._engine.call(
                "overlay.[method]rootfs.children", self._rootfs, (found.layer, found.entry.id), start, 1000)
            names.update(page.entries)
            start = page.next
        return names

    def walk(self, path="/", containing=""):
        """Paths below a directory that have `containing` in them, and what is there."""
        found = self.stat(path)
        walk = self._engine.call(
            "overlay.[method]rootfs.walk", self._rootfs, (found.layer, found.entry.id), containing)
        try:
            while page := self._engine.call("overlay.[method]walk.next", walk, 1000):
                yield from page
        finally:
            walk.close()

    def readlink(self, path):
        """The target of a symbolic link."""
        found = self.stat(path, follow=False)
        return self._engine.call("layers.[method]layer.read-links", self.layers[found.layer][0], [found.entry.id])[0]

    def read(self, path, offset=0, length=None):
        """The content of a file, or a part of it."""
        return b"".join(self.stream(path, offset, length))

    def stream(self, path, offset=0, length=None):
        """The content of a file in pieces of at most 1 MiB, as it is fetched and verified."""
        found = self.stat(path)
        layer, digest = self.layers[found.layer]
        span = (found.entry.id, offset, found.entry.size if length is None else length)
        reader = self._engine.call("layers.[method]layer.read", layer, [span])
        try:
            while (step := self._engine.call("layers.[method]reader.poll", reader, 0)).tag != "done":
                if step.tag == "data":
                    yield step.value.bytes
                else:
                    ranges = [need.blob_range for need in step.value]
                    self._supply("layers.[method]reader.supply", reader, digest, ranges)
        finally:
            reader.close()

    def differences(self, layer):
        """What a layer, counted from the bottom, changes in those below it."""
        handle = self._engine.call("overlay.[method]rootfs.differences", self._rootfs, layer)
        try:
            while page := self._engine.call("overlay.[method]differences.next", handle, 1000):
                yield from page
        finally:
            handle.close()

    def efficiency(self, worst=20):
        """How much of what the layers store can be seen."""
        return self._engine.call("overlay.[method]rootfs.efficiency", self._rootfs, worst)

    def close(self):
        """Lets go of the engine and of requests under way."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._engine = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
