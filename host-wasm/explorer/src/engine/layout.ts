/** OCI layouts: `index.json`, and blobs by their digests. */
import type { ApiError, Place } from '../api';
import type { Meters } from './meter';
import { problem } from './problems';
import { unread } from './refusals';
import { LARGEST_DOCUMENT, type Source } from './source';
import { Transport, type Peer } from './transport';

const NAMES = ['org.opencontainers.image.ref.name', 'io.containerd.image.name'];

/** The images of an `index.json` by their names, as tags can be written; the first one is there with an empty name, too. */
export function images(index: Uint8Array, where: string): Map<string, string> {
    const found = new Map<string, string>();
    const { manifests } = parsed(index, where) as { manifests?: unknown };
    for (const manifest of Array.isArray(manifests) ? (manifests as unknown[]) : []) {
        const { digest, annotations } = (manifest ?? {}) as { digest?: unknown; annotations?: Record<string, unknown> };
        if (typeof digest !== 'string') continue;
        const names = NAMES.map((key) => annotations?.[key]).filter((name): name is string => typeof name === 'string');
        const name = names.map(asTag).find((tag) => !found.has(tag));
        for (const key of found.size === 0 ? ['', name] : [name]) if (key !== undefined) found.set(key, digest);
    }
    if (found.size === 0) throw problem('malformed', `${where} names no image.`);
    return found;
}

/** The digest of an image by its name. */
export function named(images: Map<string, string>, name: string, where: string): string {
    const digest = images.get(name);
    if (digest === undefined) throw problem('not-found', `${where} has no image ${name}; it has ${tagsOf(images).join(', ') || 'one without a name'}.`);
    return digest;
}

/** The names that are not empty. */
export function tagsOf(images: Map<string, string>): string[] {
    return [...images.keys()].filter(Boolean);
}

/** A name as one that tags may have. */
export function asTag(name: string): string {
    return name.replace(/[^\w.-]/g, '_').replace(/^[.-]/, '_').slice(0, 128);
}

/** JSON of somebody else: an object, whatever is in it. */
export function parsed(json: Uint8Array, where: string): object {
    try {
        const value: unknown = JSON.parse(new TextDecoder().decode(json));
        if (typeof value === 'object' && value !== null) return value;
    } catch {
        // Said below.
    }
    throw problem('malformed', `${where} is not the JSON that it has to be.`);
}

/** A layout on a web server. */
export class LayoutByUrl implements Source, Peer {
    readonly base: string;
    readonly #host: string;
    readonly #transport: Transport;
    #images: Promise<Map<string, string>> | null = null;

    constructor({ registry, repository }: Place, meter: Meters) {
        this.base = new URL(`${registry}/${repository}/`).href;
        this.#host = new URL(registry).host;
        this.#transport = new Transport(this, meter);
    }

    async document(reference: string): Promise<Uint8Array> {
        return this.blob(reference.includes(':') ? reference : named(await this.#named(), reference, this.base));
    }

    blob(digest: string, most = LARGEST_DOCUMENT): Promise<Uint8Array> {
        return this.#transport.blob(path(digest), `blob ${digest}`, most);
    }

    range(digest: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
        return this.#transport.range(path(digest), `blob ${digest}`, offset, length, signal);
    }

    download(digest: string, take: (piece: Uint8Array) => Promise<void> | void): Promise<void> {
        return this.#transport.download(path(digest), `blob ${digest}`, take);
    }

    async tags(): Promise<string[]> {
        return tagsOf(await this.#named());
    }

    #named(): Promise<Map<string, string>> {
        this.#images ??= this.#transport.blob('index.json', 'index.json', LARGEST_DOCUMENT).then((index) => images(index, `${this.base}index.json`));
        this.#images.catch(() => (this.#images = null));
        return this.#images;
    }

    refused(response: Response, _: unknown, what: string): ApiError {
        const { status } = response;
        if (status === 404 && what === 'index.json') {
            return problem('not-found', `There is no OCI layout at ${this.base}: it would have an index.json. The image of a registry is named without ${new URL(this.base).protocol}//.`, { status });
        }
        if (status === 404) return problem('not-found', `${this.base} has no ${what}: the layout is not complete.`, { status });
        if (status === 401 || status === 403) return problem('forbidden', `${this.#host} does not let everybody read ${this.base}, and this page gives no credentials to web servers.`, { status });
        return problem('registry', `${this.#host} answered with status ${status} when asked for ${what}. Try again later.`, { status });
    }

    unanswered(): Promise<ApiError> {
        return unread(this.#host, this.base, (host) => `${host} answers, but does not allow web pages to read what it says (CORS). Whoever runs it can allow it with one header for the files of the layout:\n\nAccess-Control-Allow-Origin: *\n\nWith nginx that is \`add_header Access-Control-Allow-Origin *;\`. Or download the layout as a tar and open that file.`);
    }
}

/** Where a blob is in a layout. */
function path(digest: string): string {
    return `blobs/${digest.replace(':', '/')}`;
}
