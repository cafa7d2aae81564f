// The page as a person uses it: by roles, labels and keys.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { binary, blobs, page, run, startRegistry, sum, until, visit, work } from './harness.mjs';
import { convert, copy, layout, tar } from './images.mjs';
import { certificates, windowsProgram } from './programs.mjs';
import { big, layers } from './sample.mjs';
import { startExplorer } from './servers.mjs';

/** One red point. */
export const png = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC', 'base64');
const program = readFileSync('/bin/true');
const kinds = [
    { path: 'kinds/' },
    { path: 'kinds/red.png', content: png },
    { path: 'kinds/data.json', content: JSON.stringify({ list: [1, 2, { deep: true }], text: 'words' }) },
    { path: 'kinds/true', content: program, mode: 0o755 },
    { path: 'kinds/app.py', content: `import os\n${'print("hello")\n'.repeat(400)}` },
    { path: 'kinds/latin.txt', content: Buffer.from('caf\xe9\n', 'latin1') },
    { path: 'kinds/wide.txt', content: Buffer.from('\ufeffwide\n', 'utf16le') },
    { path: 'kinds/tool.exe', content: windowsProgram() },
    { path: 'kinds/cut.exe', content: windowsProgram().subarray(0, 300) },
    { path: 'kinds/hosts.pem', content: certificates() },
    // What makes careless patterns try every colon, or every beginning.
    { path: 'kinds/slow.pem', content: `-----BEGIN X-----\n${':'.repeat(400_000)}\n-----END X-----\n${'-----BEGIN X-----\n'.repeat(20_000)}` },
    { path: 'kinds/run.svg', content: '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>parent.ran = true; alert(1)</script><rect width="9" height="9" onload="alert(2)"/></svg>' },
];
const history = [
    { created_by: '/bin/sh -c #(nop) ADD file:0123 in / ' },
    { created_by: '/bin/sh -c #(nop)  ENV COLOUR=blue', empty_layer: true },
    { created_by: 'RUN /bin/sh -c rm -rf /gone # buildkit' },
    { created_by: 'COPY app /srv # buildkit' },
    { created_by: 'COPY kinds /kinds # buildkit' },
];

let registry, explorer, address;
before(async () => {
    registry = await startRegistry();
    explorer = await startExplorer();
    const from = layout('page', [...layers, kinds].map(tar), { history });
    await convert(from, `${registry.host}/page:lazy`);
    await copy(from, `${registry.host}/page:plain`);
    address = `${explorer.url}#/r/${registry.host}/page:lazy`;
});

async function open(rest = '', options = {}) {
    const visited = await visit(address + rest, options);
    const { tab } = visited;
    const dialogs = [];
    tab.on('dialog', (dialog) => {
        dialogs.push(dialog.message());
        void dialog.dismiss();
    });
    const tree = tab.getByRole('treegrid');
    return { ...visited, dialogs, tree, row: (name) => tab.getByRole('row', { name, exact: false }) };
}

/** As the page writes names. */
const visible = (name) => name.replace('\u202e', '⟨U+202E⟩');

/** The row that has the cursor. */
const cursor = (tab) =>
    tab.evaluate(() => document.getElementById(document.querySelector('[role=treegrid]')?.getAttribute('aria-activedescendant'))?.querySelector('.text').textContent);

