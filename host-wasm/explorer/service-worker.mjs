import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';

/** Its name has to stay the same. */
export const SERVICE_WORKER = 'service-worker.js';

/** A plugin for Vite: tells the service worker which files the page has, and their digest. */
export function serviceWorker() {
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
