/** Downloads ordinary layers: checks the digest of the blob, decompresses it, and makes a table of contents of its tar. */
import { sha256 } from '@noble/hashes/sha2.js';
import { Decompress } from 'fzstd';
import { asDigest, concat } from './bytes';
import { Gunzip } from './gunzip';
import type { Descriptor, Layer, Root } from './instance';
import { LocalContent } from './local';
import { asProblem, engine, problem } from './problems';
import type { Source } from './source';
import { TarReader, type Header } from './untar';

/** Footer of a lazy layer whose table of contents is elsewhere. */
const FOOTER = Uint8Array.from([
    0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 0x15, 0, 0x53, 0x47, 0x11, 0,
    ...new TextEncoder().encode('STARGZEXTERNALTOC'),
    1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0,
]);
const TOC_DIGEST = 'containerd.io/snapshot/stargz/toc.digest';
const CHUNK = 1 << 20;
const MOST_ENTRIES = 1_000_000;

/** Opens a layer that was downloaded. The engine reads and checks it as a lazy one. */
export function open(root: Root, descriptor: Descriptor, size: number, toc: Uint8Array): Layer {
    const { layers, oci } = root;
    const blob = size + FOOTER.length;
    const annotations: [string, string][] = [[TOC_DIGEST, oci.digestOf(toc)]];
    const opener = new layers.Opener({ ...descriptor, size: BigInt(blob), annotations });
    for (;;) {
        const step = engine(() => opener.poll());
        if (step.tag === 'done') return engine(() => layers.Opener.finish(opener));
        if (step.tag === 'external-toc') engine(() => opener.supplyToc(toc));
        else {
            for (const { offset, length } of step.val) {
                // There is no such blob: its end is made here, its content comes by chunks.
                const end = new Uint8Array(Number(length));
                const skipped = size - Number(offset);
                if (skipped >= 0) end.set(FOOTER.subarray(0, Math.max(0, end.length - skipped)), skipped);
                else end.set(FOOTER.subarray(-skipped, -skipped + end.length));
                engine(() => opener.supply(offset, end));
            }
        }
    }
}

/** Downloads a layer. `progress` hears of bytes of the blob. */
export function download(root: Root, source: Source, descriptor: Descriptor, progress: (bytes: number) => void): Promise<{ content: LocalContent; toc: Uint8Array }> {
    const { digest } = descriptor;
    if (!digest.startsWith('sha256:')) throw problem('unsupported', `The digest ${digest} cannot be checked here: only those of SHA-256 can.`);
    return LocalContent.make(digest, async (append) => {
        const index = new Index(root, append);
        const hash = sha256.create();
        const unpacking = new Unpacking(index);
        let done = 0;
        await source.download(digest, async (piece) => {
            hash.update(piece);
            done += piece.length;
            progress(done);
            await unpacking.push(piece);
        });
        const actual = asDigest(hash.digest());
        if (actual !== digest) {
            throw problem('digest-mismatch', `The layer is not what the image promises: ${actual} came instead of ${digest}. The bytes were thrown away.`, { expected: digest, actual });
        }
        await unpacking.end();
        return index.toc();
    });
}

/** Takes compressed bytes. */
interface Target {
    push(bytes: Uint8Array): Promise<void> | void;
    end(): Promise<void> | void;
}

/** Decompresses what comes, by what it begins with. */
class Unpacking {
    readonly #index: Index;
    #head: Uint8Array = new Uint8Array();
    #target: Target | null = null;
    #failed: unknown = null;

    constructor(index: Index) {
        this.#index = index;
    }

