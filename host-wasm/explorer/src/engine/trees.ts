/** The trees of an image: of each layer alone, and of all together. */
import type { Change, Page, Row, View } from '../api';
import { append } from './groups';
import { dispose, type Entry, type Located, type Root, type Rootfs } from './instance';
import type { ImageLayer } from './layer';
import { base, below, names, normal } from './paths';
import { engine, problem } from './problems';

const PAGE = 1000;
const LINKS_A_CALL = 200;
const MOST_LINKS = 40;

/** An object, and the layer that has it. */
export interface Node {
    layer: ImageLayer;
    entry: Entry;
}

/** What is found out in the background, for rows. */
export interface Findings {
    /** Sizes of directories by path. */
    sizes: (view: View) => Map<string, number> | undefined;
    /** How a layer changes a path. */
    change: (layer: number, path: string) => Change | null;
    /** How many paths a layer removes at or below a path. */
    removed: (layer: number, path: string) => number;
}

export class Trees {
    readonly #root: Root;
    readonly #findings: Findings;
    readonly #layers: readonly ImageLayer[];
    /** Those that are merged, the bottom one first. */
    #open: readonly ImageLayer[] = [];
    #merged: Rootfs | null = null;
    readonly #alone = new Map<number, Rootfs>();

    constructor(root: Root, layers: readonly ImageLayer[], findings: Findings) {
        this.#root = root;
        this.#layers = layers;
        this.#findings = findings;
    }

    /** Merges the layers that are open now, and says whether they are others than before. */
    stack(): boolean {
        const open = this.#layers.filter(({ layer }) => layer !== null);
        if (this.#merged && open.length === this.#open.length) return false;
        dispose(this.#merged);
        this.#open = open;
        this.#merged = new this.#root.overlay.Rootfs(open.flatMap(({ layer }) => (layer ? [layer] : [])));
        return true;
    }

    /** The layers that are merged: positions in the merged tree count these. */
    get open(): readonly ImageLayer[] {
        return this.#open;
    }

    get merged(): Rootfs {
        if (!this.#merged || this.#open.length === 0) {
            throw problem('not-lazy', 'No layer of this image is open: ordinary ones have to be downloaded whole first.');
        }
        return this.#merged;
    }

    #rootfs(view: View, layer: ImageLayer | undefined): Rootfs {
        if (view === 'merged') return this.merged;
        let alone = this.#alone.get(view);
        if (!alone) {
            if (!layer?.layer) throw problem('not-lazy', `Layer ${view + 1} is not open.`, { layer: view });
            alone = new this.#root.overlay.Rootfs([layer.layer]);
            this.#alone.set(view, alone);
        }
        return alone;
    }

    #located(view: View, { layer, entry }: Located): Node {
        const of = view === 'merged' ? this.#open[layer] : this.#layers[view];
        if (!of) throw problem('internal', 'The engine named a layer that there is not.');
        return { layer: of, entry };
    }

