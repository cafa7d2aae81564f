/** One image: what the page can ask of it. */
import { transfer } from 'comlink';
import type { Access, Events, ImageEngine, Meter, OpenImage, Page, Piece, Place, Row, View } from '../api';
import { Store } from './cache';
import { commands, facts, Library } from './documents';
import { instance } from './instance';
import { ImageLayer, type Context } from './layer';
import { Meters } from './meter';
import { problem } from './problems';
import { concat, Registry } from './registry';
import { streamed } from './streams';
import { Trees, type Node } from './trees';

const LARGEST_PIECE = 8 << 20;

interface Opened {
    context: Context;
    layers: ImageLayer[];
    trees: Trees;
    meter: Meters;
}

export class Image implements Pick<ImageEngine, 'open' | 'children' | 'stat' | 'read' | 'meter' | 'stream' | 'tags' | 'estimate'> {
    #opened: Opened | null = null;

    async open(place: Place, access: Access, platform: string | null, onEvent: (event: Events) => void): Promise<OpenImage> {
        const tell = onEvent;
        const meter = new Meters((now) => tell({ type: 'meter', meter: now }));
        const registry = new Registry(place, access, meter);
        const store = new Store();
        const root = await instance();
        const library = new Library(root, registry, store, place);
        const documents = await library.read(platform);
        const context: Context = { root, registry, store, meter, tell, externalToc: () => Promise.reject(new Error()) };
        const made = commands(documents);
        const layers = documents.layers.map((descriptor, index) => new ImageLayer(context, descriptor, index, made[index] ?? ''));
        meter.layers(layers.map(({ facts: { size } }) => size));
        const trees = new Trees(root, { sizes: () => undefined, change: () => null, removed: () => 0 });
        this.#opened = { context, layers, trees, meter };
        void Promise.all(layers.map((layer) => layer.open())).then(() => trees.stack(layers));
        return { ...facts(place, documents), layers: layers.map((layer) => ({ ...layer.facts })) };
    }

    #image(): Opened {
        if (!this.#opened) throw problem('internal', 'No image is open.');
        return this.#opened;
    }

    /** Waits for the layers of a view. */
    async #ready(view: View): Promise<Opened> {
        const image = this.#image();
        if (view === 'merged') await Promise.all(image.layers.map((layer) => layer.open()));
        else {
            const layer = image.layers[view];
            if (!layer) throw problem('not-found', `The image has no layer ${view}.`);
            await layer.open();
            if (!layer.layer) throw problem(layer.facts.problem?.kind ?? 'not-lazy', layer.facts.problem?.message ?? 'This layer is not open.', layer.facts.problem ?? {});
        }
        image.trees.stack(image.layers);
        return image;
    }

    async children(view: View, path: string, start: number): Promise<Page> {
        return (await this.#ready(view)).trees.children(view, path, start);
    }

    async stat(view: View, path: string, follow: boolean): Promise<Row> {
        return (await this.#ready(view)).trees.row(view, path, follow);
    }

    async #file(view: View, path: string): Promise<Node> {
        const { trees } = await this.#ready(view);
        const node = trees.find(view, path, true);
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
        return layer.estimate([{ file: entry.id, offset, length, path }]);
    }

    async stream(view: View, path: string): Promise<ReadableStream<Uint8Array>> {
        const { layer, entry } = await this.#file(view, path);
        const part = { file: entry.id, offset: 0, length: Number(entry.size), path };
        return streamed(async function* (signal) {
            for await (const { bytes } of layer.read([part], signal)) yield bytes;
        });
    }

    tags(): Promise<string[]> {
        return this.#image().context.registry.tags();
    }

    async meter(): Promise<Meter> {
        return this.#image().meter.now();
    }
}
