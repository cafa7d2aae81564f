// Two images against each other: what differs, found from tables of contents alone.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { before, test } from 'node:test';
import { blobs, startRegistry, sum, until, visit } from './harness.mjs';
import { convert, copy, layout, noise, tar } from './images.mjs';
import { startExplorer } from './servers.mjs';

const dir = (path, more = {}) => ({ path: `${path}/`, ...more });
const many = Array.from({ length: 2300 }, (_, index) => ({ path: `srv/many/file-${index}`, content: index % 5 ? '' : `${index}\n` }));
const lines = Array.from({ length: 60 }, (_, index) => `line ${index}\n`);

/** The files of both images; of each what it has at a path, `null` for nothing. */
const cases = {
    'etc/text.conf': [{ content: lines.join('') }, { content: lines.with(30, 'another line\n').join('') }, 'modified'],
    'etc/longer.conf': [{ content: 'one\n' }, { content: 'one\ntwo\n' }, 'modified'],
    'etc/mode': [{ content: 'same\n', mode: 0o644 }, { content: 'same\n', mode: 0o4755 }, 'metadata-only'],
    'etc/owner': [{ content: 'same\n' }, { content: 'same\n', uid: 7 }, 'metadata-only'],
    'etc/attribute': [{ content: 'same\n' }, { content: 'same\n', xattrs: { 'user.note': 'x' } }, 'metadata-only'],
    'etc/time': [{ content: 'same\n' }, { content: 'same\n', mtime: 1_800_000_000 }, 'time-only'],
    'etc/link': [{ type: 'symlink', target: 'text.conf' }, { type: 'symlink', target: 'mode' }, 'modified'],
    'etc/kind': [{ content: 'x' }, { type: 'symlink', target: 'x' }, 'modified'],
    'etc/same': [{ content: 'same\n' }, { content: 'same\n' }, null],
    'usr/picture.bin': [{ content: noise(200_000, 3) }, { content: noise(200_000, 4) }, 'modified'],
    // As large and the same, but cut elsewhere.
    'usr/cut.bin': [{ content: noise(9 << 20, 5) }, { content: noise(9 << 20, 5) }, 'unclear'],
    'usr/gone': [{ content: 'gone\n' }, null, 'removed'],
    'usr/new': [null, { content: 'new\n' }, 'added'],
    // The order of paths: what is in a directory comes before names that go on after its name, and bytes decide.
    'usr/a/inner': [null, { content: '1' }, 'added'],
    'usr/a-b': [{ content: '2' }, null, 'removed'],
    'usr/a.c': [null, { content: '3' }, 'added'],
    'usr/\uff5e': [{ content: '4' }, null, 'removed'],
    'usr/\u{1f600}': [null, { content: '5' }, 'added'],
    'usr/\u{1f601}': [{ content: '6' }, { content: '6' }, null],
};
const directories = [dir('etc'), dir('usr'), dir('usr/a'), dir('srv'), dir('srv/many')];
const image = (side) => [...directories, ...Object.entries(cases).flatMap(([path, sides]) => (sides[side] ? [{ path, ...sides[side] }] : [])), ...many.filter((_, index) => side === 0 || index % 100 !== 7)];
const expected = new Map([
    ...Object.entries(cases).flatMap(([path, [, , deviation]]) => (deviation ? [[`/${path}`, deviation]] : [])),
    ...many.filter((_, index) => index % 100 === 7).map(({ path }) => [`/${path}`, 'removed']),
]);

const base = tar([dir('lib'), { path: 'lib/shared', content: 'shared\n' }]);

let registry, explorer, address;
before(async () => {
    registry = await startRegistry();
    explorer = await startExplorer();
    await convert(layout('compare-1', [base, tar(image(0))]), `${registry.host}/compare:1`);
    await convert(layout('compare-2', [base, tar(image(1))]), `${registry.host}/compare:2`, ['--chunk-size', '1048576']);
    await copy(layout('compare-plain', [base, tar(image(1))]), `${registry.host}/compare:plain`);
    await convert(layout('compare-two', [base], { architectures: ['arm64', 'riscv64'] }), `${registry.host}/two:lazy`, ['--all-platforms']);
    address = `${explorer.url}#/r/${registry.host}/compare:2?panel=against`;
});

const hash = (tab) => tab.evaluate(() => decodeURIComponent(location.hash));

