/** Names of images. */
import type { Place } from './api';

/** Reads the name of an image as Docker does: `golang`, `golang:1.25`, `HOST/REPOSITORY:TAG@DIGEST`. `null` when it is none. */
export function parseReference(text: string): Place | null {
    const trimmed = text.trim().replace(/^(?:https?|docker):\/\//, '');
    const slash = trimmed.indexOf('/');
    const first = trimmed.slice(0, Math.max(slash, 0));
    const named = first === 'localhost' || /[.:]/.test(first);
    const registry = named ? first.replace(/^index\.docker\.io$/, 'docker.io') : 'docker.io';
    return placeIn(registry, named ? trimmed.slice(slash + 1) : trimmed);
}

/** The image `REPOSITORY[:TAG][@DIGEST]` of a registry; `null` when this is no name. */
export function placeIn(registry: string, image: string): Place | null {
    const match = /^([a-z0-9]+(?:[._/-]+[a-z0-9]+)*)(?::(\w[\w.-]{0,127}))?(?:@(sha256:[0-9a-f]{64}))?$/.exec(image);
    if (!match?.[1] || !/^(?:[\w.-]+|\[[0-9a-f:]+\])(?::\d{1,5})?$/i.test(registry)) return null;
    const [, name, tag, digest] = match;
    const repository = registry === 'docker.io' && !name.includes('/') ? `library/${name}` : name;
    return { registry, repository, reference: [tag, digest].filter(Boolean).join('@') || 'latest' };
}
