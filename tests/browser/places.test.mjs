// Images that are in no registry: files of this computer, and OCI layouts on web servers.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { binary, run, until, visit, work } from './harness.mjs';
import { convert, layout, sha256, tar } from './images.mjs';
import { big, layers, tars } from './sample.mjs';
import { startExplorer, startFiles } from './servers.mjs';

const file = (name) => join(work, name);
let explorer;
before(async () => {
    explorer = await startExplorer();
    await convert(layout('places-plain', tars()), `oci:${file('places')}:lazy`);
    await run('skopeo', ['copy', '--insecure-policy', `oci:${file('places')}:lazy`, `oci-archive:${file('places.tar')}:lazy`]);
    await run('skopeo', ['copy', '--insecure-policy', `oci:${file('places-plain')}:plain`, `docker-archive:${file('saved.tar')}:sample/saved:one`]);
    writeFileSync(file('layer.tar'), tar(layers[0]));
    await run(binary, ['pack', file('layer.tar'), '-o', file('layer.esgz')]);
    await run(binary, ['pack', file('layer.tar'), '--format', 'zstd-chunked', '-o', file('layer.zst')]);
});

/** The first page, and all that it asks servers for from now on. */
async function first() {
    const visited = await visit(explorer.url);
    await visited.tab.waitForFunction(() => navigator.serviceWorker.controller);
    const asked = [];
    // The page's own files come out of the service worker.
    const own = new RegExp(`^(blob:|${explorer.url}(assets/|icon))`);
    visited.context.on('request', (request) => own.test(request.url()) || asked.push(request.url()));
    return { ...visited, asked };
}

const choose = (tab, name) => tab.getByLabel('File with an image or a layer').first().setInputFiles(file(name));

/** What people do when they drop a file. */
async function drop(tab, name) {
    const bytes = readFileSync(file(name)).toString('base64');
    const data = await tab.evaluateHandle(([bytes, name]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))], name));
        return transfer;
    }, [bytes, name]);
    await tab.dispatchEvent('#page', 'dragover', { dataTransfer: data });
    await tab.getByText('Drop an archive of an image or a layer').waitFor();
    await tab.dispatchEvent('#page', 'drop', { dataTransfer: data });
}

/** The tags that can be chosen. */
const tags = (tab, expected) =>
    until(`the tags ${expected}`, async () => String(await tab.getByLabel('Tag').locator('option').allTextContents()) === String(expected));

test('an archive of an OCI layout is looked into without any network', async () => {
    const { tab, asked, close } = await first();
    await choose(tab, 'places.tar');
    await tab.getByRole('row', { name: 'srv' }).waitFor();
    await tab.getByRole('navigation', { name: 'Layers' }).getByText('verified').first().waitFor();
    const deep = await tab.evaluate(async () => {
        const it = lazystar.image;
        return { text: new TextDecoder().decode(await it.read('/usr/lib/deep/er/needle.txt')), part: Array.from(await it.read('/big.bin', { offset: 9_000_000, length: 100 })) };
    });
    assert.equal(deep.text, 'found it\n');
    assert.deepEqual(Buffer.from(deep.part), big.subarray(9_000_000, 9_000_100));
    await tab.getByText('no network is used').waitFor();
    await tags(tab, ['pinned', 'lazy']);
    assert.equal((await tab.evaluate(() => lazystar.image.meter())).requests, 0);
    assert.deepEqual(asked, []);
    await close();
});

test('a link to a file says that it cannot bring the file, and shows what it is to once it is chosen', async () => {
    const { tab, close } = await first();
    await choose(tab, 'places.tar');
    await tab.getByRole('row', { name: 'srv' }).waitFor();
    await tab.evaluate(() => (location.hash += '/-/usr/lib/deep/er/needle.txt'));
    await tab.getByText('found it').waitFor();
    await tab.reload();
    const alert = tab.getByRole('alert');
    await alert.getByText('This file cannot be read').waitFor();
    await alert.getByText('places.tar is a file of a computer, which no link can bring').waitFor();
    await alert.getByRole('button', { name: 'Open a file' }).waitFor();
    await alert.getByLabel('File with an image or a layer').setInputFiles(file('places.tar'));
    await tab.getByText('found it').waitFor();
    await tab.goto(explorer.url);
    await tab.getByRole('heading', { name: 'Look inside' }).waitFor();
    assert.equal(await tab.getByText('places.tar').count(), 0, 'a file that no link can bring is not among the recent images');
    await close();
});

test('what docker save wrote is read when it is asked for', async () => {
    const { tab, asked, close } = await first();
    await choose(tab, 'saved.tar');
    const nav = tab.getByRole('navigation', { name: 'Layers' });
    await nav.getByRole('button', { name: /^Read and index/ }).first().waitFor();
    while (await nav.getByRole('button', { name: /^Read and index/ }).count()) {
        await nav.getByRole('button', { name: /^Read and index/ }).first().click();
        await tab.waitForTimeout(300);
    }
    await tab.getByRole('row', { name: 'srv' }).waitFor();
    await until('all layers', async () => (await nav.getByText('verified').count()) === 3);
    await tab.getByRole('navigation', { name: 'Layers' }).getByText('make layer 2').waitFor();
    await tags(tab, ['pinned', 'docker.io_sample_saved_one']);
    assert.equal(await tab.evaluate(async () => new TextDecoder().decode(await lazystar.image.read('/srv/app.txt'))), 'application\n');
    assert.deepEqual(asked, []);
    await close();
});

