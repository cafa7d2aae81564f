/**
 * Images as file systems, for scripts and tests: `window.lazystar`.
 *
 * ```js
 * const image = await lazystar.open('docker.io/library/golang:1.25');
 * new TextDecoder().decode(await image.read('/etc/os-release'));
 * for (const { name, size } of await image.readdir('/usr/bin')) console.log(name, size);
 * await image.close();
 * ```
 *
 * `lazystar.image` is the image that the page shows, or `null`. Every call may throw an `ApiError`, whose `problem` says
 * what happened. All content is verified before it is given out.
 */
import { proxy, type Remote } from 'comlink';
import { ApiError, type Access, type CacheFacts, type Details, type Events, type Found, type ImageEngine, type LayerFacts, type Meter, type OpenImage, type Place, type Row, type View } from './api';
import { cacheFacts, clearCache } from './engine/cache';
import { startEngine } from './engine/client';
import { startService } from './fs-service';
import { parseReference, placeOf } from './reference';
import { server } from './server';

/** How to open an image. */
export interface OpenOptions {
    /** `OS/ARCHITECTURE[/VARIANT]`, or the digest of a manifest. */
    platform?: string;
    /** The path of a proxy, as `Access.proxy`; otherwise that of this page's server, if it has one. */
    proxy?: string | null;
    /** `Basic …`, when registries are asked directly. */
    authorization?: string;
    /** Hears what the engine tells. */
    onEvent?: (event: Events) => void;
}

/** Which tree a path is of. */
export interface Where {
    /** A layer, counted from the bottom; the merged tree unless set. */
    view?: View;
}

const PIECE = 8 << 20;

/** An open image. */
export class VirtualImage {
    readonly place: Place;
    /** The digest of its manifest. */
    readonly digest: string;
    /** All that the engine can do. Callbacks have to be comlink proxies. */
    readonly engine: Remote<ImageEngine>;
    readonly #close: () => Promise<void>;

    constructor({ place, digest, engine }: Shown, close: () => Promise<void>) {
        this.place = place;
        this.digest = digest;
        this.engine = engine;
        this.#close = close;
    }

    /** What is at a path. A symbolic link at its end is followed unless `follow` is false. */
    stat(path: string, { view = 'merged', follow = true }: Where & { follow?: boolean } = {}): Promise<Row> {
        return this.engine.stat(view, path, follow);
    }

    /** All names in a directory. */
    async readdir(path: string, { view = 'merged' }: Where = {}): Promise<Row[]> {
        const rows: Row[] = [];
        for (let start: number | null = 0; start !== null; ) {
            const page: Awaited<ReturnType<ImageEngine['children']>> = await this.engine.children(view, path, start);
            rows.push(...page.rows);
            start = page.next;
        }
        return rows;
    }

    /** The bytes of a file, or `length` of them from `offset` on. */
    async read(path: string, { view = 'merged', offset = 0, length }: Where & { offset?: number; length?: number } = {}): Promise<Uint8Array> {
        const { size } = await this.stat(path, { view });
        const end = Math.min(size ?? 0, length === undefined ? Infinity : offset + length);
        const all = new Uint8Array(Math.max(0, end - offset));
        for (let at = offset; at < end; ) {
            const { bytes } = await this.engine.read(view, path, at, Math.min(PIECE, end - at));
            if (bytes.length === 0) throw new ApiError({ kind: 'internal', message: `${path} ended early.` });
            all.set(bytes, at - offset);
            at += bytes.length;
        }
        return all;
    }

    /** A whole file, as it is fetched and verified. */
    stream(path: string, { view = 'merged' }: Where = {}): Promise<ReadableStream<Uint8Array>> {
        return this.engine.stream(view, path);
    }

    /** A directory or file as a tar; with `only` no more of it than these paths below it. */
    tar(path: string, { view = 'merged', only }: Where & { only?: string[] } = {}): Promise<ReadableStream<Uint8Array>> {
        return this.engine.tar(view, path, only);
    }

