// Large layers: the worker answers while it works, and memory stays bounded.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { blobs, startRegistry, sum, visit } from './harness.mjs';
import { convert, copy, layout, noise, tar } from './images.mjs';
import { startExplorer } from './servers.mjs';

const FILES = 50_000;
/** How long nearly all calls may wait while the worker does something else; the rest waits for other programs, too. */
const PATIENCE_MS = 100;

let registry, explorer;
before(async () => {
    registry = await startRegistry();
    explorer = await startExplorer();
    const files = Array.from({ length: FILES }, (_, index) => ({ path: `usr/share/d${index % 250}/file-${index}.txt`, content: `${index}\n` }));
    const directories = ['usr/', 'usr/share/', ...Array.from({ length: 250 }, (_, index) => `usr/share/d${index}/`)].map((path) => ({ path }));
    const again = files.filter((_, index) => index % 10 === 0).map((entry) => ({ ...entry, mode: 0o600 }));
    const from = layout('large', [tar([...directories, ...files]), tar([...directories.filter(({ path }) => path !== 'usr/share/d7/'), ...again, { path: 'usr/share/.wh.d7' }])]);
    await convert(from, `${registry.host}/large:lazy`);
    await copy(from, `${registry.host}/large:plain`);
    await convert(layout('huge', [tar([{ path: 'huge', content: noise(96 << 20, 3) }, { path: 'small', content: 'small\n' }])]), `${registry.host}/huge:lazy`);
});

test('50,000 files: the tree at once, sizes, changes, search and efficiency in slices', async () => {
    const { tab, close } = await visit(explorer.url);
    registry.forget();
    const seen = await tab.evaluate(async (name) => {
        const events = [];
        const begun = performance.now();
        const it = (window.it = await lazystar.open(name, { onEvent: (event) => events.push(event) }));
        const rows = await it.readdir('/usr/share/d1');
        const first = performance.now() - begun;
        // Asks something small again and again while the worker is busy.
        const waits = [];
        let busy = true;
        const asking = (async () => {
            while (busy) {
                const before = performance.now();
                await it.engine.stat('merged', '/usr/share/d1/file-1.txt', true);
                waits.push(performance.now() - before);
                await new Promise((done) => setTimeout(done, 5));
            }
        })();
        const found = await it.search('file-*7.txt');
        const removed = await it.search('is:hidden layer:1 mode:644 file-1*');
        const efficiency = await it.engine.efficiency();
        while (!events.some(({ type, view }) => type === 'sizes' && view === 'merged') || events.filter(({ type, layer }) => type === 'layer' && layer.changes).length < 2) await new Promise((done) => setTimeout(done, 20));
        busy = false;
        await asking;
        const size = (await it.stat('/usr')).size;
        const layers = events.filter(({ type, layer }) => type === 'layer' && layer.changes).map(({ layer }) => layer);
        waits.sort((one, other) => one - other);
        return { first, rows: rows.length, waits: waits.length, most: waits[Math.floor(waits.length * 0.95)], longest: waits.at(-1), found: found.length, removed: removed.length, efficiency, size, layers };
    }, `${registry.host}/large:lazy`);
    console.log(`first tree ${Math.round(seen.first)} ms; of ${seen.waits} calls 95 % waited at most ${Math.round(seen.most)} ms, one ${Math.round(seen.longest)} ms`);
    assert.equal(seen.rows, 200);
    assert.equal(seen.found, 5000);
    assert.ok(seen.most < PATIENCE_MS, `${seen.most} ms`);
    assert.ok(seen.longest < 10 * PATIENCE_MS, `${seen.longest} ms`);
    const visible = Array.from({ length: FILES }, (_, index) => index).filter((index) => index % 250 !== 7);
    assert.equal(seen.size, sum(visible.map((index) => `${index}\n`.length)));
    assert.equal(seen.layers[0].changes.added, FILES + 252);
    assert.equal(seen.layers[1].changes['metadata-only'], FILES / 10);
    assert.equal(seen.layers[1].changes.removed, 201);
    assert.equal(sum(Object.values(seen.efficiency.tallies)), seen.efficiency.stored - seen.efficiency.visible);
    assert.ok(blobs(registry.requests()).length <= 4);
    await close();
});

test('a tar of 50,000 files is a few requests', async () => {
    const { tab, close } = await visit(explorer.url);
    registry.forget();
    const seen = await tab.evaluate(async (name) => {
        const it = await lazystar.open(name);
        const { bytes: estimate } = await it.engine.cost('merged', '/usr/share');
        const stream = await it.tar('/usr/share');
        const before = (await it.meter()).fetched;
        let length = 0;
        for (const reader = stream.getReader(); ; ) {
            const { done, value } = await reader.read();
            if (done) break;
            length += value.length;
        }
        return { length, estimate, fetched: (await it.meter()).fetched - before };
    }, `${registry.host}/large:lazy`);
    assert.ok(seen.length > FILES * 1024 * 0.9);
    assert.ok(blobs(registry.requests()).length < 120, `${blobs(registry.requests()).length} requests`);
    assert.ok(seen.fetched < 1.3 * seen.estimate && seen.fetched > 0.7 * seen.estimate, `${seen.fetched} fetched, ${seen.estimate} estimated`);
    await close();
});

test('a stream fetches no more than is read of it', async () => {
    const { tab, close } = await visit(explorer.url);
    const seen = await tab.evaluate(async (name) => {
        const it = await lazystar.open(name);
        const { size } = await it.stat('/huge');
        const estimate = await it.engine.estimate('merged', '/huge', 10 << 20, 1);
        const reader = (await it.stream('/huge')).getReader();
        await reader.read();
        await new Promise((done) => setTimeout(done, 500));
        const { fetched } = await it.meter();
        await reader.cancel();
        return { size, estimate, fetched };
    }, `${registry.host}/huge:lazy`);
    assert.equal(seen.size, 96 << 20);
    assert.ok(seen.fetched < 20 << 20, `${seen.fetched} bytes`);
    assert.ok(seen.estimate > 1 << 20 && seen.estimate < 6 << 20, `${seen.estimate}`);
    await close();
});

test('an ordinary layer of 50,000 files, downloaded', async () => {
    const { tab, close } = await visit(explorer.url);
    const seen = await tab.evaluate(async (name) => {
        const it = await lazystar.open(name);
        const before = performance.now();
        await it.download(0);
        const took = performance.now() - before;
        const rows = await it.readdir('/usr/share/d1');
        return { took, rows: rows.length, text: new TextDecoder().decode(await it.read('/usr/share/d1/file-1.txt')) };
    }, `${registry.host}/large:plain`);
    console.log(`downloaded and indexed in ${Math.round(seen.took)} ms`);
    assert.deepEqual([seen.rows, seen.text], [200, '1\n']);
    await close();
});
