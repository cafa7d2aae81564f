// Ordinary layers, which are downloaded whole and then read like the others.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { startRegistry, visit } from './harness.mjs';
import { copy, layout, sha256 } from './images.mjs';
import { capability, content, merged, tars } from './sample.mjs';
import { startExplorer, startFaulty } from './servers.mjs';

let registry, explorer;
before(async () => {
    registry = await startRegistry();
    explorer = await startExplorer();
    await copy(layout('ordinary', tars()), `${registry.host}/ordinary:plain`);
});

test('ordinary layers are shown as such, and read once they are downloaded', async () => {
    const { tab, close } = await visit(explorer.url);
    const before = await tab.evaluate(async (name) => {
        window.events = [];
        window.it = await lazystar.open(name, { onEvent: (event) => events.push(event) });
        const problem = await it.readdir('/').catch((error) => error.problem);
        return { problem, states: (await Promise.all([0, 1, 2].map((layer) => it.readdir('/', { view: layer }).catch((error) => error.problem.kind)))) };
    }, `${registry.host}/ordinary:plain`);
    assert.equal(before.problem.kind, 'not-lazy');
    assert.deepEqual(before.states, ['not-lazy', 'not-lazy', 'not-lazy']);
    const top = await tab.evaluate(async () => ({ facts: await it.download(2), names: (await it.readdir('/')).map(({ name }) => name) }));
    assert.deepEqual([top.facts.state, top.facts.format, top.facts.assurance], ['open', 'tar', 'verified']);
    assert.deepEqual(top.names, ['lib', 'srv', 'var']);
    const all = await tab.evaluate(async () => {
        await Promise.all([it.download(0), it.download(1)]);
        const rows = {};
        const visit = async (path) => {
            for (const row of await it.readdir(path)) {
                rows[row.path] = row;
                if (row.kind === 'directory') await visit(row.path);
                if (row.kind !== 'regular') continue;
                const bytes = await it.read(row.path);
                row.digest = Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)), (byte) => byte.toString(16).padStart(2, '0')).join('');
            }
        };
        await visit('/');
        const { xattrs } = await it.details('/usr/bin/cap', { view: 0 });
        return { rows, xattrs: xattrs.map(({ name, value }) => [name, Array.from(value)]), downloading: events.filter(({ type, layer }) => type === 'layer' && layer.state === 'downloading').length };
    });
    const tree = merged();
    tree.delete('/');
    assert.deepEqual(Object.keys(all.rows).sort(), [...tree.keys()].sort());
    for (const [path, entry] of tree) {
        const row = all.rows[path];
        if (row.kind === 'regular') assert.equal(`sha256:${row.digest}`, sha256(content(tree, path)), path);
        const source = entry.type === 'link' ? tree.get(`/${entry.target}`) : entry;
        if (source.mode !== undefined) assert.equal(row.mode, source.mode, path);
        assert.ok(Math.abs(row.modified - source.mtime) < 1e-3, path);
    }
    assert.deepEqual(new Map(all.xattrs), new Map([['security.capability', [...capability]], ['user.note', [...Buffer.from('a=b')]]]));
    assert.ok(all.downloading >= 3);
    registry.forget();
    const again = await tab.evaluate(async (name) => {
        await it.close();
        window.it = await lazystar.open(name);
        return new TextDecoder().decode(await it.read('/srv/app.txt'));
    }, `${registry.host}/ordinary:plain`);
    assert.equal(again, 'application\n');
    assert.ok(registry.requests().filter(({ path }) => path.includes('/blobs/')).every(({ status }) => status === 206));
    const cleared = await tab.evaluate(async (name) => {
        await lazystar.cache.clear();
        const problem = await it.read('/srv/app.txt').catch((error) => error.problem);
        await it.close();
        window.it = await lazystar.open(name);
        return { problem, state: await it.readdir('/', { view: 2 }).catch((error) => error.problem.kind) };
    }, `${registry.host}/ordinary:plain`);
    assert.match(cleared.problem.message, /download it once more/);
    assert.equal(cleared.state, 'not-lazy');
    await close();
});

const zstd = (bytes) => execFileSync('zstd', ['-c'], { input: bytes, maxBuffer: 1 << 30 });
// Members end in headers, in content and between entries; the first is empty.
const members = (bytes) => Buffer.concat([0, 1, 513, 70_000, 300_000, bytes.length].map((end, index, ends) => gzipSync(bytes.subarray(ends[index - 1] ?? 0, end), { level: 1 + (index % 3) })));
for (const [name, options] of [['members', { compress: members }], ['zstd', { compress: zstd, suffix: '+zstd' }], ['uncompressed', { compress: (bytes) => bytes, suffix: '' }]]) {
    test(`ordinary layers, ${name}`, async () => {
        await copy(layout(`ordinary-${name}`, tars(), options), `${registry.host}/ordinary:${name}`);
        const { tab, close } = await visit(explorer.url);
        const digests = await tab.evaluate(async (name) => {
            const it = await lazystar.open(name);
            await Promise.all([0, 1, 2].map((layer) => it.download(layer)));
            const digest = async (path) => Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', await it.read(path))), (byte) => byte.toString(16).padStart(2, '0')).join('');
            return [await digest('/big.bin'), await digest('/usr/bin/tool'), await digest('/srv/app.txt')];
        }, `${registry.host}/ordinary:${name}`);
        assert.deepEqual(digests.map((digest) => `sha256:${digest}`), ['/big.bin', '/usr/bin/tool', '/srv/app.txt'].map((path) => sha256(content(merged(), path))));
        await close();
    });
}

test('what comes after gzip, or is missing of it, is an error', async () => {
    const { tab, close } = await visit(explorer.url);
    const whole = gzipSync(tars()[2]);
    for (const [index, bytes] of [Buffer.concat([whole, Buffer.from('garbage')]), whole.subarray(0, -20), Buffer.concat([whole, whole.subarray(0, 40)])].entries()) {
        await copy(layout(`ordinary-bad-${index}`, [tars()[2]], { compress: () => bytes }), `${registry.host}/ordinary:bad-${index}`);
        const problem = await tab.evaluate(async (name) => (await lazystar.open(name)).download(0).catch((error) => error.problem), `${registry.host}/ordinary:bad-${index}`);
        assert.equal(problem.kind, 'malformed', JSON.stringify(problem));
        assert.match(problem.message, /cannot be decompressed/);
    }
    await close();
});

test('a download that is not what its digest says is thrown away', async () => {
    const faulty = await startFaulty(registry.host);
    faulty.rule = ({ path, range }) =>
        path.includes('/blobs/') && !range ? { change: ({ body, ...rest }) => ({ ...rest, body: Buffer.concat([body.subarray(0, 60), Buffer.from([body[60] ^ 1]), body.subarray(61)]) }) } : undefined;
    const { tab, close } = await visit(explorer.url);
    const problem = await tab.evaluate(async (name) => {
        // The documents are blobs, too: they are in the cache already.
        const it = await lazystar.open(name[0]);
        await it.close();
        const other = await lazystar.open(name[1]);
        return other.download(2).catch((error) => error.problem);
    }, [`${registry.host}/ordinary:plain`, `${faulty.host}/ordinary:plain`]);
    assert.equal(problem.kind, 'digest-mismatch');
    assert.equal(problem.layer, 2);
    await close();
});
