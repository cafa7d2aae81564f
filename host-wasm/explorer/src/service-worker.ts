/**
 * The service worker: it keeps the page's own files, so that the page opens without its server, and serves files of images
 * that a page has open below `fs/REGISTRY/REPOSITORY@DIGEST/PATH`:
 *
 * - ranges as any web server does; `?download` as attachment; `?tar` a directory or file as a tar, `&only=PATH` parts of it;
 *   `?layer=N` out of a layer.
 * - Nothing of it ever is a page or script of this origin, whatever an image holds: it is plain text or bytes, in a sandbox.
 */
// Must not import anything but types: it is a script of its own.
import type { Answer, Ask, Piece, Pull } from './fs-messages';

declare const self: ServiceWorkerGlobalScope;
/** The page's files and their digest, set when it is built. */
declare const __FILES__: string[];
declare const __VERSION__: string;

const CACHE = `lazystar-page-${__VERSION__}`;
const ANSWER_MS = 5000;
const scope = new URL(self.registration.scope);

self.addEventListener('install', (event) => {
    event.waitUntil(install().then(() => self.skipWaiting()));
});

self.addEventListener('activate', (event) => {
    event.waitUntil(
        caches
            .keys()
            .then((names) => Promise.all(names.filter((name) => name.startsWith('lazystar-page-') && name !== CACHE).map((name) => caches.delete(name))))
            .then(() => self.clients.claim()),
    );
});

// Pages say that they still serve something, which keeps this worker alive.
self.addEventListener('message', () => undefined);

self.addEventListener('fetch', (event) => {
    const { request } = event;
    const url = new URL(request.url);
    if (url.origin !== scope.origin || !url.pathname.startsWith(scope.pathname)) return;
    const path = url.pathname.slice(scope.pathname.length);
    if (path.startsWith('fs/')) event.respondWith(serve(event, path.slice('fs/'.length), url.searchParams));
    else if (request.method !== 'GET') return;
    else if (path === '' || path === 'index.html' || path === 'lazystar.json') event.respondWith(fresh(request, path === 'index.html' ? scope.href : url.href));
    else if (__FILES__.includes(path)) event.respondWith(kept(request));
});

async function install(): Promise<void> {
    const cache = await caches.open(CACHE);
    const files = __FILES__.filter((file) => file !== 'index.html').map((file) => new URL(file, scope).href);
    await cache.addAll([scope.href, ...files]);
    // A plain web server has none.
    const about = new URL('lazystar.json', scope).href;
    const response = await fetch(about);
    if (response.ok) await cache.put(about, response);
}

/** From the server, and as it was last where that is away. */
async function fresh(request: Request, key: string): Promise<Response> {
    const cache = await caches.open(CACHE);
    try {
        const response = await fetch(request);
        if (response.ok) await cache.put(key, response.clone());
        return response;
    } catch (thrown) {
        const last = await cache.match(key);
        if (last) return last;
        throw thrown;
    }
}

/** As it was kept: the names of these files change with their content. */
async function kept(request: Request): Promise<Response> {
    return (await (await caches.open(CACHE)).match(request)) ?? fetch(request);
}

async function serve(event: FetchEvent, path: string, parameters: URLSearchParams): Promise<Response> {
    const { method, headers } = event.request;
    if (method !== 'GET' && method !== 'HEAD') return say(405, 'Files of images can only be read.', { allow: 'GET, HEAD' });
    const place = parse(path);
    if (!place) return say(404, 'This is no file of an image: fs/REGISTRY/REPOSITORY@DIGEST/PATH.');
    const tar = parameters.has('tar');
    const layer = parameters.get('layer');
    const view = layer !== null && /^\d{1,4}$/.test(layer) ? Number(layer) : 'merged';
    const asked = await ask({ ...place, tar, only: parameters.getAll('only'), view });
    if (!asked) return say(503, `No page has ${place.image} open. Open it, and leave it open.`);
    const { answer, port } = asked;
    if ('status' in answer) return say(answer.status, answer.message);
    const attachment = tar || parameters.has('download');
    const described: Record<string, string> = {
        'content-type': tar ? 'application/x-tar' : answer.text && !attachment ? 'text/plain; charset=utf-8' : 'application/octet-stream',
        ...(attachment ? { 'content-disposition': disposition(answer.name) } : {}),
    };
    if (tar) return new Response(method === 'HEAD' ? null : body(event, port, 0, null), { headers: guarded(described) });
    const { size } = answer;
    const range = wanted(headers.get('range'), size);
    described['accept-ranges'] = 'bytes';
    if (range === 'unsatisfiable') return say(416, `The file has ${size} bytes.`, { 'content-range': `bytes */${size}` });
    const { start, end } = range ?? { start: 0, end: size };
    if (range) described['content-range'] = `bytes ${start}-${end - 1}/${size}`;
    described['content-length'] = String(end - start);
    const nothing = method === 'HEAD' || end === start;
    return new Response(nothing ? null : body(event, port, start, end), { status: range ? 206 : 200, headers: guarded(described) });
}