for (const [name, format] of [['layer.esgz', 'estargz'], ['layer.zst', 'zstd-chunked']]) {
    test(`a layer is dropped on the page: ${name}`, async () => {
        const { tab, asked, close } = await first();
        await drop(tab, name);
        await tab.getByRole('row', { name: /^usr / }).waitFor();
        const nav = tab.getByRole('navigation', { name: 'Layers' });
        await nav.getByText(`consistent ${format}`).waitFor();
        const bytes = await tab.evaluate(async () => Array.from(await lazystar.image.read('/usr/bin/tool')));
        assert.equal(sha256(Buffer.from(bytes)), sha256(layers[0].find(({ path }) => path === 'usr/bin/tool').content));
        assert.deepEqual(asked, []);
        await close();
    });
}

test('files that are nothing, cut short or changed are explained', async () => {
    const { tab, close } = await first();
    const bytes = readFileSync(file('places.tar'));
    writeFileSync(file('short.tar'), bytes.subarray(0, bytes.length / 2));
    writeFileSync(file('words.txt'), 'no image at all\n'.repeat(200));
    writeFileSync(file('empty'), '');
    const alert = tab.getByRole('alert');
    await choose(tab, 'short.tar');
    await alert.getByText(/short\.tar (looks like an archive of an image, but|is not complete|has nothing with digest|is cut short)/).waitFor();
    await choose(tab, 'empty');
    await alert.getByText('empty is empty.').waitFor();
    await choose(tab, 'words.txt');
    const nav = tab.getByRole('navigation', { name: 'Layers' });
    await nav.getByRole('button', { name: /^Read and index/ }).click();
    await tab.getByText('The tar of the layer is not sound').first().waitFor();
    await choose(tab, 'layer.tar');
    await nav.getByRole('button', { name: /^Read and index/ }).waitFor();
    writeFileSync(file('layer.tar'), tar(layers[1]));
    await nav.getByRole('button', { name: /^Read and index/ }).click();
    await tab.getByText('layer.tar can be read no longer').first().waitFor();
    await close();
});

test('a layout on a web server is read by ranges', async () => {
    const server = await startFiles(work);
    const { tab, close } = await visit(explorer.url);
    await tab.getByLabel('Image', { exact: true }).fill(`${server.url}places:lazy`);
    await tab.getByRole('button', { name: 'Open', exact: true }).click();
    await tab.getByRole('row', { name: 'srv' }).waitFor();
    assert.match(await tab.evaluate(() => location.hash), /places:lazy@sha256:[0-9a-f]{64}$/);
    server.log.length = 0;
    assert.equal(await tab.evaluate(async () => new TextDecoder().decode(await lazystar.image.read('/usr/lib/deep/er/needle.txt'))), 'found it\n');
    assert.equal(server.log.length, 1);
    assert.match(server.log[0].range, /^bytes=\d+-\d+$/);
    assert.ok(server.log[0].sent < 2000);
    await tab.evaluate(() => (location.hash += '/-/srv/app.txt'));
    await tab.getByText('application', { exact: true }).waitFor();
    await tab.reload();
    await tab.getByText('application', { exact: true }).waitFor();
    assert.ok(server.log.every(({ method }) => method === 'GET'), 'no preflights');
    // The page's own server is not asked for it, which has credentials.
    await tab.goto(explorer.url);
    await tab.getByRole('link', { name: `${server.url}places:lazy` }).waitFor();
    await close();
});

test('a web server that gives whole files, none, or nothing that pages may read', async () => {
    const server = await startFiles(work);
    const { tab, close } = await visit(explorer.url);
    const look = (name) =>
        tab.evaluate(async (name) => {
            try {
                const it = await lazystar.open(name);
                return { text: new TextDecoder().decode(await it.read('/srv/app.txt')) };
            } catch (error) {
                return error.problem;
            }
        }, name);
    server.ranges = false;
    assert.equal((await look(`${server.url}places:lazy`)).text, 'application\n');
    const none = await look(`${server.url}not-there`);
    assert.equal(none.kind, 'not-found');
    assert.match(none.message, /would have an index\.json/);
    assert.match((await look(`${server.url}places:other`)).message, /has no image other; it has lazy/);
    server.cors = false;
    const closed = await look(`${server.url}places-plain`);
    assert.equal(closed.kind, 'cors');
    assert.match(closed.message, /Access-Control-Allow-Origin: \*/);
    server.close();
    assert.equal((await look(`${server.url}places-plain`)).kind, 'unreachable');
    await close();
});
