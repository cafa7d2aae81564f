/** Files and directories as downloads of the browser: it shows how far they are, and writes them as they come. */
import type { Row } from '../api';
import { downloadName } from '../download-name';
import { isFile } from '../reference';
import { ask } from './asking';
import { bytes, counted } from './format';
import { say } from './live';
import { engine, problem } from './session';
import { route } from './route';

/** What is fetched without asking. */
const LARGE = 10_000_000;
/** Without a service worker a download has to be in memory first: not more than this. */
const MOST_IN_MEMORY = 1 << 30;

/** Downloads a file, or with `asTar` anything as a tar with owners, times, links and extended attributes: all of it, or `only` these paths below it. */
export async function download(row: Row, asTar: boolean, only: string[] = []): Promise<void> {
    const { view } = route.peek();
    const name = downloadName(row.path, asTar);
    if (!asTar && row.kind !== 'regular') return say(`${row.name} is not a file`);
    if (!(await isWanted(row, name, only))) return;
    const url = navigator.serviceWorker?.controller && window.lazystar.image?.url(row.path);
    if (url) {
        say(`Downloading ${name}`);
        const layer = view === 'merged' ? '' : `&layer=${view}`;
        const parts = only.map((path) => `&only=${encodeURIComponent(path)}`).join('');
        return save(`${url}?${asTar ? 'tar' : 'download'}${layer}${parts}`);
    }
    const current = engine.peek();
    if (!current) return;
    if ((row.size ?? 0) > MOST_IN_MEMORY) return say(`${bytes(row.size ?? 0)} are too many for a browser without service workers`);
    try {
        const stream = asTar ? await current.tar(view, row.path, only) : await current.stream(view, row.path);
        const blob = await new Response(stream).blob();
        saveContent(new Blob([blob], { type: 'application/octet-stream' }), name);
    } catch (thrown) {
        say(problem(thrown).message);
    }
}

/** Says what a large download fetches, before it does. */
async function isWanted({ path, size }: Row, name: string, only: string[]): Promise<boolean> {
    const { view, place } = route.peek();
    const current = engine.peek();
    if (!current || (place && isFile(place)) || (size !== null && size <= LARGE)) return true;
    try {
        const { bytes: fetched, kept, requests } = await current.cost(view, path, only);
        if (fetched <= LARGE) return true;
        const here = kept > 0 ? ` ${bytes(kept)} more of it are kept in this browser already.` : '';
        return await ask(`Download ${name}?`, `That fetches ${bytes(fetched)} in about ${counted(requests, 'request')}.${here}`, 'Download');
    } catch {
        // The download itself says what is wrong.
        return true;
    }
}

/** Saves what is in memory. */
export function saveContent(content: Blob, name: string): void {
    const url = URL.createObjectURL(content);
    save(url, name);
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Without a name, which the service worker gives: Chromium asks it for nothing that is an anchor's `download`. */
function save(url: string, name?: string): void {
    const anchor = document.createElement('a');
    anchor.href = url;
    if (name !== undefined) anchor.download = name;
    anchor.click();
}
