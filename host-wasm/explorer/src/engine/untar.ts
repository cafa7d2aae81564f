/** Reads tars, as far as ordinary layers and tables of contents need it: headers of ustar, GNU and PAX. */
import { upToNul } from './bytes';
import { problem } from './problems';

/** A header, and where its content is in the tar. */
export interface Header {
    name: string;
    type: string;
    mode: number;
    uid: number;
    gid: number;
    size: number;
    /** Seconds since 1970 with their fraction as text. */
    mtime: string;
    target: string;
    user: string;
    group: string;
    major: number;
    minor: number;
    xattrs: Map<string, Uint8Array>;
    /** Offset of the content. */
    offset: number;
}

const BLOCK = 512;
const LARGEST_EXTENSION = 1 << 20;
const utf8 = new TextDecoder();

/** Takes a tar in pieces. `begin` hears of each object, `content` of its bytes as they come. */
export class TarReader {
    #pending: Uint8Array = new Uint8Array();
    #at = 0;
    #body: { left: number; padding: number; take: (bytes: Uint8Array) => void; isContent: boolean } | null = null;
    #pax = new Map<string, Uint8Array>();
    #global = new Map<string, Uint8Array>();
    #long: { name?: string; target?: string } = {};
    #ended = false;
    readonly #begin: (header: Header) => (bytes: Uint8Array) => void;

    /** `begin` gives back who takes the content. */
    constructor(begin: (header: Header) => (bytes: Uint8Array) => void) {
        this.#begin = begin;
    }

