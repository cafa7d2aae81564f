// Runs one scenario of the tests: `node run.mjs ENGINE SCENARIO JOB`; prints what came of it as JSON.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { codeOf, errorOf, open, read, supplier, walk } from './drive.mjs';

const [engine, scenario, jobFile] = process.argv.slice(2);
const { layers, oci, overlay } = await import(engine);
const job = JSON.parse(readFileSync(jobFile, 'utf8'));

function load({ blob, toc, annotations = {}, ...options }) {
    const bytes = readFileSync(blob);
    const descriptor = {
        mediaType: '',
        digest: '',
        size: BigInt(bytes.length),
        annotations: Object.entries(annotations),
    };
    return { ...options, bytes, descriptor, toc: toc && readFileSync(toc) };
}

/** The whole tree of layers, read through one reader a layer. */
function tree(opened, splits, { page, maxBytes } = {}) {
    const rootfs = new overlay.Rootfs(opened.map(({ layer }) => layer));
    const files = {};
    const wanted = opened.map(() => []);
    for (const [path, { layer, entry }] of walk(rootfs, page)) {
        files[path] = { kind: entry.kind.tag, size: Number(entry.size), layer };
        if (entry.kind.tag === 'symlink') [files[path].target] = opened[layer].layer.readLinks([entry.id]);
        if (entry.kind.tag === 'regular') wanted[layer].push([path, entry]);
    }
    opened.forEach(({ layer, bytes }, at) => {
        wanted[at].sort(([, one], [, other]) => one.id - other.id);
        const hashes = wanted[at].map(() => createHash('sha256'));
        const offsets = wanted[at].map(() => 0n);
        const spans = wanted[at].map(([, entry]) => ({ file: entry.id, offset: 0n, length: entry.size }));
        read(layer, spans, supplier(bytes, splits), maxBytes ?? 0, ({ span, offset, bytes }) => {
            assert.equal(offset, offsets[span], 'data of a file comes in order');
            assert.ok(bytes.length > 0 && bytes.length <= (maxBytes || 1 << 20));
            offsets[span] += BigInt(bytes.length);
            hashes[span].update(bytes);
        });
        wanted[at].forEach(([path], span) => (files[path].digest = `sha256:${hashes[span].digest('hex')}`));
    });
    return files;
}

