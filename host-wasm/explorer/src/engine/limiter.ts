/** Runs at most so many things side by side; the others wait in their order. */
export class Limiter {
    #free: number;
    readonly #waiting: (() => void)[] = [];

    constructor(most: number) {
        this.#free = most;
    }

    async run<T>(work: () => Promise<T>): Promise<T> {
        if (this.#free > 0) this.#free -= 1;
        else await new Promise<void>((resume) => this.#waiting.push(resume));
        try {
            return await work();
        } finally {
            const next = this.#waiting.shift();
            if (next) next();
            else this.#free += 1;
        }
    }
}
