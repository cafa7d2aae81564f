/** A directory or file as a tar. Content is read in the order of the blobs, so that few requests bring it. */
import type { Cost, View } from '../api';
import { concat } from './bytes';
import { walk } from './findings';
import { append } from './groups';
import type { Entry } from './instance';
import type { ImageLayer, Part } from './layer';
import { base, below, names, normal } from './paths';
import { engine, problem } from './problems';
import { Slices } from './slices';
import { END, header, padding, type TarEntry } from './tar-format';
import type { Node, Trees } from './trees';

/** Files that are read together. */
const FILES = 1000;
const BYTES = 64 << 20;
/** Small pieces are given out together. */
const PIECE = 256 << 10;

interface File {
    layer: ImageLayer;
    entry: Entry;
    /** All its names, the first one being that of the content. */
    names: string[];
    path: string;
    /** Where its content begins in the blob. */
    at: number;
}

export interface Plan {
    /** Everything but regular files, in the order of a walk. */
    others: { name: string; node: Node; link?: string }[];
    /** In the order of the blobs, by layer. */
    files: File[];
    /** Whether whiteouts are written, as layers have them. */
    whiteouts: boolean;
}

/** Finds out what a tar of a path holds: all of it, or these paths below it. */
export async function plan(trees: Trees, view: View, path: string, only: string[] = []): Promise<Plan> {
    const top = trees.find(view, path, true);
    const at = trees.resolve(view, path) ?? path;
    const prefix = names(at).length === 0 ? '' : base(at);
    const others: Plan['others'] = [];
    const files = new Map<string, File>();
    const firsts = new Map<string, string>();
    const slices = new Slices();
    const take = (full: string, { layer, entry }: Node): void => {
        const rest = full.slice(at === '/' ? 1 : at.length + 1);
        const name = [prefix, rest].filter(Boolean).join('/') || '.';
        const key = `${layer.facts.index} ${entry.id}`;
        const { tag } = entry.kind;
        if (tag === 'regular') {
            const known = files.get(key);
            if (known) known.names.push(name);
            else files.set(key, { layer, entry, names: [name], path: full, at: layer.firstByte(entry.id) });
            return;
        }
        const first = tag !== 'directory' && tag !== 'whiteout' && entry.links > 1 ? firsts.get(key) : undefined;
        if (first === undefined) firsts.set(key, name);
        others.push({ name, node: { layer, entry }, ...(first === undefined ? {} : { link: first }) });
    };
    const takeAll = async (from: string, node: Node): Promise<void> => {
        take(from, node);
        if (node.entry.kind.tag !== 'directory') return;
        for await (const { path: full, layer, entry } of walk(view, trees, from)) {
            take(full, { layer, entry });
            await slices.breathe();
        }
    };
    if (only.length === 0) await takeAll(at, top);
    for (const name of only) {
        const from = below(at, name);
        if (normal(from) !== from) throw problem('not-found', `${name} is no path below ${at}.`);
        await takeAll(from, trees.find(view, from, false));
    }
    const sorted = [...files.values()].sort((one, other) => one.layer.facts.index - other.layer.facts.index || one.at - other.at);
    return { others, files: sorted, whiteouts: view !== 'merged' };
}

/** What has to be fetched for it. */
export async function cost({ files }: Plan): Promise<Cost> {
    const sum: Cost = { bytes: 0, kept: 0, requests: 0 };
    for (const [layer, group] of byLayer(files)) {
        const { bytes, kept, requests } = await layer.estimate(group.map(whole));
        sum.bytes += bytes;
        sum.kept += kept;
        sum.requests += requests;
    }
    return sum;
}

/** The tar itself. */
export async function* write({ others, files, whiteouts }: Plan, trees: Trees, signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    yield* gathered(pieces(others, files, whiteouts, trees, signal));
}

