/**
 * Decompresses gzip of one or several members with what the browser has for one. Where a member ends is not said: it is
 * where the next one seems to begin, if the length that stands before that is what came out.
 */
import { concat } from './bytes';

/** What a member begins with, and what a member ends with: checksum and length. */
const HEADER = 4;
const TRAILER = 8;

export class Gunzip {
    readonly #take: (bytes: Uint8Array) => void;
    #writer: WritableStreamDefaultWriter<BufferSource> | null = null;
    #reading: Promise<void> = Promise.resolve();
    /** Bytes that came out of this member. */
    #length = 0;
    /** The last bytes that went in. */
    #last: Uint8Array = new Uint8Array();
    /** Bytes that wait for more: a header may be in two pieces. */
    #held: Uint8Array = new Uint8Array();

    constructor(take: (bytes: Uint8Array) => void) {
        this.#take = take;
    }

    async push(piece: Uint8Array): Promise<void> {
        const bytes = concat([this.#held, piece]);
        const end = bytes.length - HEADER + 1;
        let from = 0;
        for (let at = 0; at < end; at += 1) {
            at = bytes.indexOf(0x1f, at);
            if (at < 0 || at >= end) break;
            // Eight bytes of flags, of which three mean nothing.
            if (bytes[at + 1] !== 0x8b || bytes[at + 2] !== 8 || (bytes[at + 3] ?? 0) > 0x1f) continue;
            await this.#write(bytes.subarray(from, at));
            from = at;
            if (await this.#isEnd()) await this.#finish();
        }
        const rest = Math.max(from, end);
        await this.#write(bytes.subarray(from, rest));
        this.#held = bytes.slice(rest);
    }

    async end(): Promise<void> {
        await this.#write(this.#held);
        await this.#finish();
    }

    async #write(bytes: Uint8Array): Promise<void> {
        if (bytes.length === 0) return;
        if (!this.#writer) {
            const { readable, writable } = new DecompressionStream('gzip');
            this.#writer = writable.getWriter();
            this.#length = 0;
            this.#reading = this.#read(readable.getReader());
            // What fails it is told by who writes.
            this.#reading.catch(() => undefined);
        }
        this.#last = concat([this.#last, bytes.slice(-TRAILER)]).slice(-TRAILER);
        await this.#writer.write(bytes as BufferSource);
    }

    /** Whether what came out is as long as a member that ends here says. */
    async #isEnd(): Promise<boolean> {
        if (!this.#writer || this.#last.length < TRAILER) return false;
        await settled();
        return new DataView(this.#last.buffer).getUint32(4, true) === this.#length % 2 ** 32;
    }

    async #finish(): Promise<void> {
        await this.#writer?.close();
        await this.#reading;
        this.#writer = null;
    }

    async #read(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
        try {
            for (let step; !(step = await reader.read()).done; ) {
                this.#length += step.value.length;
                this.#take(step.value);
            }
        } catch (thrown) {
            await reader.cancel(thrown).catch(() => undefined);
            throw thrown;
        }
    }
}

/** Waits until whoever reads has read what is there. */
function settled(): Promise<void> {
    return new Promise((done) => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => {
            port1.close();
            done();
        };
        port2.postMessage(null);
    });
}
