// Which rpm package a file belongs to, by databases that python's sqlite3 or rpm itself wrote.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { blobs, here, run, startRegistry, sum, visit, work } from './harness.mjs';
import { convert, layout, tar } from './images.mjs';
import { startExplorer } from './servers.mjs';

const PLACE = 'usr/lib/sysimage/rpm/rpmdb.sqlite';
const parents = (path) => path.split('/').slice(0, -1).map((_, depth, names) => ({ path: `${names.slice(0, depth + 1).join('/')}/` }));
const files = ['usr/bin/tool-7', 'usr/lib/p12/LICENSE', 'usr/lib/p40/file-59', 'usr/lib/p3/LICENSE', 'usr/lib/p4/other'];
const image = (database, place = PLACE, more = []) => {
    const entries = [{ path: place, content: database }, ...[...files, ...more].map((path) => ({ path, content: 'x' }))];
    const directories = new Map(entries.flatMap(({ path }) => parents(path)).map((entry) => [entry.path, entry]));
    return tar([...directories.values(), ...entries]);
};

/** Asks for the packages of files of a layer that is only in the page. */
const owners = (tab, layer, paths) =>
    tab.evaluate(async ([layer, paths]) => {
        const it = await lazystar.open(new File([Uint8Array.from(atob(layer), (sign) => sign.charCodeAt(0))], 'layer.tar'));
        await it.download(0).catch(() => undefined);
        const found = [];
        for (const path of paths) found.push((await it.details(`/${path}`)).packageOwner);
        await it.close();
        return found;
    }, [layer.toString('base64'), paths]);

async function database(name, pageSize, padding) {
    const path = join(work, name);
    await run('python3', [join(here, 'rpmdb.py'), path, String(pageSize), String(padding)]);
    return readFileSync(path);
}

let explorer, small;
before(async () => {
    explorer = await startExplorer();
    small = await database('small.sqlite', 512, 0);
});

test('the package of a file, where tables are deep and rows go over many pages', async () => {
    const { tab, close } = await visit(explorer.url);
    const expected = ['package-7 1:1.7-7.el9', 'package-12 1.12-7.el9', 'package-40 1.40-7.el9', 'package-3 1:1.3-7.el9', null];
    assert.deepEqual(await owners(tab, image(small), files), expected);
    assert.deepEqual(await owners(tab, image(await database('wide.sqlite', 65536, 100_000), 'var/lib/rpm/rpmdb.sqlite'), files), expected);
    // What is in the log beside it is not in the database yet.
    const logged = [...parents(PLACE), { path: PLACE, content: small }, { path: `${PLACE}-wal`, content: 'x' }, { path: 'x', content: 'x' }];
    assert.deepEqual(await owners(tab, tar(logged), ['x']), [null]);
    await close();
});

test('damaged databases are not believed, and hold nothing up', async () => {
    const { tab, close } = await visit(explorer.url);
    const spoil = [
        (bytes) => bytes.subarray(0, 700),
        (bytes) => bytes.fill(0xff, 512, 4096),
        (bytes) => bytes.fill(0x05, 100, 512),
        // Every page an inner one whose children are itself.
        (bytes) => {
            for (let at = 512; at < bytes.length; at += 512) bytes.writeUInt32BE(at / 512 + 1, at + 8), bytes.writeUInt8(bytes[at] > 5 ? 5 : 2, at);
            return bytes;
        },
        // Rows that go over into themselves for ever.
        (bytes) => {
            for (let at = 512; at + 512 <= bytes.length; at += 512) bytes.writeUInt32BE(at / 512 + 1, at + 508);
            return bytes;
        },
        ...Array.from({ length: 16 }, (_, seed) => (bytes) => {
            for (let at = 97 * seed + 16; at < bytes.length; at += 131 + 7 * seed) bytes[at] = (at * (seed + 3)) & 0xff;
            return bytes;
        }),
    ];
    for (const [index, change] of spoil.entries()) {
        const begun = Date.now();
        const found = await owners(tab, image(change(Buffer.from(small))), files);
        assert.ok(Date.now() - begun < 5000, `damage ${index}: ${Date.now() - begun} ms`);
        for (const owner of found) assert.ok(!owner || typeof owner === 'string');
    }
    await close();
});

test('a large database is read when it is asked for, and only where it has to be', async () => {
    const registry = await startRegistry();
    const bytes = await database('large.sqlite', 4096, 150_000);
    await convert(layout('rpm', [image(bytes)]), `${registry.host}/rpm:lazy`, ['--chunk-size', '65536']);
    const { tab, close } = await visit(`${explorer.url}#/r/${registry.host}/rpm:lazy/-/usr/bin/tool-7?tab=details`);
    registry.forget();
    await tab.getByRole('button', { name: /^Find out \(fetches up to [56]\.\d+ MB\)/ }).click();
    await tab.getByText('package-7 1:1.7-7.el9').waitFor();
    const fetched = sum(blobs(registry.requests()).map(({ bytes }) => bytes));
    assert.ok(fetched < bytes.length / 4, `${fetched} of ${bytes.length} bytes`);
    // From then on nobody is asked.
    await tab.evaluate(() => (location.hash = location.hash.replace('usr/bin/tool-7', 'usr/lib/p12/LICENSE')));
    await tab.getByText('package-12 1.12-7.el9').waitFor();
    await close();
});

const rpm = await run('rpmbuild', ['--version']).then(() => true, () => false);
test('a database that rpm wrote', { skip: !rpm && 'rpm is not installed' }, async () => {
    const top = join(work, 'rpm-top');
    mkdirSync(top);
    writeFileSync(join(top, 'alpha.spec'), `Name: alpha
Version: 1.2
Release: 3
Epoch: 1
Summary: A test
License: MIT
BuildArch: noarch
%description
A test
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/usr/share/alpha
for i in $(seq 300); do echo $i > %{buildroot}/usr/share/alpha/file-$i; done
echo hi > %{buildroot}/usr/bin/alpha
%files
/usr/bin/alpha
/usr/share/alpha
`);
    await run('rpmbuild', ['--define', `_topdir ${top}`, '-bb', join(top, 'alpha.spec')]);
    await run('rpm', ['--root', join(top, 'root'), '--dbpath', '/var/lib/rpm', '--justdb', '--nodeps', '-i', join(top, 'RPMS/noarch/alpha-1.2-3.noarch.rpm')]);
    const path = join(top, 'root/var/lib/rpm/rpmdb.sqlite');
    await run('python3', ['-c', 'import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute("PRAGMA wal_checkpoint(TRUNCATE)")', path]);
    const { tab, close } = await visit(explorer.url);
    const asked = ['usr/bin/alpha', 'usr/share/alpha/file-300', 'usr/bin/tool-7'];
    const layer = image(readFileSync(path), 'var/lib/rpm/rpmdb.sqlite', asked.slice(0, 2));
    assert.deepEqual(await owners(tab, layer, asked), ['alpha 1:1.2-3', 'alpha 1:1.2-3', null]);
    await close();
});
