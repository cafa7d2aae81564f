/** The chunks of files, by which content is checked and kept. */
import type { Layer } from './instance';
import { engine } from './problems';

export interface ChunkFacts {
    offset: number;
    length: number;
    /** Where the member that holds it is; `null` for zeros, which are not stored. */
    blobOffset: number | null;
    blobLength: number | null;
    digest: string | null;
}

const REMEMBERED = 16;

export class ChunkTables {
    readonly #layer: Layer;
    readonly #tables = new Map<number, ChunkFacts[]>();

    constructor(layer: Layer) {
        this.#layer = layer;
    }

    /** All chunks of a file, in its order. */
    of(file: number): ChunkFacts[] {
        const known = this.#tables.get(file);
        if (known) return known;
        const table: ChunkFacts[] = [];
        for (let start: number | undefined = 0; start !== undefined; ) {
            const from: number = start;
            const page = engine(() => this.#layer.chunks(file, from, 1000));
            for (const { offset, length, blobRange, digest } of page.chunks) {
                table.push({
                    offset: Number(offset),
                    length: Number(length),
                    blobOffset: blobRange ? Number(blobRange.offset) : null,
                    blobLength: blobRange ? Number(blobRange.length) : null,
                    digest: digest ?? null,
                });
            }
            start = page.next;
        }
        if (this.#tables.size >= REMEMBERED) this.#tables.delete(this.#tables.keys().next().value ?? file);
        this.#tables.set(file, table);
        return table;
    }

    /** Those with something of a part of a file. */
    covering(file: number, offset: number, length: number): ChunkFacts[] {
        const table = this.of(file);
        const first = position(table, offset);
        let end = first;
        while (end < table.length && (table[end]?.offset ?? 0) < offset + length) end += 1;
        return table.slice(first, end);
    }

    /** The one that a position is in. */
    at(file: number, offset: number): ChunkFacts | undefined {
        const table = this.of(file);
        return table[position(table, offset)];
    }
}

/** The first chunk that ends after `offset`. */
function position(table: ChunkFacts[], offset: number): number {
    let [low, high] = [0, table.length];
    while (low < high) {
        const middle = (low + high) >>> 1;
        const chunk = table[middle];
        if (chunk && chunk.offset + chunk.length > offset) high = middle;
        else low = middle + 1;
    }
    return low;
}
