"""What the benchmarks share: the registry with a delay before it, and what was asked of it."""

import asyncio, os, pathlib, subprocess, threading, time

HERE = pathlib.Path(__file__).resolve().parent
RIG = pathlib.Path(os.environ.get("LAZYSTAR_RIG", HERE.parent / ".rig"))
BINARY = pathlib.Path(os.environ.get("LAZYSTAR_BIN", HERE.parent.parent / "target/release/lazystar")).resolve()


def sh(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, **options)


def timed(*command):
    started = time.monotonic()
    sh(*command, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def drop_caches():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


class Registry:
    """The rig's registry, seen through a delay when one is asked for."""

    def __init__(self, rtt):
        self.address = sh(HERE.parent / "rig/registry", "start", capture_output=True, text=True).stdout.strip()
        self.log = RIG / "registry.log"
        if rtt:
            self.delay = rtt / 2000
            self.upstream = self.address.split(":")
            ready = threading.Event()
            threading.Thread(target=lambda: asyncio.run(self.proxy(ready)), daemon=True).start()
            ready.wait()

    async def proxy(self, ready):
        server = await asyncio.start_server(self.connection, "127.0.0.1", 0, limit=1 << 20)
        self.address = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]
        ready.set()
        await server.serve_forever()

    async def connection(self, reader, writer):
        await asyncio.sleep(2 * self.delay)  # the handshake
        upstream = await asyncio.open_connection(*self.upstream, limit=1 << 20)
        await asyncio.gather(self.pump(reader, upstream[1]), self.pump(upstream[0], writer), return_exceptions=True)

    async def pump(self, reader, writer):
        """Delays every byte; the bytes under way are not limited."""
        queue = asyncio.Queue()

        async def send():
            while True:
                due, chunk = await queue.get()
                await asyncio.sleep(due - time.monotonic())
                if not chunk:
                    break
                writer.write(chunk)
                await writer.drain()
            writer.close()

        sender = asyncio.create_task(send())
        while chunk := await reader.read(1 << 18):
            queue.put_nowait((time.monotonic() + self.delay, chunk))
        queue.put_nowait((time.monotonic() + self.delay, b""))
        await sender

    def blobs(self, since):
        """Requests and bytes of blobs after the first `since` bytes of the access log."""
        with self.log.open() as log:
            log.seek(since)
            lines = [line.split() for line in log if '"GET ' in line and "/blobs/" in line]
        return len(lines), sum(int(line[9]) for line in lines)