/** Asks the pages for an image; the first that has it answers. */
async function ask(question: Ask): Promise<{ answer: Exclude<Answer, { absent: true }>; port: MessagePort } | null> {
    const pages = await self.clients.matchAll({ type: 'window', includeUncontrolled: true });
    const asked = pages.map(
        (page) =>
            new Promise<{ answer: Exclude<Answer, { absent: true }>; port: MessagePort }>((resolve, reject) => {
                const { port1, port2 } = new MessageChannel();
                // Whoever has the image may need a while to find out what is there; others answer at once, or are asleep.
                const timer = setTimeout(reject, ANSWER_MS);
                port1.onmessage = ({ data }: MessageEvent<Answer | { wait: true }>) => {
                    clearTimeout(timer);
                    if ('wait' in data) return;
                    if ('absent' in data) reject(new Error('absent'));
                    else resolve({ answer: data, port: port1 });
                };
                page.postMessage(question, [port2]);
            }),
    );
    return Promise.any(asked).catch(() => null);
}

/** What the page gives, a piece whenever the reader wants one. `end` is `null` for tars, whose length nobody knows. */
function body(event: FetchEvent, port: MessagePort, start: number, end: number | null): ReadableStream<Uint8Array> {
    let over: () => void = () => undefined;
    event.waitUntil(new Promise<void>((resolve) => (over = resolve)));
    let at = start;
    const pull = (message: Pull): void => port.postMessage(message);
    return new ReadableStream<Uint8Array>(
        {
            pull: (controller) =>
                new Promise<void>((done) => {
                    port.onmessage = ({ data }: MessageEvent<Piece>) => {
                        if ('failed' in data) {
                            controller.error(new Error(data.failed));
                            over();
                        } else if ('bytes' in data) {
                            controller.enqueue(data.bytes);
                            at += data.bytes.length;
                        }
                        if ('end' in data || (end !== null && at >= end)) {
                            controller.close();
                            pull({ stop: true });
                            over();
                        }
                        done();
                    };
                    pull(end === null ? { next: true } : { offset: at, length: end - at });
                }),
            cancel() {
                pull({ stop: true });
                over();
            },
        },
        { highWaterMark: 0 },
    );
}

function parse(path: string): { image: string; path: string } | null {
    let names: string[];
    try {
        names = path.split('/').map(decodeURIComponent);
    } catch {
        return null;
    }
    if (names.some((name) => name.includes('/') || name.includes('\0') || name === '..' || name === '.')) return null;
    const found = /^([^/]+\/.+?@sha256:[0-9a-f]{64})(\/.*)?$/s.exec(names.join('/'));
    return found?.[1] ? { image: found[1], path: found[2] || '/' } : null;
}

/** The one range of a request; several are answered with everything, as servers may. */
function wanted(header: string | null, size: number): { start: number; end: number } | 'unsatisfiable' | null {
    const found = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header?.trim() ?? '');
    const [, first = '', last = ''] = found ?? [];
    if (!found || (first === '' && last === '')) return null;
    const start = first === '' ? Math.max(0, size - Number(last)) : Number(first);
    const end = first === '' || last === '' ? size : Math.min(size, Number(last) + 1);
    if (first !== '' && last !== '' && Number(last) < Number(first)) return null;
    return start < size && end > start ? { start, end } : 'unsatisfiable';
}

function say(status: number, text: string, more: Record<string, string> = {}): Response {
    return new Response(`${text}\n`, { status, headers: guarded({ 'content-type': 'text/plain; charset=utf-8', ...more }) });
}

function guarded(headers: Record<string, string>): Record<string, string> {
    return {
        ...headers,
        'content-security-policy': "sandbox; default-src 'none'",
        'x-content-type-options': 'nosniff',
        'cross-origin-resource-policy': 'same-origin',
        'cache-control': 'no-store',
    };
}

/** RFC 6266: an approximation for old readers, the name itself for all others. */
function disposition(name: string): string {
    const ascii = name.replace(/[^\x20-\x7e]|["\\%]/g, '_');
    const exact = encodeURIComponent(name).replace(/['()*]/g, (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`);
    return `attachment; filename="${ascii}"; filename*=UTF-8''${exact}`;
}
