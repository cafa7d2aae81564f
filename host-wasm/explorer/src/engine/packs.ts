/**
 * Many small values in few files of the browser's private file system (OPFS), where making a file takes 2.5 ms and a write
 * 0.03 ms (Chromium; 0.6 ms in private windows, so that writes are gathered). A pack is a file of values, one after the
 * other, and an index beside it: a head of 16 bytes, then a record of 44 for each value, written after the value. Only who
 * holds both files open may write to them, so tabs never write to the same pack. Nothing is trusted: who reads a value
 * checks it.
 */

import { concat, hex } from './bytes';
import { folder, readAt, release, source, type Source } from './opfs';

const PACKS = 'packs';
const PACK = 32 << 20;
/** Values are written together once they are so many bytes, or so old. */
const GATHERED = 1 << 20;
const GATHERED_MS = 250;
const HEAD = 16;
const RECORD = 44;
const MAGIC = 0x3152_5a4c;

/** How keys begin, by their number in an index. */
const KINDS = ['sha256:', 'toc sha256:'];

interface Place {
    pack: string;
    offset: number;
    length: number;
}

interface Pack {
    size: number;
    /** Milliseconds since 1970. */
    used: number;
    keys: string[];
}

interface Own {
    name: string;
    data: FileSystemSyncAccessHandle;
    index: FileSystemSyncAccessHandle;
    /** Bytes of both files that are written. */
    size: number;
    indexSize: number;
}

/** A value that is not written yet. */
interface Pending {
    bytes: Uint8Array;
    record: Uint8Array;
}

export class Packs {
    #limit: number;
    /** Whether the last write failed: the browser gives less than it promised. */
    #full = false;
    readonly #places = new Map<string, Place>();
    readonly #packs = new Map<string, Pack>();
    readonly #sources = new Map<string, Promise<Source>>();
    #own: Own | null = null;
    #acquiring: Promise<Own> | null = null;
    #dropping: Promise<unknown> = Promise.resolve();
    readonly #pending = new Map<string, Pending>();
    #gathered = 0;
    #timer: ReturnType<typeof setTimeout> | null = null;

    private constructor(limit: number) {
        this.#limit = limit;
    }

    /** Reads all indexes. */
    static async open(limit: number): Promise<Packs> {
        const packs = new Packs(limit);
        await packs.#scan();
        return packs;
    }

    has(key: string): boolean {
        return this.#places.has(key);
    }

