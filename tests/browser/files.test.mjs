// Addresses of files, which the service worker serves, and tars.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { blobs, here, run, startRegistry, visit, work } from './harness.mjs';
import { convert, layout, sha256 } from './images.mjs';
import { big, capability, content, merged, tars } from './sample.mjs';
import { startExplorer } from './servers.mjs';

let registry, explorer, image;
before(async () => {
    registry = await startRegistry();
    explorer = await startExplorer();
    image = `${registry.host}/files:lazy`;
    await convert(layout('files', tars()), image);
});

/** A page with the image open, once the service worker has taken it over. */
async function open() {
    const visited = await visit(explorer.url, { acceptDownloads: true });
    await visited.tab.evaluate(async (name) => {
        await navigator.serviceWorker.ready;
        for (let left = 100; !navigator.serviceWorker.controller && left > 0; left -= 1) await new Promise((done) => setTimeout(done, 50));
        window.it = await lazystar.open(name);
        window.get = async (path, options) => {
            const { status, headers, body } = await fetch(it.url(path) + (options?.query ?? ''), options);
            const bytes = new Uint8Array(await new Response(body).arrayBuffer());
            return { status, headers: Object.fromEntries(headers), text: new TextDecoder().decode(bytes), bytes: Array.from(bytes.subarray(0, 200)), length: bytes.length };
        };
    }, image);
    return visited;
}

async function listing(file) {
    return (await run('python3', [join(here, 'untar.py'), file])).trim().split('\n').map((line) => JSON.parse(line));
}

test('files have addresses, with ranges', async () => {
    const { tab, close } = await open();
    const get = (path, options) => tab.evaluate(([path, options]) => get(path, options), [path, options]);
    const whole = await get('/usr/lib/deep/er/needle.txt');
    assert.deepEqual([whole.status, whole.text, whole.headers['content-type']], [200, 'found it\n', 'text/plain; charset=utf-8']);
    assert.equal(whole.headers['content-length'], '9');
    const part = await get('/big.bin', { headers: { range: 'bytes=5000000-5000099' } });
    assert.deepEqual([part.status, part.headers['content-range'], part.length], [206, `bytes 5000000-5000099/${big.length}`, 100]);
    assert.deepEqual(Buffer.from(part.bytes), big.subarray(5_000_000, 5_000_100));
    const tail = await get('/big.bin', { headers: { range: 'bytes=-7' } });
    assert.deepEqual([tail.status, tail.headers['content-range']], [206, `bytes ${big.length - 7}-${big.length - 1}/${big.length}`]);
    const past = await get('/big.bin', { headers: { range: `bytes=${big.length}-` } });
    assert.deepEqual([past.status, past.headers['content-range']], [416, `bytes */${big.length}`]);
    const head = await get('/big.bin', { method: 'HEAD' });
    assert.deepEqual([head.status, head.headers['content-length'], head.length], [200, String(big.length), 0]);
    assert.equal((await get('/not/there')).status, 404);
    assert.equal((await get('/etc')).status, 400);
    assert.equal((await get('/empty')).length, 0);
    assert.equal((await get('/etc/shadow', { query: '?layer=0' })).text, 'secret\n');
    assert.equal((await get('/etc/os-release', { method: 'POST' })).status, 405);
    await close();
});

test('nothing of an image is a page of this origin', async () => {
    const { tab, context, close } = await open();
    const found = await tab.evaluate(() => Promise.all(['/names/<img src=x onerror=alert(1)>.html', '/big.bin', '/not/there', '/etc'].map((path) => get(path))));
    for (const { headers } of found) {
        assert.equal(headers['content-security-policy'], "sandbox; default-src 'none'");
        assert.equal(headers['x-content-type-options'], 'nosniff');
        assert.equal(headers['cross-origin-resource-policy'], 'same-origin');
        assert.match(headers['content-type'], /^(text\/plain; charset=utf-8|application\/octet-stream)$/);
    }
    assert.equal(found[1].headers['content-type'], 'application/octet-stream');
    const other = await context.newPage();
    const alerts = [];
    other.on('dialog', (dialog) => void alerts.push(dialog.dismiss()));
    await other.goto(await tab.evaluate(() => it.url('/names/<img src=x onerror=alert(1)>.html')));
    assert.match(await other.evaluate(() => document.contentType), /text\/plain/);
    assert.equal(await other.evaluate(() => { try { return String(localStorage.length); } catch (error) { return error.name; } }), 'SecurityError');
    assert.deepEqual(alerts, []);
    const { headers } = await tab.evaluate(() => get('/names/turn\u202egpj.exe', { query: '?download' }));
    assert.equal(headers['content-disposition'], `attachment; filename="turn_gpj.exe"; filename*=UTF-8''turn_gpj.exe`);
    assert.equal(headers['content-type'], 'application/octet-stream');
    const name = await tab.evaluate(() => get('/names/größe 測試.txt', { query: '?download' }));
    assert.match(name.headers['content-disposition'], /^attachment; filename="gr__e __\.txt"; filename\*=UTF-8''gr%C3%B6%C3%9Fe%20%E6%B8%AC%E8%A9%A6\.txt$/);
    await close();
});

