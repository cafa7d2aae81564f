/** Headers of rpm packages, as databases have them: without lead, signature and magic. Hostile ones fail with an `Error`. */
import { viewOf } from './bytes';

const MOST_TAGS = 0x10000;
const MOST_STRINGS = 1_000_000;
const NAME = 1000;
const VERSION = 1001;
const RELEASE = 1002;
const EPOCH = 1003;
const OLD_FILE_NAMES = 1027;
const DIR_INDEXES = 1116;
const BASE_NAMES = 1117;
const DIR_NAMES = 1118;

export class RpmHeader {
    readonly #view: DataView;
    readonly #data: Uint8Array;
    /** Where the values of a tag begin in the data, and how many there are. */
    readonly #tags = new Map<number, { offset: number; count: number }>();
    /** Where the strings of a tag begin, once they were counted. */
    readonly #strings = new Map<number, number[]>();

    constructor(bytes: Uint8Array) {
        if (bytes.length < 8) throw new Error('a header of a package is too short');
        const view = viewOf(bytes);
        const [tags, length] = [view.getUint32(0), view.getUint32(4)];
        const start = 8 + 16 * tags;
        if (tags > MOST_TAGS || start + length > bytes.length) throw new Error('a header of a package is longer than it is');
        for (let at = 8; at < start; at += 16) {
            this.#tags.set(view.getUint32(at), { offset: view.getUint32(at + 8), count: view.getUint32(at + 12) });
        }
        this.#data = bytes.subarray(start, start + length);
        this.#view = viewOf(this.#data);
    }

    /** `NAME [EPOCH:]VERSION-RELEASE`. */
    get label(): string {
        const epoch = this.#number(EPOCH, 0);
        const [name, version, release] = [NAME, VERSION, RELEASE].map((tag) => this.#string(tag, 0) ?? '');
        return `${name} ${epoch ? `${epoch}:` : ''}${version}-${release}`;
    }

    /** The path of a file of the package. */
    file(index: number): string | null {
        const base = this.#string(BASE_NAMES, index);
        if (base === null) return this.#string(OLD_FILE_NAMES, index);
        const directory = this.#number(DIR_INDEXES, index);
        const above = directory === null ? null : this.#string(DIR_NAMES, directory);
        return above === null ? null : above + base;
    }

    #number(tag: number, index: number): number | null {
        const found = this.#tags.get(tag);
        const at = (found?.offset ?? 0) + 4 * index;
        return found && index < found.count && at + 4 <= this.#data.length ? this.#view.getUint32(at) : null;
    }

    #string(tag: number, index: number): string | null {
        const at = this.#starts(tag)[index];
        const end = at === undefined ? -1 : this.#data.indexOf(0, at);
        return end < 0 ? null : new TextDecoder().decode(this.#data.subarray(at, end));
    }

    #starts(tag: number): number[] {
        const known = this.#strings.get(tag);
        if (known) return known;
        const { offset, count } = this.#tags.get(tag) ?? { offset: 0, count: 0 };
        const starts: number[] = [];
        for (let at = offset; starts.length < Math.min(count, MOST_STRINGS) && at < this.#data.length; ) {
            const end = this.#data.indexOf(0, at);
            if (end < 0) break;
            starts.push(at);
            at = end + 1;
        }
        this.#strings.set(tag, starts);
        return starts;
    }
}
