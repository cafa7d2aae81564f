/** Names of images. */
import type { Place } from './api';

/** The registry of places that are files of this computer. */
export const FILE = 'file:';
const NAMED = /^(.+?)(?::(\w[\w.-]{0,127}))?(?:@(sha256:[0-9a-f]{64}))?$/s;

/**
 * Reads the name of an image as Docker does: `golang`, `golang:1.25`, `HOST/REPOSITORY:TAG@DIGEST`; or the URL of an OCI
 * layout, `https://HOST/DIRECTORY:TAG@DIGEST`. `null` when it is none.
 */
export function parseReference(text: string): Place | null {
    const trimmed = text.trim().replace(/^docker:\/\//, '');
    const url = /^(https?:\/\/[^/?#]+)((?:\/[^?#]*)?)$/.exec(trimmed);
    if (url) {
        const way = (url[2] ?? '').split('/').filter((name) => name !== '' && name !== 'index.json');
        const last = way.pop() ?? '.';
        return placeIn([url[1], ...way].join('/'), last);
    }
    const slash = trimmed.indexOf('/');
    const first = trimmed.slice(0, Math.max(slash, 0));
    const named = first === 'localhost' || /[.:]/.test(first);
    const registry = named ? first.replace(/^index\.docker\.io$/, 'docker.io') : 'docker.io';
    return placeIn(registry, named ? trimmed.slice(slash + 1) : trimmed);
}

/** The image `REPOSITORY[:TAG][@DIGEST]` of a registry, or of what else {@link Place} names; `null` when this is no name. */
export function placeIn(registry: string, image: string): Place | null {
    if (registry === FILE || (/^https?:\/\//.test(registry) && URL.canParse(registry))) {
        const [, repository = '', tag, digest] = NAMED.exec(image) ?? [];
        return repository === '' || repository.includes('/') ? null : { registry, repository, reference: [tag, digest].filter(Boolean).join('@') };
    }
    const match = /^([a-z0-9]+(?:[._/-]+[a-z0-9]+)*)(?::(\w[\w.-]{0,127}))?(?:@(sha256:[0-9a-f]{64}))?$/.exec(image);
    if (!match?.[1] || !/^(?:[\w.-]+|\[[0-9a-f:]+\])(?::\d{1,5})?$/i.test(registry)) return null;
    const [, name, tag, digest] = match;
    const repository = registry === 'docker.io' && !name.includes('/') ? `library/${name}` : name;
    return { registry, repository, reference: [tag, digest].filter(Boolean).join('@') || 'latest' };
}

/** The place of a file: its first image. */
export function placeOf({ name }: File): Place {
    // These have a meaning in names of images.
    return { registry: FILE, repository: name.replace(/[:@/]/g, '_') || '_', reference: '' };
}

/** Whether a place is a file of this computer. */
export function isFile({ registry }: Place): boolean {
    return registry === FILE;
}

/** Whether a place is an OCI layout on a web server. */
export function isLayout({ registry }: Place): boolean {
    return registry.includes('://');
}

/** What people call an image, without its tag. */
export function title(place: Place): string {
    return isFile(place) ? place.repository : `${place.registry}/${place.repository}`;
}

/** The same with its tag, or else its digest. */
export function named(place: Place, tag: string | null, digest = place.reference): string {
    return `${title(place)}${tag ? `:${tag}` : digest && `@${digest}`}`;
}
