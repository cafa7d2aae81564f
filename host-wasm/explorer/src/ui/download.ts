/** Files and directories as downloads of the browser: it shows how far they are, and writes them as they come. */
import type { Row } from '../api';
import { bytes } from './format';
import { say } from './live';
import { engine, problem } from './session';
import { route } from './route';

/** Without a service worker a download has to be in memory first: not more than this. */
const MOST_IN_MEMORY = 1 << 30;

/** Downloads a file, or with `asTar` anything as a tar with owners, times, links and extended attributes. */
export async function download(row: Row, asTar: boolean): Promise<void> {
    const { view } = route.peek();
    const name = safe(row.name || 'root') + (asTar ? '.tar' : '');
    if (!asTar && row.kind !== 'regular') return say(`${row.name} is not a file`);
    const url = navigator.serviceWorker?.controller && window.lazystar.image?.url(row.path);
    if (url) {
        say(`Downloading ${name}`);
        const layer = view === 'merged' ? '' : `&layer=${view}`;
        return save(`${url}?${asTar ? 'tar' : 'download'}${layer}`);
    }
    const current = engine.peek();
    if (!current) return;
    if ((row.size ?? 0) > MOST_IN_MEMORY) return say(`${bytes(row.size ?? 0)} are too many for a browser without service workers`);
    try {
        const stream = asTar ? (await current.tar(view, row.path)).stream : await current.stream(view, row.path);
        const blob = await new Response(stream).blob();
        saveContent(new Blob([blob], { type: 'application/octet-stream' }), name);
    } catch (thrown) {
        say(problem(thrown).message);
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

/** A name that means the same on every system. */
function safe(name: string): string {
    const plain = name.replace(/[\p{C}\p{Zl}\p{Zp}<>:"/\\|?*]/gu, '_').replace(/^\.+|[. ]+$/g, '_');
    return plain.slice(0, 200) || '_';
}
