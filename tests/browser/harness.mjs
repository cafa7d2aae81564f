// What the tests of the page share: a registry, the page's server, a browser. All of it ends with the test program.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { chromium } from 'playwright-core';

export const here = new URL('.', import.meta.url).pathname;
export const binary = process.env.LAZYSTAR_BIN ?? join(here, '../../target/debug/lazystar');
/** The built page. */
export const page = process.env.LAZYSTAR_PAGE ?? join(here, '../../host-wasm/dist/explorer');

mkdirSync(join(here, '.work'), { recursive: true });
export const work = mkdtempSync(join(here, '.work/run-'));
const ends = [];
after(async () => {
    for (const end of ends.reverse()) await end();
    rmSync(work, { recursive: true, force: true });
});

/** Ends something when the tests are over. */
export function atEnd(end) {
    ends.push(end);
}

export async function freePort() {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address();
    server.close();
    return port;
}

/** Runs a program to its end; what it says is in the error if it fails. */
export async function run(program, args, options = {}) {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
    const out = [];
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => out.push(data));
    const [code] = await once(child, 'close');
    const text = Buffer.concat(out).toString();
    if (code !== 0) throw new Error(`${program} ${args.join(' ')}: ${code}\n${text}`);
    return text;
}

/** Waits until something is true. */
export async function until(what, test, seconds = 20) {
    for (const end = Date.now() + seconds * 1000; Date.now() < end; await sleep(20)) {
        const found = await test();
        if (found) return found;
    }
    throw new Error(`${what}: not after ${seconds} s`);
}

/** A docker-registry of its own, with TLS when there are files of a certificate and its key. `requests()` are those since `forget()`. */
export async function startRegistry(tls) {
    const port = await freePort();
    const log = join(work, `registry-${port}.log`);
    const config = join(work, `registry-${port}.yml`);
    const root = join(work, `registry-${port}`);
    writeFileSync(config, `version: 0.1
log: {level: warn, accesslog: {disabled: false}}
storage: {filesystem: {rootdirectory: ${root}}, delete: {enabled: true}}
http: {addr: 127.0.0.1:${port}${tls ? `, tls: {certificate: ${tls.certificate}, key: ${tls.key}}` : ''}}
`);
    const child = spawn('docker-registry', ['serve', config], { stdio: ['ignore', openSync(log, 'a'), openSync(`${log}.err`, 'a')] });
    atEnd(() => child.kill());
    const host = `127.0.0.1:${port}`;
    await until('the registry', () => fetch(`http://${host}/v2/`).then((answer) => tls || answer.ok, () => false));
    let seen = 0;
    const lines = () => readFileSync(log, 'utf8').split('\n');
    return {
        host,
        root,
        forget: () => void (seen = lines().length - 1),
        /** Forgets what was asked for until now, once nothing has been for a while. */
        settle: async () => {
            for (let before = 0; before !== lines().length; await sleep(500)) before = lines().length;
            seen = lines().length - 1;
        },
        requests: () =>
            lines().slice(seen).flatMap((line) => {
                const found = /"([A-Z]+) (\S+) HTTP\/[\d.]+" (\d+) (\d+)/.exec(line);
                return found ? [{ method: found[1], path: found[2], status: Number(found[3]), bytes: Number(found[4]) }] : [];
            }),
    };
}

/** Requests of the content of layers among others. */
export function blobs(requests) {
    return requests.filter(({ path, status }) => path.includes('/blobs/') && status === 206);
}

export const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** A name of this machine that browsers take for one of another. */
export const ELSEWHERE = 'elsewhere.test';

let browsing;
/** The browser; started once. */
export function browser() {
    return (browsing ??= chromium
        .launch({
            executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
            args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', `--host-resolver-rules=MAP ${ELSEWHERE} 127.0.0.1`],
        })
        .then((started) => {
            atEnd(() => started.close());
            return started;
        }));
}

/** A page of its own profile at an address. What goes wrong in it is shown. */
export async function visit(url, options = {}) {
    const context = await (await browser()).newContext(options);
    const tab = await context.newPage();
    tab.setDefaultTimeout(20_000);
    tab.on('pageerror', (error) => console.error(`page: ${error.stack ?? error}`));
    tab.on('console', (message) => {
        // That a request failed is what some tests are about.
        if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) console.error(`page: ${message.text()}`);
    });
    await tab.goto(url);
    await tab.waitForFunction(() => 'lazystar' in window);
    // A page that hangs fails its test, and holds up no others.
    const timer = setTimeout(() => context.close(), 120_000).unref();
    const close = () => {
        clearTimeout(timer);
        return context.close();
    };
    return { tab, context, close };
}
