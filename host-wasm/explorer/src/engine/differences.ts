/** What layers change, in pages. */
import type { ImageEngine } from '../api';
import type { Differences as Handle } from '../generated/simd/interfaces/lazystar-engine-overlay.js';
import { dispose } from './instance';
import { Slices } from './slices';
import type { Trees } from './trees';

const PAGE = 1000;

/** Keeps the place where the last page ended, since the engine only goes on. */
export class Differences {
    readonly #trees: Trees;
    #handle: Handle | null = null;
    #position = -1;
    #at = 0;

    constructor(trees: Trees) {
        this.#trees = trees;
    }

    /** Of the layer with this position in the merged tree. */
    async page(position: number, start: number): ReturnType<ImageEngine['differences']> {
        let handle = this.#handle;
        let at = this.#at;
        this.#handle = null;
        if (!handle || position !== this.#position || start !== at) {
            dispose(handle);
            handle = this.#trees.merged.differences(position);
            const slices = new Slices();
            for (at = 0; at < start; await slices.breathe()) {
                const skipped = handle.next(Math.min(PAGE, start - at)).length;
                if (skipped === 0) break;
                at += skipped;
            }
        }
        const found = handle.next(PAGE);
        dispose(this.#handle);
        [this.#handle, this.#position, this.#at] = [handle, position, at + found.length];
        return {
            changes: found.map(({ path, change, before, after }) => ({
                path,
                change,
                before: before ? Number(before.entry.size) : null,
                after: after ? Number(after.entry.size) : null,
            })),
            next: found.length < PAGE ? null : at + found.length,
        };
    }
}
