/** The private file system that browsers give pages (OPFS). */

/** A file to read: a handle where that can be had, which is faster. */
export type Source = FileSystemSyncAccessHandle | FileSystemFileHandle;

/** The directory with this path below the page's own; it is made when it is not there. */
export async function folder(...names: string[]): Promise<FileSystemDirectoryHandle> {
    let at = await navigator.storage.getDirectory();
    for (const name of ['lazystar', ...names]) at = await at.getDirectoryHandle(name, { create: true });
    return at;
}

/** Opens a file that other tabs may read at the same time. One that somebody writes to is read as it is now. */
export async function source(file: FileSystemFileHandle): Promise<Source> {
    try {
        const shared = { mode: 'read-only' } as unknown;
        return await (file.createSyncAccessHandle as (options: unknown) => Promise<FileSystemSyncAccessHandle>).call(file, shared);
    } catch {
        return file;
    }
}

/** A part of a file; `null` when it is shorter. */
export async function readAt(from: Source, offset: number, length: number): Promise<Uint8Array | null> {
    if ('read' in from) {
        const bytes = new Uint8Array(length);
        return from.read(bytes, { at: offset }) === length ? bytes : null;
    }
    const bytes = new Uint8Array(await (await from.getFile()).slice(offset, offset + length).arrayBuffer());
    return bytes.length === length ? bytes : null;
}

/** Lets others have a file. */
export function release(file: Source): void {
    if ('read' in file) file.close();
}

const CHANNEL = 'lazystar-clear';

/** Asks all workers to let go of their files, since everything is about to be removed. */
export function announceClearing(): void {
    const channel = new BroadcastChannel(CHANNEL);
    channel.postMessage(null);
    channel.close();
}

/** Calls back when everything is about to be removed. */
export function onClearing(call: () => void): void {
    if (typeof BroadcastChannel !== 'undefined') new BroadcastChannel(CHANNEL).onmessage = call;
}
