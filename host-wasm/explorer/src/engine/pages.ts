/** Pages of what can only be gone through from its beginning: keeps the place where the last page ended. */
const PAGE = 1000;

export interface PageOf<T> {
    items: T[];
    /** What to give as `start` for the next page; `null` after the last. */
    next: number | null;
}

export class Pages<Key, T> {
    readonly #begin: (key: Key) => AsyncGenerator<T, void, undefined>;
    #last: { key: Key; at: number; items: AsyncGenerator<T, void, undefined> } | null = null;

    constructor(begin: (key: Key) => AsyncGenerator<T, void, undefined>) {
        this.#begin = begin;
    }

    /** Forgets the place: what is gone through is no longer the same. */
    async restart(): Promise<void> {
        const last = this.#last;
        this.#last = null;
        await last?.items.return();
    }

    /** From the `start`th on. Pages that are asked for in their order cost nothing more. */
    async page(key: Key, start: number): Promise<PageOf<T>> {
        let last = this.#last;
        this.#last = null;
        if (!last || key !== last.key || start !== last.at) {
            await last?.items.return();
            last = { key, at: 0, items: this.#begin(key) };
            while (last.at < start && !(await last.items.next()).done) last.at += 1;
        }
        const items: T[] = [];
        while (items.length < PAGE) {
            const { done, value } = await last.items.next();
            if (done) return { items, next: null };
            items.push(value);
        }
        last.at += items.length;
        // Whoever asked meanwhile has begun anew.
        await this.restart();
        this.#last = last;
        return { items, next: last.at };
    }
}
