/**
 * Content of ordinary layers that were downloaded, in the private file system (OPFS): of each layer a file with the plain
 * bytes of all its files, one after the other, and a table of contents of the form that lazy layers have, by which the engine
 * reads and checks it like theirs.
 */
import { Limiter } from './limiter';
import { folder, onClearing, readAt, release, source, type Source } from './opfs';
import { problem } from './problems';

const LAYERS = 'layers';
const TOC = '.toc';
/** Of what the browser allows, the part that layers may take before older ones make room. */
const SHARE = 1 / 4;

const one = new Limiter(1);

/** The bytes of a layer's files. */
export class LocalContent {
    readonly #file: Source;
    readonly #chunks = new Map<string, [offset: number, length: number]>();
    readonly size: number;

    private constructor(file: Source, size: number, toc: Toc) {
        this.#file = file;
        this.size = size;
        onClearing(() => this.close());
        for (const { chunkDigest, offset, chunkSize, size: all } of toc.entries) {
            if (chunkDigest !== undefined && offset !== undefined) this.#chunks.set(chunkDigest, [offset, chunkSize || (all ?? 0)]);
        }
    }

    /** The bytes of a chunk. */
    async get(digest: string): Promise<Uint8Array | null> {
        const place = this.#chunks.get(digest);
        if (!place) return null;
        const [offset, length] = place;
        try {
            return await readAt(this.#file, offset, length);
        } catch {
            return null;
        }
    }

    /** What an earlier download of this layer left. */
    static async find(layer: string): Promise<{ content: LocalContent; toc: Uint8Array } | null> {
        try {
            const directory = await folder(LAYERS);
            const toc = new Uint8Array(await (await (await directory.getFileHandle(`${name(layer)}${TOC}`)).getFile()).arrayBuffer());
            return { content: await LocalContent.#open(directory, layer, toc), toc };
        } catch {
            return null;
        }
    }

    static async #open(directory: FileSystemDirectoryHandle, layer: string, toc: Uint8Array): Promise<LocalContent> {
        const handle = await directory.getFileHandle(name(layer));
        const { size } = await handle.getFile();
        const parsed = JSON.parse(new TextDecoder().decode(toc)) as Toc;
        return new LocalContent(await source(handle), size, parsed);
    }

    /**
     * Writes the content of a layer; `fill` gives the table of contents in the end. One layer at a time: Chromium does not
     * always come to the end of a list of files while one of them is being made.
     */
    static make(layer: string, fill: (append: (bytes: Uint8Array) => void) => Promise<Uint8Array>): Promise<{ content: LocalContent; toc: Uint8Array }> {
        return one.run(() => LocalContent.#make(layer, fill));
    }

    static async #make(layer: string, fill: (append: (bytes: Uint8Array) => void) => Promise<Uint8Array>): Promise<{ content: LocalContent; toc: Uint8Array }> {
        if (!navigator.storage?.getDirectory) {
            throw problem('unsupported', 'The browser gives pages no files of their own here. Open this page by https, or from this computer (127.0.0.1).');
        }
        const directory = await folder(LAYERS);
        await makeRoom(directory);
        const handle = await directory.getFileHandle(name(layer), { create: true });
        let file: FileSystemSyncAccessHandle;
        try {
            file = await handle.createSyncAccessHandle();
        } catch {
            throw problem('unsupported', 'Another tab has this layer open or is downloading it. Close that tab, or wait and open the image again.');
        }
        let at = 0;
        let toc: Uint8Array;
        try {
            file.truncate(0);
            toc = await fill((bytes) => {
                if (file.write(bytes, { at }) !== bytes.length) throw new DOMException('short', 'QuotaExceededError');
                at += bytes.length;
            });
            file.close();
            await keep(directory, `${name(layer)}${TOC}`, toc);
        } catch (thrown) {
            file.close();
            await directory.removeEntry(name(layer)).catch(() => undefined);
            if (!(thrown instanceof DOMException) || thrown.name !== 'QuotaExceededError') throw thrown;
            throw problem('limit-exceeded', 'The browser gives this page no more space on the disk. Clear what it keeps, or other pages, and try again.');
        }
        return { content: await LocalContent.#open(directory, layer, toc), toc };
    }

    close(): void {
        release(this.#file);
    }
}

/** The parts of a table of contents that are read here. */
interface Toc {
    entries: { chunkDigest?: string; offset?: number; chunkSize?: number; size?: number }[];
}

/** Removes the oldest layers while there are too many bytes of them; those that are open stay. */
async function makeRoom(directory: FileSystemDirectoryHandle): Promise<void> {
    const { quota = 0 } = await navigator.storage.estimate();
    const files: File[] = [];
    for await (const handle of directory.values()) if (handle instanceof FileSystemFileHandle) files.push(await handle.getFile());
    let size = files.reduce((sum, file) => sum + file.size, 0);
    for (const file of files.filter((one) => !one.name.endsWith(TOC)).sort((one, other) => one.lastModified - other.lastModified)) {
        if (size <= quota * SHARE) return;
        try {
            await directory.removeEntry(file.name);
            await directory.removeEntry(`${file.name}${TOC}`);
            size -= file.size;
        } catch {
            // Another tab has it open.
        }
    }
}

async function keep(directory: FileSystemDirectoryHandle, name: string, bytes: Uint8Array): Promise<void> {
    const handle = await (await directory.getFileHandle(name, { create: true })).createSyncAccessHandle();
    handle.truncate(0);
    handle.write(bytes, { at: 0 });
    handle.close();
}

function name(layer: string): string {
    return layer.replace(':', '-');
}