const scenarios = {
    /** Reads whole images, with every way to answer. */
    read() {
        const blobs = job.layers.map(load);
        return job.splits.map((split) => {
            const opened = blobs.map((blob) => {
                const layer = open(layers, blob, supplier(blob.bytes, split), blob.toc);
                return { ...blob, layer };
            });
            return {
                summaries: opened.map(({ layer }) => {
                    const { format, assurance, tocDigest } = layer.summary();
                    return { format, assurance, tocDigest };
                }),
                files: tree(opened, split, job),
            };
        });
    },

    /** Alters one byte at a time and reads everything; what is wrong, and that good bytes heal it. */
    flips() {
        const blob = load(job.layer);
        const errors = job.flips.map((flip) => {
            const bad = Buffer.from(blob.bytes);
            bad[flip] ^= 0x55;
            const layer = open(layers, blob, supplier(blob.bytes, 'whole'));
            const file = layer.lookup(job.path);
            const reader = layer.read([{ file: file.id, offset: 0n, length: file.size }]);
            const hash = createHash('sha256');
            let error;
            for (;;) {
                let step;
                try {
                    step = reader.poll(0);
                } catch (thrown) {
                    assert.equal(error, undefined, 'good bytes heal the reader');
                    error = codeOf(thrown);
                    continue;
                }
                if (step.tag === 'done') break;
                if (step.tag === 'data') hash.update(step.val.bytes);
                else for (const need of step.val) supplier(error ? blob.bytes : bad, 'whole')(reader, need.blobRange);
            }
            return { error, digest: `sha256:${hash.digest('hex')}` };
        });
        return errors;
    },

    /** Opens what cannot be opened. */
    refused() {
        return job.layers.map((layer) => {
            const blob = load(layer);
            return errorOf(() => open(layers, blob, supplier(blob.bytes, 'whole'), blob.toc));
        });
    },

    /** Random damage everywhere: an error or content, never a trap. */
    fuzz() {
        const blob = load(job.layer);
        let state = job.seed;
        const random = (below) => {
            state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
            return Math.floor((state / 2 ** 32) * below);
        };
        const outcomes = {};
        for (let round = 0; round < job.rounds; round++) {
            const bytes = Buffer.from(blob.bytes);
            const end = round % 2 ? bytes.length : Math.min(bytes.length, 4096);
            for (let flips = 1 + random(4); flips > 0; flips--) bytes[bytes.length - 1 - random(end)] = random(256);
            const toc = blob.toc && Buffer.from(blob.toc);
            if (toc) for (let flips = 1 + random(8); flips > 0; flips--) toc[random(toc.length)] = 32 + random(95);
            let outcome = 'content';
            try {
                const layer = open(layers, { ...blob, accept: 'unverified' }, supplier(bytes, 'whole'), toc);
                tree([{ layer, bytes }], 'whole');
                layer[Symbol.dispose]();
            } catch (error) {
                outcome = codeOf(error).tag;
            }
            outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
        }
        return outcomes;
    },

    /** Serves chunks from a cache of the host, which may lie. */
    cache() {
        const blob = load(job.layer);
        const layer = open(layers, blob, supplier(blob.bytes, 'whole'));
        const file = layer.lookup(job.path);
        const spans = [{ file: file.id, offset: 0n, length: file.size }];
        const content = [];
        read(layer, spans, supplier(blob.bytes, 'whole'), 0, ({ bytes }) => content.push(bytes));
        const plain = Buffer.concat(content);
        const { chunks } = layer.chunks(file.id, 0, 1000);
        const cached = new Map(
            chunks.map(({ offset, length, digest }) => [digest, plain.subarray(Number(offset), Number(offset + length))]),
        );
        const again = [];
        const fetched = [];
        let lies = 0;
        const answer = (reader, range, digests) => {
            for (const digest of digests) {
                const lie = errorOf(() => reader.supplyChunk(digest, Buffer.from('lie')));
                assert.equal(lie.tag, 'digest-mismatch');
                assert.equal(lie.val.expected, digest);
                lies++;
                if (digest !== chunks.at(-1).digest) reader.supplyChunk(digest, cached.get(digest));
            }
            supplier(blob.bytes, 'whole', fetched)(reader, range);
        };
        read(layer, spans, answer, 0, ({ bytes }) => again.push(bytes));
        assert.deepEqual(Buffer.concat(again), plain);
        // A range of which every chunk is in the cache is not needed any more.
        const reader = layer.read(spans);
        for (const need of reader.poll(0).val) need.chunks.forEach((digest) => reader.supplyChunk(digest, cached.get(digest)));
        assert.equal(reader.poll(0).tag, 'data');
        return { chunks: chunks.length, lies };
    },

    /** Calls that make no sense. */
    misuse() {
        const blob = load(job.layer);
        const tag = (call) => errorOf(call).tag;
        const give = supplier(blob.bytes, 'whole');
        const fresh = new layers.Opener(blob.descriptor);
        assert.equal(tag(() => fresh.supply(blob.descriptor.size, new Uint8Array(1))), 'protocol');
        assert.equal(tag(() => fresh.supply(2n ** 64n - 1n, new Uint8Array(2))), 'protocol');
        assert.equal(tag(() => fresh.supplyToc(new Uint8Array(1))), 'protocol');
        assert.deepEqual(fresh.poll(), fresh.poll());
        assert.equal(tag(() => fresh.accept('unverified')), 'protocol');
        assert.equal(tag(() => layers.Opener.finish(fresh)), 'protocol');

        const layer = open(layers, blob, give);
        const file = layer.lookup(job.path);
        assert.equal(tag(() => layer.lookup('/not/there')), 'not-found');
        assert.equal(tag(() => layer.lookup(`${job.path}/below`)), 'wrong-kind');
        assert.equal(tag(() => layer.stat([0xffffffff])), 'not-found');
        assert.equal(tag(() => layer.stat(new Uint32Array(1001))), 'limit-exceeded');
        assert.equal(tag(() => layer.children(file.id, 0, 10)), 'wrong-kind');
        assert.equal(tag(() => layer.readLinks([file.id])), 'wrong-kind');
        assert.equal(tag(() => layer.chunks(0, 0, 10)), 'wrong-kind');
        assert.equal(tag(() => layer.read([{ file: 0, offset: 0n, length: 1n }])), 'wrong-kind');
        assert.deepEqual(layer.children(0, 0xffffffff, 0xffffffff), { entries: [], next: undefined });
        assert.deepEqual(layer.chunks(file.id, 0xffffffff, 10), { chunks: [], next: undefined });
        assert.equal(layer.read([]).poll(0).tag, 'done');
        const beyond = { file: file.id, offset: 2n ** 64n - 1n, length: 2n ** 64n - 1n };
        assert.equal(layer.read([beyond]).poll(0).tag, 'done');

        // A part of a file, twice, and the handle of the layer gone before the reader's.
        const spans = [1, 2].map(() => ({ file: file.id, offset: 99_990n, length: 20n }));
        const reader = layer.read(spans);
        layer[Symbol.dispose]();
        const need = reader.poll(0);
        assert.deepEqual(reader.poll(0), need);
        assert.equal(tag(() => reader.supply(blob.descriptor.size, new Uint8Array(1))), 'protocol');
        assert.equal(tag(() => reader.supplyChunk('sha256:nonsense', new Uint8Array(1))), 'protocol');
        assert.equal(tag(() => reader.supplyChunk(oci.digestOf(new Uint8Array(0)), new Uint8Array(0))), 'protocol');
        for (const { blobRange } of need.val) give(reader, blobRange);
        let step;
        let count = 0;
        while ((step = reader.poll(7)).tag === 'data') count += step.val.bytes.length;
        assert.deepEqual([step.tag, count], ['done', 40]);

        const rootfs = new overlay.Rootfs([]);
        assert.equal(tag(() => rootfs.root()), 'not-found');
        assert.equal(tag(() => rootfs.stat([{ layer: 3, entry: 0 }])), 'not-found');
        const document = Buffer.from('{}');
        oci.verify(document, oci.digestOf(document));
        assert.equal(tag(() => oci.verify(document, oci.digestOf(Buffer.from('[]')))), 'digest-mismatch');
        assert.equal(tag(() => oci.verify(document, 'sha512:00')), 'unsupported');
        assert.equal(tag(() => oci.verify(document, 'no digest')), 'protocol');
        return 'ok';
    },
};

const result = scenarios[scenario]();
console.log(JSON.stringify(result, (_, value) => (typeof value === 'bigint' ? Number(value) : value)));