test('what differs between two tags is found without their files', async () => {
    const { tab, close } = await visit(address, { acceptDownloads: true });
    await tab.getByLabel('Another tag').selectOption('1');
    const list = tab.getByRole('listbox', { name: 'Paths that differ' });
    await tab.getByRole('option', { name: 'text.conf' }).waitFor();
    assert.match(await hash(tab), /compare:2@sha256:[0-9a-f]{64}\?.*with=127\.0\.0\.1:\d+\/compare:1@sha256:[0-9a-f]{64}/);
    const asked = blobs(registry.requests());
    for (const { path } of asked) assert.ok(asked.filter((other) => other.path === path).length <= 2, path);
    assert.ok(sum(asked.map(({ bytes }) => bytes)) < 500_000, `${sum(asked.map(({ bytes }) => bytes))} bytes`);

    const kinds = tab.getByRole('group', { name: 'Kinds of difference' });
    await kinds.getByText('26 removed').waitFor();
    await kinds.getByText('1 unclear').waitFor();
    const coming = tab.waitForEvent('download');
    await tab.getByRole('button', { name: 'Save as JSON' }).click();
    const report = JSON.parse(readFileSync(await (await coming).path(), 'utf8'));
    assert.deepEqual(new Map(report.differences.map(({ path, deviation }) => [path, deviation])), expected);
    assert.equal(report.differences.length, expected.size);
    const bytes = (side) => sum(image(side).map(({ content = '' }) => Buffer.from(content).length)) + 'shared\n'.length;
    assert.deepEqual([report.totals.before, report.totals.after], [bytes(0), bytes(1)]);
    assert.deepEqual(report.totals.sizes.added, { before: 0, after: 7 });
    assert.deepEqual([report.from.digest === report.to.digest, report.from.repository], [false, 'compare']);

    // Times alone are not on the list unless they are wanted.
    assert.equal(await list.getByRole('option', { name: /etc.* time / }).count(), 0);
    await kinds.getByRole('checkbox', { name: /time-only/ }).check();
    await list.getByRole('option', { name: /etc.* time / }).waitFor();
    await tab.getByRole('searchbox', { name: 'Filter paths' }).fill('*.conf');
    await tab.getByText('2 paths', { exact: true }).waitFor();
    await tab.getByRole('searchbox', { name: 'Filter paths' }).fill('size>100k');
    await tab.getByText('2 paths', { exact: true }).waitFor();
    await tab.getByRole('searchbox', { name: 'Filter paths' }).fill('mode:nonsense');
    await tab.getByText('is no filter').waitFor();
    await close();
});

test('a row opens both versions, by keys, and the link restores it', async () => {
    const { tab, close } = await visit(`${address}&with=${registry.host}/compare:1`);
    const list = tab.getByRole('listbox', { name: 'Paths that differ' });
    await list.focus();
    await tab.getByRole('option', { name: 'text.conf' }).waitFor();
    await tab.keyboard.press('Home');
    await walk(tab, /\/etc\/mode/);
    registry.forget();
    await tab.keyboard.press('Enter');
    const preview = tab.getByRole('region', { name: 'Preview' });
    await preview.getByText('The content is the same').waitFor();
    await preview.getByRole('row', { name: 'Mode ≠ -rw-r--r-- -rwsr-xr-x' }).waitFor();
    assert.deepEqual(blobs(registry.requests()), []);
    await walk(tab, /text\.conf/);
    await tab.keyboard.press('Enter');
    await preview.getByText('+another line').waitFor();
    await preview.getByText('-line 30', { exact: true }).waitFor();
    const before = await hash(tab);
    await tab.reload();
    await preview.getByText('+another line').waitFor();
    assert.equal(await hash(tab), before);
    await tab.evaluate(() => (location.hash = location.hash.replace('text.conf', 'nothing')));
    await preview.getByText('Neither image has /etc/nothing').waitFor();
    await tab.evaluate(() => (location.hash = location.hash.replace('etc/nothing', 'usr/cut.bin')));
    await preview.getByText('Files of more than 1.05 MB are not compared line by line').waitFor();
    await tab.evaluate(() => (location.hash = location.hash.replace('cut', 'picture')));
    await preview.getByText('it is not text').waitFor();
    await tab.evaluate(() => (location.hash = location.hash.replace('picture.bin', 'gone')));
    await preview.getByRole('columnheader', { name: 'Not in this image' }).waitFor();
    await preview.getByRole('link', { name: 'In the other image' }).click();
    await tab.getByText('gone', { exact: true }).last().waitFor();
    assert.match(await hash(tab), /compare:1@/);
    await close();
});