    #layer(view: View): ImageLayer | undefined {
        return view === 'merged' ? undefined : this.#layers[view];
    }

    /** The object at a path. */
    find(view: View, path: string, follow: boolean): Node {
        const layer = this.#layer(view);
        const at = layer?.layer && follow ? this.resolve(view, path) : path;
        if (layer?.layer && at !== null) {
            // Whiteouts and opaque directories are in no merged tree, not even in that of one layer.
            const { layer: own } = layer;
            try {
                return { layer, entry: own.lookup(at) };
            } catch {
                // Perhaps there is a symbolic link on the way.
            }
        }
        return this.#located(view, engine(() => this.#rootfs(view, layer).lookup(path, follow), { path }));
    }

    /** The path that a path leads to in the end; `null` when to nothing. */
    resolve(view: View, path: string, follow = true): string | null {
        let left = names(path).reverse();
        let at: string[] = [];
        let links = 0;
        while (left.length > 0) {
            const name = left.pop() ?? '';
            if (name === '..') {
                at.pop();
                continue;
            }
            at.push(name);
            const here = `/${at.join('/')}`;
            const node = this.at(view, here);
            if (!node) return null;
            if (node.entry.kind.tag === 'symlink' && (follow || left.length > 0)) {
                links += 1;
                if (links > MOST_LINKS) return null;
                const target = this.target(node);
                at = target.startsWith('/') ? [] : at.slice(0, -1);
                left = [...left, ...target.split('/').filter((part) => part !== '' && part !== '.').reverse()];
            } else if (node.entry.kind.tag !== 'directory' && left.length > 0) return null;
        }
        return `/${at.join('/')}`;
    }

    /** The object at a path, links not followed; `null` where there is none. */
    at(view: View, path: string): Node | null {
        try {
            return this.find(view, path, false);
        } catch {
            return null;
        }
    }

    /** Where a symbolic link points. */
    target({ layer, entry }: Node): string {
        return engine(() => layer.layer?.readLinks(new Uint32Array([entry.id])))?.[0] ?? '';
    }

    /** The row of an object. With `follow`, that of what a symbolic link leads to. */
    row(view: View, path: string, follow: boolean): Row {
        const node = this.find(view, path, follow);
        const where = this.resolve(view, path, follow) ?? normal(path);
        return this.rows(view, [{ path: where, node }])[0] as Row;
    }

    /** The names in a directory. */
    children(view: View, path: string, start: number): Page {
        const directory = this.find(view, path, true);
        const at = this.resolve(view, path) ?? normal(path);
        const own = this.#layer(view);
        let found: { path: string; node: Node }[];
        let next: number | undefined;
        if (own?.layer) {
            const { layer } = own;
            const page = engine(() => layer.children(directory.entry.id, start, PAGE), { path });
            found = page.entries.map(({ name, entry }) => ({ path: below(at, name), node: { layer: own, entry } }));
            next = page.next;
        } else {
            const location = { layer: this.#open.indexOf(directory.layer), entry: directory.entry.id };
            const page = engine(() => this.merged.children(location, start, PAGE), { path });
            found = page.entries.map(({ name, target }) => ({ path: below(at, name), node: this.#located(view, target) }));
            next = page.next;
        }
        return { rows: this.rows(view, found), next: next ?? null };
    }

    /** Rows of objects. */
    rows(view: View, objects: { path: string; node: Node }[]): Row[] {
        const targets = this.#targets(objects.map(({ node }) => node));
        const sizes = this.#findings.sizes(view);
        return objects.map(({ path, node }): Row => {
            const { layer, entry } = node;
            const { index } = layer.facts;
            const { kind } = entry;
            const target = targets.get(node) ?? null;
            const inLayer = view !== 'merged';
            const hiding = inLayer && (kind.tag === 'whiteout' || entry.opaque);
            return {
                name: base(path),
                path,
                kind: kind.tag,
                size: kind.tag === 'directory' ? (sizes?.get(path) ?? null) : Number(entry.size),
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                modified: Number(entry.modified.seconds) + entry.modified.nanoseconds / 1e9,
                links: entry.links,
                target,
                resolved: target === null ? null : this.resolve(this.#merged ? 'merged' : view, path),
                device: 'val' in kind ? `${kind.val.major}:${kind.val.minor}` : null,
                layer: index,
                change: inLayer ? this.#findings.change(index, path) : null,
                opaque: entry.opaque,
                hides: hiding ? this.#findings.removed(index, path) : 0,
            };
        });
    }

    /** Targets of the symbolic links among objects, few calls for many. */
    #targets(nodes: Node[]): Map<Node, string> {
        const links = new Map<ImageLayer, Node[]>();
        for (const node of nodes) {
            if (node.entry.kind.tag !== 'symlink') continue;
            append(links, node.layer, node);
        }
        const targets = new Map<Node, string>();
        for (const [{ layer }, list] of links) {
            for (let from = 0; from < list.length && layer; from += LINKS_A_CALL) {
                const some = list.slice(from, from + LINKS_A_CALL);
                const read = engine(() => layer.readLinks(new Uint32Array(some.map(({ entry }) => entry.id))));
                some.forEach((node, index) => targets.set(node, read[index] ?? ''));
            }
        }
        return targets;
    }
}
