/** Gets things from a server that may be slow, busy, moved or away for a moment. */
import { ApiError } from '../api';
import { concat } from './bytes';
import { Limiter } from './limiter';
import type { Meters } from './meter';
import { problem } from './problems';
import { saying, seconds, type Said } from './refusals';

const SIDE_BY_SIDE = 8;
const ATTEMPTS = 4;
const FIRST_PAUSE_MS = 250;
/** Longest wait that a server may ask for before people are told of it. */
const LONGEST_PAUSE_S = 20;
/** A connection that is silent for so long is given up. */
const SILENCE_MS = 30_000;

export interface Request {
    /** After the base of the peer. */
    path: string;
    /** What is asked for, for people. */
    what: string;
    headers?: Record<string, string>;
    signal?: AbortSignal | undefined;
    /** Whether the address that it was redirected to is asked directly the next time. */
    keepsAddress?: boolean;
    /** Reads the body; what it throws of the network is tried again. */
    read: (body: Body) => Promise<Uint8Array>;
}

/** The body of an answer, counted as it comes. */
export interface Body {
    status: number;
    pieces(): AsyncGenerator<Uint8Array, void, undefined>;
}

/** Who is asked. */
export interface Peer {
    /** The URL in front of all paths. */
    readonly base: string;
    /** The value of `Authorization`, where it has one. */
    readonly authorization?: string | undefined;
    /** Gets what a status of 401 asks for; whether that may help. */
    authorize?(response: Response): Promise<boolean>;
    /** Why an answer is of no use. */
    refused(response: Response, said: Said, what: string): ApiError;
    /** Why there was no answer. */
    unanswered(): Promise<ApiError>;
}

/** Worth another try. */
class Interrupted extends Error {}

export class Transport {
    readonly #peer: Peer;
    readonly #meter: Meters;
    readonly #limiter = new Limiter(SIDE_BY_SIDE);
    /** Where things were found after redirects. */
    readonly #moved = new Map<string, string>();

    constructor(peer: Peer, meter: Meters) {
        this.#peer = peer;
        this.#meter = meter;
    }

    /** A whole blob of at most so many bytes. */
    blob(path: string, what: string, most: number): Promise<Uint8Array> {
        return this.get({ path, what, keepsAddress: true, read: (body) => whole(body, most) });
    }

    /** Exactly these bytes of a blob. */
    range(path: string, what: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
        return this.get({
            path,
            what,
            headers: { range: `bytes=${offset}-${offset + length - 1}` },
            signal,
            keepsAddress: true,
            // What is no part of the blob is all of it.
            read: (body) => cut(body, body.status === 206 ? 0 : offset, length),
        });
    }

    /** A whole blob, a piece at a time. It is not asked for again when the connection breaks. */
    async download(path: string, what: string, take: (piece: Uint8Array) => Promise<void> | void, signal?: AbortSignal): Promise<void> {
        let begun = false;
        await this.get({
            path,
            what,
            signal,
            keepsAddress: true,
            read: async (body) => {
                if (begun) throw problem('unreachable', `The connection to ${new URL(this.#peer.base).host} broke in the middle of a layer. Try again.`);
                for await (const piece of body.pieces()) {
                    begun = true;
                    await take(piece);
                }
                return new Uint8Array();
            },
        });
    }

    /** The answer to a request. */
    get(request: Request): Promise<Uint8Array> {
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
            const url = this.#moved.get(request.path) ?? `${this.#peer.base}${request.path}`;
            const moved = this.#moved.has(request.path);
            try {
                const response = await this.#send(url, request, moved, signal, abort);
                if (response.ok) {
                    if (response.redirected && request.keepsAddress) this.#moved.set(request.path, response.url);
                    return await request.read({ status: response.status, pieces: () => this.#pieces(response, abort) });
                }
                if (moved) {
                    // Such addresses are good for a while only.
                    this.#moved.delete(request.path);
                    abort.abort();
                    continue;
                }
                if (response.status === 401 && !authorized && (await this.#peer.authorize?.(response))) {
                    authorized = true;
                    continue;
                }
                const wait = response.status === 429 ? (seconds(response.headers.get('retry-after')) ?? pause / 1000) : pause / 1000;
                const said = await saying(response);
                if (last || !mayPass(response.status, said.code) || wait > LONGEST_PAUSE_S) {
                    throw this.#peer.refused(response, said, request.what);
                }
                await sleep(wait * 1000, request.signal);
            } catch (thrown) {
                request.signal?.throwIfAborted();
                if (thrown instanceof ApiError) throw thrown;
                // `fetch` says nothing but TypeError, of whatever happened.
                if (moved) this.#moved.delete(request.path);
                else if (last || navigator.onLine === false || (attempt > 2 && !(thrown instanceof Interrupted))) {
                    throw await this.#peer.unanswered();
                }
                await sleep(pause, request.signal);
            }
            pause *= 2;
        }
    }

    async #send(url: string, { headers }: Request, moved: boolean, signal: AbortSignal, abort: AbortController): Promise<Response> {
        this.#meter.request();
        const authorization = moved ? undefined : this.#peer.authorization;
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
}

/** Whether the same request may go better another time. This page's server has tried again itself. */
function mayPass(status: number, code: string): boolean {
    return status === 429 || (status >= 500 && status !== 501 && !code.startsWith('LAZYSTAR_'));
}

/** All of a body, of at most so many bytes. */
export async function whole(body: Body, most: number): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    let length = 0;
    for await (const piece of body.pieces()) {
        length += piece.length;
        if (length > most) throw problem('limit-exceeded', `The server sent more than the ${most} bytes that are allowed here.`);
        pieces.push(piece);
    }
    return concat(pieces, length);
}

/** `length` bytes after `skip` of them. */
export async function cut(body: Body, skip: number, length: number): Promise<Uint8Array> {
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