    push(piece: Uint8Array): void {
        let bytes = piece;
        if (this.#pending.length > 0) {
            bytes = new Uint8Array(this.#pending.length + piece.length);
            bytes.set(this.#pending);
            bytes.set(piece, this.#pending.length);
        }
        let at = 0;
        while (at < bytes.length && !this.#ended) {
            const body = this.#body;
            if (body && body.left > 0) {
                const some = bytes.subarray(at, at + body.left);
                body.take(some);
                body.left -= some.length;
                at += some.length;
            } else if (body && body.padding > 0) {
                const skipped = Math.min(body.padding, bytes.length - at);
                body.padding -= skipped;
                at += skipped;
            } else if (bytes.length - at < BLOCK) break;
            else {
                this.#body = null;
                this.#header(bytes.subarray(at, at + BLOCK), this.#at + at + BLOCK);
                at += BLOCK;
            }
        }
        this.#at += at;
        this.#pending = this.#ended ? new Uint8Array() : bytes.slice(at);
    }

    /** Leaves out what is left of the content of a file, and says how many bytes that is: they are not to be pushed. */
    skip(): number {
        const body = this.#body;
        if (!body?.isContent) return 0;
        const skipped = body.left;
        this.#at += skipped;
        body.left = 0;
        return skipped;
    }

    /** Whether the end of the tar was seen. */
    get isOver(): boolean {
        return this.#ended;
    }

    /** To be called after the last piece. */
    end(): void {
        if (this.#pending.length > 0 || (this.#body && this.#body.left > 0)) throw malformed('it is cut short');
    }

    #header(block: Uint8Array, offset: number): void {
        if (block.every((byte) => byte === 0)) {
            this.#ended = true;
            return;
        }
        check(block);
        const type = String.fromCharCode(block[156] || 48);
        const size = number(block, 124, 12);
        const padding = (BLOCK - (size % BLOCK)) % BLOCK;
        if ('xgLK'.includes(type)) {
            if (size > LARGEST_EXTENSION) throw malformed('an extended header is too large');
            const all = new Uint8Array(size);
            let have = 0;
            const take = (bytes: Uint8Array): void => {
                all.set(bytes, have);
                have += bytes.length;
                if (have < size) return;
                if (type === 'x') this.#pax = records(all);
                else if (type === 'g') for (const [key, value] of records(all)) this.#global.set(key, value);
                else this.#long[type === 'L' ? 'name' : 'target'] = text(all);
            };
            this.#body = { left: size, padding, take, isContent: false };
            return;
        }
        const pax = new Map([...this.#global, ...this.#pax]);
        const say = (key: string): string | undefined => {
            const value = pax.get(key);
            return value?.length ? utf8.decode(value) : undefined;
        };
        const magic = utf8.decode(block.subarray(257, 263));
        const prefix = magic === 'ustar\0' ? text(block.subarray(345, 500)) : '';
        const short = text(block.subarray(0, 100));
        const real = Number(say('size') ?? size);
        if (!Number.isSafeInteger(real) || real < 0) throw malformed('a size makes no sense');
        const isFile = '07'.includes(type);
        const header: Header = {
            name: say('path') ?? this.#long.name ?? (prefix ? `${prefix}/${short}` : short),
            type,
            mode: number(block, 100, 8) & 0o7777,
            uid: Number(say('uid') ?? number(block, 108, 8)),
            gid: Number(say('gid') ?? number(block, 116, 8)),
            size: isFile ? real : 0,
            mtime: say('mtime') ?? String(number(block, 136, 12)),
            target: say('linkpath') ?? this.#long.target ?? text(block.subarray(157, 257)),
            user: say('uname') ?? text(block.subarray(265, 297)),
            group: say('gname') ?? text(block.subarray(297, 329)),
            major: number(block, 329, 8),
            minor: number(block, 337, 8),
            xattrs: new Map([...pax].flatMap(([key, value]) => (key.startsWith('SCHILY.xattr.') ? [[key.slice(13), value] as const] : []))),
            offset,
        };
        if (pax.has('GNU.sparse.major') || pax.has('GNU.sparse.map') || type === 'S') throw malformed('it has sparse files, which are not known here');
        this.#pax = new Map();
        this.#long = {};
        const take = this.#begin(header);
        const left = isFile ? real : 0;
        this.#body = { left, padding: (BLOCK - (left % BLOCK)) % BLOCK, take, isContent: true };
    }
}

/** The files of a small tar with their content. */
export async function* files(tar: ReadableStream<Uint8Array>, most: number): AsyncGenerator<{ name: string; content: Uint8Array }, void, undefined> {
    const found: { name: string; content: Uint8Array }[] = [];
    let total = 0;
    const reader = new TarReader(({ name, size }) => {
        total += size;
        if (total > most) throw problem('limit-exceeded', `A tar holds more than the ${most} bytes that are allowed.`);
        const content = new Uint8Array(size);
        found.push({ name, content });
        let at = 0;
        return (bytes) => {
            content.set(bytes, at);
            at += bytes.length;
        };
    });
    const pieces = tar.getReader();
    for (let step; !(step = await pieces.read()).done; ) reader.push(step.value);
    reader.end();
    yield* found;
}

function check(block: Uint8Array): void {
    let sum = 0;
    for (let at = 0; at < BLOCK; at += 1) sum += at >= 148 && at < 156 ? 32 : (block[at] ?? 0);
    if (sum !== number(block, 148, 8)) throw malformed('a checksum is wrong');
}

/** Octal digits, or a binary number where they do not suffice. */
function number(block: Uint8Array, at: number, length: number): number {
    const field = block.subarray(at, at + length);
    if ((field[0] ?? 0) & 0x80) {
        const negative = field[0] === 0xff;
        let value = negative ? -1n : 0n;
        field.forEach((byte, index) => (value = (value << 8n) | BigInt(index === 0 && !negative ? byte & 0x7f : byte)));
        const plain = Number(negative ? BigInt.asIntN(64, value) : value);
        if (!Number.isSafeInteger(plain)) throw malformed('a number is too large');
        return plain;
    }
    const digits = text(field).trim();
    if (digits === '') return 0;
    if (!/^[0-7]+$/.test(digits)) throw malformed('a number is none');
    return Number.parseInt(digits, 8);
}

function text(bytes: Uint8Array): string {
    return utf8.decode(upToNul(bytes));
}

/** PAX records; values may be any bytes. */
function records(bytes: Uint8Array): Map<string, Uint8Array> {
    const found = new Map<string, Uint8Array>();
    for (let at = 0; at < bytes.length; ) {
        const space = bytes.indexOf(32, at);
        const length = Number(utf8.decode(bytes.subarray(at, space)));
        const equals = bytes.indexOf(61, space);
        if (space < 0 || !(length > 0) || at + length > bytes.length || equals < 0 || equals >= at + length) throw malformed('a PAX record is none');
        found.set(utf8.decode(bytes.subarray(space + 1, equals)), bytes.slice(equals + 1, at + length - 1));
        at += length;
    }
    return found;
}

function malformed(why: string): Error {
    return problem('malformed', `The tar of the layer is not sound: ${why}. Whoever built the image has to mend it.`);
}