async function* pieces(others: Plan['others'], files: File[], whiteouts: boolean, trees: Trees, signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    const slices = new Slices();
    for (const { name, node, link } of others) {
        for (const entry of written(name, node, link, whiteouts, trees)) yield header(entry);
        await slices.breathe();
    }
    for (const group of groups(files)) {
        const { layer } = group[0] as File;
        const parts = group.map(whole);
        let index = 0;
        let left = 0;
        const begin = (file: File): Uint8Array => {
            left = Number(file.entry.size);
            return header({ ...plain(file.names[0] as string, file), type: '0', size: left });
        };
        // Those without content need no reader.
        for (const file of group) if (file.entry.size === 0n) yield* [begin(file), ...links(file)];
        const content = parts.filter(({ length }) => length > 0);
        const full = group.filter(({ entry }) => entry.size > 0n);
        if (content.length === 0) continue;
        yield begin(full[0] as File);
        for await (const { part, bytes } of layer.read(content, signal)) {
            if (part !== index) throw ended(full[index]);
            yield bytes;
            left -= bytes.length;
            if (left > 0) continue;
            const file = full[index] as File;
            yield* [padding(Number(file.entry.size)), ...links(file)];
            index += 1;
            const next = full[index];
            if (next) yield begin(next);
        }
        if (index < full.length) throw ended(full[index]);
    }
    yield END;
}

function* links(file: File): Generator<Uint8Array> {
    const [first, ...more] = file.names;
    for (const name of more) yield header({ ...plain(name, file), type: '1', size: 0, target: first as string, xattrs: [] });
}

function* written(name: string, node: Node, link: string | undefined, whiteouts: boolean, trees: Trees): Generator<TarEntry> {
    const entry = plain(name, node);
    if (link !== undefined) {
        yield { ...entry, type: '1', target: link, xattrs: [] };
        return;
    }
    const { kind, opaque } = node.entry;
    switch (kind.tag) {
        case 'directory':
            yield { ...entry, type: '5' };
            if (whiteouts && opaque) yield { ...entry, name: `${name === '.' ? '' : `${name}/`}.wh..wh..opq`, type: '0', mode: 0, xattrs: [] };
            return;
        case 'symlink':
            yield { ...entry, type: '2', target: trees.target(node) };
            return;
        case 'character-device':
            yield { ...entry, type: '3', device: kind.val };
            return;
        case 'block-device':
            yield { ...entry, type: '4', device: kind.val };
            return;
        case 'fifo':
            yield { ...entry, type: '6' };
            return;
        case 'whiteout':
            if (whiteouts) yield { ...entry, name: name.replace(/[^/]*$/, (last) => `.wh.${last}`), type: '0', mode: 0, xattrs: [] };
    }
}

function plain(name: string, { layer, entry }: Node): TarEntry {
    const { id, mode, uid, gid, modified } = entry;
    const xattrs = engine(() => layer.layer?.xattrs(id)) ?? [];
    return { name, type: '0', mode, uid, gid, size: 0, modified, xattrs };
}

function whole({ entry, path }: File): Part {
    return { file: entry.id, offset: 0, length: Number(entry.size), path };
}

function byLayer(files: File[]): Map<ImageLayer, File[]> {
    const map = new Map<ImageLayer, File[]>();
    for (const file of files) append(map, file.layer, file);
    return map;
}

function* groups(files: File[]): Generator<File[]> {
    let group: File[] = [];
    let bytes = 0;
    for (const file of files) {
        if (group.length > 0 && (group[0]?.layer !== file.layer || group.length >= FILES || bytes >= BYTES)) {
            yield group;
            group = [];
            bytes = 0;
        }
        group.push(file);
        bytes += Number(file.entry.size);
    }
    if (group.length > 0) yield group;
}

async function* gathered(pieces: AsyncGenerator<Uint8Array, void, undefined>): AsyncGenerator<Uint8Array, void, undefined> {
    let held: Uint8Array[] = [];
    let length = 0;
    for await (const piece of pieces) {
        held.push(piece);
        length += piece.length;
        if (length < PIECE) continue;
        yield concat(held, length);
        held = [];
        length = 0;
    }
    if (length > 0) yield concat(held, length);
}

function ended(file: File | undefined): Error {
    return problem('malformed', `${file?.path ?? 'A file'} has less content than the image says.`);
}
