/**
 * Images in files of this computer: archives of OCI layouts and of `docker save`, and single layers. What is read of them is
 * what is needed; only a blob whose digest nothing says is read once whole. Nothing of it goes to any server.
 */
import { sha256 } from '@noble/hashes/sha2.js';
import { asDigest } from './bytes';
import { asTag, images, named, parsed, tagsOf } from './layout';
import { names } from './paths';
import { problem } from './problems';
import { LARGEST_DOCUMENT, type Source } from './source';
import { TarReader } from './untar';

const PIECE = 4 << 20;
const HEADERS = 8 << 10;
/** What archives of images have in them; a tar with anything else is a layer. */
const ARCHIVED = /^(?:oci-layout|index\.json|manifest\.json|repositories|blobs(?:\/sha(?:256|512)(?:\/[0-9a-f]+)?)?|[0-9a-f]{64}(?:\.json|\.tar|\.tar\.gz|\/(?:layer\.tar|VERSION|json))?)?$/;
const MOST_FILES = 10_000;

/** What an image consists of, by digest, and which document a name leads to. */
interface Contents {
    names: Map<string, string>;
    blobs: Map<string, Blob>;
}

export class LocalFile implements Source {
    readonly #name: string;
    readonly #names: Map<string, string>;
    readonly #blobs: Map<string, Blob>;

    private constructor(name: string, { names, blobs }: Contents) {
        this.#name = name;
        this.#names = names;
        this.#blobs = blobs;
    }

    /** Finds out what is in a file. */
    static async open(file: File): Promise<LocalFile> {
        if (file.size === 0) throw problem('file', `${file.name} is empty.`);
        const entries = await archive(file);
        if (!entries) return new LocalFile(file.name, await layer(file));
        return new LocalFile(file.name, entries.has('index.json') ? await layout(file, entries) : await saved(file, entries));
    }

