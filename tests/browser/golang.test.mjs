// A real image in a real registry: the Go image of the rig, 25,000 files.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { here, visit } from './harness.mjs';
import { startExplorer } from './servers.mjs';

const rig = process.env.LAZYSTAR_RIG;
const image = '127.0.0.1:5000/golang:esgz';
const skip = rig ? false : 'LAZYSTAR_RIG is not set';

let explorer;
before(async () => {
    if (rig) explorer = await startExplorer([image]);
});

const log = () => readFileSync(join(rig, 'registry.log'), 'utf8').split('\n');
const blobs = (from) =>
    log().slice(from).flatMap((line) => {
        const found = /"GET (\S+\/blobs\/\S+) HTTP\/[\d.]+" 20[06] (\d+)/.exec(line);
        return found ? [{ path: found[1], bytes: Number(found[2]) }] : [];
    });

test('a file deep inside costs next to nothing', { skip }, async () => {
    const from = log().length - 1;
    const { tab, close } = await visit(explorer.url);
    let arrived = 0;
    tab.on('requestfinished', (request) => {
        if (request.url().includes('/blobs/') && request.headers().range) arrived = Date.now();
    });
    await tab.goto(`${explorer.url}#/r/${image}`);
    await tab.getByRole('row', { name: 'usr' }).waitFor({ timeout: 30_000 });
    const waited = Date.now() - arrived;
    const perLayer = Object.values(Object.groupBy(blobs(from), ({ path }) => path)).map((requests) => requests.length);
    console.log(`first tree ${waited} ms after the table of contents; requests for each blob: ${perLayer}`);
    assert.ok(Math.max(...perLayer) <= 2, `requests for each blob: ${perLayer}`);
    assert.ok(waited < 1000, `${waited} ms`);

    await tab.evaluate(() => (location.hash += '/-/usr/local/go/src/net/http/httputil/reverseproxy.go'));
    await tab.getByText('package httputil').first().waitFor();
    const total = await tab.evaluate(async () => (await lazystar.image.meter()).total);
    const fetched = blobs(from).reduce((sum, { bytes }) => sum + bytes, 0);
    console.log(`${fetched} of ${total} bytes, ${((fetched / total) * 100).toFixed(2)} %`);
    assert.ok(fetched < total * 0.02, `${fetched} of ${total} bytes`);
    await tab.screenshot({ path: join(here, 'pictures', 'golang.png') });
    await close();
});
