// The benchmark in Node: `node node.mjs ENGINE DIRECTORY`; prints seconds as JSON.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { open, read } from '../../wasm/drive.mjs';

const [engine, directory] = process.argv.slice(2);
const { layers, oci } = await import(engine);
const { cases, planned, chunk } = JSON.parse(readFileSync(join(directory, 'cases.json'), 'utf8'));
const plain = readFileSync(join(directory, 'plain'));

function best(run) {
    const begin = performance.now();
    let fastest = Infinity;
    // As long as V8 needs to compile it well.
    for (let runs = 0; runs < 3 || performance.now() - begin < 500; runs++) {
        const start = process.cpuUsage();
        run();
        const { user, system } = process.cpuUsage(start);
        fastest = Math.min(fastest, user + system);
    }
    return fastest / 1e6;
}

function plan(layer, files) {
    const reader = layer.read(files.map((file) => ({ file, offset: 0n, length: 1n << 40n })));
    const { tag, val } = reader.poll(0);
    assert.equal(tag, 'need');
    assert.equal(val.reduce((sum, need) => sum + need.chunks.length, 0), files.length);
    reader[Symbol.dispose]();
}

const kinds = {
    open: (_, opened) => opened()[Symbol.dispose](),
    hash: (_layer, _opened, _supply, toc) => oci.digestOf(toc),
    plan: (layer) => plan(layer, planned),
    'plan one by one': (layer) => planned.forEach((file) => plan(layer, [file])),
    read(layer, _, supply) {
        let bytes = 0;
        const file = layer.lookup('f');
        read(layer, [{ file: file.id, offset: 0n, length: file.size }], supply, 0, (data) => (bytes += data.bytes.length));
        assert.equal(bytes, plain.length);
    },
    cached(layer) {
        const file = layer.lookup('f');
        let at = 0;
        const supply = (reader, _, digests) => {
            for (const digest of digests) reader.supplyChunk(digest, plain.subarray(at, (at += chunk)));
        };
        read(layer, [{ file: file.id, offset: 0n, length: file.size }], supply, 0, () => {});
    },
};

const seconds = {};
for (const { name, kind, size, annotations, tail: tailFile, toc: tocFile } of cases) {
    const [tail, toc] = [tailFile, tocFile].map((file) => readFileSync(join(directory, file)));
    const before = size - tail.length;
    const supply = (operation, { offset, length }) => {
        const [start, end] = [Number(offset), Number(offset + length)];
        if (start < before) operation.supply(offset, new Uint8Array(Math.min(end, before) - start));
        if (end > before) operation.supply(BigInt(Math.max(start, before)), tail.subarray(Math.max(start - before, 0), end - before));
    };
    const descriptor = { mediaType: '', digest: '', size: BigInt(size), annotations: Object.entries(annotations) };
    const opened = () => open(layers, { descriptor, accept: 'unverified' }, supply, toc);
    const layer = opened();
    seconds[name] = best(() => kinds[kind](layer, opened, supply, toc));
    layer[Symbol.dispose]();
}
console.log(JSON.stringify(seconds));
