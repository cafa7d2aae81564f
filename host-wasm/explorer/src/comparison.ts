/**
 * What differs between the files of two images. Both merged trees are gone through side by side, a page at a time, so that
 * neither is ever whole in memory. Nothing of a file is fetched: content is the same where the digests are that the tables of
 * contents promise.
 */
import type { ImageEngine, Listed } from './api';

export const deviations = ['added', 'removed', 'modified', 'metadata-only', 'time-only', 'unclear'] as const;

/**
 * How the later image differs at a path. `time-only` is the time of a change and nothing else; `unclear` are files of the same
 * size that are cut into other chunks, or that have no digests.
 */
export type Deviation = (typeof deviations)[number];

/** A path that differs. */
export interface Pair {
    path: string;
    deviation: Deviation;
    before: Listed | null;
    after: Listed | null;
}

/** What was come to so far. Bytes are those of regular files, hard links once. */
export interface Totals {
    paths: number;
    same: number;
    counts: Record<Deviation, number>;
    /** Bytes that the paths of each kind had and have. */
    sizes: Record<Deviation, { before: number; after: number }>;
    before: number;
    after: number;
}

/** Where the objects of an image come from; the engines of open images. */
type Lister = Pick<ImageEngine, 'listing'>;

/** Gives what differs in the order of paths, and the totals with it; the last time with all. */
export async function* compare(before: Lister, after: Lister): AsyncGenerator<{ pairs: Pair[]; totals: Totals }, void, undefined> {
    const [one, other] = [new Cursor(before), new Cursor(after)];
    const totals = new Sum();
    let pairs: Pair[] = [];
    for (;;) {
        if (one.isEmpty || other.isEmpty) {
            if (totals.isBegun) yield { pairs, totals: totals.now() };
            pairs = [];
            await Promise.all([one.fill(), other.fill()]);
        }
        const [left, right] = [one.now, other.now];
        if (!left && !right) break;
        const order = !left ? 1 : !right ? -1 : comparePaths(left.path, right.path);
        const pair = { before: order <= 0 ? left : null, after: order >= 0 ? right : null };
        if (pair.before) one.step();
        if (pair.after) other.step();
        const deviation = deviate(pair.before, pair.after);
        totals.add(deviation, pair.before, pair.after);
        if (deviation) pairs.push({ path: (pair.before ?? pair.after)?.path ?? '', deviation, ...pair });
    }
    yield { pairs, totals: totals.now() };
}

/** How two objects of one path differ; `null` when they do not. */
function deviate(before: Listed | null, after: Listed | null): Deviation | null {
    if (!before) return 'added';
    if (!after) return 'removed';
    if (before.object === after.object) return null;
    if (before.kind !== after.kind || before.leads !== after.leads) return 'modified';
    if (before.kind === 'regular' && !sameContent(before, after)) return before.size === after.size && isUnclear(before, after) ? 'unclear' : 'modified';
    if (before.mode !== after.mode || before.uid !== after.uid || before.gid !== after.gid || before.xattrs !== after.xattrs) return 'metadata-only';
    return before.modified === after.modified ? null : 'time-only';
}

/** Whether two files have the same content, as far as digests say. */
export function sameContent(before: Listed, after: Listed): boolean {
    if (before.object === after.object) return true;
    return before.size === after.size && !isUnclear(before, after) && before.content?.digest === after.content?.digest;
}

function isUnclear({ content: one }: Listed, { content: other }: Listed): boolean {
    return !one || !other || one.cut !== other.cut;
}

/** The order of walks: a directory before what is in it, names by their bytes in UTF-8. */
function comparePaths(one: string, other: string): number {
    const length = Math.min(one.length, other.length);
    for (let at = 0; at < length; at += 1) {
        const difference = weight(one.charCodeAt(at)) - weight(other.charCodeAt(at));
        if (difference !== 0) return difference;
    }
    return one.length - other.length;
}

/** Slashes first; surrogates stand for what comes after all else in UTF-8. */
function weight(unit: number): number {
    if (unit === 0x2f) return 0;
    return unit < 0xd800 ? unit : unit < 0xe000 ? unit + 0x2000 : unit - 0x800;
}

/** A place in the tree of an image. */
class Cursor {
    readonly #from: Lister;
    #page: Listed[] = [];
    #at = 0;
    #next: number | null = 0;

    constructor(from: Lister) {
        this.#from = from;
    }

    get now(): Listed | null {
        return this.#page[this.#at] ?? null;
    }

    /** Whether there is more to come, and none of it here. */
    get isEmpty(): boolean {
        return this.#at >= this.#page.length && this.#next !== null;
    }

    step(): void {
        this.#at += 1;
    }

    async fill(): Promise<void> {
        while (this.isEmpty) {
            const { items, next } = await this.#from.listing(this.#next ?? 0);
            [this.#page, this.#at, this.#next] = [items, 0, next];
        }
    }
}

class Sum {
    readonly #totals: Totals = {
        paths: 0,
        same: 0,
        counts: record(() => 0),
        sizes: record(() => ({ before: 0, after: 0 })),
        before: 0,
        after: 0,
    };
    /** Files with several names that were counted. */
    readonly #counted = { before: new Set<string>(), after: new Set<string>() };

    add(deviation: Deviation | null, before: Listed | null, after: Listed | null): void {
        const totals = this.#totals;
        totals.paths += 1;
        if (deviation) totals.counts[deviation] += 1;
        else totals.same += 1;
        for (const [side, object] of [['before', before], ['after', after]] as const) {
            if (!object || (object.links > 1 && this.#counted[side].has(object.object))) continue;
            if (object.links > 1) this.#counted[side].add(object.object);
            totals[side] += object.size;
            if (deviation) totals.sizes[deviation][side] += object.size;
        }
    }

    get isBegun(): boolean {
        return this.#totals.paths > 0;
    }

    now(): Totals {
        return structuredClone(this.#totals);
    }
}

function record<T>(value: () => T): Record<Deviation, T> {
    return Object.fromEntries(deviations.map((deviation) => [deviation, value()])) as Record<Deviation, T>;
}