test('the tree is walked by keys', async () => {
    const { tab, tree, close } = await open();
    await tree.focus();
    const press = (key) => tab.keyboard.press(key);
    /** A key leads to a row. */
    const leads = async (key, row) => {
        await press(key);
        await until(`${row} after ${key}`, async () => (await cursor(tab)) === row);
    };
    const expanded = (number) => until(`${number} expanded`, async () => (await tab.getByRole('row', { expanded: true }).count()) === number);
    await leads('Home', 'big.bin');
    await leads('ArrowDown', 'bin → usr/bin');
    await leads('u', 'usr');
    await expanded(0);
    await press('ArrowRight');
    await tab.getByRole('row', { name: 'nowhere' }).or(tab.getByRole('row', { name: /^bin/, level: 2 })).first().waitFor();
    await expanded(1);
    await leads('ArrowRight', 'bin');
    await leads('ArrowLeft', 'usr');
    await leads('ArrowLeft', 'usr');
    await expanded(0);
    await leads('End', 'var');
    await leads('e', 'empty');
    await leads('e', 'etc');
    await press('Enter');
    await tab.getByRole('row', { name: 'os-release' }).waitFor();
    await leads('ArrowDown', 'os-release');
    await press('Enter');
    await tab.getByText('VERSION=2').waitFor();
    assert.match(await tab.evaluate(() => location.hash), /@sha256:[0-9a-f]{64}\/-\/etc\/os-release$/);

    await press('v');
    await tab.getByRole('tab', { name: 'Hex', selected: true }).waitFor();
    await press(']');
    await tab.waitForTimeout(100);
    assert.ok(!/layer=/.test(await tab.evaluate(() => location.hash)), 'above the top layer is the merged tree');
    await press('[');
    await tab.waitForFunction(() => /layer=3/.test(location.hash));
    await press('?');
    await tab.getByRole('dialog').waitFor();
    await press('Escape');
    await tab.getByRole('dialog').waitFor({ state: 'hidden' });
    await press('/');
    await tab.keyboard.type('needle');
    await tab.getByRole('option', { name: 'needle.txt' }).waitFor();
    await press('Escape');
    await tree.waitFor();
    await close();
});

test('what a layer does is shown, and what it hides', async () => {
    const { tab, row, close } = await open('?layer=1');
    await row('gone').getByText('hides 4 paths').waitFor();
    await row('cache').getByText(/opaque, hides 4 paths/).waitFor();
    await row('etc').click();
    await tab.keyboard.press('ArrowRight');
    const nav = tab.getByRole('navigation', { name: 'Layers' });
    await nav.getByRole('button', { name: /^Check all of it/ }).click();
    await nav.getByText('Every byte was checked.').waitFor();
    await nav.getByText('RUN /bin/sh -c rm -rf /gone').waitFor();
    await nav.getByText('2 metadata-only').waitFor();
    await tab.getByRole('link', { name: 'Changes', exact: true }).click();
    await tab.getByRole('list', { name: 'Changes of layer 2' }).getByText('/gone/below/file').waitFor();
    await tab.getByRole('link', { name: 'Efficiency', exact: true }).click();
    await tab.getByText('16.0 kB', { exact: false }).first().waitFor();
    await nav.getByRole('link', { name: /All layers/ }).click();
    await tab.getByRole('link', { name: 'Files', exact: true }).click();
    await row('etc').waitFor();
    assert.equal(await row('gone').count(), 0);
    await close();
});