    async push(piece: Uint8Array): Promise<void> {
        if (this.#failed) return;
        let bytes = piece;
        if (!this.#target) {
            bytes = concat([this.#head, piece]);
            if (bytes.length < 4) {
                this.#head = bytes;
                return;
            }
            this.#target = this.#begin(bytes);
        }
        try {
            await this.#target.push(bytes);
        } catch (thrown) {
            // Told at the end, when it is known whether these are the right bytes at all.
            this.#failed ??= thrown;
        }
    }

    #begin([first, second, third, fourth]: Uint8Array): Target {
        const take = (bytes: Uint8Array): void => this.#index.push(bytes);
        if (first === 0x1f && second === 0x8b) return new Gunzip(take);
        if (first === 0x28 && second === 0xb5 && third === 0x2f && fourth === 0xfd) {
            const zstd = new Decompress(take);
            return { push: (bytes) => zstd.push(bytes), end: () => zstd.push(new Uint8Array(), true) };
        }
        return { push: take, end: () => undefined };
    }

    async end(): Promise<void> {
        try {
            if (!this.#failed) await this.#target?.end();
        } catch (thrown) {
            this.#failed ??= thrown;
        }
        if (this.#failed instanceof DOMException) throw this.#failed;
        const why = this.#failed ? asProblem(this.#failed) : null;
        if (why && why.kind !== 'internal') throw this.#failed;
        if (why) throw problem('malformed', `The layer cannot be decompressed: ${String((this.#failed as Error).message)}. Whoever built the image has to mend it.`);
        this.#index.end();
    }
}

/** An entry of the table of contents, as eStargz has them. */
interface TocEntry {
    name: string;
    type: string;
    size?: number;
    modtime?: string;
    linkName?: string;
    mode?: number;
    uid?: number;
    gid?: number;
    devMajor?: number;
    devMinor?: number;
    xattrs?: Record<string, string>;
    offset?: number;
    chunkOffset?: number;
    chunkSize?: number;
    chunkDigest?: string;
}

const TYPES: Record<string, string> = { '0': 'reg', '7': 'reg', '1': 'hardlink', '2': 'symlink', '3': 'char', '4': 'block', '5': 'dir', '6': 'fifo' };

/** Makes the table of contents while the tar comes, and gives content on in chunks. */
class Index {
    readonly #root: Root;
    readonly #append: (bytes: Uint8Array) => void;
    #gathered: Uint8Array[] = [];
    #gatheredLength = 0;
    readonly #entries: TocEntry[] = [];
    readonly #tar = new TarReader((header) => this.#begin(header));
    #at = 0;

    constructor(root: Root, append: (bytes: Uint8Array) => void) {
        this.#root = root;
        this.#append = append;
    }

    push(bytes: Uint8Array): void {
        this.#tar.push(bytes);
    }

    end(): void {
        this.#tar.end();
    }

    toc(): Uint8Array {
        this.#flush();
        return new TextEncoder().encode(JSON.stringify({ version: 1, entries: this.#entries }));
    }

    /** Few large writes instead of many small ones. */
    #flush(): void {
        this.#append(concat(this.#gathered, this.#gatheredLength));
        [this.#gathered, this.#gatheredLength] = [[], 0];
    }

    #begin(header: Header): (bytes: Uint8Array) => void {
        const type = TYPES[header.type];
        if (!type) return () => undefined;
        if (this.#entries.length >= MOST_ENTRIES) throw problem('limit-exceeded', `The layer has more than the ${MOST_ENTRIES} entries that are allowed.`);
        const entry: TocEntry = {
            name: header.name,
            type,
            modtime: time(header.mtime),
            mode: header.mode,
            uid: header.uid,
            gid: header.gid,
            ...(type === 'hardlink' || type === 'symlink' ? { linkName: header.target } : {}),
            ...(type === 'char' || type === 'block' ? { devMajor: header.major, devMinor: header.minor } : {}),
            ...(header.xattrs.size > 0 ? { xattrs: Object.fromEntries([...header.xattrs].map(([name, value]) => [name, base64(value)])) } : {}),
        };
        this.#entries.push(entry);
        if (type !== 'reg' || header.size === 0) return () => undefined;
        entry.size = header.size;
        let left = header.size;
        let chunkOffset = 0;
        let held: Uint8Array[] = [];
        let have = 0;
        return (bytes) => {
            for (let rest = bytes; rest.length > 0; ) {
                const some = rest.subarray(0, CHUNK - have);
                // What comes is valid for this call only.
                held.push(some.slice());
                have += some.length;
                left -= some.length;
                rest = rest.subarray(some.length);
                if (have < CHUNK && left > 0) continue;
                const chunk = concat(held, have);
                const facts = { offset: this.#at, chunkOffset, chunkSize: have, chunkDigest: this.#root.oci.digestOf(chunk) };
                if (chunkOffset === 0) Object.assign(entry, facts);
                else this.#entries.push({ name: header.name, type: 'chunk', ...facts });
                this.#gathered.push(chunk);
                this.#gatheredLength += have;
                if (this.#gatheredLength >= CHUNK) this.#flush();
                this.#at += have;
                chunkOffset += have;
                [held, have] = [[], 0];
            }
        };
    }
}

/** Seconds of a tar as tables of contents write times. */
function time(seconds: string): string {
    const [, sign, whole = '0', fraction = ''] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(seconds) ?? [];
    let nanoseconds = Number(fraction.slice(0, 9).padEnd(9, '0'));
    let full = Number(whole) * (sign ? -1 : 1);
    if (sign && nanoseconds > 0) [full, nanoseconds] = [full - 1, 1_000_000_000 - nanoseconds];
    const date = new Date(full * 1000);
    if (Number.isNaN(date.getTime()) || date.getUTCFullYear() < 0 || date.getUTCFullYear() > 9999) return '1970-01-01T00:00:00Z';
    const text = date.toISOString().slice(0, 19);
    return nanoseconds === 0 ? `${text}Z` : `${text}.${String(nanoseconds).padStart(9, '0').replace(/0+$/, '')}Z`;
}

function base64(bytes: Uint8Array): string {
    return btoa(String.fromCharCode(...bytes));
}
