// What is wrong is never shown and never kept; what is right is kept, and needs no registry.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { blobs, ELSEWHERE, startRegistry, visit } from './harness.mjs';
import { convert, layout, noise, tar } from './images.mjs';
import { big, tars } from './sample.mjs';
import { startExplorer, startFaulty, startStatic } from './servers.mjs';

let registry, explorer;
before(async () => {
    registry = await startRegistry();
    explorer = await startExplorer();
    await convert(layout('trust', tars()), `${registry.host}/trust:lazy`);
    await convert(layout('two', [tars()[2]], { architectures: ['arm64', 'riscv64'] }), `${registry.host}/two:lazy`, ['--all-platforms']);
    await convert(layout('apart', tars()), `${registry.host}/apart:lazy`, ['--external-toc']);
    await convert(layout('squeezed', tars()), `${registry.host}/squeezed:lazy`, ['--format', 'zstd-chunked']);
});

/** Changes a byte of the answers to requests of parts of a blob. */
const flip = (at) => ({
    change: ({ body, ...rest }) => {
        const changed = Buffer.from(body);
        changed[at(changed.length)] ^= 1;
        return { ...rest, body: changed };
    },
});

test('a chunk that is wrong is fetched again, and given out only when it is right', async () => {
    const faulty = await startFaulty(registry.host);
    const { tab, close } = await visit(explorer.url);
    const read = (path) =>
        tab.evaluate(async (path) => {
            const answer = await it.engine.read('merged', path, 0, 1000).then(({ bytes }) => ({ text: new TextDecoder().decode(bytes) }), (error) => ({ problem: error.problem, name: error.name }));
            return { ...answer, failures: events.filter(({ type }) => type === 'failure') };
        }, path);
    await tab.evaluate(async (name) => {
        window.events = [];
        window.it = await lazystar.open(name, { onEvent: (event) => events.push(event) });
        await it.readdir('/');
    }, `${faulty.host}/trust:lazy`);
    faulty.log.length = 0;
    faulty.rule = (entry, log) => (log.filter(({ range }) => range === entry.range).length === 1 ? flip(() => 14) : undefined);
    const once = await read('/etc/passwd');
    assert.equal(once.text, 'root:x:0:0::/:/bin/sh\n');
    assert.equal(faulty.log.length, 2);
    assert.equal(once.failures.length, 0);
    faulty.log.length = 0;
    faulty.rule = () => flip(() => 14);
    const always = await read('/etc/os-release');
    assert.equal(always.text, undefined);
    assert.equal(always.name, 'ApiError');
    assert.ok(['digest-mismatch', 'malformed'].includes(always.problem.kind), always.problem.kind);
    assert.equal(always.problem.layer, 1);
    assert.ok(always.problem.blobRange.length > 0);
    assert.equal(always.failures.length, 1);
    assert.equal(faulty.log.length, 2);
    // Neither was the wrong one kept.
    faulty.rule = () => undefined;
    assert.match((await read('/etc/os-release')).text, /VERSION=2/);
    await close();
});

test('a chunk that decompresses to something else says what was promised and what came', async () => {
    const faulty = await startFaulty(registry.host);
    const { tab, close } = await visit(explorer.url);
    const problem = await tab.evaluate(async (name) => {
        window.it = await lazystar.open(name);
        await it.readdir('/');
        return null;
    }, `${faulty.host}/trust:lazy`);
    assert.equal(problem, null);
    // Noise is stored, not compressed: a flipped byte of it is a flipped byte of the file. The checksum of gzip would see it first.
    faulty.rule = ({ range }) => (range ? flip((length) => length >> 1) : undefined);
    const failed = await tab.evaluate(() => it.read('/big.bin', { offset: 0, length: 10 }).catch((error) => error.problem));
    assert.ok(['digest-mismatch', 'malformed'].includes(failed.kind));
    if (failed.kind === 'digest-mismatch') assert.match(`${failed.expected} ${failed.actual}`, /^sha256:[0-9a-f]{64} sha256:[0-9a-f]{64}$/);
    await close();
});

test('a table of contents that is wrong does not open its layer', async () => {
    const faulty = await startFaulty(registry.host);
    faulty.rule = ({ range, path }) => (range && path.includes('/blobs/') ? flip((length) => length - 60) : undefined);
    const { tab, close } = await visit(explorer.url);
    const seen = await tab.evaluate(async (name) => {
        const events = [];
        const it = await lazystar.open(name, { onEvent: (event) => events.push(event) });
        const problem = await it.readdir('/', { view: 0 }).catch((error) => error.problem);
        await it.readdir('/').catch(() => undefined);
        return { problem, states: events.filter(({ type }) => type === 'layer').map(({ layer }) => layer.state), failures: events.filter(({ type }) => type === 'failure').length };
    }, `${faulty.host}/trust:lazy`);
    assert.ok(['digest-mismatch', 'malformed'].includes(seen.problem.kind), seen.problem.kind);
    assert.ok(seen.states.includes('failed') && !seen.states.includes('open'));
    assert.equal(seen.failures, 3);
    await close();
});

