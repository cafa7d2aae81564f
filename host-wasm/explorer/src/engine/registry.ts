/**
 * Asks a registry, through the proxy of this page's server or directly. Direct requests carry nothing for which browsers
 * would first ask the registry for permission (a preflight, which most refuse), unless it wants a token.
 */
import { ApiError, type Access, type Place } from '../api';
import { concat } from './bytes';
import { Limiter } from './limiter';
import type { Meters } from './meter';
import { problem } from './problems';
import { refused, saying, seconds, unanswered } from './refusals';
import { authorize, isLoopback } from './tokens';

// Longer values of a header need permission.
const OCI = ['index', 'manifest'].map((kind) => `application/vnd.oci.image.${kind}.v1+json`).join();
const DOCKER = ['manifest.list', 'manifest'].map((kind) => `application/vnd.docker.distribution.${kind}.v2+json`).join();

const SIDE_BY_SIDE = 8;
const ATTEMPTS = 4;
const FIRST_PAUSE_MS = 250;
/** Longest wait that a registry may ask for before people are told of it. */
const LONGEST_PAUSE_S = 20;
/** A connection that is silent for so long is given up. */
const SILENCE_MS = 30_000;
const LARGEST_DOCUMENT = 8 << 20;

interface Request {
    path: string;
    /** What is asked for, for people. */
    what: string;
    headers?: Record<string, string>;
    signal?: AbortSignal | undefined;
    /** Reads the body; what it throws of the network is tried again. */
    read: (body: Body) => Promise<Uint8Array>;
}

/** The body of an answer, counted as it comes. */
export interface Body {
    status: number;
    pieces(): AsyncGenerator<Uint8Array, void, undefined>;
}

/** Worth another try. */
class Interrupted extends Error {}

export class Registry {
    readonly #place: Place;
    readonly #access: Access;
    readonly #meter: Meters;
    readonly #api: string;
    readonly #limiter = new Limiter(SIDE_BY_SIDE);
    #authorization: string | undefined;
    #authorizing: Promise<boolean> | null = null;
    /** Where blobs were found after redirects. */
    readonly #moved = new Map<string, string>();

    constructor(place: Place, access: Access, meter: Meters) {
        this.#place = place;
        this.#access = access;
        this.#meter = meter;
        this.#api = access.proxy === null ? direct(place.registry) : new URL(`${access.proxy}${place.registry}/v2/`, location.origin).href;
    }

