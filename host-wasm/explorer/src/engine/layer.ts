/** A layer of the image: opens itself, and reads verified content. */
import { ApiError, type Assurance, type Cost, type Events, type LayerFacts } from '../api';
import { concat } from './bytes';
import type { Store } from './cache';
import { ChunkTables, type ChunkFacts } from './chunks';
import { dispose, type ByteRange, type Descriptor, type Layer, type Opener, type Reader, type Root } from './instance';
import type { Meters } from './meter';
import { LocalContent } from './local';
import { download, open as openLocal } from './ordinary';
import { asProblem, engine, isTransient, problem, type About } from './problems';
import { requests } from './requests';
import { pack, unpack, type Segment } from './segments';
import { Slices } from './slices';
import type { Source } from './source';

const PROGRESS_MS = 100;

/** What layers share. */
export interface Context {
    root: Root;
    source: Source;
    store: Store;
    meter: Meters;
    tell: (event: Events) => void;
    /** The external table of contents of the layer with this digest: JSON. */
    externalToc: (digest: string) => Promise<Uint8Array>;
}

/** A part of a file to read. */
export interface Part {
    file: number;
    offset: number;
    length: number;
    /** For messages. */
    path: string;
}

/** Content, at most 1 MiB. */
export interface Content {
    /** Position in the list of parts. */
    part: number;
    offset: number;
    bytes: Uint8Array;
    assurance: Assurance;
}

export class ImageLayer {
    readonly descriptor: Descriptor;
    readonly facts: LayerFacts;
    readonly #context: Context;
    #layer: Layer | null = null;
    #opening: Promise<void> | null = null;
    #chunks: ChunkTables | null = null;
    #downloading: Promise<void> | null = null;
    readonly #fetching = new Map<string, Promise<Uint8Array>>();
    /** The content of an ordinary layer. */
    #local: LocalContent | null = null;

    constructor(context: Context, descriptor: Descriptor, index: number, command: string) {
        this.#context = context;
        this.descriptor = descriptor;
        this.facts = {
            index,
            digest: descriptor.digest,
            mediaType: descriptor.mediaType,
            size: Number(descriptor.size),
            command,
            state: 'opening',
            problem: null,
            format: null,
            entries: 0,
            content: 0,
            tocDigest: null,
            assurance: null,
            changes: null,
            progress: 0,
        };
    }

    /** The engine's layer, once it is open. */
    get layer(): Layer | null {
        return this.#layer;
    }

    /** Tells the page what is known now. */
    told(change: Partial<LayerFacts>): void {
        Object.assign(this.facts, change);
        this.#context.tell({ type: 'layer', layer: { ...this.facts } });
    }

    /** Opens the layer; with `again` once more, after a failure that may have passed. Never fails: `facts` say how it went. */
    open(again = false): Promise<void> {
        const { problem: why } = this.facts;
        if (again && why && isTransient(why)) return this.reopen();
        return (this.#opening ??= this.#open());
    }

    /** Opens the layer once more, whatever the failure was. */
    reopen(): Promise<void> {
        if (this.facts.state === 'failed') this.#opening = null;
        return this.open();
    }

    async #open(): Promise<void> {
        if (this.facts.state !== 'opening') this.told({ state: 'opening', problem: null });
        try {
            this.#use(await this.#read());
        } catch (thrown) {
            const why = asProblem(thrown);
            if (why.kind === 'not-lazy' && (await this.#downloaded())) return;
            this.told({ state: why.kind === 'not-lazy' ? 'ordinary' : 'failed', problem: why });
        }
    }

    /** Downloads an ordinary layer. */
    download(): Promise<void> {
        return (this.#downloading ??= this.#download().finally(() => (this.#downloading = null)));
    }

    async #download(): Promise<void> {
        await this.open(true);
        if (this.#layer) return;
        const { root, source, meter } = this.#context;
        const { index, size, problem: before } = this.facts;
        this.told({ state: 'downloading', progress: 0, problem: null });
        let told = performance.now();
        try {
            this.#useLocal(
                await download(root, source, this.descriptor, (progress) => {
                    if (performance.now() - told < PROGRESS_MS) return;
                    told = performance.now();
                    this.told({ progress });
                }),
            );
            meter.touched(index, 0, size);
        } catch (thrown) {
            const why = { ...asProblem(thrown), layer: index };
            this.told({ state: 'ordinary', problem: before, progress: 0 });
            if (why.kind === 'digest-mismatch') this.#context.tell({ type: 'failure', problem: why, path: null });
            throw new ApiError(why);
        }
    }

    /** Takes what an earlier download left, if it still is sound. */
    async #downloaded(): Promise<boolean> {
        const found = await LocalContent.find(this.descriptor.digest);
        if (!found) return false;
        try {
            this.#useLocal(found);
            return true;
        } catch {
            found.content.close();
            return false;
        }
    }

    #useLocal({ content, toc }: { content: LocalContent; toc: Uint8Array }): void {
        const layer = openLocal(this.#context.root, this.descriptor, content.size, toc);
        this.#local = content;
        this.#use(layer, 'tar');
    }

    /** Takes a layer of the engine as this one. */
    #use(layer: Layer, format?: string): void {
        this.#layer = layer;
        this.#chunks = new ChunkTables(layer);
        const summary = layer.summary();
        this.told({
            state: 'open',
            problem: null,
            format: format ?? summary.format,
            entries: summary.entries,
            tocDigest: summary.tocDigest,
            assurance: summary.assurance,
        });
    }

