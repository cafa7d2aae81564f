/** All that the merged tree holds, for comparing images: what is in the tables of contents, with nothing fetched. */
import { sha256 } from '@noble/hashes/sha2.js';
import type { Listed } from '../api';
import { asDigest } from './bytes';
import { walk } from './findings';
import { engine } from './problems';
import { Slices } from './slices';
import type { Node, Trees } from './trees';

const text = new TextEncoder();

/** In the order of a walk: names by their bytes, a directory before what is in it. */
export async function* listing(trees: Trees): AsyncGenerator<Listed, void, undefined> {
    const slices = new Slices();
    for await (const { path, layer, entry } of walk('merged', trees)) {
        yield listed(trees, path, { layer, entry });
        await slices.breathe();
    }
}

/** What is at a path. */
export function listed(trees: Trees, path: string, node: Node): Listed {
    const { layer, entry } = node;
    const { kind } = entry;
    return {
        path,
        kind: kind.tag,
        size: kind.tag === 'regular' ? Number(entry.size) : 0,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        modified: Number(entry.modified.seconds) + entry.modified.nanoseconds / 1e9,
        leads: kind.tag === 'symlink' ? trees.target(node) : 'val' in kind ? `${kind.val.major}:${kind.val.minor}` : null,
        xattrs: attributes(node),
        content: kind.tag === 'regular' ? content(node) : null,
        layer: layer.facts.index,
        object: `${layer.facts.digest} ${entry.id}`,
        links: entry.links,
    };
}

function attributes({ layer, entry }: Node): string {
    const found = engine(() => layer.layer?.xattrs(entry.id)) ?? [];
    if (found.length === 0) return '';
    const sum = sha256.create();
    for (const { name, value } of found.sort((one, other) => (one.name < other.name ? -1 : 1))) {
        sum.update(text.encode(`${name}\0${value.length}\0`)).update(value);
    }
    return asDigest(sum.digest());
}

/** The digests of its chunks as one, and where they are cut: content that is cut elsewhere has other digests. */
function content({ layer, entry }: Node): Listed['content'] {
    if (entry.size === 0n) return { cut: '', digest: '' };
    const chunks = layer.chunks(entry.id);
    if (chunks.some(({ digest, blobOffset }) => digest === null && blobOffset !== null)) return null;
    const [only] = chunks;
    if (chunks.length === 1 && only?.digest) return { cut: '', digest: only.digest };
    const of = (value: (chunk: (typeof chunks)[number]) => unknown): string => asDigest(sha256(text.encode(chunks.map(value).join(' '))));
    return { cut: of(({ length }) => length), digest: of(({ digest }) => digest) };
}
