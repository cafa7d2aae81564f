/** Says why a registry gave nothing. */
import type { ApiError, Place } from '../api';
import { problem } from './problems';

/** What to write into the configuration of a registry so that pages may read from it. */
const CONFIGURATION = `http:
  headers:
    Access-Control-Allow-Origin: ['*']
    Access-Control-Allow-Methods: ['HEAD', 'GET', 'OPTIONS']
    Access-Control-Allow-Headers: ['Authorization', 'Accept', 'Range']
    Access-Control-Expose-Headers: ['Docker-Content-Digest', 'Content-Range', 'Content-Length', 'WWW-Authenticate', 'Link']
storage:
  redirect:
    disable: true`;

const PROBE_MS = 5000;
const LONGEST_TEXT = 400;

/** Why a request got no answer at all. `registry` is the URL of its API, `null` where the server of this page was asked. */
export async function unanswered(place: Place, registry: string | null): Promise<ApiError> {
    if (navigator.onLine === false) return offline();
    if (registry === null) {
        return problem('unreachable', 'The server of this page does not answer. Is `lazystar explore` still running?');
    }
    return unread(
        place.registry,
        registry,
        (host) => `${host} answers, but does not allow web pages to read what it says (CORS). \`lazystar explore\` can read it without that. Whoever runs the registry can allow it; for Docker's registry (distribution), with this in its configuration:\n\n${CONFIGURATION}\n\nAn anonymous registry needs no more. One that wants tokens also has to answer requests of method OPTIONS without them.`,
    );
}

/** Why a page got nothing from a URL that it asked itself. `forbidden` says what to do when pages may not read it. */
export async function unread(host: string, url: string, forbidden: (host: string) => string): Promise<ApiError> {
    if (navigator.onLine === false) return offline();
    if (location.protocol === 'https:' && url.startsWith('http:')) {
        return problem('unreachable', `${host} is reached without encryption, which browsers do not allow pages that are encrypted themselves. \`lazystar explore\` can reach it.`);
    }
    try {
        // An answer that the page may not see: enough to know that somebody is there.
        await fetch(url, { mode: 'no-cors', credentials: 'omit', cache: 'no-store', signal: AbortSignal.timeout(PROBE_MS) });
    } catch {
        return problem('unreachable', `${host} does not answer. Check its name, and whether this computer can reach it.`);
    }
    return problem('cors', forbidden(host));
}

function offline(): ApiError {
    return problem('offline', 'This computer is not connected to a network. What was looked at before can still be opened.');
}

/** What the body of a refusal says. */
export interface Said {
    /** Those of this page's server begin with `LAZYSTAR_`. */
    code: string;
    message: string;
}

/** Why an answer is of no use. */
export function refused(response: Response, { code, message }: Said, place: Place, what: string, proxied: boolean): ApiError {
    const { status } = response;
    const reason = message ? ` (“${message}”)` : '';
    const host = place.registry;
    switch (status) {
        case 401:
            return problem('unauthorized', proxied
                ? `${host} wants to know who asks for ${place.repository}${reason}. \`lazystar explore\` takes the credentials of \`docker login\`.`
                : `${host} wants to know who asks for ${place.repository}${reason}: give a name and a password, or open the image by \`lazystar explore\`, which takes those of \`docker login\`.`, { status });
        case 403:
            // What the server of this page does not allow, it explains by itself.
            if (code.startsWith('LAZYSTAR_')) return problem('forbidden', message, { status });
            return problem('forbidden', `${host} does not allow to read ${place.repository}${reason}.`, { status });
        case 404:
            return problem('not-found', `${host} has no ${what}${reason}.`, { status });
        case 429: {
            const retryAfter = seconds(response.headers.get('retry-after'));
            return problem('too-many-requests', `${host} was asked too often${reason}. Wait ${retryAfter ? `${retryAfter} seconds` : 'a while'} and try again.`, {
                status,
                ...(retryAfter === null ? {} : { retryAfter }),
            });
        }
        default:
    }
    if (code === 'LAZYSTAR_UNREACHABLE' || code === 'LAZYSTAR_TIMEOUT') return problem('unreachable', `${host} cannot be reached${reason}.`, { status });
    return problem('registry', `${host} answered with status ${status} when asked for ${what}${reason}. Try again later.`, { status });
}

/** Seconds of a `Retry-After`. */
export function seconds(header: string | null): number | null {
    if (header === null) return null;
    if (/^\s*\d{1,9}\s*$/.test(header)) return Number(header);
    const date = Date.parse(header);
    return Number.isNaN(date) ? null : Math.max(0, Math.ceil((date - Date.now()) / 1000));
}

/** Reads the body of a refusal, as registries write it. */
export async function saying(response: Response): Promise<Said> {
    try {
        const body = (await response.json()) as { errors?: { code?: unknown; message?: unknown }[] } | null;
        const { code, message } = body?.errors?.[0] ?? {};
        return { code: typeof code === 'string' ? code : '', message: typeof message === 'string' ? message.slice(0, LONGEST_TEXT) : '' };
    } catch {
        return { code: '', message: '' };
    }
}