    /** The index or manifest with this tag or digest. */
    async document(reference: string): Promise<Uint8Array> {
        const get = (accept: string): Promise<Uint8Array> =>
            this.#get({
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

    /** A whole blob of at most so many bytes. */
    blob(digest: string, most = LARGEST_DOCUMENT): Promise<Uint8Array> {
        return this.#get({ path: `blobs/${digest}`, what: `blob ${digest}`, read: (body) => whole(body, most) });
    }

    /** Exactly these bytes of a blob. */
    range(digest: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
        return this.#get({
            path: `blobs/${digest}`,
            what: `blob ${digest}`,
            headers: { range: `bytes=${offset}-${offset + length - 1}` },
            signal,
            // What is no part of the blob is all of it.
            read: (body) => cut(body, body.status === 206 ? 0 : offset, length),
        });
    }

    /** A whole blob, a piece at a time. It is not asked for again when the connection breaks. */
    download(digest: string, take: (piece: Uint8Array) => Promise<void> | void, signal?: AbortSignal): Promise<Uint8Array> {
        let begun = false;
        return this.#get({
            path: `blobs/${digest}`,
            what: `blob ${digest}`,
            signal,
            read: async (body) => {
                if (begun) throw problem('unreachable', `The connection to ${this.#place.registry} broke in the middle of a layer. Try again.`);
                for await (const piece of body.pieces()) {
                    begun = true;
                    await take(piece);
                }
                return new Uint8Array();
            },
        });
    }

    /** The tags of the repository. */
    async tags(): Promise<string[]> {
        const bytes = await this.#get({
            path: 'tags/list?n=1000',
            what: `list of tags of ${this.#place.repository}`,
            read: (body) => whole(body, LARGEST_DOCUMENT),
        });
        const list = (JSON.parse(new TextDecoder().decode(bytes)) as { tags?: unknown } | null)?.tags;
        return Array.isArray(list) ? list.filter((tag): tag is string => typeof tag === 'string') : [];
    }

    #get(request: Request): Promise<Uint8Array> {
        return this.#limiter.run(() => this.#persist(request));
    }

    /** Tries again what may go better another time. */
    async #persist(request: Request): Promise<Uint8Array> {
        let authorized = false;
        let pause = FIRST_PAUSE_MS;
        for (let attempt = 1; ; attempt += 1) {
            request.signal?.throwIfAborted();
            const last = attempt >= ATTEMPTS;
            const abort = new AbortController();
            const signal = request.signal ? AbortSignal.any([request.signal, abort.signal]) : abort.signal;
            const url = this.#moved.get(request.path) ?? this.#url(request.path);
            const moved = this.#moved.has(request.path);
            try {
                const response = await this.#send(url, request, moved, signal, abort);
                if (response.ok) {
                    if (response.redirected && request.path.startsWith('blobs/')) this.#moved.set(request.path, response.url);
                    return await request.read({ status: response.status, pieces: () => this.#pieces(response, abort) });
                }
                if (moved) {
                    // Such addresses are good for a while only.
                    this.#moved.delete(request.path);
                    abort.abort();
                    continue;
                }
                if (response.status === 401 && !authorized && (await this.#authorize(response))) {
                    authorized = true;
                    continue;
                }
                const wait = response.status === 429 ? (seconds(response.headers.get('retry-after')) ?? pause / 1000) : pause / 1000;
                const said = await saying(response);
                if (last || !mayPass(response.status, said.code) || wait > LONGEST_PAUSE_S) {
                    throw refused(response, said, this.#place, request.what, this.#access.proxy !== null);
                }
                await sleep(wait * 1000, request.signal);
            } catch (thrown) {
                request.signal?.throwIfAborted();
                if (thrown instanceof ApiError) throw thrown;
                // `fetch` says nothing but TypeError, of whatever happened.
                if (moved) this.#moved.delete(request.path);
                else if (last || navigator.onLine === false || (attempt > 2 && !(thrown instanceof Interrupted))) {
                    throw await unanswered(this.#place, this.#access.proxy === null ? this.#api : null);
                }
                await sleep(pause, request.signal);
            }
            pause *= 2;
        }
    }

    #url(path: string): string {
        return `${this.#api}${this.#place.repository}/${path}`;
    }

    async #send(url: string, { headers }: Request, moved: boolean, signal: AbortSignal, abort: AbortController): Promise<Response> {
        this.#meter.request();
        const authorization = moved ? undefined : this.#authorization;
        const silent = setTimeout(() => abort.abort(), SILENCE_MS);
        try {
            return await fetch(url, {
                headers: { ...headers, ...(authorization ? { authorization } : {}) },
                signal,
                credentials: 'omit',
                referrerPolicy: 'no-referrer',
                // What is worth keeping is kept by digest, once it was checked.
                cache: 'no-store',
            });
        } finally {
            clearTimeout(silent);
        }
    }

    async *#pieces(response: Response, abort: AbortController): AsyncGenerator<Uint8Array, void, undefined> {
        const reader = response.body?.getReader();
        if (!reader) return;
        try {
            for (;;) {
                const silent = setTimeout(() => abort.abort(), SILENCE_MS);
                const { done, value } = await reader.read().finally(() => clearTimeout(silent));
                if (done) return;
                this.#meter.fetched(value.length);
                yield value;
            }
        } catch (thrown) {
            throw new Interrupted(String(thrown));
        } finally {
            reader.cancel().catch(() => undefined);
        }
    }

    /** Gets what a status of 401 asks for; requests that come to it at the same time share one token. */
    async #authorize(response: Response): Promise<boolean> {
        if (this.#access.proxy !== null) return false;
        const had = this.#authorization;
        this.#authorizing ??= authorize(response.headers.get('www-authenticate'), this.#place, this.#access.authorization)
            .then((authorization) => {
                this.#authorization = authorization ?? undefined;
                return authorization !== null;
            })
            .finally(() => (this.#authorizing = null));
        return (await this.#authorizing) && (had !== this.#authorization || this.#authorization !== undefined);
    }
}

/** Whether the same request may go better another time. This page's server has tried again itself. */
function mayPass(status: number, code: string): boolean {
    return status === 429 || (status >= 500 && status !== 501 && !code.startsWith('LAZYSTAR_'));
}

/** Where a registry is, by the name that references give it. */
function direct(registry: string): string {
    if (registry === 'docker.io') return 'https://registry-1.docker.io/v2/';
    const { hostname } = new URL(`https://${registry}`);
    return `${isLoopback(hostname) ? 'http' : 'https'}://${registry}/v2/`;
}

async function whole(body: Body, most: number): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    let length = 0;
    for await (const piece of body.pieces()) {
        length += piece.length;
        if (length > most) throw problem('limit-exceeded', `The registry sent more than the ${most} bytes that are allowed here.`);
        pieces.push(piece);
    }
    return concat(pieces, length);
}

/** `length` bytes after `skip` of them. */
async function cut(body: Body, skip: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    let at = -skip;
    for await (const piece of body.pieces()) {
        const wanted = piece.subarray(Math.max(0, -at), Math.max(0, length - at));
        if (wanted.length > 0) bytes.set(wanted, Math.max(0, at));
        at += piece.length;
        if (at >= length) return bytes;
    }
    throw new Interrupted('the answer is too short');
}

function sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
        const timer = setTimeout(resolve, ms);
        signal?.addEventListener('abort', () => {
            clearTimeout(timer);
            reject(signal.reason as Error);
        });
    });
}
