import { defineConfig } from 'vite';

export default defineConfig({
    base: './',
    oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
    worker: { format: 'es' },
    build: {
        outDir: '../dist/explorer',
        emptyOutDir: true,
        target: 'es2022',
        assetsInlineLimit: 0,
        modulePreload: { polyfill: false },
    },
    server: {
        // While developing: the proxy of `lazystar explore`, or of what stands in for it.
        proxy: { '/registry': 'http://127.0.0.1:7117', '/lazystar.json': 'http://127.0.0.1:7117' },
    },
});
