// Trees and content, through the proxy of the page's server.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { blobs, startRegistry, sum, visit } from './harness.mjs';
import { convert, layout, sha256 } from './images.mjs';
import { big, capability, content, merged, tars } from './sample.mjs';
import { startExplorer } from './servers.mjs';

let registry, explorer, image;
before(async () => {
    registry = await startRegistry();
    explorer = await startExplorer();
    image = `${registry.host}/sample:lazy`;
    await convert(layout('sample', tars()), image);
});

/** A page with the image open as `window.it`. */
async function open(options) {
    const visited = await visit(explorer.url);
    registry.forget();
    await visited.tab.evaluate(async ([name, more]) => void (window.it = await lazystar.open(name, more)), [image, options ?? {}]);
    return visited;
}

test('the first tree of a layer takes at most two requests of its blob', async () => {
    const { tab, close } = await open();
    const names = await tab.evaluate(async () => (await it.readdir('/')).map(({ name }) => name));
    const tree = merged();
    const expected = [...tree.keys()].filter((path) => path !== '/' && !path.slice(1).includes('/')).map((path) => path.slice(1));
    assert.deepEqual(names, expected.sort());
    const requests = registry.requests();
    const asked = blobs(requests);
    assert.ok(asked.length <= 6, `${asked.length} requests for three layers`);
    for (const { path } of asked) assert.ok(asked.filter((other) => other.path === path).length <= 2, path);
    assert.ok(sum(asked.map(({ bytes }) => bytes)) < 400_000, `${sum(asked.map(({ bytes }) => bytes))} bytes`);
    assert.ok(!requests.some(({ method }) => method === 'OPTIONS'));
    const facts = await tab.evaluate(() => it.facts);
    assert.deepEqual(facts.entrypoint, ['/usr/bin/tool']);
    assert.equal(facts.created, '2026-01-02T03:04:05Z');
    assert.deepEqual(facts.layers.map(({ command }) => command), ['make layer 0', 'make layer 1', 'make layer 2']);
    await close();
});

test('a file deep inside costs its own bytes', async () => {
    const { tab, close } = await open();
    await tab.evaluate(() => it.readdir('/'));
    registry.forget();
    const text = await tab.evaluate(async () => new TextDecoder().decode(await it.read('/usr/lib/deep/er/needle.txt')));
    assert.equal(text, 'found it\n');
    const asked = blobs(registry.requests());
    assert.equal(asked.length, 1);
    assert.ok(asked[0].bytes < 2000, `${asked[0].bytes} bytes`);
    registry.forget();
    const slice = await tab.evaluate(async () => Array.from(await it.read('/big.bin', { offset: 9_000_000, length: 100 })));
    assert.deepEqual(Buffer.from(slice), big.subarray(9_000_000, 9_000_100));
    assert.ok(sum(blobs(registry.requests()).map(({ bytes }) => bytes)) < 5 << 20);
    await close();
});

test('every file has the bytes and attributes of its source', async () => {
    const { tab, close } = await open();
    const found = await tab.evaluate(async () => {
        const all = {};
        const visit = async (path) => {
            for (const row of await it.readdir(path)) {
                let digest = null;
                if (row.kind === 'regular') {
                    const bytes = await it.read(row.path);
                    digest = Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)), (byte) => byte.toString(16).padStart(2, '0')).join('');
                }
                all[row.path] = { ...row, digest };
                if (row.kind === 'directory') await visit(row.path);
            }
        };
        await visit('/');
        return all;
    });
    const tree = merged();
    tree.delete('/');
    assert.deepEqual(Object.keys(found).sort(), [...tree.keys()].sort());
    const kinds = { char: 'character-device', block: 'block-device', file: 'regular', link: 'regular' };
    for (const [path, entry] of tree) {
        const row = found[path];
        assert.equal(row.kind, kinds[entry.type] ?? entry.type, path);
        const source = entry.type === 'link' ? tree.get(`/${entry.target}`) : entry;
        if (source.mode !== undefined) assert.equal(row.mode, source.mode, path);
        assert.deepEqual([row.uid, row.gid], [source.uid, source.gid], path);
        // Tables of contents have whole seconds.
        assert.ok(Math.abs(row.modified - source.mtime) < 1, `${path}: ${row.modified}`);
        if (row.kind === 'regular') assert.equal(`sha256:${row.digest}`, sha256(content(tree, path)), path);
    }
    assert.equal(found['/dev/null'].device, '1:3');
    assert.equal(found['/usr/bin/alias'].links, 2);
    await close();
});

