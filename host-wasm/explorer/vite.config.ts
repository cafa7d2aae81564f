import { defineConfig } from 'vite';
import { SERVICE_WORKER, serviceWorker } from './service-worker.mjs';

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
