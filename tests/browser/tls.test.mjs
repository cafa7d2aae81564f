// A registry with TLS that sends blobs to another host, as those of clouds do: the page reaches it by `lazystar explore`.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { atEnd, run, startRegistry, visit, work } from './harness.mjs';
import { convert, layout } from './images.mjs';
import { tars } from './sample.mjs';
import { pass, startExplorer } from './servers.mjs';

test('TLS, and redirects to a storage host', async () => {
    const tls = { certificate: join(work, 'tls.pem'), key: join(work, 'tls.key') };
    await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=registry', '-addext', 'subjectAltName=IP:127.0.0.1', '-addext', 'basicConstraints=critical,CA:FALSE', '-keyout', tls.key, '-out', tls.certificate]);
    // The storage host has what the registry has, under the same names.
    const storage = await startRegistry(tls);
    const plain = await startRegistry();
    const front = createServer({ cert: readFileSync(tls.certificate), key: readFileSync(tls.key) }, (incoming, outgoing) => {
        if (/\/blobs\/sha256:/.test(incoming.url) && incoming.method === 'GET') {
            outgoing.writeHead(307, { location: `https://${storage.host}${incoming.url}` }).end();
        } else pass(incoming, outgoing, plain.host, incoming.url);
    }).listen(0, '127.0.0.1');
    await once(front, 'listening');
    atEnd(() => front.close());
    const host = `127.0.0.1:${front.address().port}`;
    const trust = (name) => {
        const dir = join(work, 'certs.d', `${name.replace(':', '_')}_`);
        mkdirSync(dir, { recursive: true });
        writeFileSync(join(dir, 'hosts.toml'), `server = "https://${name}"\nca = "${tls.certificate}"\n`);
    };
    trust(host);
    trust(storage.host);
    const config = join(work, 'tls.toml');
    writeFileSync(config, `[lazystar]\nconfig_path = "${join(work, 'certs.d')}"\n`);
    const from = layout('tls', tars());
    await convert(from, `${plain.host}/tls:lazy`);
    await convert(`${plain.host}/tls:lazy`, `${storage.host}/tls:lazy`, ['--config', config]);

    const explorer = await startExplorer(['--config', config]);
    for (const registry of [storage, plain]) registry.forget();
    const { tab, close } = await visit(`${explorer.url}#/r/${host}/tls:lazy/-/usr/lib/deep/er/needle.txt`);
    await tab.getByText('found it').waitFor();
    await tab.getByRole('row', { name: /^needle/ }).waitFor();
    assert.ok(storage.requests().some(({ path, status }) => path.includes('/blobs/') && status === 206));
    assert.ok(plain.requests().every(({ method, path }) => method !== 'GET' || !/\/blobs\/sha256:/.test(path)));
    await close();
});