test('both sides change places, and what cannot be opened is said', async () => {
    const { tab, close } = await visit(`${address}&with=${registry.host}/compare:1`);
    const kinds = tab.getByRole('group', { name: 'Kinds of difference' });
    await kinds.getByText(/^\s*4 added/).waitFor();
    await tab.getByRole('button', { name: 'Swap' }).click();
    await kinds.getByText(/^\s*26 added/).waitFor();
    assert.match(await hash(tab), /compare:1@.*with=.*compare:2@/);
    await tab.getByRole('button', { name: 'Choose another' }).click();
    await tab.getByLabel('Another image').fill(`${registry.host}/not-there`);
    await tab.getByRole('button', { name: 'Compare' }).click();
    await tab.getByText('There is no such image').waitFor();
    await tab.getByRole('button', { name: 'Choose another' }).click();
    await tab.getByLabel('Another image').fill(`${registry.host}/compare:1`);
    await tab.getByRole('button', { name: 'Compare' }).click();
    await tab.getByText('Both have the same files.').waitFor();
    await close();
});

test('another platform, and an image whose layers are not lazy', async () => {
    const { tab, close } = await visit(`${explorer.url}#/r/${registry.host}/two:lazy?panel=against`);
    // The highlighter has a worker of its own.
    const engines = () => tab.workers().filter((worker) => /\/worker-/.test(worker.url())).length;
    await tab.getByLabel('Another platform').selectOption({ label: 'linux/riscv64' });
    await tab.getByText('Both have the same files.').waitFor();
    assert.match(await hash(tab), /with-platform=sha256:/);
    const platform = tab.getByLabel('Platform of the other image');
    assert.equal(await platform.evaluate((select) => select.selectedOptions[0].text), 'linux/riscv64');
    await platform.selectOption({ label: 'linux/arm64' });
    await tab.getByText('Both have the same files.').waitFor();
    // What the other image is not made for is said, and left out.
    await tab.evaluate(() => (location.hash = location.hash.replace(/with-platform=[^&]*/, 'with-platform=linux/s390x')));
    await tab.getByRole('alert').getByRole('button', { name: 'Take the platform that it has first' }).click();
    await tab.getByText('Both have the same files.').waitFor();
    assert.equal(engines(), 2);
    await tab.getByRole('button', { name: 'Choose another' }).click();
    await until('the end of the other engine', () => engines() === 1);
    await tab.evaluate((at) => (location.hash = at), `#/r/${registry.host}/compare:2?panel=against&with=${registry.host}/compare:plain`);
    const closed = tab.getByRole('listitem').filter({ hasText: 'The other image is compared without its layer' });
    await until('both layers', async () => (await closed.count()) === 2);
    await closed.last().getByRole('button', { name: /Download and index/ }).click();
    await until('the second layer', async () => (await closed.count()) === 1);
    await tab.getByText('2 added').waitFor();
    await closed.getByRole('button', { name: /Download and index/ }).click();
    await tab.getByText('Both have the same files.').waitFor();
    // A file of this computer: nothing is asked for, and a link cannot bring it.
    await tab.getByRole('button', { name: 'Choose another' }).click();
    // The list of tags is what the choice shows.
    const asked = () => registry.requests().filter(({ path }) => !path.includes('/tags/')).length;
    const before = asked();
    await tab.getByLabel('File with an image or a layer').last().setInputFiles({ name: 'base.tar', mimeType: 'application/x-tar', buffer: base });
    await tab.getByRole('listitem').filter({ hasText: 'The other image' }).getByRole('button', { name: /Read and index/ }).click();
    await tab.getByText('2 the same').waitFor();
    assert.equal(asked(), before);
    await tab.reload();
    await tab.getByRole('alert').getByText('base.tar is a file of a computer').waitFor();
    await tab.getByRole('link', { name: 'Lazystar, first page' }).click();
    await until('the end of both engines', () => engines() === 0);
    await close();
});

/** Goes down to a row. */
async function walk(tab, to) {
    for (let at = await cursor(tab); !to.test(at); ) {
        const before = at;
        await tab.keyboard.press('ArrowDown');
        at = await until(`a row below ${before}`, async () => {
            const now = await cursor(tab);
            return now !== before && now;
        });
    }
}

/** The row that has the cursor. */
function cursor(tab) {
    return tab.evaluate(() => document.getElementById(document.querySelector('[role=listbox]').getAttribute('aria-activedescendant'))?.textContent ?? '');
}