test('without a page that has the image open there is nothing to serve', async () => {
    const { tab, close } = await open();
    const answer = await tab.evaluate(async () => {
        const url = it.url('/etc/passwd');
        await it.close();
        const response = await fetch(url);
        return { status: response.status, text: await response.text() };
    });
    assert.equal(answer.status, 503);
    assert.match(answer.text, /No page has .* open/);
    await close();
});

test('the tar of the root is the file system', async () => {
    const { tab, close } = await open();
    registry.forget();
    const [download] = await Promise.all([
        tab.waitForEvent('download'),
        tab.evaluate(() => {
            const anchor = document.createElement('a');
            anchor.href = `${it.url('/')}?tar`;
            anchor.click();
        }),
    ]);
    assert.equal(download.suggestedFilename(), 'root.tar');
    const file = join(work, 'root.tar');
    await download.saveAs(file);
    const asked = blobs(registry.requests());
    assert.ok(asked.length <= 12, `${asked.length} requests`);
    const members = new Map((await listing(file)).map((member) => [member.name, member]));
    const tree = merged();
    assert.deepEqual([...members.keys()].sort(), [...tree.keys()].map((path) => path.slice(1) || '.').sort());
    const types = { directory: '5', symlink: '2', char: '3', block: '4', fifo: '6' };
    // The top layer says nothing of the root.
    tree.delete('/');
    for (const [path, entry] of tree) {
        const member = members.get(path.slice(1) || '.');
        const source = entry.type === 'link' ? tree.get(`/${entry.target}`) : entry;
        const linked = ['/usr/bin/tool', '/usr/bin/alias'].includes(path);
        if (!linked) assert.equal(member.type, types[entry.type] ?? '0', path);
        assert.deepEqual([member.uid, member.gid], [source.uid, source.gid], path);
        // Tables of contents of lazy layers have whole seconds.
        assert.ok(Math.abs(member.mtime - source.mtime) < 1, path);
        if (source.mode !== undefined) assert.equal(member.mode, source.mode, path);
        if (entry.type === 'symlink') assert.equal(member.target, entry.target, path);
        if (entry.type === 'char' || entry.type === 'block') assert.deepEqual(member.device, [entry.major, entry.minor], path);
        if (member.type === '0') assert.equal(member.digest, sha256(content(tree, path)), path);
    }
    const pair = [members.get('usr/bin/tool'), members.get('usr/bin/alias')];
    assert.deepEqual(pair.map(({ type }) => type).sort(), ['0', '1']);
    const link = pair.find(({ type }) => type === '1');
    assert.equal(link.target, pair.find(({ type }) => type === '0').name);
    // GNU tar takes it as well.
    const out = join(work, 'root');
    mkdirSync(out);
    await run('tar', ['-xpf', file, '-C', out, '--numeric-owner']);
    assert.deepEqual(readFileSync(join(out, 'big.bin')), big);
    await run('tar', ['--compare', '-f', file, '-C', out, '--numeric-owner']);
    await close();
});

test('the tar of a directory in a layer has its whiteouts and attributes', async () => {
    const { tab, close } = await open();
    const take = async (path, view, name) => {
        const data = await tab.evaluate(async ([path, view]) => {
            const bytes = new Uint8Array(await new Response(await it.tar(path, { view })).arrayBuffer());
            return Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');
        }, [path, view]);
        const { writeFileSync } = await import('node:fs');
        writeFileSync(join(work, name), Buffer.from(data, 'latin1'));
        return listing(join(work, name));
    };
    const etc = await take('/etc', 1, 'etc.tar');
    assert.deepEqual(etc.map(({ name }) => name).sort(), ['etc', 'etc/.wh.shadow', 'etc/os-release']);
    const cache = await take('/cache', 1, 'cache.tar');
    assert.deepEqual(cache.map(({ name }) => name).sort(), ['cache', 'cache/.wh..wh..opq', 'cache/new']);
    const bin = await take('/usr/bin/cap', 0, 'cap.tar');
    assert.deepEqual(bin.map(({ name, xattrs }) => [name, xattrs]), [['cap', { 'security.capability': capability.toString('hex'), 'user.note': Buffer.from('a=b').toString('hex') }]]);
    await close();
});

test('the page opens without its server', async () => {
    const own = await startExplorer();
    const { tab, close } = await visit(own.url);
    await tab.evaluate(async () => {
        await navigator.serviceWorker.ready;
        for (let left = 100; !navigator.serviceWorker.controller && left > 0; left -= 1) await new Promise((done) => setTimeout(done, 50));
        await fetch('lazystar.json');
    });
    const first = await tab.evaluate(async (name) => {
        const it = await lazystar.open(name);
        const text = new TextDecoder().decode(await it.read('/etc/passwd'));
        await it.close();
        return text;
    }, image);
    await own.close();
    await tab.reload();
    await tab.waitForFunction(() => 'lazystar' in window);
    const again = await tab.evaluate(async (name) => {
        const it = await lazystar.open(name);
        return { offline: it.facts.offline, text: new TextDecoder().decode(await it.read('/etc/passwd')), names: (await it.readdir('/etc')).map(({ name }) => name) };
    }, image);
    assert.deepEqual(again, { offline: true, text: first, names: ['os-release', 'passwd'] });
    await close();
});