    details(path: string, { view = 'merged' }: Where = {}): Promise<Details> {
        return this.engine.details(view, path);
    }

    /** All that a search finds, see `ImageEngine.search`. */
    async search(query: string): Promise<Found[]> {
        const found: Found[] = [];
        await this.engine.search(query, proxy((page: Found[]) => void found.push(...page)));
        return found;
    }

    /** Reads and checks all of a layer. */
    verify(layer: number, onProgress: (progress: { done: number; total: number }) => void = () => undefined): Promise<void> {
        return this.engine.verify(layer, proxy(onProgress));
    }

    /** Downloads an ordinary layer, after which it is as readable as the others. */
    download(layer: number): Promise<LayerFacts> {
        return this.engine.download(layer);
    }

    /**
     * Where the service worker of the page serves a file, for as long as the image is open; with `?download` as attachment,
     * and with `?tar` a directory or file as a tar, with `&only=NAME` no more of it than these names in it.
     */
    url(path: string): string {
        const names = path.split('/').filter((name) => name !== '');
        return new URL(['fs', ...this.name.split('/'), ...names].map(encodeURIComponent).join('/'), document.baseURI).href;
    }

    /** `REGISTRY/REPOSITORY@DIGEST`. */
    get name(): string {
        return `${this.place.registry}/${this.place.repository}@${this.digest}`;
    }

    meter(): Promise<Meter> {
        return this.engine.meter();
    }

    /** Ends the engine, if this image was opened here, after it wrote what is to be kept. */
    async close(): Promise<void> {
        opened.delete(this);
        await this.#close();
    }
}

/** What the page shows. */
export interface Shown {
    place: Place;
    digest: string;
    engine: Remote<ImageEngine>;
}

/** `window.lazystar`. */
export interface Lazystar {
    /** Opens an image in an engine of its own; a file is an archive of images or a layer. */
    open(image: string | Place | File, options?: OpenOptions): Promise<VirtualImage & { facts: OpenImage }>;
    /** What the page shows. */
    image: VirtualImage | null;
    /** What the browser keeps of all images. */
    cache: { facts(): Promise<CacheFacts>; clear(): Promise<void> };
}

declare global {
    interface Window {
        lazystar: Lazystar;
    }
}

const opened = new Set<VirtualImage>();

/** Starts the service worker that serves files of open images and keeps the page's own files. Harmless where there are none. */
export function registerServiceWorker(): Promise<void> {
    return startService((name) => [...opened].find((image) => image.name === name));
}

/** Makes the image that the page shows `lazystar.image`; `null` when it shows none. */
export function publish(shown: Shown | null): void {
    if (lazystar.image) opened.delete(lazystar.image);
    lazystar.image = shown && new VirtualImage(shown, async () => undefined);
    if (lazystar.image) opened.add(lazystar.image);
}

const lazystar: Lazystar = {
    async open(image, options = {}) {
        const file = image instanceof File ? image : undefined;
        const place = image instanceof File ? placeOf(image) : typeof image === 'string' ? parseReference(image) : image;
        if (!place) throw new ApiError({ kind: 'not-found', message: `${String(image)} is no name of an image.` });
        const { platform = null, authorization, onEvent = () => undefined } = options;
        const access: Access = { proxy: options.proxy === undefined ? (await server).proxy : options.proxy, authorization, file };
        const { engine, close } = startEngine();
        try {
            const facts = await engine.open(place, access, platform, proxy(onEvent));
            const virtual = new VirtualImage({ place, digest: facts.digest, engine }, close);
            opened.add(virtual);
            return Object.assign(virtual, { facts });
        } catch (thrown) {
            void close();
            throw thrown;
        }
    },
    image: null,
    cache: { facts: cacheFacts, clear: clearCache },
};

window.lazystar = lazystar;