test('symbolic links lead where they lead in a container', async () => {
    const { tab, close } = await open();
    const rows = await tab.evaluate(async () => Object.fromEntries((await it.readdir('/usr/lib')).map((row) => [row.name, row])));
    assert.deepEqual([rows.up.target, rows.up.resolved], ['../../../../etc/passwd', '/etc/passwd']);
    assert.equal(rows.nowhere.resolved, null);
    assert.equal(rows.round.resolved, null);
    const through = await tab.evaluate(async () => [await it.stat('/bin/tool'), await it.stat('/usr/lib/up'), await it.stat('/usr/lib/up', { follow: false })]);
    assert.deepEqual(through.map(({ path }) => path), ['/usr/bin/tool', '/etc/passwd', '/usr/lib/up']);
    const missing = await tab.evaluate(() => it.stat('/not/there').catch((error) => error.problem));
    assert.equal(missing.kind, 'not-found');
    await close();
});

test('layers show what they change, whiteouts and opaque directories', async () => {
    const { tab, close } = await open();
    const seen = await tab.evaluate(async () => {
        await it.readdir('/');
        for (let left = 200; left > 0 && !(await it.readdir('/', { view: 1 })).every(({ change, kind }) => change || kind === 'directory'); left -= 1) await new Promise((done) => setTimeout(done, 20));
        const names = async (path) => Object.fromEntries((await it.readdir(path, { view: 1 })).map((row) => [row.name, row]));
        return { root: await names('/'), etc: await names('/etc'), cache: await names('/cache'), bin: await names('/usr/bin'), many: await names('/many') };
    });
    assert.deepEqual([seen.root.gone.kind, seen.root.gone.hides], ['whiteout', 4]);
    assert.deepEqual([seen.root.cache.opaque, seen.root.cache.hides], [true, 4]);
    assert.equal(seen.etc.shadow.kind, 'whiteout');
    assert.equal(seen.etc['os-release'].change, 'modified');
    assert.equal(seen.bin.cap.change, 'metadata-only');
    assert.equal(seen.many['file-000.txt'].change, 'duplicated');
    assert.equal(seen.cache.new.change, 'added');
    const { items } = await tab.evaluate(() => it.engine.differences(1, 0));
    const removed = items.filter(({ change }) => change === 'removed').map(({ path }) => path);
    assert.deepEqual(removed, ['/cache/old-1', '/cache/old-2', '/cache/sub', '/cache/sub/old-3', '/etc/shadow', '/gone', '/gone/below', '/gone/below/file', '/gone/file']);
    await close();
});

test('sizes of directories are the sums of what is below, hard links once', async () => {
    const { tab, close } = await open();
    const size = await tab.evaluate(async () => {
        for (let left = 200; left > 0; left -= 1) {
            const rows = await it.readdir('/');
            if (rows.every(({ size }) => size !== null)) return Object.fromEntries(rows.map((row) => [row.name, row.size]));
            await new Promise((done) => setTimeout(done, 20));
        }
    });
    const tree = merged();
    const below = (top) => sum([...tree].filter(([path, { type }]) => path.startsWith(`${top}/`) && type === 'file').map(([path]) => content(tree, path).length));
    for (const name of ['usr', 'many', 'cache', 'etc']) assert.equal(size[name], below(`/${name}`), name);
    await close();
});

