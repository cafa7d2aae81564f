// Accessibility by axe, and pictures to look at, in tests/browser/pictures.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { here, startRegistry, visit } from './harness.mjs';
import { convert, layout, tar } from './images.mjs';
import { layers, tars } from './sample.mjs';
import { certificates, windowsProgram } from './programs.mjs';
import { startExplorer, startFaulty } from './servers.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const rules = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
const pictures = join(here, 'pictures');
mkdirSync(pictures, { recursive: true });

let registry, explorer, faulty;
before(async () => {
    registry = await startRegistry();
    explorer = await startExplorer();
    const more = tar([{ path: 'lib/' }, { path: 'lib/tool.exe', content: windowsProgram() }, { path: 'lib/tool.pem', content: certificates() }]);
    await convert(layout('looks', [...tars(), more]), `${registry.host}/looks:lazy`);
    faulty = await startFaulty(registry.host);
    await convert(layout('looks-before', tars().slice(0, 1)), `${registry.host}/looks:before`);
});

const hash = (path) => `#/r/${registry.host}${path}`;
/** Addresses, and what is done there before it is looked at. */
const views = {
    first: { at: () => '' },
    files: { at: () => hash('/looks:lazy/-/etc/os-release') },
    layer: { at: () => hash('/looks:lazy?layer=1') },
    hex: { at: () => hash('/looks:lazy/-/big.bin?panel=image') },
    details: { at: () => hash('/looks:lazy/-/usr/bin/tool?tab=details&panel=search&q=os-release') },
    compare: { at: () => hash('/looks:lazy/-/etc/os-release?tab=compare&panel=changes&layer=1') },
    efficiency: { at: () => hash('/looks:lazy/-/bin?panel=efficiency') },
    missing: { at: () => hash('/not-there:lazy') },
    choose: { at: () => hash('/looks:lazy?panel=against') },
    against: { at: () => hash(`/looks:lazy/-/etc/os-release?panel=against&with=${registry.host}/looks:before`) },
    program: { at: () => hash('/looks:lazy/-/lib/tool.exe') },
    certificates: { at: () => hash('/looks:lazy/-/lib/tool.pem') },
    selection: { at: () => hash('/looks:lazy/-/etc/os-release'), act: (tab) => tab.getByRole('button', { name: 'Select', exact: true }).click() },
    help: { at: () => hash('/looks:lazy'), act: (tab) => tab.getByRole('button', { name: 'Keys and help' }).click() },
    asking: { at: () => hash('/looks:lazy/-/big.bin'), act: (tab) => tab.getByRole('button', { name: /^Download \(/ }).click() },
    // A file that the page was not given, and one that is being dragged.
    file: { at: () => '#/r/file:/image.tar', act: (tab) => tab.getByText('This file cannot be read').waitFor() },
    drop: {
        at: () => '',
        act: async (tab) => {
            const data = await tab.evaluateHandle(() => {
                const transfer = new DataTransfer();
                transfer.items.add(new File(['x'], 'x.tar'));
                return transfer;
            });
            await tab.dispatchEvent('body', 'dragover', { dataTransfer: data });
            await tab.getByText('Drop an archive of an image').waitFor();
        },
    },
    wrong: {
        at: () => `#/r/${faulty.host}/looks:lazy`,
        act: async (tab) => {
            faulty.rule = ({ path }) => (path.includes('/blobs/') ? { change: (answer) => ({ ...answer, body: answer.body.fill(7, answer.body.length >> 1) }) } : undefined);
            await tab.evaluate(() => (location.hash += '/-/big.bin'));
            await tab.getByRole('alert').getByRole('button', { name: 'Try again' }).waitFor();
        },
    },
};
const wide = { width: 1400, height: 860 };
const plain = { colorScheme: 'light', forcedColors: 'none', contrast: 'no-preference', reducedMotion: 'no-preference' };
const looks = {
    light: [wide, plain],
    dark: [wide, { ...plain, colorScheme: 'dark' }],
    forced: [wide, { ...plain, forcedColors: 'active', reducedMotion: 'reduce' }],
    contrast: [wide, { ...plain, contrast: 'more' }],
    narrow: [{ width: 320, height: 640 }, plain],
};
/** Views that are looked at in forced colours and with more contrast, too. */
const special = ['files', 'layer', 'against', 'wrong'];

for (const [name, { at, act }] of Object.entries(views)) {
    test(`${name}: looks and accessibility`, async () => {
        const { tab, close } = await visit(explorer.url + at(), { viewport: wide, bypassCSP: true, ...plain });
        await tab.waitForFunction(() => !document.querySelector('.waiting, .pending') && document.querySelector('h1'));
        await act?.(tab);
        await tab.evaluate(axe);
        for (const [look, [viewport, media]] of Object.entries(looks)) {
            if (['forced', 'contrast'].includes(look) && !special.includes(name)) continue;
            await tab.setViewportSize(viewport);
            await tab.emulateMedia(media);
            await tab.waitForTimeout(200);
            await tab.screenshot({ path: join(pictures, `${name}-${look}.png`) });
            const { violations } = await tab.evaluate((runOnly) => axe.run(document, { runOnly }), rules);
            assert.deepEqual(violations.map(({ id, nodes }) => `${look}: ${id}: ${nodes[0].html.slice(0, 200)} ${nodes[0].failureSummary}`), []);
            const scroll = await tab.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
            assert.ok(scroll <= 0, `${look}: the page is ${scroll} pixels too wide`);
        }
        await close();
    });
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
    const scroll = async (list, step) => {
        const before = await busy();
        await tab.evaluate(async ([list, step]) => {
            const body = document.querySelector(list);
            body.scrollTop = step % 2 ? step * 300 : body.scrollHeight - step * 5000;
            await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
            const { left, top, bottom } = body.getBoundingClientRect();
            if (!document.elementFromPoint(left + 50, (top + bottom) / 2)?.closest('.row')) throw new Error('nothing is drawn');
        }, [list, step]);
        return (await busy()) - before;
    };
    const check = async (list) => {
        // What the page does for a step it does every time; what others do on the machine is added to any step, of all its
        // parts. So a step counts as it was at its best, but for the first time when all steps but a few have to be as short.
        const best = Array(60).fill(Infinity);
        const longest = () => Math.max(...best);
        for (let run = 0; run < 5 && longest() > 50; run += 1) {
            const steps = [];
            for (let step = 0; step < best.length; step += 1) steps.push(await scroll(list, step));
            steps.forEach((took, step) => (best[step] = Math.min(best[step], took)));
            steps.sort((one, other) => one - other);
            console.log(`scrolling ${list}: ${steps[steps.length >> 1].toFixed(1)} ms a step, at most ${steps.at(-1).toFixed(1)} ms`);
            if (run === 0) assert.ok(steps.at(-4) <= 50, `several steps of ${steps.at(-4)} ms`);
        }
        assert.ok(longest() <= 50, `a step of ${longest()} ms`);
    };
    await check('[role=treegrid]');
    await tab.evaluate((host) => (location.hash += `?panel=against&with=${host}/looks:before`), registry.host);
    await tab.getByText(/^50,\d{3} paths$/).waitFor({ timeout: 60_000 });
    await check('[role=listbox]');
    await close();
});
