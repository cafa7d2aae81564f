// The page in Firefox, which is not driven: it opens the page with a script of ours beside it, and sends back what that saw.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { page, run, startRegistry, work } from './harness.mjs';
import { convert, copy, layout } from './images.mjs';
import { tars } from './sample.mjs';
import { startFaulty, startStatic } from './servers.mjs';

const firefox = process.env.FIREFOX ?? 'firefox-esr';
const skip = await run(firefox, ['--version']).then(() => false, () => `SKIP: there is no ${firefox}`);
const SECONDS = 60;

/** Runs in the page. */
async function look(lazy, plain, host) {
    const until = async (what, find) => {
        for (const end = Date.now() + 20_000; Date.now() < end; await new Promise((done) => setTimeout(done, 50))) {
            const found = find();
            if (found) return found;
        }
        throw new Error(`${what}: not there`);
    };
    const text = async (it, path) => new TextDecoder().decode(await it.read(path));
    const it = await lazystar.open(lazy);
    const seen = { release: await text(it, '/etc/os-release'), names: (await it.readdir('/')).length, assurance: it.facts.layers.length };
    const ordinary = await lazystar.open(plain);
    await ordinary.download(2);
    seen.app = await text(ordinary, '/srv/app.txt');
    await Promise.all([it.close(), ordinary.close()]);
    location.hash = `#/r/${host}/firefox:lazy/-/usr/lib/deep/er/needle.txt`;
    await until('the content', () => document.querySelector('.content')?.textContent.includes('found it'));
    seen.row = (await until('the row', () => document.querySelector('[role=row][aria-selected=true]'))).textContent;
    location.hash = `#/r/${host}/firefox:lazy?panel=against&with=${host}/firefox:before`;
    await until('the comparison', () => document.querySelector('[role=option]'));
    seen.differs = [...document.querySelectorAll('[role=option]')].map(({ textContent }) => textContent).filter((line) => line.includes('/etc/'));
    return seen;
}

test('Firefox shows an image, content of ordinary layers, and what differs', { skip, timeout: 120_000 }, async () => {
    const registry = await startRegistry();
    const open = await startFaulty(registry.host);
    await convert(layout('firefox', tars()), `${registry.host}/firefox:lazy`);
    await convert(layout('firefox-before', tars().slice(0, 1)), `${registry.host}/firefox:before`);
    const members = (bytes) => Buffer.concat([gzipSync(bytes.subarray(0, 700)), gzipSync(bytes.subarray(700))]);
    await copy(layout('firefox-plain', tars(), { compress: members }), `${registry.host}/firefox:plain`);
    const names = ['lazy', 'plain'].map((tag) => JSON.stringify(`${open.host}/firefox:${tag}`));
    const script = `const report = (seen) => fetch('seen', { method: 'POST', body: JSON.stringify(seen) });
        (${look})(${names}, ${JSON.stringify(open.host)}).then(report, (error) => report({ error: String(error.stack ?? error), problem: error.problem }));`;
    let tell;
    const told = new Promise((resolve) => (tell = resolve));
    const server = await startStatic({
        '/': (_, outgoing) => outgoing.writeHead(200, { 'content-type': 'text/html' }).end(readFileSync(join(page, 'index.html'), 'utf8').replace('</head>', '<script type="module" src="./look.js"></script></head>')),
        '/look.js': (_, outgoing) => outgoing.writeHead(200, { 'content-type': 'text/javascript' }).end(script),
        '/seen': async (incoming, outgoing) => {
            const parts = await incoming.toArray();
            outgoing.writeHead(204).end();
            tell(JSON.parse(Buffer.concat(parts).toString()));
        },
    });
    const profile = mkdtempSync(join(work, 'firefox-'));
    const child = spawn(firefox, ['--headless', '--no-remote', '--profile', profile, server.url], { stdio: 'ignore', env: { ...process.env, HOME: profile } });
    try {
        const seen = await Promise.race([told, new Promise((_, late) => setTimeout(() => late(new Error(`nothing was told within ${SECONDS} s`)), SECONDS * 1000).unref())]);
        assert.equal(seen.error, undefined, JSON.stringify(seen));
        assert.match(seen.release, /VERSION=2/);
        assert.equal(seen.app, 'application\n');
        assert.match(seen.row, /needle\.txt/);
        assert.deepEqual(seen.differs, ['modified/etc/os-release24 B → 34 B', 'removed/etc/shadow7 B']);
    } finally {
        child.kill();
    }
});
