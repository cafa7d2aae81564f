import type { Root } from './engine/engine.js';
import type { Descriptor, Layer } from './engine/interfaces/lazystar-engine-layers.js';
import type { Difference, Efficiency, Found, Located, Rootfs } from './engine/interfaces/lazystar-engine-overlay.js';
import type { Assurance, ByteRange } from './engine/interfaces/lazystar-engine-types.js';
import { engine, Unsupported } from './errors.js';
import { SourceError, type Source } from './sources.js';

/** How to open an image. */
export interface OpenOptions {
    /** Which of the images of an index to take; `linux` unless set. */
    os?: string;
    /** The processor architecture as Go names it; `amd64` unless set. */
    architecture?: string;
    /** How far content must be trusted; `verified` unless set. */
    trust?: Assurance;
}

/** A part of a file. */
export interface Part {
    /** The first byte; 0 unless set. */
    offset?: number;
    /** The number of bytes; up to the end of the file unless set. */
    length?: number;
}

/** A name in a directory. */
export interface DirectoryEntry {
    name: string;
    target: Located;
}

interface OpenLayer {
    layer: Layer;
    digest: string;
}

/** What an opener and a reader have in common. */
interface Operation {
    supply(offset: bigint, bytes: Uint8Array): void;
}

const PAGE = 1000;

async function instance(): Promise<Root> {
    const { instantiate } = await import('./engine/engine.js');
    return instantiate(coreModule, {});
}

const modules = new Map<string, Promise<WebAssembly.Module>>();

/** Compiles a part of the engine once; images share the code and nothing else. */
function coreModule(path: string): Promise<WebAssembly.Module> {
    const known = modules.get(path);
    if (known) return known;
    const url = new URL(`./engine/${path}`, import.meta.url);
    const compiled =
        url.protocol === 'file:'
            ? import('node:fs/promises').then(async (fs) => WebAssembly.compile(await fs.readFile(url)))
            : WebAssembly.compileStreaming(fetch(url));
    modules.set(path, compiled);
    return compiled;
}

/** An image whose layers are open. Everything that is read is verified. */
export class Image {
    /** The digest of its manifest. */
    readonly digest: string;
    readonly #source: Source;
    readonly #layers: OpenLayer[];
    readonly #rootfs: Rootfs;

    private constructor(source: Source, digest: string, layers: OpenLayer[], rootfs: Rootfs) {
        this.#source = source;
        this.digest = digest;
        this.#layers = layers;
        this.#rootfs = rootfs;
    }

    /** Opens the image with this tag or digest: fetches its manifest and the tables of its layers. */
    static async open(source: Source, name: string, options: OpenOptions = {}): Promise<Image> {
        const { os = 'linux', architecture = 'amd64', trust = 'verified' } = options;
        const { oci, layers, overlay } = await instance();
        let document = await source.document(name);
        let digest = oci.digestOf(document);
        let parsed = engine(() => oci.parse(document, name.includes(':') ? name : undefined));
        if (parsed.tag === 'index') {
            const found = parsed.val.find(
                ({ platform }) => platform?.os === os && platform.architecture === architecture,
            );
            if (!found) throw unsupported(`the image has nothing for ${os}/${architecture}`);
            digest = found.manifest.digest;
            document = await source.document(digest);
            parsed = engine(() => oci.parse(document, digest));
        }
        if (parsed.tag !== 'manifest') throw unsupported('an index in an index');
        const open = async (descriptor: Descriptor): Promise<OpenLayer> => {
            const opener = new layers.Opener(descriptor);
            engine(() => opener.accept(trust));
            for (;;) {
                const step = engine(() => opener.poll());
                if (step.tag === 'done') break;
                if (step.tag === 'external-toc') {
                    throw unsupported(`the table of contents of ${descriptor.digest} is in another image`);
                }
                await supply(source, descriptor.digest, opener, step.val);
            }
            return { layer: engine(() => layers.Opener.finish(opener)), digest: descriptor.digest };
        };
        const opened = await Promise.all(parsed.val.layers.map(open));
        const rootfs = new overlay.Rootfs(opened.map(({ layer }) => layer));
        return new Image(source, digest, opened, rootfs);
    }

