// What this host makes of the corpus: `node corpus.mjs ENGINE DIRECTORY`; prints outcomes as JSON, in the shape that
// tests/support/corpus/outcome.rs describes.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { codeOf, open, supplier } from './drive.mjs';

const [engine, directory] = process.argv.slice(2);
const { layers, oci, overlay } = await import(engine);
const cases = JSON.parse(readFileSync(join(directory, 'cases.json'), 'utf8'));
const splits = ['whole', 'pieces', 'backwards', 'interleaved', 'half'];

const range = (it) => it && [it.offset, it.length];

/** An `error-code` as the corpus has it. */
function error({ tag, val }) {
    switch (tag) {
        case 'malformed':
            return { tag, range: range(val.blobRange) ?? null, message: val.message };
        case 'digest-mismatch': {
            const { subject, expected, actual, blobRange } = val;
            return { tag, subject: [subject.tag, subject.val ?? null], expected, actual, range: range(blobRange) ?? null };
        }
        case 'limit-exceeded':
            return { tag, subject: val.subject, maximum: val.maximum };
        default:
            return typeof val === 'string' ? { tag, message: val } : { tag };
    }
}

/** What a call gives, or its error. */
function attempt(call) {
    try {
        return call();
    } catch (thrown) {
        return { error: error(codeOf(thrown)) };
    }
}

function* pages(page) {
    for (let start = 0; start !== undefined; ) {
        const it = page(start);
        yield* it.entries ?? it.chunks;
        start = it.next;
    }
}

/** What can be read of a file, and the error after it. */
function content(layer, file, supply) {
    const reader = layer.read([{ file: file.id, offset: 0n, length: file.size }]);
    const hash = createHash('sha256');
    let bytes = 0;
    let failure = null;
    try {
        for (let step; (step = reader.poll(1000)).tag !== 'done'; ) {
            if (step.tag === 'need') for (const need of step.val) supply(reader, need.blobRange);
            else {
                assert.equal(step.val.offset, BigInt(bytes));
                bytes += step.val.bytes.length;
                hash.update(step.val.bytes);
            }
        }
    } catch (thrown) {
        failure = error(codeOf(thrown));
    }
    reader[Symbol.dispose]();
    return { digest: `sha256:${hash.digest('hex')}`, bytes, error: failure };
}

function show(layer, supply) {
    const { format, blobSize, entries: count, chunks, tocDigest, assurance } = layer.summary();
    const summary = { format, 'blob-size': blobSize, entries: count, chunks, 'toc-digest': tocDigest, assurance };
    const entries = {};
    for (let start = 0; start < count; start += 1000) {
        const ids = Array.from({ length: Math.min(1000, count - start) }, (_, at) => start + at);
        for (const entry of layer.stat(ids)) entries[entry.id] = show_entry(layer, entry, supply);
    }
    return { summary, entries };
}

function show_entry(layer, entry, supply) {
    const { id, kind, size, mode, uid, gid, links, opaque, modified } = entry;
    const xattrs = layer.xattrs(id).map(({ name, value }) => [name, Buffer.from(value).toString('hex')]);
    const shown = {
        kind: kind.tag,
        device: kind.val ? [kind.val.major, kind.val.minor] : null,
        size, mode, uid, gid, links, opaque,
        xattrs: Object.fromEntries(xattrs),
        modified: [modified.seconds, modified.nanoseconds],
    };
    if (kind.tag === 'directory') {
        const children = pages((start) => layer.children(id, start, 100));
        shown.children = Object.fromEntries(Array.from(children, ({ name, entry }) => [name, entry.id]));
    } else if (kind.tag === 'symlink') {
        [shown.target] = layer.readLinks([id]);
    } else if (kind.tag === 'regular') {
        const chunks = pages((start) => layer.chunks(id, start, 100));
        shown.chunks = Array.from(chunks, (it) => [it.offset, it.length, range(it.blobRange) ?? null, it.digest ?? null]);
        shown.content = content(layer, entry, supply);
    }
    return shown;
}

/** The merged tree of open layers. */
function tree(opened) {
    const rootfs = new overlay.Rootfs(opened);
    const root = rootfs.root();
    const place = (it) => it && [it.layer, it.entry.id];
    const all = function* (list) {
        for (let page; (page = list.next(7)).length > 0; ) yield* page;
    };
    const walk = rootfs.walk({ layer: root.layer, entry: root.entry.id }, '');
    const paths = Object.fromEntries(Array.from(all(walk), ({ path, target }) => [path, place(target)]));
    const differences = opened.flatMap((_, layer) =>
        Array.from(all(rootfs.differences(layer)), ({ path, change, before, after }) => [
            layer, path, change, place(before) ?? null, place(after) ?? null,
        ]),
    );
    const { stored, visible, worst } = rootfs.efficiency(200);
    const wasted = worst.map(({ path, bytes, layers }) => [path, bytes, layers]);
    return { paths, differences, efficiency: { stored, visible, worst: wasted } };
}

function image({ layers: described }, number) {
    const split = splits[number % splits.length];
    const opened = [];
    const shown = described.map(({ blob, flips, toc, annotations, accept, limits }) => {
        const bytes = readFileSync(join(directory, blob));
        for (const [at, bits] of flips) bytes[at] ^= bits;
        const descriptor = { mediaType: '', digest: '', size: BigInt(bytes.length), annotations: Object.entries(annotations) };
        const supply = supplier(bytes, split);
        return attempt(() => {
            const layer = open(layers, { descriptor, accept, limits }, supply, readFileSync(join(directory, toc)));
            opened.push(layer);
            return show(layer, supply);
        });
    });
    const merged = opened.length > 1 && opened.length === described.length ? tree(opened) : null;
    for (const layer of opened) layer[Symbol.dispose]();
    return { layers: shown, tree: merged };
}

const descriptor = ({ mediaType, digest, size, annotations }) => [mediaType, digest, size, annotations];
const platform = (it) => it && [it.os, it.architecture, it.variant];

function document(name) {
    const bytes = readFileSync(join(directory, name));
    return {
        document: attempt(() => {
            const { tag, val } = oci.parse(bytes, undefined);
            if (tag === 'index') return { index: val.map((it) => [descriptor(it.manifest), platform(it.platform) ?? null]) };
            return { manifest: { config: descriptor(val.config), layers: val.layers.map(descriptor) } };
        }),
        configuration: attempt(() => {
            const { diffIds, workingDir, history, platform: on, ...rest } = oci.parseConfiguration(bytes, undefined);
            const steps = history.map(({ createdBy, emptyLayer }) => [createdBy, emptyLayer]);
            return { ...rest, platform: platform(on), history: steps, 'diff-ids': diffIds, 'working-dir': workingDir };
        }),
    };
}

const outcome = { images: cases.images.map(image), documents: cases.documents.map(document) };
const exact = (_, value) => {
    if (typeof value !== 'bigint') return value;
    assert.ok(Number.isSafeInteger(Number(value)));
    return Number(value);
};
console.log(JSON.stringify(outcome, exact));