test('a manifest that is not what its digest says is refused', async () => {
    const faulty = await startFaulty(registry.host);
    const { tab, close } = await visit(explorer.url);
    const digest = await tab.evaluate(async (name) => (await lazystar.open(name)).digest, `${registry.host}/two:lazy`);
    faulty.rule = ({ path }) => (path.includes('/manifests/') ? flip((length) => length - 5) : undefined);
    // The proxy of `lazystar explore` would see it, too.
    const page = await startStatic();
    const { tab: other, close: closeOther } = await visit(page.url);
    const problem = await other.evaluate((name) => lazystar.open(name).catch((error) => error.problem), `${faulty.host}/two@${digest}`);
    assert.equal(problem.kind, 'digest-mismatch');
    assert.equal(problem.expected, digest);
    await close();
    await closeOther();
});

test('the second time nothing is fetched but the tag, and without the registry not even that', async () => {
    const faulty = await startFaulty(registry.host);
    const name = `${faulty.host}/trust:lazy`;
    const { tab, close } = await visit(explorer.url);
    const look = () =>
        tab.evaluate(async (name) => {
            const it = await lazystar.open(name);
            const names = (await it.readdir('/')).map(({ name }) => name);
            const text = new TextDecoder().decode(await it.read('/usr/lib/deep/er/needle.txt'));
            const part = Array.from(await it.read('/big.bin', { offset: 8_000_000, length: 50 }));
            const meter = await it.meter();
            await it.close();
            return { names, text, part, meter, offline: it.facts.offline };
        }, name);
    const first = await look();
    assert.ok(first.meter.fetched > 0 && !first.offline);
    faulty.log.length = 0;
    const second = await look();
    assert.deepEqual(second.part, [...big.subarray(8_000_000, 8_000_050)]);
    assert.deepEqual(faulty.log.map(({ path }) => path), ['/v2/trust/manifests/lazy']);
    assert.ok(second.meter.cached > 0 && second.meter.fetched < 2000);
    faulty.close();
    const third = await look();
    assert.deepEqual([third.names, third.text, third.part, third.offline, third.meter.fetched], [first.names, first.text, first.part, true, 0]);
    await close();
});

test('what is kept and no longer right is fetched again', async () => {
    const { tab, close } = await visit(explorer.url);
    const name = `${registry.host}/trust:lazy`;
    const look = () =>
        tab.evaluate(async (name) => {
            const it = await lazystar.open(name);
            const text = new TextDecoder().decode(await it.read('/usr/lib/deep/er/needle.txt'));
            const facts = await it.stat('/big.bin');
            await it.close();
            return { text, size: facts.size };
        }, name);
    await look();
    const spoiled = await tab.evaluate(async () => {
        const root = await (await (await navigator.storage.getDirectory()).getDirectoryHandle('lazystar')).getDirectoryHandle('packs');
        let count = 0;
        for await (const [name, handle] of root.entries()) {
            if (name.endsWith('.index')) continue;
            const bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
            for (let at = 3; at < bytes.length; at += 5) bytes[at] ^= 0x55;
            const writer = await handle.createWritable();
            await writer.write(bytes);
            await writer.close();
            count += bytes.length;
        }
        return count;
    });
    assert.ok(spoiled > 1000);
    registry.forget();
    assert.deepEqual(await look(), { text: 'found it\n', size: big.length });
    assert.ok(blobs(registry.requests()).length >= 4);
    registry.forget();
    // And kept once more.
    await look();
    assert.equal(blobs(registry.requests()).length, 0);
    await close();
});

test('two engines keep things side by side, and the page can clear it all', async () => {
    const { tab, close } = await visit(explorer.url);
    const name = `${registry.host}/trust:lazy`;
    const used = await tab.evaluate(async (name) => {
        const [one, other] = await Promise.all([lazystar.open(name), lazystar.open(name)]);
        await Promise.all([one.read('/usr/bin/tool'), other.read('/big.bin', { length: 3000 }), one.read('/etc/passwd'), other.read('/etc/passwd')]);
        const { used, limit } = await lazystar.cache.facts();
        await lazystar.cache.clear();
        const cleared = await lazystar.cache.facts();
        const text = new TextDecoder().decode(await one.read('/srv/app.txt'));
        return { used, limit, cleared: cleared.used, text };
    }, name);
    assert.ok(used.used > 300_000 && used.limit > used.used, `${used.used} of ${used.limit}`);
    assert.deepEqual([used.cleared, used.text], [0, 'application\n']);
    await close();
});

