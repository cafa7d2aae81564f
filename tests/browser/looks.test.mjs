// Accessibility by axe, and pictures to look at, in tests/browser/pictures.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { here, startRegistry, visit } from './harness.mjs';
import { convert, layout, tar } from './images.mjs';
import { layers, tars } from './sample.mjs';
import { startExplorer } from './servers.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const rules = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
const pictures = join(here, 'pictures');
mkdirSync(pictures, { recursive: true });

let registry, explorer;
before(async () => {
    registry = await startRegistry();
    explorer = await startExplorer();
    await convert(layout('looks', tars()), `${registry.host}/looks:lazy`);
    await convert(layout('looks-before', tars().slice(0, 1)), `${registry.host}/looks:before`);
});

const views = {
    first: '',
    files: '/looks:lazy/-/etc/os-release',
    layer: '/looks:lazy?layer=1',
    hex: '/looks:lazy/-/big.bin?panel=image',
    details: '/looks:lazy/-/usr/bin/tool?tab=details&panel=search&q=os-release',
    compare: '/looks:lazy/-/etc/os-release?tab=compare&panel=changes&layer=1',
    efficiency: '/looks:lazy/-/bin?panel=efficiency',
    missing: '/not-there:lazy',
    choose: '/looks:lazy?panel=against',
    against: () => `/looks:lazy/-/etc/os-release?panel=against&with=${registry.host}/looks:before`,
};

for (const [name, view] of Object.entries(views)) {
    for (const [look, options] of Object.entries({
        light: { colorScheme: 'light' },
        dark: { colorScheme: 'dark' },
        narrow: { viewport: { width: 320, height: 640 } },
        forced: { forcedColors: 'active', reducedMotion: 'reduce' },
    })) {
        if (look === 'forced' && name !== 'files' && name !== 'layer') continue;
        test(`${name}, ${look}`, async () => {
            const at = typeof view === 'function' ? view() : view;
            const url = explorer.url + (at && `#/r/${registry.host}${at}`);
            const { tab, close } = await visit(url, { viewport: { width: 1400, height: 860 }, bypassCSP: true, ...options });
            await tab.locator('.waiting').first().waitFor({ state: 'detached' });
            await tab.waitForFunction(() => !document.querySelector('.waiting, .pending') && document.querySelector('h1'));
            await tab.waitForTimeout(300);
            await tab.screenshot({ path: join(pictures, `${name}-${look}.png`) });
            await tab.evaluate(axe);
            const { violations } = await tab.evaluate((runOnly) => axe.run(document, { runOnly }), rules);
            assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes[0].html.slice(0, 200)} ${nodes[0].failureSummary}`), []);
            const scroll = await tab.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
            assert.ok(scroll <= 0, `the page is ${scroll} pixels too wide`);
            await close();
        });
    }
}

test('the tree has as many columns as there is room for', async () => {
    const { tab, close } = await visit(`${explorer.url}#/r/${registry.host}/looks:lazy`);
    const row = tab.getByRole('row', { name: /^usr/ });
    const widths = { 1920: ['size', 'mode', 'owner', 'time'], 1000: ['size', 'mode', 'owner', 'time'], 1001: ['size', 'mode', 'owner', 'time'], 560: ['size', 'mode', 'owner', 'time'], 400: ['size', 'mode', 'owner', 'time'], 360: ['size', 'mode'], 320: ['size'] };
    for (const [width, expected] of Object.entries(widths)) {
        await tab.setViewportSize({ width: Number(width), height: 700 });
        await row.getByText(/^300 kB$/).waitFor();
        const cells = await row.evaluate((row) => [...row.children].filter((cell) => cell.offsetWidth > 0).map((cell) => [cell.className, cell.scrollWidth > cell.clientWidth]));
        assert.deepEqual(cells.slice(1).map(([name]) => name), expected, `${width} pixels`);
        assert.deepEqual(cells.filter(([, isCut]) => isCut), [], `${width} pixels`);
        const heads = await tab.locator('.heads > *').evaluateAll((heads) => heads.filter((head) => head.offsetWidth > 0).map((head) => head.getBoundingClientRect().left));
        const places = await row.locator('> *').evaluateAll((cells) => cells.filter((cell) => cell.offsetWidth > 0).map((cell) => cell.getBoundingClientRect().left));
        assert.deepEqual(places.slice(1), heads.slice(1), `${width} pixels`);
    }
    await close();
});

test('50,000 names scroll without a frame of more than 50 ms', async () => {
    const names = Array.from({ length: 50_000 }, (_, index) => ({ path: `all/name-${index}`, content: index % 7 ? '' : `${index}\n` }));
    await convert(layout('many', [tar([...layers[0].slice(0, 2), { path: 'all/' }, ...names])]), `${registry.host}/many:lazy`);
    const { tab, context, close } = await visit(`${explorer.url}#/r/${registry.host}/many:lazy`);
    await tab.getByRole('row', { name: 'all' }).dblclick();
    await tab.waitForFunction(() => document.querySelector('[role=treegrid]')?.getAttribute('aria-rowcount') > 50_000, null, { timeout: 60_000 });
    await tab.waitForFunction(() => !document.querySelector('.pending'));
    await tab.waitForTimeout(1000);
    // Time of the page's thread on a processor, since the machine may do other things as well.
    const session = await context.newCDPSession(tab);
    await session.send('Performance.enable', { timeDomain: 'threadTicks' });
    const busy = async () => (await session.send('Performance.getMetrics')).metrics.find(({ name }) => name === 'TaskDuration').value * 1000;
    const scroll = async (step) => {
        const before = await busy();
        await tab.evaluate(async (step) => {
            const body = document.querySelector('[role=treegrid]');
            body.scrollTop = step % 2 ? step * 300 : body.scrollHeight - step * 5000;
            await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
            const { left, top, bottom } = body.getBoundingClientRect();
            if (!document.elementFromPoint(left + 50, (top + bottom) / 2)?.closest('[role=row]')) throw new Error('nothing is drawn');
        }, step);
        return (await busy()) - before;
    };
    // What others do on the machine costs time of this processor, too: the best of three counts.
    let longest = Infinity;
    for (let run = 0; run < 3 && longest > 50; run += 1) {
        const steps = [];
        for (let step = 0; step < 60; step += 1) steps.push(await scroll(step));
        steps.sort((one, other) => one - other);
        longest = Math.min(longest, steps.at(-1));
        console.log(`scrolling: ${steps[steps.length >> 1].toFixed(1)} ms a step, at most ${steps.at(-1).toFixed(1)} ms`);
    }
    assert.ok(longest <= 50, `a step of ${longest} ms`);
    await close();
});
