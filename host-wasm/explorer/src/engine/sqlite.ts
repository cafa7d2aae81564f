/**
 * Reads single rows of SQLite databases, a page at a time (https://sqlite.org/fileformat2.html). What images hold is not to be
 * trusted: whatever a page says is checked against the file, depths, lengths and the number of pages are bounded.
 */
import { concat, viewOf } from './bytes';

/** Gives exactly these bytes of the file. */
export type ReadAt = (offset: number, length: number) => Promise<Uint8Array>;
export type Value = number | string | Uint8Array | null;

const MOST_DEPTH = 24;
const MOST_PAYLOAD = 32 << 20;
/** Pages until {@link Sqlite.renew}: a row of 32 MiB has some. */
const MOST_PAGES = 20_000;
const MOST_ROWS = 1000;
const MOST_COLUMNS = 100;
const PAGES_KEPT = 512;
const INTERIOR_INDEX = 2;
const INTERIOR_TABLE = 5;
const LEAF_INDEX = 10;
const LEAF_TABLE = 13;

export class Sqlite {
    readonly #read: ReadAt;
    readonly #pageSize: number;
    /** Bytes of a page that hold something. */
    readonly #usable: number;
    readonly #pages: number;
    readonly #kept = new Map<number, Uint8Array>();
    #left = MOST_PAGES;

    private constructor(read: ReadAt, pageSize: number, reserved: number, pages: number) {
        this.#read = read;
        this.#pageSize = pageSize;
        this.#usable = pageSize - reserved;
        this.#pages = pages;
    }

    /** @throws `Error` when this is no database, or of a kind that is not read here */
    static async open(read: ReadAt, size: number): Promise<Sqlite> {
        if (size < 512) throw new Error('too short for an SQLite database');
        const head = await read(0, 100);
        const view = viewOf(head);
        if (new TextDecoder().decode(head.subarray(0, 16)) !== 'SQLite format 3\0') throw new Error('no SQLite database');
        const stated = view.getUint16(16);
        const pageSize = stated === 1 ? 65_536 : stated;
        const reserved = head[20] ?? 0;
        if (pageSize < 512 || (pageSize & (pageSize - 1)) !== 0 || pageSize - reserved < 480) throw new Error(`a page size of ${pageSize}`);
        if (view.getUint32(56) !== 1) throw new Error('its text is not UTF-8');
        return new Sqlite(read, pageSize, reserved, Math.floor(size / pageSize));
    }

    /** Allows as many pages once more, for the next question. */
    renew(): void {
        this.#left = MOST_PAGES;
    }

    /** The root page of a table or index; `null` when there is none. */
    async root(type: 'table' | 'index', name: string): Promise<number | null> {
        let rows = 0;
        for await (const { payload } of this.#all(1, 0)) {
            if ((rows += 1) > MOST_ROWS) return null;
            const [kind, called, , page] = record(payload);
            if (kind === type && called === name && typeof page === 'number') return page;
        }
        return null;
    }

    /** The row of a table with this id. */
    async row(root: number, id: number): Promise<Value[] | null> {
        let at = root;
        for (let depth = 0; depth < MOST_DEPTH; depth += 1) {
            const page = await this.#page(at);
            let next: number | null = page.right;
            for (const start of page.cells) {
                const cell = new Cell(page.bytes, start);
                if (page.type === INTERIOR_TABLE) {
                    const child = cell.u32();
                    if (id > cell.varint()) continue;
                    next = child;
                    break;
                }
                if (page.type !== LEAF_TABLE) throw new Error('a table has other pages than those of tables');
                const length = cell.varint();
                if (cell.varint() === id) return record(await this.#payload(page, cell, length));
            }
            if (next === null) return null;
            at = next;
        }
        throw new Error('a table is too deep');
    }

    /** The rows of an index that begin with this text, at most 1000. */
    async *entries(root: number, key: string): AsyncGenerator<Value[], void, undefined> {
        let rows = 0;
        for await (const row of this.#range(root, new TextEncoder().encode(key), 0)) {
            yield row;
            if ((rows += 1) >= MOST_ROWS) return;
        }
    }

    async *#range(at: number, key: Uint8Array, depth: number): AsyncGenerator<Value[], void, undefined> {
        if (depth > MOST_DEPTH) throw new Error('an index is too deep');
        const page = await this.#page(at);
        if (page.type !== LEAF_INDEX && page.type !== INTERIOR_INDEX) throw new Error('an index has other pages than those of indexes');
        for (const start of page.cells) {
            const cell = new Cell(page.bytes, start);
            const child = page.type === INTERIOR_INDEX ? cell.u32() : null;
            const payload = await this.#payload(page, cell, cell.varint());
            const order = compare(firstText(payload), key);
            if (order < 0) continue;
            if (child !== null) yield* this.#range(child, key, depth + 1);
            if (order > 0) return;
            yield record(payload);
        }
        if (page.right !== null) yield* this.#range(page.right, key, depth + 1);
    }

    async *#all(at: number, depth: number): AsyncGenerator<{ payload: Uint8Array }, void, undefined> {
        if (depth > MOST_DEPTH) throw new Error('a table is too deep');
        const page = await this.#page(at);
        for (const start of page.cells) {
            const cell = new Cell(page.bytes, start);
            if (page.type === INTERIOR_TABLE) yield* this.#all(cell.u32(), depth + 1);
            else {
                const length = cell.varint();
                cell.varint();
                yield { payload: await this.#payload(page, cell, length) };
            }
        }
        if (page.right !== null) yield* this.#all(page.right, depth + 1);
    }