    /** What is at a path. A symbolic link at its end is followed unless `follow` is false. */
    stat(path: string, follow = true): Located {
        return engine(() => this.#rootfs.lookup(path, follow));
    }

    /** The names in a directory, sorted by their bytes. */
    *readdir(path = '/'): Generator<DirectoryEntry> {
        const directory = location(this.stat(path));
        for (let start: number | undefined = 0; start !== undefined; ) {
            const from: number = start;
            const page = engine(() => this.#rootfs.children(directory, from, PAGE));
            yield* page.entries;
            start = page.next;
        }
    }

    /** What is below a directory and has `containing` in its path; everything when that is empty. */
    *walk(path = '/', containing = ''): Generator<Found> {
        const directory = location(this.stat(path));
        const walk = engine(() => this.#rootfs.walk(directory, containing));
        try {
            for (let page; (page = engine(() => walk.next(PAGE))).length > 0; ) yield* page;
        } finally {
            dispose(walk);
        }
    }

    /** The target of a symbolic link. */
    readlink(path: string): string {
        const link = this.stat(path, false);
        return engine(() => this.#layer(link).layer.readLinks(new Uint32Array([link.entry.id])))[0] ?? '';
    }

    /** The content of a file, or a part of it. */
    async read(path: string, part: Part = {}): Promise<Uint8Array> {
        const pieces: Uint8Array[] = [];
        for await (const piece of this.stream(path, part)) pieces.push(piece);
        const all = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
        let at = 0;
        for (const piece of pieces) {
            all.set(piece, at);
            at += piece.length;
        }
        return all;
    }

    /** The content of a file in pieces of at most 1 MiB, as it is fetched and verified. */
    async *stream(path: string, { offset = 0, length }: Part = {}): AsyncGenerator<Uint8Array, void, undefined> {
        const file = this.stat(path);
        const { layer, digest } = this.#layer(file);
        const span = {
            file: file.entry.id,
            offset: BigInt(offset),
            length: length === undefined ? file.entry.size : BigInt(length),
        };
        const reader = engine(() => layer.read([span]));
        try {
            for (;;) {
                const step = engine(() => reader.poll(0));
                if (step.tag === 'done') return;
                if (step.tag === 'data') yield step.val.bytes;
                else await supply(this.#source, digest, reader, step.val.map(({ blobRange }) => blobRange));
            }
        } finally {
            dispose(reader);
        }
    }

    /** What a layer, counted from the bottom, changes in those below it. */
    *differences(layer: number): Generator<Difference> {
        const differences = engine(() => this.#rootfs.differences(layer));
        try {
            for (let page; (page = engine(() => differences.next(PAGE))).length > 0; ) yield* page;
        } finally {
            dispose(differences);
        }
    }

    /** How much of what the layers store can be seen. */
    efficiency(worst = 20): Efficiency {
        return engine(() => this.#rootfs.efficiency(worst));
    }

    /** Frees what the engine holds. Nothing of the image may be used afterwards. */
    close(): void {
        dispose(this.#rootfs);
        for (const { layer } of this.#layers) dispose(layer);
    }

    #layer(object: Located): OpenLayer {
        const layer = this.#layers[object.layer];
        if (!layer) throw new RangeError(`the image has no layer ${object.layer}`);
        return layer;
    }
}

const REQUESTS = 8;

/** Fetches ranges side by side and hands each over as it comes. */
async function supply(source: Source, digest: string, to: Operation, ranges: ByteRange[]): Promise<void> {
    const left = ranges.values();
    const worker = async (): Promise<void> => {
        for (const { offset, length } of left) {
            const bytes = await source.blob(digest, Number(offset), Number(length));
            if (bytes.length !== Number(length)) throw new SourceError(`${digest}: ${bytes.length} bytes came`);
            engine(() => to.supply(offset, bytes));
        }
    };
    await Promise.all(Array.from({ length: REQUESTS }, worker));
}

function location(object: Located): { layer: number; entry: number } {
    return { layer: object.layer, entry: object.entry.id };
}

function unsupported(text: string): Unsupported {
    return new Unsupported({ tag: 'unsupported', val: text });
}

function dispose(handle: object): void {
    (handle as { [Symbol.dispose]?: () => void })[Symbol.dispose]?.();
}
