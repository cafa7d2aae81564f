// A real image in a real registry: the Go image of the rig, 25,000 files.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { here, visit } from './harness.mjs';
import { startExplorer, startFaulty } from './servers.mjs';

const rig = process.env.LAZYSTAR_RIG;
const skip = rig ? false : 'LAZYSTAR_RIG is not set';

test('a file deep inside costs next to nothing', { skip }, async () => {
    const registry = readFileSync(join(rig, 'registry.addr'), 'utf8').trim();
    const explorer = await startExplorer();
    const answers = [];
    // Passes everything on, and notes it.
    const between = await startFaulty(registry);
    between.rule = ({ path }) =>
        path.includes('/blobs/') && {
            change: (answer) => {
                answers.push({ path, bytes: answer.body.length, at: Date.now() });
                return answer;
            },
        };
    const { tab, close } = await visit(`${explorer.url}#/r/${between.host}/golang:esgz`, { viewport: { width: 1400, height: 860 } });
    await tab.getByRole('row', { name: /^usr/ }).waitFor();
    const waited = Date.now() - answers.at(-1).at;
    const most = Math.max(...answers.map(({ path }) => answers.filter((other) => other.path === path).length));
    console.log(`first tree ${waited} ms after the table of contents, at most ${most} requests for a blob`);
    assert.ok(most <= 2, `${most} requests for a blob`);
    assert.ok(waited < 1000, `${waited} ms`);

    await tab.evaluate(() => (location.hash += '/-/usr/share/go-1.19/src/net/http/httputil/reverseproxy.go'));
    await tab.getByText('package httputil').first().waitFor();
    await tab.waitForFunction(() => !document.querySelector('.pending'));
    const { total } = await tab.evaluate(() => lazystar.image.meter());
    const fetched = answers.reduce((sum, { bytes }) => sum + bytes, 0);
    console.log(`${fetched} of ${total} bytes fetched, ${((fetched / total) * 100).toFixed(2)} %`);
    assert.ok(fetched < total * 0.02, `${fetched} of ${total} bytes`);
    mkdirSync(join(here, 'pictures'), { recursive: true });
    await tab.screenshot({ path: join(here, 'pictures', 'golang.png') });
    await close();
});
