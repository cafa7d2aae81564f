import { test } from 'node:test';
import { startRegistry, visit } from './harness.mjs';
import { copy, layout } from './images.mjs';
import { tars } from './sample.mjs';
import { startExplorer } from './servers.mjs';
test('smoke', async () => {
    const registry = await startRegistry();
    const explorer = await startExplorer();
    await copy(layout('sample', tars()), `${registry.host}/sample:plain`);
    const { tab, close } = await visit(explorer.url);
    const out = await tab.evaluate(async (name) => {
        window.it = await lazystar.open(name, { onEvent: (e) => console.log(JSON.stringify(e).slice(0, 300)) });
        const r = await it.readdir('/').catch((e) => e.problem);
        return [it.facts, r, await it.meter()];
    }, `${registry.host}/sample:plain`);
    console.log(JSON.stringify(out, null, 1).slice(0, 3000));
    console.log(registry.requests());
    await close();
});
