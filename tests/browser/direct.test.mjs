// Registries that the page asks itself: from a server that has nothing but the page's files.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { startRegistry, visit } from './harness.mjs';
import { convert, layout } from './images.mjs';
import { big, tars } from './sample.mjs';
import { startFaulty, startStatic } from './servers.mjs';

let registry, page;
before(async () => {
    registry = await startRegistry();
    page = await startStatic();
    await convert(layout('direct', tars()), `${registry.host}/direct:lazy`);
});

/** Opens and reads the image of a registry; a page of its own, and so an empty cache. */
async function look(host, options = {}, path = '/usr/lib/deep/er/needle.txt') {
    const { tab, close } = await visit(page.url);
    const seen = await tab.evaluate(async ([name, options, path]) => {
        try {
            const it = await lazystar.open(name, options);
            const bytes = await it.read(path, { length: 1000 });
            return { text: new TextDecoder().decode(bytes.slice(0, 100)), length: bytes.length, meter: await it.meter() };
        } catch (error) {
            return { problem: error.problem ?? String(error) };
        }
    }, [`${host}/direct:lazy`, options, path]);
    await close();
    return seen;
}

test('an anonymous registry is asked without preflights', async () => {
    const open = await startFaulty(registry.host);
    const seen = await look(open.host);
    assert.equal(seen.text, 'found it\n');
    assert.ok(open.log.every(({ method, authorization }) => method === 'GET' && !authorization));
    for (const { range } of open.log) assert.match(range ?? 'bytes=0-1', /^bytes=\d+-\d+$/);
    assert.equal(open.log.length, seen.meter.requests);
});

test('a registry that forbids it is explained, with what to configure', async () => {
    const closed = await startFaulty(registry.host);
    closed.cors = false;
    const { problem } = await look(closed.host);
    assert.equal(problem.kind, 'cors');
    assert.match(problem.message, /Access-Control-Allow-Origin: \['\*'\]/);
    assert.match(problem.message, /lazystar explore/);
});

test('a registry that is not there', async () => {
    const gone = await startFaulty(registry.host);
    gone.close();
    const { problem } = await look(gone.host);
    assert.equal(problem.kind, 'unreachable');
});

test('a registry with tokens: an anonymous one is fetched once, preflights only for what carries it', async () => {
    const tokens = await startFaulty(registry.host);
    tokens.exposed = 'WWW-Authenticate';
    const allow = { 'access-control-allow-headers': 'Authorization, Range, Accept', 'access-control-allow-methods': 'GET' };
    tokens.rule = ({ method, path, authorization }) => {
        if (method === 'OPTIONS') return { status: 204, headers: allow };
        if (path.startsWith('/token')) return { status: 200, headers: { 'content-type': 'application/json' }, body: '{"token":"abc"}' };
        if (authorization !== 'Bearer abc') return { status: 401, headers: { 'www-authenticate': `Bearer realm="http://${tokens.host}/token",service="here"` } };
        return undefined;
    };
    const seen = await look(tokens.host);
    assert.equal(seen.text, 'found it\n');
    const asked = tokens.log.filter(({ path }) => path.startsWith('/token'));
    assert.deepEqual(asked.map(({ method, path, authorization }) => [method, path, authorization]), [['GET', '/token?service=here&scope=repository%3Adirect%3Apull', undefined]]);
    assert.equal(tokens.log[0].method, 'GET');
});

test('a registry that answers preflights with 401, as distribution does, is explained', async () => {
    const strict = await startFaulty(registry.host);
    strict.exposed = 'WWW-Authenticate';
    strict.rule = ({ path, authorization }) => {
        if (path.startsWith('/token')) return { status: 200, headers: { 'content-type': 'application/json' }, body: '{"token":"abc"}' };
        return authorization ? undefined : { status: 401, headers: { 'www-authenticate': `Bearer realm="http://${strict.host}/token",service="here"` } };
    };
    const { problem } = await look(strict.host);
    assert.equal(problem.kind, 'cors');
    assert.match(problem.message, /OPTIONS/);
});

test('names and passwords', async () => {
    const secret = await startFaulty(registry.host);
    const basic = `Basic ${Buffer.from('me:pass').toString('base64')}`;
    secret.rule = ({ method, authorization }) => {
        if (method === 'OPTIONS') return { status: 204, headers: { 'access-control-allow-headers': 'Authorization, Range, Accept' } };
        return authorization === basic ? undefined : { status: 401, headers: { 'www-authenticate': 'Basic realm="x"' }, body: '{"errors":[{"message":"authentication required"}]}' };
    };
    const { problem } = await look(secret.host);
    assert.deepEqual([problem.kind, problem.status], ['unauthorized', 401]);
    assert.match(problem.message, /authentication required/);
    assert.equal((await look(secret.host, { authorization: basic })).text, 'found it\n');
});

