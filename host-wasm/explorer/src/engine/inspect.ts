/** What is shown of one object beside its row. */
import type { Details, View } from '../api';
import { concat } from './bytes';
import type { Facts } from './findings';
import { append } from './groups';
import { names } from './paths';
import { engine, problem } from './problems';
import { Packages, type Files, type Owner } from './packages';
import type { Node, Trees } from './trees';

/** What is fetched of package databases without being asked for. */
const CHEAP = 1 << 20;

/** Remembers the package databases of an image. */
export class Inspector {
    readonly #trees: Trees;
    readonly #facts: Facts;
    #packages: Packages | null = null;
    /** What may be fetched to find an owner. */
    #most = CHEAP;

    constructor(trees: Trees, facts: Facts) {
        this.#trees = trees;
        this.#facts = facts;
    }

    /** Forgets what depends on which layers are open. */
    restack(): void {
        this.#packages = null;
    }

    async details(view: View, path: string): Promise<Details> {
        const trees = this.#trees;
        const row = trees.row(view, path, false);
        const { layer, entry } = trees.find(view, path, false);
        const links = entry.links > 1 && row.kind !== 'directory' ? ((await this.#facts.names(layer, trees)).get(entry.id) ?? []) : [];
        return {
            row,
            xattrs: engine(() => layer.layer?.xattrs(entry.id)) ?? [],
            chunks: row.kind === 'regular' ? layer.chunks(entry.id) : [],
            versions: versions(trees, row.path),
            hardLinks: links.filter((name) => name !== row.path),
            ...(row.kind === 'directory' ? {} : await this.#owner(row.path)),
        };
    }

    /** The package of a path, whatever that fetches. From now on nobody is asked for it. */
    async packageOf(path: string): Promise<string | null> {
        this.#most = Infinity;
        const owner = await this.#ask(path);
        return 'package' in owner ? owner.package : null;
    }

    #ask(path: string): Promise<Owner> {
        return (this.#packages ??= new Packages(files(this.#trees))).owner(path, this.#most);
    }

    async #owner(path: string): Promise<Pick<Details, 'packageOwner' | 'packageCost'>> {
        try {
            const owner = await this.#ask(path);
            return 'cost' in owner ? { packageCost: owner.cost } : { packageOwner: owner.package };
        } catch {
            // Without network, say, or the databases are damaged: perhaps another time.
            this.#packages = null;
            return {};
        }
    }
}

/** What the layers have at a path, from the bottom. */
function versions(trees: Trees, path: string): Details['versions'] {
    const found: Details['versions'] = [];
    let present = false;
    for (const { layer, facts } of trees.open) {
        const { index } = facts;
        let hidden = false;
        let at = '';
        const way = names(path);
        for (const [depth, name] of way.entries()) {
            at += `/${name}`;
            let entry;
            try {
                entry = layer?.lookup(at);
            } catch {
                break;
            }
            if (!entry) break;
            const { tag } = entry.kind;
            if (depth === way.length - 1) {
                if (tag === 'whiteout') hidden = true;
                else {
                    found.push({ layer: index, kind: tag, size: Number(entry.size), removed: false });
                    [present, hidden] = [true, false];
                }
            } else if (tag !== 'directory' || entry.opaque) hidden = true;
        }
        if (hidden && present) {
            found.push({ layer: index, kind: 'whiteout', size: 0, removed: true });
            present = false;
        }
    }
    return found;
}

function files(trees: Trees): Files {
    const find = (path: string): Node | null => {
        try {
            const node = trees.find('merged', path, false);
            return node.entry.kind.tag === 'regular' ? node : null;
        } catch {
            return null;
        }
    };
    const grouped = (paths: string[]) => {
        const groups = new Map<Node['layer'], { file: number; offset: number; length: number; path: string }[]>();
        for (const path of paths) {
            const node = find(path);
            if (!node || node.entry.size === 0n) continue;
            const part = { file: node.entry.id, offset: 0, length: Number(node.entry.size), path };
            append(groups, node.layer, part);
        }
        for (const group of groups.values()) group.sort((one, other) => one.file - other.file);
        return groups;
    };
    return {
        list(directory) {
            try {
                const found: string[] = [];
                for (let start: number | null = 0; start !== null; ) {
                    const page: ReturnType<Trees['children']> = trees.children('merged', directory, start);
                    found.push(...page.rows.map(({ name }) => name));
                    start = page.next;
                }
                return found;
            } catch {
                return [];
            }
        },
        size(path) {
            const node = find(path);
            return node && Number(node.entry.size);
        },
        async part(path, offset, length) {
            const node = find(path);
            const pieces: Uint8Array[] = [];
            if (node) for await (const { bytes } of node.layer.read([{ file: node.entry.id, offset, length, path }])) pieces.push(bytes);
            const bytes = concat(pieces);
            if (bytes.length !== length) throw problem('malformed', `${path} ends before its byte ${offset + length}.`);
            return bytes;
        },
        async estimate(paths) {
            let sum = 0;
            for (const [layer, parts] of grouped(paths)) sum += (await layer.estimate(parts)).bytes;
            return sum;
        },
        async *read(paths) {
            for (const [layer, parts] of grouped(paths)) {
                const decoders = parts.map(() => ({ text: '', decoder: new TextDecoder() }));
                for await (const { part, bytes } of layer.read(parts)) {
                    const into = decoders[part];
                    if (into) into.text += into.decoder.decode(bytes, { stream: true });
                }
                for (const [index, { text }] of decoders.entries()) yield { path: parts[index]?.path ?? '', text };
            }
        },
    };
}
