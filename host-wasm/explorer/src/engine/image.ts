/** One image: what the page can ask of it. */
import { transfer } from 'comlink';
import type { Access, Cost, Details, Difference, Efficiency, Events, Found, Hears, ImageEngine, LayerFacts, Listed, Meter, OpenImage, Page, Piece, Place, Progress, Row, View } from '../api';
import { concat } from './bytes';
import { Store } from './cache';
import { differences } from './differences';
import { commands, facts, Library } from './documents';
import { Facts } from './findings';
import { Inspector } from './inspect';
import { instance } from './instance';
import { ImageLayer, type Context } from './layer';
import { listed, listing } from './listing';
import { Meters } from './meter';
import { Pages } from './pages';
import { problem } from './problems';
import { search } from './search';
import { source as sourceOf } from './source';
import { streamed } from './streams';
import { cost, plan, write } from './tar';
import { TocImage } from './toc-image';
import { Trees, type Node } from './trees';
import { verify } from './verify';
import { efficiency } from './waste';

const LARGEST_PIECE = 8 << 20;

export class Image implements ImageEngine {
    #opened: Opened | null = null;
    #searches = 0;

    async open(place: Place, access: Access, platform: string | null, onEvent: (event: Events) => void): Promise<OpenImage> {
        if (this.#opened) throw problem('internal', 'This engine has opened an image already.');
        const meter = new Meters((now) => onEvent({ type: 'meter', meter: now }));
        // What is on this computer already is not kept once more.
        const [root, store, source] = await Promise.all([instance(), access.file ? Store.brief() : Store.open(), sourceOf(place, access, meter)]);
        const library = new Library(root, source, store, place);
        const documents = await library.read(platform);
        const tocs = new TocImage(root, library, place);
        const context: Context = { root, source, store, meter, tell: onEvent, externalToc: (digest) => tocs.toc(digest) };
        const made = commands(documents);
        const layers = documents.layers.map((descriptor, index) => new ImageLayer(context, descriptor, index, made[index] ?? ''));
        meter.layers(layers.map(({ facts: { size } }) => size));
        this.#opened = new Opened(context, layers);
        void this.#opened.settled();
        return { ...facts(place, documents), layers: layers.map((layer) => ({ ...layer.facts })) };
    }

    /** Writes what is to be kept; before the worker ends. */
    async close(): Promise<void> {
        await this.#opened?.context.store.close();
    }

    #image(): Opened {
        if (!this.#opened) throw problem('internal', 'No image is open.');
        return this.#opened;
    }

    async children(view: View, path: string, start: number): Promise<Page> {
        return (await this.#image().ready(view)).children(view, path, start);
    }

    async stat(view: View, path: string, follow: boolean): Promise<Row> {
        return (await this.#image().ready(view)).row(view, path, follow);
    }

    async details(view: View, path: string): Promise<Details> {
        await this.#image().ready(view);
        await this.#image().ready('merged');
        return this.#image().inspector.details(view, path);
    }

    async packageOf(path: string): Promise<string | null> {
        await this.#image().ready('merged');
        return this.#image().inspector.packageOf(path);
    }

    async #file(view: View, path: string): Promise<Node> {
        const node = (await this.#image().ready(view)).find(view, path, true);
        if (node.entry.kind.tag !== 'regular') throw problem('wrong-kind', `${path} is no file with content.`);
        return node;
    }

    async read(view: View, path: string, offset: number, length: number): Promise<Piece> {
        const { layer, entry } = await this.#file(view, path);
        const most = Math.max(0, Math.min(length, LARGEST_PIECE, Number(entry.size) - offset));
        const pieces: Uint8Array[] = [];
        let { assurance } = layer.facts;
        if (most > 0) {
            for await (const content of layer.read([{ file: entry.id, offset, length: most, path }])) {
                pieces.push(content.bytes);
                ({ assurance } = content);
            }
        }
        const bytes = concat(pieces);
        return transfer({ bytes, assurance: assurance ?? 'unverified' }, [bytes.buffer]);
    }

    async estimate(view: View, path: string, offset: number, length: number): Promise<number> {
        const { layer, entry } = await this.#file(view, path);
        return (await layer.estimate([{ file: entry.id, offset, length, path }])).bytes;
    }

    async cost(view: View, path: string, only?: string[]): Promise<Cost> {
        return cost(await plan(await this.#image().ready(view), view, path, only));
    }

    async stream(view: View, path: string): Promise<ReadableStream<Uint8Array>> {
        const { layer, entry } = await this.#file(view, path);
        const part = { file: entry.id, offset: 0, length: Number(entry.size), path };
        return streamed(async function* (signal) {
            if (part.length === 0) return;
            for await (const { bytes } of layer.read([part], signal)) yield bytes;
        });
    }

    async tar(view: View, path: string, only?: string[]): Promise<ReadableStream<Uint8Array>> {
        const trees = await this.#image().ready(view);
        const planned = await plan(trees, view, path, only);
        return streamed((signal) => write(planned, trees, signal));
    }

    async search(query: string, onPage: Hears<Found[]>): Promise<number> {
        this.#searches += 1;
        const mine = this.#searches;
        return search(await this.#image().ready('merged'), query, onPage, () => mine !== this.#searches);
    }

    async cancelSearch(): Promise<void> {
        this.#searches += 1;
    }

    async efficiency(): Promise<Efficiency> {
        return efficiency(await this.#image().ready('merged'));
    }

    differences(layer: number, start: number): ReturnType<ImageEngine['differences']> {
        return this.#image().differences(layer, start);
    }

    listing(start: number): ReturnType<ImageEngine['listing']> {
        return this.#image().listing(start);
    }

    async listed(path: string): Promise<Listed | null> {
        const trees = await this.#image().ready('merged');
        const node = trees.at('merged', path);
        return node && listed(trees, path, node);
    }

    async reopen(layer: number): Promise<LayerFacts> {
        const found = this.#image().layer(layer);
        await found.reopen();
        await this.#image().settled();
        return { ...found.facts };
    }

    async download(layer: number): Promise<LayerFacts> {
        const found = this.#image().layer(layer);
        await found.download();
        await this.#image().settled();
        return { ...found.facts };
    }

    async verify(layer: number, onProgress: Hears<Progress>): Promise<void> {
        await this.#image().ready(layer);
        await verify(this.#image().layer(layer), onProgress);
    }

    tags(): Promise<string[]> {
        return this.#image().context.source.tags();
    }

    async meter(): Promise<Meter> {
        return this.#image().context.meter.now();
    }
}

/** An image whose layers are open or being opened, and what is found out of them in the background. */
class Opened {
    readonly context: Context;
    readonly inspector: Inspector;
    readonly #layers: ImageLayer[];
    readonly #trees: Trees;
    readonly #facts = new Facts();
    readonly #measured = new Set<View>();
    readonly #counted = new Set<ImageLayer>();
    readonly #differences = new Pages<number, Difference>((position) => differences(this.#trees, position));
    readonly #listing = new Pages<null, Listed>(() => listing(this.#trees));

    constructor(context: Context, layers: ImageLayer[]) {
        this.context = context;
        this.#layers = layers;
        this.#trees = new Trees(context.root, layers, {
            sizes: (view) => this.#facts.sizes(view),
            change: (layer, path) => this.#facts.change(layer, path),
            removed: (layer, path) => this.#facts.removed(layer, path),
        });
        this.inspector = new Inspector(this.#trees, this.#facts);
    }

    layer(index: number): ImageLayer {
        const layer = this.#layers[index];
        if (!layer) throw problem('not-found', `The image has no layer ${index + 1}.`);
        return layer;
    }

    /** Opens all layers that can be, the top ones first, and merges them. */
    async settled(): Promise<void> {
        await Promise.all([...this.#layers].reverse().map((layer) => layer.open()));
        if (!this.#trees.stack()) return;
        this.#facts.restack();
        this.inspector.restack();
        this.#measured.delete('merged');
        await Promise.all([this.#differences.restart(), this.#listing.restart()]);
        void this.#explore();
    }

    /** The trees, once that of a view is there. */
    async ready(view: View): Promise<Trees> {
        if (view === 'merged') await this.settled();
        else {
            const layer = this.layer(view);
            await layer.open(true);
            const why = layer.facts.problem;
            if (!layer.layer) throw problem(why?.kind ?? 'not-lazy', why?.message ?? 'This layer is not open.', why ?? {});
            void this.#measure(view);
        }
        return this.#trees;
    }

    async differences(layer: number, start: number): ReturnType<ImageEngine['differences']> {
        await this.ready('merged');
        const position = this.#trees.open.indexOf(this.layer(layer));
        if (position < 0) throw problem('not-lazy', `Layer ${layer + 1} is not open.`);
        return this.#differences.page(position, start);
    }

    async listing(start: number): ReturnType<ImageEngine['listing']> {
        await this.ready('merged');
        return this.#listing.page(null, start);
    }

    /** Finds out what rows and layers lack still; gives up when other layers are merged. */
    async #explore(): Promise<void> {
        const { open } = this.#trees;
        if (open.length === 0) return;
        const current = (): boolean => open === this.#trees.open;
        await this.#measure('merged');
        for (const [position, layer] of open.entries()) {
            if (!current()) return;
            if (!this.#counted.has(layer)) {
                this.#counted.add(layer);
                layer.told({ content: await this.#facts.content(layer) });
            }
            const changes = await this.#facts.compare(position, this.#trees);
            if (current()) layer.told({ changes });
        }
    }

    async #measure(view: View): Promise<void> {
        if (this.#measured.has(view)) return;
        this.#measured.add(view);
        await this.#facts.measure(view, this.#trees);
        this.context.tell({ type: 'sizes', view });
    }
}
