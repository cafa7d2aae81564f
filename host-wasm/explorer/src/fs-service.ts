/** The page's end of the service worker. */
import { ApiError, type Problem } from './api';
import { downloadName } from './download-name';
import type { Answer, Ask, Piece, Pull } from './fs-messages';
import type { VirtualImage } from './vfs';

const LARGEST_PIECE = 4 << 20;
const SNIFFED = 1024;
const AWAKE_MS = 10_000;

const STATUS: Partial<Record<Problem['kind'], number>> = {
    'not-found': 404,
    'wrong-kind': 400,
    'not-lazy': 409,
    offline: 503,
    unreachable: 503,
    'too-many-requests': 503,
};

/**
 * Starts the service worker, where there are any; `find` gives the open image with a name. Without one, the page needs its
 * server to open, and files have no addresses.
 */
export async function startService(find: (image: string) => VirtualImage | undefined): Promise<void> {
    const container = navigator.serviceWorker as ServiceWorkerContainer | undefined;
    if (!container || !import.meta.env.PROD) return;
    container.addEventListener('message', ({ data, ports: [port] }: MessageEvent<Ask>) => {
        if (port && typeof data?.image === 'string') void answer(data, port, find(data.image));
    });
    container.startMessages();
    try {
        await container.register(new URL('service-worker.js', document.baseURI));
    } catch {
        // Forbidden by the browser's settings, say: everything else works.
    }
}

async function answer({ path, view, tar, only }: Ask, port: MessagePort, image: VirtualImage | undefined): Promise<void> {
    const say = (message: Answer | { wait: true }): void => port.postMessage(message);
    if (!image) return say({ absent: true });
    say({ wait: true });
    try {
        const row = await image.stat(path, { view });
        const name = downloadName(path, tar);
        if (tar) {
            give(port, image, path, view, (await image.tar(path, { view, only })).getReader());
            return say({ size: 0, text: false, name });
        }
        if (row.kind === 'directory') return say({ status: 400, message: `${path} is a directory; ?tar gives all that is in it.` });
        if (row.kind !== 'regular') return say({ status: 400, message: `${path} has no content.` });
        const size = row.size ?? 0;
        const text = size === 0 || !(await image.engine.read(view, path, 0, Math.min(size, SNIFFED))).bytes.includes(0);
        give(port, image, path, view, null);
        say({ size, text, name });
    } catch (thrown) {
        const { kind, message } = thrown instanceof ApiError ? thrown.problem : { kind: 'internal' as const, message: String(thrown) };
        say({ status: STATUS[kind] ?? 502, message });
    }
}

/** Gives what is asked for, until it is enough. */
function give(port: MessagePort, image: VirtualImage, path: string, view: Ask['view'], tar: ReadableStreamDefaultReader<Uint8Array> | null): void {
    let awake = performance.now();
    const send = (piece: Piece): void => port.postMessage(piece, 'bytes' in piece ? [piece.bytes.buffer] : []);
    port.onmessage = async ({ data }: MessageEvent<Pull>) => {
        if (performance.now() - awake > AWAKE_MS) {
            awake = performance.now();
            navigator.serviceWorker.controller?.postMessage('awake');
        }
        try {
            if ('stop' in data) {
                port.close();
                await tar?.cancel();
            } else if (tar) {
                const { done, value } = await tar.read();
                send(done ? { end: true } : { bytes: value });
            } else if ('offset' in data) {
                const { bytes } = await image.engine.read(view, path, data.offset, Math.min(data.length, LARGEST_PIECE));
                send(bytes.length > 0 ? { bytes } : { failed: 'the file ended early' });
            }
        } catch (thrown) {
            send({ failed: thrown instanceof Error ? thrown.message : String(thrown) });
        }
    };
}
