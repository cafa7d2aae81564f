/**
 * Asks a registry, through the proxy of this page's server or directly. Direct requests carry nothing for which browsers
 * would first ask the registry for permission (a preflight, which most refuse), unless it wants a token.
 */
import { ApiError, type Access, type Place } from '../api';
import type { Meters } from './meter';
import { refused, unanswered, type Said } from './refusals';
import { LARGEST_DOCUMENT, type Source } from './source';
import { authorize, isLoopback } from './tokens';
import { Transport, whole, type Peer } from './transport';

// Longer values of a header need permission.
const OCI = ['index', 'manifest'].map((kind) => `application/vnd.oci.image.${kind}.v1+json`).join();
const DOCKER = ['manifest.list', 'manifest'].map((kind) => `application/vnd.docker.distribution.${kind}.v2+json`).join();

export class Registry implements Source, Peer {
    readonly #place: Place;
    readonly #access: Access;
    readonly #api: string;
    readonly #transport: Transport;
    readonly base: string;
    authorization: string | undefined;
    #authorizing: Promise<boolean> | null = null;

    constructor(place: Place, access: Access, meter: Meters) {
        this.#place = place;
        this.#access = access;
        this.#api = access.proxy === null ? direct(place.registry) : new URL(`${access.proxy}${place.registry}/v2/`, location.origin).href;
        this.base = `${this.#api}${place.repository}/`;
        this.#transport = new Transport(this, meter);
    }

    async document(reference: string): Promise<Uint8Array> {
        const get = (accept: string): Promise<Uint8Array> =>
            this.#transport.get({
                path: `manifests/${reference}`,
                what: `image ${this.#place.repository} with ${reference.includes(':') ? 'digest' : 'tag'} ${reference}`,
                headers: { accept },
                read: (body) => whole(body, LARGEST_DOCUMENT),
            });
        try {
            return await get(OCI);
        } catch (thrown) {
            if (!(thrown instanceof ApiError) || thrown.problem.kind !== 'not-found') throw thrown;
            return get(DOCKER);
        }
    }

    blob(digest: string, most = LARGEST_DOCUMENT): Promise<Uint8Array> {
        return this.#transport.blob(`blobs/${digest}`, `blob ${digest}`, most);
    }

    range(digest: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
        return this.#transport.range(`blobs/${digest}`, `blob ${digest}`, offset, length, signal);
    }

    download(digest: string, take: (piece: Uint8Array) => Promise<void> | void): Promise<void> {
        return this.#transport.download(`blobs/${digest}`, `blob ${digest}`, take);
    }

    async tags(): Promise<string[]> {
        const bytes = await this.#transport.get({
            path: 'tags/list?n=1000',
            what: `list of tags of ${this.#place.repository}`,
            read: (body) => whole(body, LARGEST_DOCUMENT),
        });
        const list = (JSON.parse(new TextDecoder().decode(bytes)) as { tags?: unknown } | null)?.tags;
        return Array.isArray(list) ? list.filter((tag): tag is string => typeof tag === 'string') : [];
    }

    refused(response: Response, said: Said, what: string): ApiError {
        return refused(response, said, this.#place, what, this.#access.proxy !== null);
    }

    unanswered(): Promise<ApiError> {
        return unanswered(this.#place, this.#access.proxy === null ? this.#api : null);
    }

    /** Requests that come to it at the same time share one token. */
    async authorize(response: Response): Promise<boolean> {
        if (this.#access.proxy !== null) return false;
        const had = this.authorization;
        this.#authorizing ??= authorize(response.headers.get('www-authenticate'), this.#place, this.#access.authorization)
            .then((authorization) => {
                this.authorization = authorization ?? undefined;
                return authorization !== null;
            })
            .finally(() => (this.#authorizing = null));
        return (await this.#authorizing) && (had !== this.authorization || this.authorization !== undefined);
    }
}

/** Where a registry is, by the name that references give it. */
function direct(registry: string): string {
    if (registry === 'docker.io') return 'https://registry-1.docker.io/v2/';
    const { hostname } = new URL(`https://${registry}`);
    return `${isLoopback(hostname) ? 'http' : 'https'}://${registry}/v2/`;
}