test('files are shown by what they hold', async () => {
    const { tab, dialogs, close } = await open('/-/kinds/app.py');
    const panel = tab.getByRole('tabpanel');
    await panel.locator('.hljs-keyword', { hasText: 'import' }).waitFor();
    await panel.getByText('UTF-8, 401 lines').waitFor();
    await panel.getByRole('button', { name: 'Link to line 3', exact: true }).click();
    await panel.getByRole('button', { name: 'Link to line 5', exact: true }).click({ modifiers: ['Shift'] });
    await until('three lines', async () => (await panel.locator('.marked').count()) === 3);
    assert.match(await tab.evaluate(() => location.hash), /lines=3-5/);
    const show = (path) => tab.evaluate((path) => (location.hash = location.hash.replace(/\/-\/.*/, `/-${path}`)), path);

    await show('/kinds/red.png');
    await panel.getByText('1 × 1').waitFor();
    await show('/kinds/run.svg');
    await panel.getByText('9 × 9').waitFor();
    await show('/kinds/data.json');
    await tab.getByRole('tab', { name: 'JSON' }).click();
    await panel.getByText('[3 elements]').click();
    await panel.getByText('{1 member}').waitFor();
    await show('/kinds/true');
    await panel.getByText('libc.so.6').waitFor();
    await panel.getByRole('cell', { name: '.text' }).or(panel.getByRole('rowheader', { name: '.text', exact: true })).first().waitFor();
    await show('/kinds/latin.txt');
    await panel.getByText('café').waitFor();
    await panel.getByText('Windows-1252, 1 line').waitFor();
    await show('/kinds/wide.txt');
    await panel.getByText('UTF-16LE, 1 line').waitFor();
    await show('/kinds/tool.exe');
    await panel.getByText('program, x86-64, 64-bit').waitFor();
    await panel.getByText('Windows, console').waitFor();
    await panel.getByText('evil⟨U+202E⟩lld.dll').waitFor();
    await panel.getByRole('row', { name: '.idata rw- 0x600 512 B' }).waitFor();
    await show('/kinds/cut.exe');
    await tab.getByRole('alert').getByText('cut short').waitFor();
    await show('/kinds/hosts.pem');
    await panel.getByText('4 blocks').waitFor();
    await panel.getByRole('row', { name: /^certificate \d+ B O=Sample, CN=sample\.test \d{4}-\d\d-\d\d$/ }).waitFor();
    await panel.getByRole('row', { name: /^private key \d+ B/ }).waitFor();
    await panel.getByRole('row', { name: /^certificate 6 B$/ }).waitFor();
    await panel.getByRole('row', { name: /^rsa private key 6 B$/ }).waitFor();
    await show('/kinds/slow.pem');
    await panel.getByText('1 block;').waitFor({ timeout: 3000 });
    await show('/big.bin');
    await tab.getByRole('tab', { name: 'Hex', selected: true }).waitFor();
    await panel.getByRole('textbox').fill('0xabcde0');
    await tab.getByRole('button', { name: 'Go', exact: true }).click();
    await panel.getByText([...big.subarray(0xabcde0, 0xabcdf0)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ')).waitFor();
    await show('/usr/lib/up');
    await tab.getByRole('link', { name: '/etc/passwd' }).click();
    await tab.getByText('root:x:0:0').waitFor();
    await tab.getByRole('tab', { name: 'Details' }).click();
    await tab.getByText('rw-r--r--').first().waitFor();
    await show('/usr/bin/tool');
    await tab.getByRole('tab', { name: 'Details' }).click();
    await panel.getByText('tool 1.2-r3').waitFor();
    await panel.getByRole('link', { name: '/usr/bin/alias' }).waitFor();
    await show('/etc/os-release');
    await tab.getByRole('tab', { name: 'Compare' }).click();
    await panel.getByText('+VERSION=2').waitFor();
    assert.deepEqual(dialogs, []);
    assert.equal(await tab.evaluate(() => window.ran), undefined);
    await close();
});

test('commands for other tools are copied, and mean the same file', async () => {
    const paths = ['/srv/app.txt', '/names/größe 測試.txt', '/names/<img src=x onerror=alert(1)>.html', '/names/turn\u202egpj.exe'];
    const { tab, close } = await open('?tab=details', { permissions: ['clipboard-read', 'clipboard-write'] });
    const copied = async (name) => {
        await tab.getByRole('button', { name, exact: true }).click();
        return tab.evaluate(() => navigator.clipboard.readText());
    };
    await tab.getByRole('button', { name: 'Copy lazystar ls' }).waitFor();
    for (const path of paths) {
        await tab.evaluate((path) => (location.hash = location.hash.replace(/(\/-\/.*)?\?/, `/-${encodeURI(path)}?`)), path);
        await tab.getByRole('heading', { name: visible(path) }).waitFor();
        const command = await copied('Copy lazystar cat');
        assert.match(command, /^lazystar cat 127\.0\.0\.1:\d+\/page@sha256:[0-9a-f]{64} /);
        assert.doesNotMatch(command, /\p{C}/u);
        const content = [...layers, kinds].flat().find((entry) => `/${entry.path}` === path).content;
        const env = { ...process.env, XDG_CACHE_HOME: join(work, '.cache'), HOME: work };
        assert.equal(await run('bash', ['-c', command.replace('lazystar', binary)], { env }), content);
    }
    await tab.evaluate(() => (location.hash = location.hash.replace(/\/-\/.*\?/, '/-/srv/app.txt?layer=2&')));
    assert.match(await copied('Copy crane blob'), /@sha256:[0-9a-f]{64} \| tar -xzO srv\/app\.txt$/);
    await tab.getByRole('link', { name: 'Image', exact: true }).click();
    assert.match(await copied('Copy ctr images'), /^ctr images pull --snapshotter stargz 127\.0\.0\.1:\d+\/page@sha256:[0-9a-f]{64}$/);
    await close();
});

test('what an image holds is never markup, and names do not lie', async () => {
    const { tab, dialogs, row, close } = await open('/-/names/%3Cimg%20src=x%20onerror=alert(1)%3E.html');
    await tab.getByText('<script>alert(document.domain)</script>').waitFor();
    await row('turn⟨U+202E⟩gpj.exe').waitFor();
    assert.equal(await tab.locator('img[src="x"]').count(), 0);
    assert.deepEqual(dialogs, []);
    await close();
});

test('a link restores everything', async () => {
    const { tab, close } = await open('/-/big.bin?layer=0&panel=search&q=needle&tab=hex&offset=1048576');
    const check = async () => {
        await tab.getByRole('option', { name: 'needle.txt' }).waitFor();
        await tab.getByText('00100000').waitFor();
        await tab.locator('.layers .current', { hasText: 'ADD file:0123' }).waitFor();
    };
    await check();
    const before = await tab.evaluate(() => location.hash);
    await tab.reload();
    await check();
    assert.equal(await tab.evaluate(() => location.hash), before);
    await tab.getByRole('link', { name: 'Image', exact: true }).click();
    await tab.getByText('COLOUR').first().waitFor();
    await tab.goBack();
    await check();
    await close();
});

test('files and directories are downloaded', async () => {
    const { tab, close } = await open('/-/kinds/app.py', { acceptDownloads: true });
    await tab.waitForFunction(() => navigator.serviceWorker.controller);
    const take = async (name) => {
        const coming = tab.waitForEvent('download');
        await tab.getByRole('button', { name }).click();
        const download = await coming;
        return { name: download.suggestedFilename(), bytes: readFileSync(await download.path()) };
    };
    const file = await take(/^Download \(/);
    assert.equal(file.name, 'app.py');
    assert.equal(file.bytes.toString(), kinds.find(({ path }) => path === 'kinds/app.py').content);
    await tab.evaluate(() => (location.hash = location.hash.replace(/\/-\/.*/, '/-/kinds')));
    const packed = await take('Download as tar');
    assert.equal(packed.name, 'kinds.tar');
    assert.ok(packed.bytes.includes(png));
    // Several as one, by key, by click and by button; what is in a directory that is selected comes with it, once.
    await tab.evaluate(() => (location.hash = location.hash.replace(/\/-\/.*/, '/-/etc/os-release')));
    const row = (name) => tab.getByRole('row', { name });
    await row(/^os-release/).and(tab.locator('.cursor')).waitFor();
    await tab.getByRole('treegrid').press('x');
    await row(/^passwd/).click({ modifiers: ['Control'] });
    await row(/^app\.py/).click({ modifiers: ['Control'] });
    await row(/^kinds/).click();
    await tab.getByRole('button', { name: 'Select', exact: true }).click();
    await tab.getByRole('group', { name: 'Selection' }).getByText('4 paths selected').waitFor();
    const several = await take('Download selection as tar');
    assert.equal(several.name, 'root.tar');
    const names = execFileSync('tar', ['-t'], { input: several.bytes }).toString().trim().split('\n');
    assert.deepEqual(names.sort(), ['etc/os-release', 'etc/passwd', ...kinds.map(({ path }) => path)].sort());
    assert.ok(several.bytes.includes(png));
    await tab.getByRole('button', { name: 'Clear', exact: true }).click();
    await tab.getByRole('group', { name: 'Selection' }).waitFor({ state: 'hidden' });
    await close();
});

test('a large download says first what it fetches, and can be left', async () => {
    const { tab, close } = await open('/-/big.bin', { acceptDownloads: true });
    await tab.waitForFunction(() => navigator.serviceWorker.controller);
    await tab.getByText('00000000').waitFor();
    await registry.settle();
    const question = tab.getByRole('dialog', { name: 'Download big.bin?' });
    await tab.getByRole('button', { name: /^Download \(/ }).click();
    const said = await question.getByText('That fetches').textContent();
    const [, megabytes, number] = /fetches ([\d.]+) MB in about (\d+) requests/.exec(said);
    await tab.keyboard.press('Escape');
    await question.waitFor({ state: 'hidden' });
    await tab.waitForTimeout(200);
    assert.deepEqual(blobs(registry.requests()), []);
    await tab.getByRole('button', { name: /^Download \(/ }).click();
    const coming = tab.waitForEvent('download');
    await question.getByRole('button', { name: 'Download' }).click();
    assert.ok(readFileSync(await (await coming).path()).equals(big));
    const asked = blobs(registry.requests());
    const fetched = sum(asked.map(({ bytes }) => bytes)) / 1e6;
    assert.ok(Math.abs(fetched - megabytes) < 0.1 * fetched, `${fetched} MB, not ${megabytes}`);
    assert.ok(Math.abs(asked.length - number) <= 0.2 * number + 1, `${asked.length} requests, not ${number}`);
    // What is here already is no reason to ask; a directory is asked for like a file.
    const again = tab.waitForEvent('download');
    await tab.getByRole('button', { name: /^Download \(/ }).click();
    await again;
    const { tab: other, close: closeOther } = await open();
    await other.getByRole('button', { name: 'Download as tar' }).click();
    await other.getByRole('dialog', { name: 'Download root.tar?' }).getByRole('button', { name: 'Cancel' }).click();
    await closeOther();
    await close();
});

test('images of this machine need no registry', async () => {
    const from = layout('local', [tar(kinds)]);
    const lazy = `oci:${join(work, 'local-lazy')}:lazy`;
    await convert(from, lazy);
    const own = await startExplorer([lazy]);
    const { tab, close } = await visit(own.address);
    await tab.getByRole('row', { name: 'kinds' }).waitFor();
    await tab.evaluate(() => (location.hash += '/-/kinds/app.py'));
    await tab.getByText('import os').waitFor();
    await close();
});

test('the page is small', async () => {
    const files = readdirSync(page, { recursive: true }).filter((name) => !/\.(br|gz)$/.test(name) && statSync(join(page, name)).isFile());
    let total = 0;
    for (const name of files) {
        const answer = await fetch(explorer.url + name, { method: 'HEAD', headers: { 'accept-encoding': 'br' } });
        assert.deepEqual([answer.status, answer.headers.get('content-encoding')], [200, 'br'], name);
        total += Number(answer.headers.get('content-length'));
    }
    console.log(`${total} bytes in ${files.length} files`);
    assert.ok(total < 500_000, `${total} bytes`);
});

test('an ordinary layer is downloaded when it is asked for', async () => {
    const { tab, close } = await visit(`${explorer.url}#/r/${registry.host}/page:plain`);
    const layer = tab.getByRole('navigation', { name: 'Layers' }).getByRole('listitem').filter({ hasText: 'COPY kinds' });
    await layer.getByText('Not lazy').waitFor();
    await layer.getByRole('button', { name: /Download and index/ }).click();
    await layer.getByText('verified').waitFor();
    await tab.getByRole('row', { name: 'kinds' }).waitFor();
    await close();
});
