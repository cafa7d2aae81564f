// What a person sees when something is wrong.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { startRegistry, visit } from './harness.mjs';
import { convert, layout } from './images.mjs';
import { big, tars } from './sample.mjs';
import { startExplorer, startFaulty, startStatic } from './servers.mjs';

let registry, explorer, faulty;
before(async () => {
    registry = await startRegistry();
    explorer = await startExplorer();
    faulty = await startFaulty(registry.host);
    await convert(layout('failures', tars()), `${registry.host}/failures:lazy`);
});

/** The page with the image behind a registry that has a fault. */
async function open(rule, { url = explorer.url, rest = '' } = {}) {
    faulty.rule = rule;
    faulty.log.length = 0;
    const visited = await visit(`${url}#/r/${faulty.host}/failures:lazy${rest}`);
    return { ...visited, alert: visited.tab.getByRole('alert') };
}

test('a chunk that is not what was promised is never shown', async () => {
    // Noise is stored as it is: what is changed decompresses, to something else.
    const hex = [...big.subarray(0, 16)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    // One bit of every answer that is no table of contents, as a bad mirror would do.
    const flip = (answer) => {
        if (answer.status === 206 && answer.body.length > 0) answer.body[answer.body.length >> 1] ^= 1;
        return answer;
    };
    let isOpen = false;
    const { tab, alert, close } = await open(({ path }) => (isOpen && path.includes('/blobs/') ? { change: flip } : undefined));
    await tab.getByRole('row', { name: 'etc' }).waitFor();
    isOpen = true;
    await tab.evaluate(() => (location.hash += '/-/big.bin'));
    const failed = alert.filter({ hasText: 'not what the image promised' });
    await failed.getByText('Promised', { exact: true }).waitFor();
    await failed.getByText(/bytes \d+ to \d+ of layer 1/).waitFor();
    const [promised, came] = await failed.locator('dd code').allTextContents();
    assert.match(promised, /^sha256:[0-9a-f]{64}$/);
    assert.match(came, /^sha256:[0-9a-f]{64}$/);
    assert.notEqual(promised, came);
    await alert.filter({ hasText: 'what came was thrown away' }).waitFor();
    assert.ok(!(await tab.textContent('body')).includes(hex));
    isOpen = false;
    await failed.getByRole('button', { name: 'Try again' }).click();
    await tab.getByText(hex).waitFor();
    await close();
});

test('a layer that could not be opened is opened again, and another way to the registry is named', async () => {
    const page = await startStatic();
    const flip = (answer) => {
        const { length } = answer.body;
        // Of a table of contents something before the footer, which says that it is there.
        if (answer.status === 206) answer.body.fill(7, 0, length > 1000 ? length - 60 : length);
        return answer;
    };
    let isBroken = true;
    const { tab, alert, close } = await open(({ path }) => (isBroken && path.includes('/blobs/') ? { change: flip } : undefined), { url: page.url });
    const layer = tab.getByRole('navigation', { name: 'Layers' }).getByRole('listitem').filter({ hasText: 'make layer 0' });
    await layer.getByRole('alert').getByText('layer 1 is damaged').waitFor();
    isBroken = false;
    await layer.getByRole('button', { name: 'Try again' }).click();
    await layer.getByText('verified').waitFor();
    await tab.getByRole('row', { name: 'etc' }).waitFor();
    // Registries that are asked directly: the proxy is offered where content is wrong.
    isBroken = true;
    await tab.evaluate(() => (location.hash += '/-/usr/lib/deep/er/needle.txt'));
    await alert.getByText(`lazystar explore ${faulty.host}/failures:lazy`).waitFor();
    isBroken = false;
    await alert.getByRole('button', { name: 'Try again' }).last().click();
    await tab.getByText('found it').waitFor();
    await close();
});

test('no such image', async () => {
    const { alert, close } = await open(() => ({ status: 404, body: '{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}' }));
    await alert.getByText('There is no such image').waitFor();
    await close();
});

test('too many requests, and when it goes on', async () => {
    const { alert, close } = await open(() => ({ status: 429, headers: { 'retry-after': '3600' } }));
    await alert.getByText('It takes requests again in 3600 s').waitFor();
    await close();
});

test('an answer that takes its time', async () => {
    const { tab, close } = await open(({ path }) => (path.includes('/manifests/') ? { wait: 2500 } : undefined));
    await tab.getByRole('status').getByText('It takes its time').waitFor();
    await tab.getByRole('row', { name: 'etc' }).waitFor();
    await close();
});

test('a registry that fails can be asked again', async () => {
    let isBroken = true;
    const { tab, alert, close } = await open(() => (isBroken ? { status: 500 } : undefined));
    await alert.getByText('The registry failed').waitFor({ timeout: 60_000 });
    isBroken = false;
    await alert.getByRole('button', { name: 'Try again' }).click();
    await tab.getByRole('row', { name: 'etc' }).waitFor();
    await close();
});

test('a file that could not be fetched is asked for again', async () => {
    let isBroken = false;
    const { tab, alert, close } = await open(({ path }) => (isBroken && path.includes('/blobs/') ? { status: 500 } : undefined));
    await tab.getByRole('row', { name: 'etc' }).waitFor();
    isBroken = true;
    await tab.evaluate(() => (location.hash += '/-/usr/lib/deep/er/needle.txt'));
    await alert.getByText('The registry failed').waitFor({ timeout: 60_000 });
    isBroken = false;
    await alert.getByRole('button', { name: 'Try again' }).click();
    await tab.getByText('found it').waitFor();
    await close();
});

test('a registry that wants a password gets it from the person', async () => {
    const page = await startStatic();
    const right = `Basic ${Buffer.from('alice:pässword').toString('base64')}`;
    faulty.cors = true;
    const { tab, alert, close } = await open(
        ({ method, authorization }) => {
            if (method === 'OPTIONS') return { status: 204, headers: { 'access-control-allow-headers': 'authorization, range', 'access-control-allow-methods': 'GET, HEAD' } };
            return authorization === right ? undefined : { status: 401, headers: { 'www-authenticate': 'Basic realm="r"' } };
        },
        { url: page.url },
    );
    await alert.getByLabel('User').fill('alice');
    await alert.getByLabel('Password or token').fill('pässword');
    await alert.getByRole('button', { name: 'Log in' }).click();
    await tab.getByRole('row', { name: 'etc' }).waitFor();
    await close();
});

test('a registry that lets no page read is explained', async () => {
    const page = await startStatic();
    faulty.cors = false;
    const { alert, close } = await open(() => undefined, { url: page.url });
    await alert.getByText('does not let web pages read').waitFor();
    await alert.getByText('Access-Control-Allow-Origin').waitFor();
    await alert.getByText(`lazystar explore ${faulty.host}/failures:lazy`).waitFor();
    faulty.cors = true;
    await close();
});

test('what was seen is there without any server', async () => {
    const own = await startExplorer();
    const { tab, close } = await open(() => undefined, { url: own.url, rest: '/-/etc/os-release' });
    await tab.getByText('VERSION=2').waitFor();
    await tab.waitForFunction(() => navigator.serviceWorker.controller);
    // What the worker of the service keeps, it keeps in the background.
    await tab.waitForTimeout(500);
    await own.close();
    await tab.reload();
    await tab.getByText('VERSION=2').waitFor();
    await tab.getByRole('row', { name: 'etc' }).waitFor();
    // A digest is known; a tag would have to be asked for.
    await tab.evaluate((host) => (location.hash = `#/r/${host}/failures:lazy`), faulty.host);
    await tab.getByText('offline: what was seen before').waitFor();
    await tab.getByRole('row', { name: 'etc' }).waitFor();
    await close();
});

test('an address that is no image', async () => {
    const { tab, close } = await visit(explorer.url);
    await tab.getByRole('textbox', { name: 'Image' }).fill('UPPER CASE');
    await tab.getByRole('button', { name: 'Open', exact: true }).click();
    await tab.getByRole('alert').getByText('This is no image').waitFor();
    await tab.getByRole('textbox', { name: 'Image' }).fill(`${registry.host}/failures:lazy`);
    await tab.getByRole('button', { name: 'Open', exact: true }).click();
    await tab.getByRole('row', { name: 'etc' }).waitFor();
    await tab.getByRole('link', { name: 'first page' }).click();
    await tab.getByRole('link', { name: `${registry.host}/failures:lazy` }).waitFor();
    await close();
});
