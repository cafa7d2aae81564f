/** What was transferred, and which parts of the blobs were touched. */
import type { Meter } from '../api';

const REPORT_MS = 150;

export class Meters {
    #fetched = 0;
    #cached = 0;
    #requests = 0;
    #total = 0;
    #touched: [number, number][][] = [];
    #timer: ReturnType<typeof setTimeout> | null = null;
    readonly #report: (meter: Meter) => void;

    /** `report` hears of changes, a few times a second. */
    constructor(report: (meter: Meter) => void) {
        this.#report = report;
    }

    /** Says how large the layers of the image are. */
    layers(sizes: number[]): void {
        this.#total = sizes.reduce((sum, size) => sum + size, 0);
        this.#touched = sizes.map(() => []);
        this.#changed();
    }

    request(): void {
        this.#requests += 1;
        this.#changed();
    }

    fetched(bytes: number): void {
        this.#fetched += bytes;
        this.#changed();
    }

    cached(bytes: number): void {
        this.#cached += bytes;
        this.#changed();
    }

    touched(layer: number, offset: number, length: number): void {
        const ranges = this.#touched[layer];
        if (!ranges || length <= 0) return;
        ranges.push([offset, length]);
        this.#changed();
    }

    now(): Meter {
        this.#touched = this.#touched.map(join);
        return {
            fetched: this.#fetched,
            cached: this.#cached,
            total: this.#total,
            requests: this.#requests,
            touched: this.#touched,
        };
    }

    #changed(): void {
        this.#timer ??= setTimeout(() => {
            this.#timer = null;
            this.#report(this.now());
        }, REPORT_MS);
    }
}

/** Sorts ranges and makes one of those that touch. */
export function join(ranges: [number, number][]): [number, number][] {
    const joined: [number, number][] = [];
    for (const [offset, length] of ranges.sort((one, other) => one[0] - other[0])) {
        const last = joined.at(-1);
        if (last && offset <= last[0] + last[1]) last[1] = Math.max(last[1], offset + length - last[0]);
        else joined.push([offset, length]);
    }
    return joined;
}