    async document(reference: string): Promise<Uint8Array> {
        return this.blob(reference.includes(':') ? reference : named(this.#names, reference, this.#name));
    }

    async blob(digest: string, most = LARGEST_DOCUMENT): Promise<Uint8Array> {
        return whole(this.#blob(digest), this.#name, most);
    }

    async range(digest: string, offset: number, length: number): Promise<Uint8Array> {
        const bytes = await bytesOf(this.#blob(digest).slice(offset, offset + length), this.#name);
        if (bytes.length < length) throw problem('malformed', `${this.#name} is cut short: it ends within blob ${digest}.`);
        return bytes;
    }

    download(digest: string, take: (piece: Uint8Array) => Promise<void> | void): Promise<void> {
        return pieces(this.#blob(digest), this.#name, take);
    }

    async tags(): Promise<string[]> {
        return tagsOf(this.#names);
    }

    #blob(digest: string): Blob {
        const blob = this.#blobs.get(digest);
        if (!blob) throw problem('not-found', `${this.#name} has nothing with digest ${digest}: it is another file than that of the link, or not complete.`);
        return blob;
    }
}

type Entries = Map<string, Blob>;

/** The files of an archive of images, links followed; `null` when it is none. Their content is skipped. */
async function archive(file: File): Promise<Entries | null> {
    const entries: Entries = new Map();
    const links: [string, string][] = [];
    let isArchive = true;
    const reader = new TarReader(({ name, type, size, target, offset }) => {
        const at = name.replace(/^\.\//, '').replace(/\/$/, '');
        if (!ARCHIVED.test(at) || entries.size > MOST_FILES) isArchive = false;
        else if (type === '0' || type === '7') entries.set(at, file.slice(offset, offset + size));
        else if (type === '1' || type === '2') links.push([at, type === '1' ? target : `${at.slice(0, at.lastIndexOf('/') + 1)}${target}`]);
        return () => undefined;
    });
    try {
        for (let at = 0; at < file.size && isArchive && !reader.isOver; at += reader.skip()) {
            const some = await bytesOf(file.slice(at, at + HEADERS), file.name);
            reader.push(some);
            at += some.length;
        }
    } catch (thrown) {
        // What is no tar is a compressed layer, say; an archive has shown that it is one.
        if (entries.size === 0) return null;
        throw thrown;
    }
    if (!isArchive || entries.size === 0) return null;
    if (!entries.has('index.json') && !entries.has('manifest.json')) {
        throw problem('malformed', `${file.name} looks like an archive of an image, but has no index.json or manifest.json: it is cut short, or not complete.`);
    }
    for (const [at, target] of links) {
        const found = entryAt(entries, target);
        if (found) entries.set(at, found);
    }
    return entries;
}

/** An OCI layout. */
async function layout(file: File, entries: Entries): Promise<Contents> {
    const blobs: Entries = new Map();
    for (const [at, blob] of entries) {
        const [, algorithm, sum] = /^blobs\/(\w+)\/([0-9a-f]+)$/.exec(at) ?? [];
        if (sum) blobs.set(`${algorithm}:${sum}`, blob);
    }
    const index = await document(file, entries, 'index.json');
    return { names: images(index, `index.json of ${file.name}`), blobs };
}

/** What `docker save` writes: documents of OCI are made of it. */
async function saved(file: File, entries: Entries): Promise<Contents> {
    const where = `manifest.json of ${file.name}`;
    const contents: Contents = { names: new Map(), blobs: new Map() };
    const list = parsed(await document(file, entries, 'manifest.json'), where);
    for (const image of Array.isArray(list) ? (list as unknown[]) : []) {
        const { Config, RepoTags, Layers } = (image ?? {}) as { Config?: unknown; RepoTags?: unknown; Layers?: unknown };
        if (typeof Config !== 'string' || !Array.isArray(Layers)) throw problem('malformed', `${where} is not what \`docker save\` writes.`);
        const config = await document(file, entries, Config);
        const { rootfs } = parsed(config, `${Config} of ${file.name}`) as { rootfs?: { diff_ids?: unknown } };
        const diffIds: unknown[] = Array.isArray(rootfs?.diff_ids) ? rootfs.diff_ids : [];
        const layers: Described[] = [];
        for (const [index, name] of (Layers as unknown[]).entries()) {
            const blob = entryAt(entries, String(name));
            if (!blob) throw problem('malformed', `${file.name} is not complete: it has no ${String(name)}.`);
            layers.push(await described(file, blob, diffIds[index]));
        }
        const tags = Array.isArray(RepoTags) ? RepoTags.filter((tag): tag is string => typeof tag === 'string') : [];
        compose(contents, config, layers, tags.map(asTag));
    }
    if (contents.names.size === 0) throw problem('malformed', `${where} names no image.`);
    return contents;
}

/** A single layer: an image that says nothing but that it has this layer. */
async function layer(file: File): Promise<Contents> {
    const contents: Contents = { names: new Map(), blobs: new Map() };
    const only = await described(file, file, null);
    const config = { os: '', architecture: '', rootfs: { type: 'layers', diff_ids: [only.digest] }, history: [{ created_by: file.name }] };
    compose(contents, new TextEncoder().encode(JSON.stringify(config)), [only], []);
    return contents;
}

interface Described {
    mediaType: string;
    digest: string;
    size: number;
    blob: Blob;
}

/** A layer. One that is not compressed has the digest of its tar. */
async function described(file: File, blob: Blob, diffId: unknown): Promise<Described> {
    const [first, second] = await bytesOf(blob.slice(0, 2), file.name);
    const kind = first === 0x1f && second === 0x8b ? '+gzip' : first === 0x28 && second === 0xb5 ? '+zstd' : '';
    let digest = kind === '' && typeof diffId === 'string' ? diffId : null;
    if (digest === null) {
        const hash = sha256.create();
        await pieces(blob, file.name, (bytes) => void hash.update(bytes));
        digest = asDigest(hash.digest());
    }
    return { mediaType: `application/vnd.oci.image.layer.v1.tar${kind}`, digest, size: blob.size, blob };
}

/** Adds an image with these layers. */
function compose({ names, blobs }: Contents, config: Uint8Array, layers: Described[], tags: string[]): void {
    const add = (bytes: Uint8Array): string => {
        const digest = asDigest(sha256(bytes));
        blobs.set(digest, new Blob([bytes as BlobPart]));
        return digest;
    };
    for (const { digest, blob } of layers) blobs.set(digest, blob);
    const manifest = add(
        new TextEncoder().encode(
            JSON.stringify({
                schemaVersion: 2,
                mediaType: 'application/vnd.oci.image.manifest.v1+json',
                config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: add(config), size: config.length },
                layers: layers.map(({ blob: _, ...descriptor }) => descriptor),
            }),
        ),
    );
    if (names.size === 0) names.set('', manifest);
    for (const tag of tags) names.set(tag, manifest);
}

/** What a path leads to. */
function entryAt(entries: Entries, path: string): Blob | undefined {
    return entries.get(names(path).join('/'));
}

async function document(file: File, entries: Entries, name: string): Promise<Uint8Array> {
    const blob = entryAt(entries, name);
    if (!blob) throw problem('malformed', `${file.name} is not complete: it has no ${name}.`);
    return whole(blob, file.name, LARGEST_DOCUMENT);
}

async function whole(blob: Blob, name: string, most: number): Promise<Uint8Array> {
    if (blob.size > most) throw problem('limit-exceeded', `A document in ${name} has ${blob.size} bytes, more than the ${most} that are allowed.`);
    return bytesOf(blob, name);
}

async function pieces(blob: Blob, name: string, take: (piece: Uint8Array) => Promise<void> | void): Promise<void> {
    for (let at = 0; at < blob.size; at += PIECE) await take(await bytesOf(blob.slice(at, at + PIECE), name));
}

async function bytesOf(blob: Blob, name: string): Promise<Uint8Array> {
    try {
        return new Uint8Array(await blob.arrayBuffer());
    } catch {
        throw problem('file', `${name} can be read no longer: it was changed, moved or deleted since it was opened. Choose it again.`);
    }
}