test('ranges that a registry ignores are cut out of what comes', async () => {
    const whole = await startFaulty(registry.host);
    whole.rule = () => ({ ignoreRange: true });
    assert.equal((await look(whole.host)).text, 'found it\n');
});

test('blobs on another server: redirected once, then asked there, and here again when that says no', async () => {
    const bucket = await startFaulty(registry.host);
    const redirecting = await startFaulty(registry.host);
    redirecting.rule = ({ path }) => (path.includes('/blobs/') ? { status: 307, headers: { location: `http://${bucket.host}${path}` } } : undefined);
    const { tab, close } = await visit(page.url);
    await tab.evaluate(async (name) => {
        window.it = await lazystar.open(name);
        await it.read('/usr/lib/deep/er/needle.txt');
    }, `${redirecting.host}/direct:lazy`);
    const here = redirecting.log.length;
    const read = (offset) => tab.evaluate(async (offset) => Array.from(await it.read('/big.bin', { offset, length: 20 })), offset);
    assert.deepEqual(await read(5_000_000), [...big.subarray(5_000_000, 5_000_020)]);
    assert.equal(redirecting.log.length, here);
    bucket.rule = (_, log) => (bucket.failed ? undefined : ((bucket.failed = true), { status: 403 }));
    assert.deepEqual(await read(18_000_000), [...big.subarray(18_000_000, 18_000_020)]);
    assert.equal(redirecting.log.length, here + 1);
    await close();
});

test('busy and broken registries are asked again', async () => {
    const busy = await startFaulty(registry.host);
    busy.exposed = 'Retry-After';
    const counts = new Map();
    busy.rule = ({ path, range }) => {
        const key = `${path} ${range}`;
        const count = (counts.get(key) ?? 0) + 1;
        counts.set(key, count);
        if (count > 1) return undefined;
        if (path.includes('/manifests/')) return { status: 429, headers: { 'retry-after': '1' } };
        return range ? { drop: true } : { status: 503 };
    };
    const seen = await look(busy.host);
    assert.equal(seen.text, 'found it\n');
    const limited = await startFaulty(registry.host);
    limited.exposed = 'Retry-After';
    limited.rule = () => ({ status: 429, headers: { 'retry-after': '3600' } });
    const { problem } = await look(limited.host);
    assert.deepEqual([problem.kind, problem.retryAfter, limited.log.length], ['too-many-requests', 3600, 1]);
});

test('what is not there', async () => {
    const open = await startFaulty(registry.host);
    const { tab, close } = await visit(page.url);
    const problems = await tab.evaluate(async (host) => {
        const why = (error) => error.problem;
        const it = await lazystar.open(`${host}/direct:lazy`);
        return [await lazystar.open(`${host}/direct:none`).catch(why), await it.read('/none').catch(why), await it.read('/etc').catch(why), await it.readdir('/etc/passwd').catch(why), await it.engine.tags()];
    }, open.host);
    assert.deepEqual(problems.slice(0, 4).map(({ kind }) => kind), ['not-found', 'not-found', 'wrong-kind', 'wrong-kind']);
    assert.deepEqual(problems[4], ['lazy']);
    await close();
});

test('no more than eight requests side by side, and none that nobody waits for', async () => {
    const slow = await startFaulty(registry.host);
    const { tab, close } = await visit(page.url);
    await tab.evaluate(async (name) => {
        window.it = await lazystar.open(name);
        await it.readdir('/');
    }, `${slow.host}/direct:lazy`);
    let [now, most] = [0, 0];
    slow.rule = () => {
        now += 1;
        most = Math.max(most, now);
        setTimeout(() => (now -= 1), 100);
        return { wait: 100 };
    };
    await tab.evaluate(() => Promise.all(Array.from({ length: 40 }, (_, index) => it.read(`/many/file-${String(10 * index).padStart(3, '0')}.txt`))));
    assert.ok(most > 1 && most <= 9, `${most} side by side`);
    slow.log.length = 0;
    slow.rule = ({ range }) => (range ? { wait: 300 } : undefined);
    const taken = await tab.evaluate(async () => {
        const reader = (await it.stream('/big.bin')).getReader();
        const { value } = await reader.read();
        await reader.cancel();
        await new Promise((done) => setTimeout(done, 1500));
        return value.length;
    });
    assert.ok(taken > 0);
    const fetched = slow.log.map(({ range }) => /bytes=(\d+)-(\d+)/.exec(range)).reduce((sum, [, from, to]) => sum + Number(to) - Number(from) + 1, 0);
    assert.ok(fetched <= 13 << 20, `${fetched} bytes asked for`);
    await close();
});
