// The loop of a host, over a blob in memory.

/** Opens a layer; `supply` brings ranges, `toc` is an external table of contents. */
export function open(layers, { descriptor, accept, limits = {} }, supply, toc) {
    const opener = new layers.Opener(descriptor);
    if (accept) opener.accept(accept);
    for (const [limit, maximum] of Object.entries(limits)) opener.setLimit(limit, BigInt(maximum));
    for (;;) {
        const step = opener.poll();
        if (step.tag === 'done') return layers.Opener.finish(opener);
        if (step.tag === 'need') for (const range of step.val) supply(opener, range);
        else opener.supplyToc(toc);
    }
}

/** Reads spans of one layer; `each` gets every piece of data. */
export function read(layer, spans, supply, maxBytes, each) {
    const reader = layer.read(spans);
    for (;;) {
        const step = reader.poll(maxBytes);
        if (step.tag === 'done') break;
        if (step.tag === 'data') each(step.val);
        else for (const need of step.val) supply(reader, need.blobRange, need.chunks);
    }
    reader[Symbol.dispose]();
}

/** Answers a need out of `blob`, in one of several ways. */
export function supplier(blob, split, log = []) {
    return (operation, { offset, length }) => {
        const [start, end] = [Number(offset), Number(offset + length)];
        log.push([start, end]);
        const give = (from, to) => {
            if (from < to) operation.supply(BigInt(from), blob.subarray(from, to));
        };
        switch (split) {
            case 'whole':
                return give(start, end);
            case 'pieces': // as a network delivers them
                for (let at = start; at < end; at += 777) give(at, Math.min(at + 777, end));
                return;
            case 'backwards': // with overlaps, and past the ends
                for (let to = end; to > start; to -= 1000) {
                    give(Math.max(start - 50, to - 1100, 0), Math.min(to + 50, blob.length));
                }
                return;
            case 'interleaved': // every other piece first
                for (const first of [0, 1]) {
                    for (let at = start + first * 500; at < end; at += 1000) give(at, Math.min(at + 500, end));
                }
                return;
            case 'half': // the rest has to be asked for again
                return give(start, start + Math.ceil((end - start) / 2));
            default:
                throw new Error(`unknown split ${split}`);
        }
    };
}

/** The `error-code` that was thrown; anything else, such as a trap, is thrown on. */
export function codeOf(thrown) {
    const code = thrown?.payload ?? thrown;
    if (thrown instanceof WebAssembly.RuntimeError || typeof code?.tag !== 'string') throw thrown;
    return code;
}

/** The `error-code` with which a call fails. */
export function errorOf(call) {
    try {
        call();
    } catch (thrown) {
        return codeOf(thrown);
    }
    throw new Error('the call did not fail');
}

/** Every object of a merged tree: path and location. */
export function* walk(rootfs, page = 1000) {
    const root = rootfs.root();
    const pending = [['', { layer: root.layer, entry: root.entry.id }]];
    while (pending.length > 0) {
        const [path, directory] = pending.pop();
        for (let start = 0; start !== undefined; ) {
            const { entries, next } = rootfs.children(directory, start, page);
            for (const { name, target } of entries) {
                const child = `${path}/${name}`;
                yield [child, target];
                if (target.entry.kind.tag === 'directory') {
                    pending.push([child, { layer: target.layer, entry: target.entry.id }]);
                }
            }
            start = next;
        }
    }
}