    async get(key: string): Promise<Uint8Array | null> {
        const place = this.#places.get(key);
        if (!place) return null;
        const pending = this.#pending.get(key);
        if (pending) return pending.bytes.slice();
        const { pack, offset, length } = place;
        try {
            const own = this.#own?.name === pack ? this.#own.data : null;
            return await readAt(own ?? (await this.#source(pack)), offset, length);
        } catch {
            // Another tab removed or is changing it.
            this.forget(key);
            return null;
        }
    }

    /** Keeps a value; never fails, since nothing depends on it. */
    async put(key: string, bytes: Uint8Array): Promise<void> {
        const kind = KINDS.findIndex((start) => key.startsWith(start));
        if (kind < 0 || this.has(key) || bytes.length > PACK) return;
        try {
            if (this.#full) this.#release();
            const own = await (this.#acquiring ??= this.#acquire());
            if (this.has(key)) return;
            const offset = own.size + this.#gathered;
            this.#pending.set(key, { bytes: bytes.slice(), record: record(kind, offset, bytes.length, key) });
            this.#enter(own.name, key, offset, bytes.length);
            this.#gathered += bytes.length;
            if (offset + bytes.length >= PACK) this.#release();
            else if (this.#gathered >= GATHERED) this.flush();
            else this.#timer ??= setTimeout(() => this.flush(), GATHERED_MS);
        } catch {
            // There is no space, or it was cleared at this moment.
            this.#release();
        }
    }

    /** Writes what was gathered. */
    flush(): void {
        if (this.#timer !== null) clearTimeout(this.#timer);
        this.#timer = null;
        const own = this.#own;
        const pending = [...this.#pending.entries()];
        this.#pending.clear();
        this.#gathered = 0;
        if (!own || pending.length === 0) return;
        try {
            const bytes = concat(pending.map(([, value]) => value.bytes));
            const records = concat(pending.map(([, value]) => value.record));
            if (own.data.write(bytes, { at: own.size }) !== bytes.length) throw new Error('no space');
            own.index.write(records, { at: own.indexSize });
            own.size += bytes.length;
            own.indexSize += records.length;
        } catch {
            for (const [key] of pending) this.#places.delete(key);
            this.#full = true;
        }
    }

    /** Throws away a value that is not what it was, and the pack with it: who knows what else is wrong there. */
    forget(key: string): void {
        const name = this.#places.get(key)?.pack;
        if (name === undefined) return;
        if (this.#own?.name === name) {
            this.#pending.clear();
            this.#release();
        }
        const opened = this.#sources.get(name);
        this.#drop(name);
        this.#dropping = Promise.all([this.#dropping, opened])
            .then(([, file]) => {
                if (file) release(file);
                return remove(name);
            })
            .catch(() => undefined);
    }

    #drop(name: string): void {
        for (const key of this.#packs.get(name)?.keys ?? []) if (this.#places.get(key)?.pack === name) this.#places.delete(key);
        this.#packs.delete(name);
        this.#sources.delete(name);
    }

    /** Writes what was gathered, and lets others have all files. */
    async close(): Promise<void> {
        this.#release();
        const opened = [...this.#sources.values()];
        this.#sources.clear();
        await Promise.allSettled(opened.map((file) => file.then(release)));
    }

    /** Forgets everything, since it is about to be removed. */
    clear(): void {
        this.#pending.clear();
        void this.close();
        this.#places.clear();
        this.#packs.clear();
    }

    #enter(name: string, key: string, offset: number, length: number): void {
        this.#places.set(key, { pack: name, offset, length });
        const pack = this.#packs.get(name);
        pack?.keys.push(key);
        if (pack) pack.size += length + RECORD;
    }

    #release(): void {
        this.flush();
        this.#own?.data.close();
        this.#own?.index.close();
        this.#own = null;
        this.#acquiring = null;
    }

    async #scan(): Promise<void> {
        const directory = await folder(PACKS);
        for await (const [name, handle] of directory.entries()) {
            if (!name.endsWith('.index') || !(handle instanceof FileSystemFileHandle)) continue;
            const pack = name.slice(0, -'.index'.length);
            if (this.#packs.has(pack)) continue;
            try {
                const bytes = await (await handle.getFile()).arrayBuffer();
                if (bytes.byteLength < HEAD) continue;
                const view = new DataView(bytes);
                if (view.getUint32(0, true) !== MAGIC) continue;
                this.#packs.set(pack, { size: bytes.byteLength, used: view.getFloat64(8, true), keys: [] });
                for (let at = HEAD; at + RECORD <= bytes.byteLength; at += RECORD) {
                    const kind = KINDS[view.getUint32(at, true)];
                    if (kind === undefined) continue;
                    const key = kind + hex(new Uint8Array(bytes, at + 12, 32));
                    this.#enter(pack, key, view.getUint32(at + 4, true), view.getUint32(at + 8, true));
                }
            } catch {
                // Another tab has just removed it.
            }
        }
    }

    /** A pack to write to: one that is not full and nobody has open, or a new one. */
    async #acquire(): Promise<Own> {
        await this.#dropping;
        await this.#scan();
        await this.#evict();
        const directory = await folder(PACKS);
        const used = [...this.#packs].filter(([name, { size }]) => size < PACK && !this.#sources.has(name)).map(([name]) => name);
        const fresh = `${Date.now().toString(36)}-${crypto.getRandomValues(new Uint32Array(1))[0]?.toString(36)}`;
        for (const name of [...used, fresh]) {
            let data: FileSystemSyncAccessHandle | null = null;
            try {
                const create = name === fresh;
                data = await (await directory.getFileHandle(name, { create })).createSyncAccessHandle();
                const index = await (await directory.getFileHandle(`${name}.index`, { create })).createSyncAccessHandle();
                const indexSize = HEAD + Math.floor(Math.max(0, index.getSize() - HEAD) / RECORD) * RECORD;
                index.write(head(), { at: 0 });
                if (!this.#packs.has(name)) this.#packs.set(name, { size: HEAD, used: Date.now(), keys: [] });
                return (this.#own = { name, data, index, size: data.getSize(), indexSize });
            } catch (thrown) {
                data?.close();
                if (name === fresh) throw thrown;
            }
        }
        throw new Error('no pack');
    }

    /** Removes packs until there is room for another one, what was not used for the longest time first. */
    async #evict(): Promise<void> {
        let size = [...this.#packs.values()].reduce((sum, pack) => sum + pack.size, 0);
        if (this.#full) this.#limit = Math.min(this.#limit, size);
        this.#full = false;
        const oldest = [...this.#packs].sort(([, one], [, other]) => one.used - other.used);
        for (const [name, pack] of oldest) {
            if (size + PACK <= this.#limit) return;
            if (this.#sources.has(name)) continue;
            try {
                await remove(name);
            } catch {
                // Another tab uses it.
                continue;
            }
            size -= pack.size;
            this.#drop(name);
        }
    }

    #source(name: string): Promise<Source> {
        const known = this.#sources.get(name);
        if (known) return known;
        const opened = open(name);
        this.#sources.set(name, opened);
        opened.catch(() => this.#sources.delete(name));
        return opened;
    }
}

async function remove(name: string): Promise<void> {
    const directory = await folder(PACKS);
    await directory.removeEntry(`${name}.index`);
    await directory.removeEntry(name);
}

async function open(name: string): Promise<Source> {
    const directory = await folder(PACKS);
    try {
        // Says when it was used last, unless its writer does that.
        const index = await (await directory.getFileHandle(`${name}.index`)).createSyncAccessHandle();
        index.write(head(), { at: 0 });
        index.close();
    } catch {
        // In use.
    }
    return source(await directory.getFileHandle(name));
}

function head(): Uint8Array {
    const view = new DataView(new ArrayBuffer(HEAD));
    view.setUint32(0, MAGIC, true);
    view.setFloat64(8, Date.now(), true);
    return new Uint8Array(view.buffer);
}

function record(kind: number, offset: number, length: number, key: string): Uint8Array {
    const bytes = new Uint8Array(RECORD);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, kind, true);
    view.setUint32(4, offset, true);
    view.setUint32(8, length, true);
    const digest = key.slice(-64);
    for (let at = 0; at < 32; at += 1) bytes[12 + at] = Number.parseInt(digest.slice(2 * at, 2 * at + 2), 16);
    return bytes;
}
