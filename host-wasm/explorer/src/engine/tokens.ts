/** What a registry wants to see before it gives something: an anonymous token, or credentials that were typed in. */
import type { Place } from '../api';

/** Where well-known registries give tokens: a page may not read the header that says so. */
const WELL_KNOWN: Record<string, { realm: string; service: string }> = {
    'docker.io': { realm: 'https://auth.docker.io/token', service: 'registry.docker.io' },
    'ghcr.io': { realm: 'https://ghcr.io/token', service: 'ghcr.io' },
    'quay.io': { realm: 'https://quay.io/v2/auth', service: 'quay.io' },
};

/**
 * The value of `Authorization` that answers a status of 401, or `null` when there is none to try. `credentials` go to the
 * registry, and to the token server that it names.
 *
 * @throws what `fetch` throws when the token server cannot be asked
 */
export async function authorize(challenge: string | null, place: Place, credentials: string | undefined): Promise<string | null> {
    if (challenge !== null && /^\s*basic\b/i.test(challenge)) return credentials ?? null;
    const known = WELL_KNOWN[place.registry];
    const realm = parameter(challenge, 'realm') ?? known?.realm;
    if (!realm) return credentials ?? null;
    const url = new URL(realm);
    if (url.protocol !== 'https:' && !isLoopback(url.hostname)) return null;
    const service = parameter(challenge, 'service') ?? known?.service;
    if (service) url.searchParams.set('service', service);
    url.searchParams.set('scope', `repository:${place.repository}:pull`);
    const headers: Record<string, string> = credentials ? { authorization: credentials } : {};
    const response = await fetch(url, { headers, credentials: 'omit', referrerPolicy: 'no-referrer' });
    if (!response.ok) return null;
    const answer = (await response.json()) as { token?: unknown; access_token?: unknown } | null;
    const token = answer?.token ?? answer?.access_token;
    return typeof token === 'string' ? `Bearer ${token}` : null;
}

function parameter(challenge: string | null, name: string): string | undefined {
    if (challenge === null || !/^\s*bearer\b/i.test(challenge)) return undefined;
    return new RegExp(`[\\s,]${name}="([^"]*)"`, 'i').exec(challenge)?.[1];
}

/** Whether a host is this machine: it is spoken to without encryption. */
export function isLoopback(hostname: string): boolean {
    return hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d+){3}$/.test(hostname);
}