test('details: attributes, versions, hard links, packages', async () => {
    const { tab, close } = await open();
    const details = await tab.evaluate(async () => {
        const of = async (path, view) => {
            const { xattrs, ...rest } = await it.details(path, { view });
            return { ...rest, xattrs: xattrs.map(({ name, value }) => [name, Array.from(value)]) };
        };
        return { cap: await of('/usr/bin/cap', 0), alias: await of('/usr/bin/alias'), shadow: await of('/etc/shadow', 0), app: await of('/srv/app.txt'), release: await of('/etc/os-release'), needle: await of('/usr/lib/deep/er/needle.txt'), big: await of('/big.bin') };
    });
    assert.deepEqual(new Map(details.cap.xattrs), new Map([['security.capability', [...capability]], ['user.note', [...Buffer.from('a=b')]]]));
    assert.deepEqual(details.alias.hardLinks, ['/usr/bin/tool']);
    assert.deepEqual(details.shadow.versions.map(({ layer, removed }) => [layer, removed]), [[0, false], [1, true]]);
    assert.deepEqual(details.release.versions.map(({ layer }) => layer), [0, 1]);
    assert.equal(details.app.packageOwner, 'other 9');
    assert.equal(details.needle.packageOwner, 'sewing 1:2.3-4');
    assert.equal(details.big.packageOwner, null);
    assert.equal(sum(details.big.chunks.map(({ length }) => length)), big.length);
    await close();
});

test('efficiency: the tallies add up to what nobody sees', async () => {
    const { tab, close } = await open();
    const { stored, visible, tallies, worst } = await tab.evaluate(() => it.engine.efficiency());
    assert.ok(stored > visible);
    assert.equal(sum(Object.values(tallies)), stored - visible);
    assert.equal(tallies.duplicated, 'number 0\n'.length * 20);
    assert.equal(tallies.metadataOnly, '#!/bin/sh\n'.length);
    assert.ok(tallies.removed > 16_000 && worst[0].path.startsWith('/cache/old-'));
    await close();
});

test('search: words, globs and filters, over removed files too', async () => {
    const { tab, close } = await open();
    const search = (query) => tab.evaluate(async (text) => (await it.search(text)).map(({ row, visible }) => [row.path, row.layer, visible]), query);
    assert.deepEqual(await search('NEEDLE'), [['/usr/lib/deep/er/needle.txt', 0, true]]);
    assert.deepEqual(await search('shadow'), [['/etc/shadow', 1, false], ['/etc/shadow', 0, false]]);
    assert.deepEqual(await search('shadow type:file'), [['/etc/shadow', 0, false]]);
    assert.deepEqual((await search('is:setuid')).map(([path]) => path), ['/usr/bin/alias', '/usr/bin/tool']);
    assert.deepEqual((await search('size>1M')).map(([path]) => path), ['/big.bin']);
    assert.deepEqual((await search('file-00?.txt layer:1 size<1k')).length, 10);
    assert.deepEqual((await search('old-* is:hidden')).map(([path]) => path), ['/cache/old-1', '/cache/old-2', '/cache/sub/old-3']);
    assert.deepEqual((await search('type:device')).map(([path]) => path), ['/dev/disk', '/dev/null']);
    assert.deepEqual((await search('mode:2775')).map(([path]) => path), ['/usr/lib/deep/er']);
    assert.deepEqual((await search('/etc/* -is:hidden type:file')).map(([path, layer]) => [path, layer]), [['/etc/os-release', 1], ['/etc/passwd', 0]]);
    const problem = await tab.evaluate(() => it.search('type:nonsense').catch((error) => error.problem));
    assert.match(problem.message, /no filter/);
    await close();
});

test('a search that has ended has given all that it found', async () => {
    const { tab, close } = await open();
    const numbers = await tab.evaluate(async () => {
        const seen = new Set();
        for (let run = 0; run < 500; run += 1) seen.add((await it.search('/etc/*')).length);
        return [...seen];
    });
    assert.deepEqual(numbers, [5]);
    await close();
});

test('verify reads all of a layer', async () => {
    const { tab, close } = await open();
    const last = await tab.evaluate(async () => {
        const seen = [];
        await it.verify(0, (progress) => seen.push(progress));
        return seen.at(-1);
    });
    assert.ok(last.total > big.length && last.done === last.total);
    await close();
});
