/** What is found out of the layers in the background, in slices: sizes of directories, content, changes. */
import type { Change, Changes, View } from '../api';
import { append } from './groups';
import { dispose, type Entry } from './instance';
import type { ImageLayer } from './layer';
import { ancestors } from './paths';
import { Slices } from './slices';
import type { Trees } from './trees';

/** What a layer changes in those below it. */
interface Changed {
    /** `null` for the lowest, which adds all that it has. */
    paths: Map<string, Change> | null;
    /** For each path how many removed ones are there or below. */
    removed: Map<string, number>;
}

export class Facts {
    readonly #sizes = new Map<View, Map<string, number>>();
    readonly #changed = new Map<number, Changed>();
    readonly #names = new Map<number, Map<number, string[]>>();

    sizes(view: View): Map<string, number> | undefined {
        return this.#sizes.get(view);
    }

    change(layer: number, path: string): Change | null {
        const changed = this.#changed.get(layer);
        if (!changed) return null;
        return changed.paths ? (changed.paths.get(path) ?? null) : path === '/' ? null : 'added';
    }

    removed(layer: number, path: string): number {
        return this.#changed.get(layer)?.removed.get(path) ?? 0;
    }

    /** Forgets what depends on which layers are open. */
    restack(): void {
        this.#sizes.delete('merged');
        this.#changed.clear();
    }

    /** Adds up the sizes of directories: of every file once in each directory that has a name of it. */
    async measure(view: View, trees: Trees): Promise<void> {
        const sizes = new Map<string, number>([['/', 0]]);
        const add = (path: string, size: number): void => {
            for (const directory of ancestors(path)) sizes.set(directory, (sizes.get(directory) ?? 0) + size);
        };
        /** Files with several names, and the directories that have been told of them. */
        const linked = new Map<string, Set<string>>();
        for await (const { path, layer, entry } of walk(view, trees)) {
            if (entry.kind.tag === 'directory') sizes.set(path, sizes.get(path) ?? 0);
            if (entry.kind.tag !== 'regular') continue;
            const size = Number(entry.size);
            if (entry.links < 2) {
                add(path, size);
                continue;
            }
            const key = `${layer.facts.index} ${entry.id}`;
            const told = linked.get(key) ?? new Set<string>();
            linked.set(key, told);
            for (const directory of ancestors(path)) {
                if (told.has(directory)) continue;
                told.add(directory);
                sizes.set(directory, (sizes.get(directory) ?? 0) + size);
            }
        }
        this.#sizes.set(view, sizes);
    }

    /** Plain bytes of the regular files of a layer. */
    async content({ layer, facts }: ImageLayer): Promise<number> {
        const slices = new Slices();
        let sum = 0;
        for (let id = 0; layer && id < facts.entries; id += 1000) {
            const ids = Uint32Array.from({ length: Math.min(1000, facts.entries - id) }, (_, index) => id + index);
            for (const { kind, size } of layer.stat(ids)) if (kind.tag === 'regular') sum += Number(size);
            await slices.breathe();
        }
        return sum;
    }

    /** Counts what a layer changes. `position` is its place among the open layers. */
    async compare(position: number, trees: Trees): Promise<Changes> {
        const slices = new Slices();
        const counts: Changes = { added: 0, modified: 0, 'metadata-only': 0, duplicated: 0, removed: 0 };
        const paths = position === 0 ? null : new Map<string, Change>();
        const removed = new Map<string, number>();
        const index = trees.open[position]?.facts.index;
        const differences = trees.merged.differences(position);
        try {
            for (let some; (some = differences.next(500)).length > 0; await slices.breathe()) {
                for (const { path, change } of some) {
                    counts[change] += 1;
                    paths?.set(path, change);
                    if (change !== 'removed') continue;
                    removed.set(path, (removed.get(path) ?? 0) + 1);
                    for (const directory of ancestors(path)) removed.set(directory, (removed.get(directory) ?? 0) + 1);
                }
            }
        } finally {
            dispose(differences);
        }
        if (index !== undefined) this.#changed.set(index, { paths, removed });
        return counts;
    }

    /** All names of the files of a layer that have several. */
    async names(layer: ImageLayer, trees: Trees): Promise<Map<number, string[]>> {
        const known = this.#names.get(layer.facts.index);
        if (known) return known;
        const names = new Map<number, string[]>();
        for await (const { path, entry } of walk(layer.facts.index, trees)) {
            if (entry.kind.tag === 'directory' || entry.links < 2) continue;
            append(names, entry.id, path);
        }
        this.#names.set(layer.facts.index, names);
        return names;
    }
}

/** Everything below a directory, a directory before what is in it, in slices. In the view of a layer whiteouts are there, too. */
export async function* walk(view: View, trees: Trees, top = '/'): AsyncGenerator<{ path: string; layer: ImageLayer; entry: Entry }, void, undefined> {
    const slices = new Slices();
    const { layer: topLayer, entry } = trees.find(view, top, true);
    const at = trees.resolve(view, top) ?? top;
    if (view === 'merged') {
        // Positions count the layers that are merged now, whatever is opened meanwhile.
        const { open } = trees;
        const walking = trees.merged.walk({ layer: open.indexOf(topLayer), entry: entry.id }, '');
        try {
            for (let some; (some = walking.next(500)).length > 0; await slices.breathe()) {
                for (const { path, target } of some) {
                    const layer = open[target.layer];
                    if (layer) yield { path, layer, entry: target.entry };
                }
            }
        } finally {
            dispose(walking);
        }
        return;
    }
    const { layer } = topLayer;
    if (!layer) return;
    const left: { path: string; id: number; start: number }[] = [{ path: at, id: entry.id, start: 0 }];
    for (let directory; (directory = left.pop()); await slices.breathe()) {
        const { path, id, start } = directory;
        const page = layer.children(id, start, 500);
        const inner: typeof left = [];
        for (const found of page.entries) {
            const child = path === '/' ? `/${found.name}` : `${path}/${found.name}`;
            yield { path: child, layer: topLayer, entry: found.entry };
            if (found.entry.kind.tag === 'directory') inner.push({ path: child, id: found.entry.id, start: 0 });
        }
        if (page.next !== undefined) left.push({ path, id, start: page.next });
        // Directories of this page before its next one; the last pushed comes first.
        left.push(...inner.reverse());
    }
}
