import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { defineConfig, type Plugin } from 'vite';

const SERVICE_WORKER = 'service-worker.js';

/** Tells the service worker which files the page has, and their digest. */
function serviceWorker(): Plugin {
    return {
        name: 'service-worker',
        enforce: 'post',
        apply: 'build',
        generateBundle: {
            order: 'post',
            handler(_, bundle) {
                const entry = bundle[SERVICE_WORKER];
                if (entry?.type !== 'chunk' || entry.imports.length > 0) this.error(`${SERVICE_WORKER} has to be one file`);
                const hash = createHash('sha256').update(entry.code);
                const names = Object.keys(bundle).filter((name) => name !== SERVICE_WORKER).sort();
                for (const name of names) {
                    const file = bundle[name];
                    hash.update(name).update((file?.type === 'chunk' ? file.code : file?.source) ?? '');
                }
                const still = readdirSync('public');
                for (const name of still) hash.update(name).update(readFileSync(`public/${name}`));
                entry.code = entry.code
                    .replaceAll('__FILES__', JSON.stringify([...names, ...still]))
                    .replaceAll('__VERSION__', JSON.stringify(hash.digest('hex').slice(0, 16)));
            },
        },
    };
}

export default defineConfig({
    base: './',
    oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
    worker: { format: 'es' },
    plugins: [serviceWorker()],
    build: {
        outDir: '../dist/explorer',
        emptyOutDir: true,
        target: 'es2022',
        assetsInlineLimit: 0,
        modulePreload: { polyfill: false },
        rolldownOptions: {
            input: ['index.html', 'src/service-worker.ts'],
            output: { entryFileNames: ({ name }) => (name === 'service-worker' ? SERVICE_WORKER : 'assets/[name]-[hash].js') },
        },
    },
    server: {
        // While developing: the proxy of `lazystar explore`, or of what stands in for it.
        proxy: { '/registry': 'http://127.0.0.1:7117', '/lazystar.json': 'http://127.0.0.1:7117' },
    },
});