    /** Reads footer and table of contents. What was kept and turns out wrong is fetched, what was fetched wrong once more. */
    async #read(): Promise<Layer> {
        const { store, tell } = this.#context;
        const key = `toc ${this.descriptor.digest}`;
        const kept = unpack(await store.get(key));
        if (kept) {
            try {
                return await this.#drive(kept, () => Promise.reject(new Error('more is needed than was kept')));
            } catch {
                store.forget(key);
            }
        }
        for (let again = false; ; again = true) {
            const segments: Segment[] = [];
            try {
                const layer = await this.#drive([], async (offset, length) => {
                    const bytes = await this.#fetch(offset, length);
                    segments.push([offset, bytes]);
                    return bytes;
                });
                await store.put(key, pack(segments));
                return layer;
            } catch (thrown) {
                const why = asProblem(thrown);
                if (why.kind !== 'digest-mismatch' && why.kind !== 'malformed') throw thrown;
                if (again) {
                    tell({ type: 'failure', problem: why, path: null });
                    throw thrown;
                }
            }
        }
    }

    async #drive(kept: Segment[], fetch: (offset: number, length: number) => Promise<Uint8Array>): Promise<Layer> {
        const { layers } = this.#context.root;
        const about: About = { layer: this.facts.index };
        const opener: Opener = new layers.Opener(this.descriptor);
        try {
            engine(() => opener.accept('unverified'), about);
            for (;;) {
                const step = engine(() => opener.poll(), about);
                if (step.tag === 'done') return engine(() => layers.Opener.finish(opener), about);
                if (step.tag === 'external-toc') {
                    const json = await this.#context.externalToc(this.descriptor.digest);
                    engine(() => opener.supplyToc(json), about);
                } else if (kept.length > 0) {
                    for (const [offset, bytes] of kept.splice(0)) {
                        engine(() => opener.supply(BigInt(offset), bytes), about);
                        this.#context.meter.cached(bytes.length);
                        this.#context.meter.touched(this.facts.index, offset, bytes.length);
                    }
                } else {
                    await Promise.all(
                        step.val.map(async ({ offset, length }) => {
                            const bytes = await fetch(Number(offset), Number(length));
                            engine(() => opener.supply(offset, bytes), about);
                        }),
                    );
                }
            }
        } finally {
            dispose(opener);
        }
    }

    async #fetch(offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
        const { source, meter } = this.#context;
        const key = `${offset} ${length}`;
        // What is on its way already is not fetched twice; what may be aborted is not shared.
        const fetching = this.#fetching.get(key) ?? source.range(this.descriptor.digest, offset, length, signal);
        if (!signal && !this.#fetching.has(key)) {
            this.#fetching.set(key, fetching);
            fetching.finally(() => this.#fetching.delete(key)).catch(() => undefined);
        }
        const bytes = await fetching;
        meter.touched(this.facts.index, offset, length);
        return bytes;
    }

    /** The chunks of a file. */
    chunks(file: number): ChunkFacts[] {
        return this.#tables().of(file);
    }

    /** Where the content of a file begins in the blob; 0 where it has none there. */
    firstByte(file: number): number {
        return Number(engine(() => this.#layer?.chunks(file, 0, 1))?.chunks[0]?.blobRange?.offset ?? 0);
    }

    #tables(): ChunkTables {
        if (!this.#chunks) throw problem('not-lazy', `Layer ${this.facts.index + 1} is not open.`);
        return this.#chunks;
    }

    /** What reading these parts would fetch now, in whole members. */
    async estimate(parts: Part[]): Promise<Cost> {
        const { store } = this.#context;
        const members = new Map<number, number>();
        const known = new Map<number, number>();
        const slices = new Slices();
        for (const { file, offset, length } of parts) {
            await slices.breathe();
            for (const chunk of this.#tables().covering(file, offset, length)) {
                if (chunk.blobOffset === null || chunk.blobLength === null) continue;
                const isKept = this.#local !== null || (chunk.digest !== null && store.has(chunk.digest));
                const into = isKept ? known : members;
                into.set(chunk.blobOffset, Math.max(into.get(chunk.blobOffset) ?? 0, chunk.blobLength));
            }
        }
        return { ...requests(members), kept: [...known.values()].reduce((sum, length) => sum + length, 0) };
    }

    /**
     * Reads parts of files, one after the other. Whole chunks are read, since only they can be checked, and kept once they
     * were. `signal` aborts what is being fetched.
     */
    async *read(parts: Part[], signal?: AbortSignal): AsyncGenerator<Content, void, undefined> {
        const layer = this.#layer;
        if (!layer) throw problem('not-lazy', `Layer ${this.facts.index + 1} is not open.`);
        const tables = this.#tables();
        const wanted = parts.map(({ file, offset, length }) => tables.covering(file, offset, length));
        const spans = parts.map(({ file, offset, length }, index) => {
            const first = wanted[index]?.[0];
            const last = wanted[index]?.at(-1);
            const start = first?.offset ?? offset;
            return { file, offset: BigInt(start), length: BigInt(last ? last.offset + last.length - start : length) };
        });
        const reader = engine(() => layer.read(spans), { layer: this.facts.index, path: parts[0]?.path ?? 'this' });
        const fresh = new Set<string>();
        let keeping: { digest: string; pieces: Uint8Array[]; missing: number } | null = null;
        let retried: string | null = null;
        let path = parts[0]?.path ?? '';
        try {
            for (;;) {
                let step;
                try {
                    step = engine(() => reader.poll(0), { layer: this.facts.index, path });
                } catch (thrown) {
                    const why = asProblem(thrown);
                    const what = `${why.blobRange?.offset ?? why.message}`;
                    if (why.kind !== 'digest-mismatch' && why.kind !== 'malformed') throw thrown;
                    if (retried === what) {
                        this.#context.tell({ type: 'failure', problem: why, path });
                        throw thrown;
                    }
                    retried = what;
                    continue;
                }
                if (step.tag === 'done') return;
                if (step.tag === 'need') {
                    await this.#bring(reader, step.val, fresh, signal);
                    continue;
                }
                const { span, bytes, assurance } = step.val;
                const offset = Number(step.val.offset);
                const part = parts[span];
                if (!part) continue;
                path = part.path;
                const chunk = tables.at(part.file, offset);
                if (chunk && chunk.offset === offset && chunk.digest !== null && fresh.has(chunk.digest)) {
                    keeping = { digest: chunk.digest, pieces: [], missing: chunk.length };
                }
                if (keeping) {
                    keeping.pieces.push(bytes);
                    keeping.missing -= bytes.length;
                    if (keeping.missing <= 0) {
                        fresh.delete(keeping.digest);
                        await this.#context.store.put(keeping.digest, concat(keeping.pieces));
                        keeping = null;
                    }
                }
                const from = Math.max(0, part.offset - offset);
                const to = Math.min(bytes.length, part.offset + part.length - offset);
                if (from < to) yield { part: span, offset: offset + from, bytes: bytes.subarray(from, to), assurance };
            }
        } finally {
            dispose(reader);
        }
    }

    /** Brings what a reader needs: from what was kept first, then from where the image is. */
    async #bring(reader: Reader, needs: { blobRange: ByteRange; chunks: string[] }[], fresh: Set<string>, signal?: AbortSignal): Promise<void> {
        const { store, meter } = this.#context;
        let brought = false;
        for (const { blobRange, chunks } of needs) {
            for (const digest of new Set(chunks)) {
                const bytes = (await this.#local?.get(digest)) ?? (await store.get(digest));
                if (!bytes) continue;
                try {
                    reader.supplyChunk(digest, bytes);
                    meter.cached(bytes.length);
                    meter.touched(this.facts.index, Number(blobRange.offset), Number(blobRange.length));
                    brought = true;
                } catch {
                    // It is not what it was when it was kept.
                    store.forget(digest);
                }
            }
        }
        if (brought) return;
        if (this.#local) {
            throw problem('malformed', `What was downloaded of layer ${this.facts.index + 1} was cleared, or is no longer what it was. Open the image again, and download it once more.`, { layer: this.facts.index });
        }
        await Promise.all(
            needs.map(async ({ blobRange: { offset, length }, chunks }) => {
                const bytes = await this.#fetch(Number(offset), Number(length), signal);
                for (const digest of chunks) fresh.add(digest);
                engine(() => reader.supply(offset, bytes), { layer: this.facts.index });
            }),
        );
    }
}