    async #page(number: number): Promise<Page> {
        const bytes = await this.#raw(number);
        const start = number === 1 ? 100 : 0;
        const view = viewOf(bytes);
        const type = view.getUint8(start);
        if (![INTERIOR_INDEX, INTERIOR_TABLE, LEAF_INDEX, LEAF_TABLE].includes(type)) throw new Error(`page ${number} has no known type`);
        const isLeaf = type === LEAF_INDEX || type === LEAF_TABLE;
        const first = start + (isLeaf ? 8 : 12);
        const count = view.getUint16(start + 3);
        if (first + 2 * count > this.#usable) throw new Error(`page ${number} has more cells than fit`);
        const cells = Array.from({ length: count }, (_, index) => view.getUint16(first + 2 * index));
        return { type, bytes: bytes.subarray(0, this.#usable), cells, right: isLeaf ? null : view.getUint32(start + 8) };
    }

    async #raw(number: number): Promise<Uint8Array> {
        if (number < 1 || number > this.#pages) throw new Error(`there is no page ${number}`);
        if ((this.#left -= 1) < 0) throw new Error('more pages than are looked at');
        const known = this.#kept.get(number);
        if (known) return known;
        const bytes = await this.#read((number - 1) * this.#pageSize, this.#pageSize);
        if (this.#kept.size >= PAGES_KEPT) this.#kept.delete(this.#kept.keys().next().value ?? 0);
        this.#kept.set(number, bytes);
        return bytes;
    }

    /** What a cell holds, with what went over into other pages. */
    async #payload(page: Page, cell: Cell, length: number): Promise<Uint8Array> {
        if (length > MOST_PAYLOAD) throw new Error(`a row of ${length} bytes`);
        const usable = this.#usable;
        const most = page.type === LEAF_TABLE ? usable - 35 : Math.floor(((usable - 12) * 64) / 255) - 23;
        if (length <= most) return cell.take(length);
        const least = Math.floor(((usable - 12) * 32) / 255) - 23;
        const wanted = least + ((length - least) % (usable - 4));
        const parts = [cell.take(wanted <= most ? wanted : least)];
        let missing = length - (parts[0]?.length ?? 0);
        for (let next = cell.u32(); missing > 0; ) {
            const bytes = await this.#raw(next);
            const part = bytes.subarray(4, Math.min(usable, 4 + missing));
            parts.push(part);
            missing -= part.length;
            next = viewOf(bytes).getUint32(0);
        }
        return concat(parts);
    }
}

interface Page {
    type: number;
    bytes: Uint8Array;
    /** Where cells begin. */
    cells: number[];
    /** Of an interior page the last child. */
    right: number | null;
}

/** Reads on from a place in a page, and not beyond its end. */
class Cell {
    readonly #bytes: Uint8Array;
    #at: number;

    constructor(bytes: Uint8Array, at: number) {
        this.#bytes = bytes;
        this.#at = at;
    }

    get at(): number {
        return this.#at;
    }

    take(length: number): Uint8Array {
        const end = this.#at + length;
        if (end > this.#bytes.length) throw new Error('a cell goes beyond its page');
        const taken = this.#bytes.subarray(this.#at, end);
        this.#at = end;
        return taken;
    }

    u32(): number {
        return viewOf(this.take(4)).getUint32(0);
    }

    /** A number of up to 53 bits; larger ones are as large as those get. */
    varint(): number {
        let value = 0;
        for (let index = 0; index < 9; index += 1) {
            const [byte = 0] = this.take(1);
            value = index === 8 ? value * 256 + byte : value * 128 + (byte & 0x7f);
            if (byte < 0x80) break;
        }
        return Math.min(value, Number.MAX_SAFE_INTEGER);
    }
}

/** The values of a row. */
function record(payload: Uint8Array): Value[] {
    const header = new Cell(payload, 0);
    const end = header.varint();
    const values = new Cell(payload, end);
    const row: Value[] = [];
    while (header.at < end) {
        if (row.length >= MOST_COLUMNS) throw new Error('a row of more columns than are read');
        row.push(value(header.varint(), values));
    }
    return row;
}

function value(type: number, from: Cell): Value {
    if (type === 0) return null;
    if (type === 8 || type === 9) return type - 8;
    if (type <= 6) return integer(from.take([0, 1, 2, 3, 4, 6, 8][type] ?? 0));
    if (type === 7) return viewOf(from.take(8)).getFloat64(0);
    if (type < 12) throw new Error('a value of an unknown type');
    const bytes = from.take((type - 12) >>> 1);
    return type % 2 === 0 ? bytes : new TextDecoder().decode(bytes);
}

function integer(bytes: Uint8Array): number {
    return bytes.reduce((sum, byte, index) => sum * 256 + (index === 0 && byte > 127 ? byte - 256 : byte), 0);
}

/** The first value as it is, which is text in the indexes that are looked at. */
function firstText(payload: Uint8Array): Uint8Array {
    const header = new Cell(payload, 0);
    const end = header.varint();
    const type = header.varint();
    return type < 12 ? new Uint8Array() : new Cell(payload, end).take((type - 12) >>> 1);
}

function compare(one: Uint8Array, other: Uint8Array): number {
    const length = Math.min(one.length, other.length);
    for (let at = 0; at < length; at += 1) {
        const difference = (one[at] ?? 0) - (other[at] ?? 0);
        if (difference !== 0) return difference;
    }
    return one.length - other.length;
}
