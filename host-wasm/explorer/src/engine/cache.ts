/**
 * What the browser keeps for all images: verified chunks and documents by their digests, tables of contents by the layer, and
 * where tags led. Where pages have no private file system (those of plain http from another machine), it lasts as long as
 * the worker, and is small.
 */
import type { CacheFacts } from '../api';
import { announceClearing, folder, onClearing } from './opfs';
import { Packs } from './packs';

const LIMIT = 2 * 2 ** 30;
const MEMORY = 64 << 20;
const ROOT = 'lazystar';
const TAGS = 'tags';

/** The cache as a worker sees it. Who reads a value checks it. */
export class Store {
    #packs: Packs | null;
    readonly #memory = new Map<string, Uint8Array>();
    #used = 0;

    private constructor(packs: Packs | null) {
        this.#packs = packs;
        onClearing(() => {
            this.#packs?.clear();
            this.#memory.clear();
            this.#used = 0;
        });
    }

    static async open(): Promise<Store> {
        try {
            return new Store(await Packs.open(await limit()));
        } catch {
            return new Store(null);
        }
    }

    /** One that lasts as long as the worker. */
    static brief(): Store {
        return new Store(null);
    }

    has(key: string): boolean {
        return this.#packs ? this.#packs.has(key) : this.#memory.has(key);
    }

    async get(key: string): Promise<Uint8Array | null> {
        return this.#packs ? this.#packs.get(key) : (this.#memory.get(key) ?? null);
    }

    async put(key: string, bytes: Uint8Array): Promise<void> {
        if (this.#packs) return this.#packs.put(key, bytes);
        if (bytes.length > MEMORY / 4 || this.#memory.has(key)) return;
        this.#memory.set(key, bytes.slice());
        this.#used += bytes.length;
        for (const [oldest, { length }] of this.#memory) {
            if (this.#used <= MEMORY) break;
            this.#memory.delete(oldest);
            this.#used -= length;
        }
    }

    /** Writes what is not written yet, and lets others have the files. */
    async close(): Promise<void> {
        await this.#packs?.close();
    }

    forget(key: string): void {
        this.#packs?.forget(key);
        this.#used -= this.#memory.get(key)?.length ?? 0;
        this.#memory.delete(key);
    }

    /** The digest that a tag led to last. */
    async tag(name: string): Promise<string | null> {
        try {
            const digest = await (await (await folder(TAGS)).getFileHandle(fileName(name))).getFile().then((file) => file.text());
            return /^sha256:[0-9a-f]{64}$/.test(digest) ? digest : null;
        } catch {
            return null;
        }
    }

    async setTag(name: string, digest: string): Promise<void> {
        if (!this.#packs) return;
        try {
            const file = await (await folder(TAGS)).getFileHandle(fileName(name), { create: true });
            const handle = await file.createSyncAccessHandle();
            const bytes = new TextEncoder().encode(digest);
            handle.truncate(bytes.length);
            handle.write(bytes, { at: 0 });
            handle.close();
        } catch {
            // Another tab is writing the same, or nothing can be kept.
        }
    }
}

/** How much is kept, for the page. */
export async function cacheFacts(): Promise<CacheFacts> {
    try {
        const root = await (await navigator.storage.getDirectory()).getDirectoryHandle(ROOT);
        return { used: await size(root), limit: await limit() };
    } catch {
        return { used: 0, limit: 0 };
    }
}

/**
 * Removes all that is kept, for the page. Images that are open go on, and keep things anew; only ordinary layers have to be
 * downloaded again.
 */
export async function clearCache(): Promise<void> {
    announceClearing();
    if (!navigator.storage?.getDirectory) return;
    const root = await navigator.storage.getDirectory();
    for (let left = 20; ; left -= 1) {
        try {
            await root.removeEntry(ROOT, { recursive: true });
            return;
        } catch (thrown) {
            if ((thrown as DOMException).name === 'NotFoundError') return;
            // Workers need a moment to close their files.
            if (left === 0) throw thrown;
            await new Promise((resume) => setTimeout(resume, 50));
        }
    }
}

async function limit(): Promise<number> {
    const { quota = 0 } = await navigator.storage.estimate();
    return Math.min(LIMIT, Math.floor(quota / 2));
}

async function size(directory: FileSystemDirectoryHandle): Promise<number> {
    let sum = 0;
    for await (const handle of directory.values()) {
        try {
            if (handle instanceof FileSystemDirectoryHandle) sum += await size(handle);
            if (handle instanceof FileSystemFileHandle) sum += (await handle.getFile()).size;
        } catch {
            // It was removed meanwhile.
        }
    }
    return sum;
}

/** Names of images are not always names of files. */
function fileName(name: string): string {
    return encodeURIComponent(name).replace(/\*/g, '%2A');
}