test('where there is no room, what was not used for the longest time goes', async () => {
    const names = [1, 2, 3].map((seed) => `${registry.host}/room-${seed}:lazy`);
    for (const [index, name] of names.entries()) await convert(layout(`room-${index}`, [tar([{ path: 'noise', content: noise(40 << 20, index + 1) }])]), name);
    const { tab, context, close } = await visit(explorer.url);
    const session = await context.newCDPSession(tab);
    const quota = 100 << 20;
    await session.send('Storage.overrideQuotaForOrigin', { origin: new URL(explorer.url).origin, quotaSize: quota });
    const read = (name) =>
        tab.evaluate(async (name) => {
            const it = await lazystar.open(name);
            const { length } = await it.read('/noise');
            const { fetched } = await it.meter();
            await it.close();
            return { length, fetched, ...(await lazystar.cache.facts()) };
        }, name);
    for (const name of names) {
        const { length, used } = await read(name);
        assert.equal(length, 40 << 20);
        assert.ok(used <= quota, `${used} bytes are used`);
    }
    // Some of the last fitted in, after the first made room.
    assert.ok((await read(names[2])).fetched < 30 << 20);
    await close();
});

test('a page of plain http from another machine has no files of its own, and works', async () => {
    const page = await startStatic();
    const open = await startFaulty(registry.host);
    const { tab, close } = await visit(page.url.replace('127.0.0.1', ELSEWHERE));
    const seen = await tab.evaluate(async (name) => {
        const it = await lazystar.open(name);
        const twice = [await it.read('/etc/passwd'), await it.read('/etc/passwd')].map((bytes) => new TextDecoder().decode(bytes));
        await lazystar.cache.clear();
        return { secure: isSecureContext, twice, meter: await it.meter(), cache: await lazystar.cache.facts() };
    }, `${open.host}/trust:lazy`);
    assert.equal(seen.secure, false);
    assert.equal(seen.twice[0], seen.twice[1]);
    assert.ok(seen.meter.cached > 0);
    assert.deepEqual(seen.cache, { used: 0, limit: 0 });
    await close();
});

test('an index: platforms, and the first one where there is no linux/amd64', async () => {
    const { tab, close } = await visit(explorer.url);
    const seen = await tab.evaluate(async (name) => {
        const first = await lazystar.open(name);
        const other = await lazystar.open(name, { platform: 'linux/riscv64' });
        const none = await lazystar.open(name, { platform: 'linux/s390x' }).catch((error) => error.problem);
        const pinned = await lazystar.open({ ...first.place, reference: other.digest });
        return { platforms: first.facts.platforms.map(({ architecture }) => architecture), first: first.facts.platform.architecture, other: other.facts.platform.architecture, index: first.facts.indexDigest, none, pinned: pinned.digest === other.digest };
    }, `${registry.host}/two:lazy`);
    assert.deepEqual(seen.platforms, ['arm64', 'riscv64']);
    assert.deepEqual([seen.first, seen.other, seen.pinned], ['arm64', 'riscv64', true]);
    assert.match(seen.index, /^sha256:/);
    assert.equal(seen.none.kind, 'not-found');
    assert.match(seen.none.message, /arm64/);
    await close();
});

for (const [repository, format] of [['apart', 'estargz-external-toc'], ['squeezed', 'zstd-chunked']]) {
    test(`${format}: the same tree and content`, async () => {
        const { tab, close } = await visit(explorer.url);
        const seen = await tab.evaluate(async (name) => {
            const events = [];
            const it = await lazystar.open(name, { onEvent: (event) => events.push(event) });
            const text = new TextDecoder().decode(await it.read('/usr/lib/deep/er/needle.txt'));
            const part = Array.from(await it.read('/big.bin', { offset: 11_000_000, length: 50 }));
            const open = events.filter(({ type, layer }) => type === 'layer' && layer.state === 'open').map(({ layer }) => [layer.format, layer.assurance]);
            return { text, part, open };
        }, `${registry.host}/${repository}:lazy`);
        assert.equal(seen.text, 'found it\n');
        assert.deepEqual(seen.part, [...big.subarray(11_000_000, 11_000_050)]);
        assert.ok(seen.open.length >= 3);
        for (const facts of seen.open) assert.deepEqual(facts, [format, 'verified']);
        await close();
    });
}
