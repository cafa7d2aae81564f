/** Long work in slices, so that calls are answered in between. */

const SLICE_MS = 12;

export class Slices {
    #until = performance.now() + SLICE_MS;

    /** Lets others run once a slice is used up. To be awaited often. */
    breathe(): Promise<void> | void {
        if (performance.now() < this.#until) return;
        return new Promise((resume) => {
            setTimeout(() => {
                this.#until = performance.now() + SLICE_MS;
                resume();
            });
        });
    }
}
