// `lazystar explore`, a plain server of files, and a registry with faults.
import { spawn } from 'node:child_process';
import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { once } from 'node:events';
import { extname, join, normalize } from 'node:path';
import { atEnd, binary, page, until, work } from './harness.mjs';

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.json': 'application/json', '.wasm': 'application/wasm', '.woff2': 'font/woff2', '.webmanifest': 'application/manifest+json' };

async function listen(handler) {
    const server = createServer(handler).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const close = () => {
        server.closeAllConnections();
        server.close();
    };
    atEnd(close);
    const host = `127.0.0.1:${server.address().port}`;
    return { host, url: `http://${host}/`, close };
}

/** Files of the page. */
function serveFile(incoming, outgoing) {
    const path = decodeURIComponent(new URL(incoming.url, 'http://host').pathname);
    const file = join(page, normalize(path === '/' ? '/index.html' : path));
    if (!file.startsWith(page) || !existsSync(file) || !statSync(file).isFile()) {
        outgoing.writeHead(404).end();
        return;
    }
    outgoing.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream', 'cache-control': 'no-cache' });
    createReadStream(file).pipe(outgoing);
}

/** A web server that has the page and nothing else: registries are asked directly. `extra` gives other answers by path. */
export function startStatic(extra = {}) {
    return listen((incoming, outgoing) => (extra[incoming.url] ?? serveFile)(incoming, outgoing));
}

/** A web server for the files below a directory. `log` has its requests; `cors` and `ranges` can be switched off. */
export async function startFiles(root) {
    const state = { log: [], cors: true, ranges: true };
    const server = await listen((incoming, outgoing) => {
        const file = join(root, normalize(decodeURIComponent(new URL(incoming.url, 'http://host').pathname)));
        const allow = state.cors ? { 'access-control-allow-origin': '*' } : {};
        const entry = { method: incoming.method, path: incoming.url, range: incoming.headers.range, sent: 0 };
        state.log.push(entry);
        if (!existsSync(file) || !statSync(file).isFile()) return outgoing.writeHead(404, allow).end();
        const { size } = statSync(file);
        const [, start, end] = (state.ranges && /^bytes=(\d+)-(\d+)$/.exec(entry.range ?? '')) || [];
        const [from, to] = start ? [Number(start), Math.min(Number(end), size - 1)] : [0, size - 1];
        entry.sent = to - from + 1;
        outgoing.writeHead(start ? 206 : 200, { ...allow, 'content-length': entry.sent, ...(start ? { 'content-range': `bytes ${from}-${to}/${size}` } : {}) });
        createReadStream(file, { start: from, end: to }).pipe(outgoing);
    });
    return Object.assign(state, server);
}

/** Passes a request on. `change` may alter headers and body of the answer. */
export function pass(incoming, outgoing, host, path, change = (answer) => answer) {
    const headers = { ...incoming.headers, host };
    const onward = request(`http://${host}${path}`, { method: incoming.method, headers }, (answer) => {
        const parts = [];
        answer.on('data', (part) => parts.push(part));
        answer.on('end', () => {
            const { status, headers: changed, body } = change({ status: answer.statusCode, headers: { ...answer.headers }, body: Buffer.concat(parts) });
            delete changed['transfer-encoding'];
            if (incoming.method !== 'HEAD') changed['content-length'] = body.length;
            outgoing.writeHead(status, changed).end(body);
        });
    });
    onward.on('error', () => outgoing.writeHead(502).end());
    incoming.pipe(onward);
}

/**
 * A registry that another one stands behind. `rule` sees every request first; what it returns is done: `{ status, headers,
 * body }` answers, `{ change }` alters what the other registry answers, `{ wait }` is milliseconds, nothing passes it on.
 * `cors` sends the header that lets pages read. All requests are in `log`.
 */
export async function startFaulty(behind) {
    const state = { log: [], rule: () => undefined, cors: true };
    const server = await listen(async (incoming, outgoing) => {
        const entry = { method: incoming.method, path: incoming.url, range: incoming.headers.range, authorization: incoming.headers.authorization, origin: incoming.headers.origin };
        state.log.push(entry);
        const action = state.rule(entry, state.log) ?? {};
        if (action.wait) await new Promise((done) => setTimeout(done, action.wait));
        const allow = state.cors ? { 'access-control-allow-origin': '*', ...(state.exposed ? { 'access-control-expose-headers': state.exposed } : {}) } : {};
        if (action.status) {
            outgoing.writeHead(action.status, { ...allow, ...action.headers }).end(action.body ?? '');
            return;
        }
        if (action.drop) {
            incoming.socket.destroy();
            return;
        }
        if (action.ignoreRange) delete incoming.headers.range;
        pass(incoming, outgoing, behind, incoming.url, (answer) => {
            const changed = action.change ? action.change(answer) : answer;
            return { ...changed, headers: { ...changed.headers, ...allow } };
        });
    });
    return Object.assign(state, server);
}

/** `lazystar explore`, with the built page; registries of the tests are all on this machine. `args` are more of its arguments. */
export async function startExplorer(args = []) {
    const child = spawn(binary, ['explore', '--listen', '127.0.0.1:0', '--no-open', '--allow', '*', '--allow-private', '--assets', page, ...args], {
        stdio: ['ignore', 'pipe', 'inherit'],
        env: { ...process.env, HOME: work, XDG_CACHE_HOME: join(work, '.cache') },
    });
    const close = () => child.kill();
    atEnd(close);
    child.stdout.setEncoding('utf8');
    let said = '';
    child.stdout.on('data', (text) => (said += text));
    // The address that it prints leads to the image that it was called with.
    const address = await until('the server of the page', () => /http:\/\/\S+(?=\s)/.exec(said)?.[0]);
    const { host, origin } = new URL(address);
    return { host, url: `${origin}/`, address, close };
}
