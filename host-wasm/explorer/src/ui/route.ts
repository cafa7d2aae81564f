/**
 * What the page shows is in the fragment of its address, so that links, reload, back and forward restore it:
 * `#/r/HOST/REPOSITORY[:TAG][@DIGEST]/-/PATH?view=LAYER&tab=hex&…`. A fragment is not sent to any server.
 */
import { signal } from '@preact/signals';
import type { Place, View } from '../api';
import { FILE, parseReference, placeIn } from '../reference';
import type { Wanted } from './opened';

export type Panel = 'files' | 'search' | 'changes' | 'efficiency' | 'against' | 'image';
export type Tab = 'text' | 'hex' | 'picture' | 'json' | 'elf' | 'pe' | 'pem' | 'details' | 'compare';

export interface Route {
    /** The image; `null` on the first page. */
    place: Place | null;
    /** The tag, also when `place.reference` is the digest that it led to. */
    tag: string | null;
    /** `OS/ARCHITECTURE[/VARIANT]` of an index. */
    platform: string | null;
    view: View;
    /** What is selected. */
    path: string;
    panel: Panel;
    /** How the file is shown; `null` lets its content decide. */
    tab: Tab | null;
    /** Lines that are marked, the first one being 1. */
    lines: [number, number] | null;
    /** Where the hexadecimal view is. */
    offset: number;
    /** What is searched for. */
    query: string;
    /** Layers whose versions of a file are compared. */
    compare: [number, number] | null;
    /** The image that this one is compared with. */
    other: Wanted | null;
}

export const start: Route = {
    place: null,
    tag: null,
    platform: null,
    view: 'merged',
    path: '/',
    panel: 'files',
    tab: null,
    lines: null,
    offset: 0,
    query: '',
    compare: null,
    other: null,
};

/** What another path begins with: nothing that was chosen for the one before. */
export const afresh = { tab: null, lines: null, offset: 0, compare: null } satisfies Partial<Route>;

const panels: readonly string[] = ['files', 'search', 'changes', 'efficiency', 'against', 'image'] satisfies Panel[];
const tabs: readonly string[] = ['text', 'hex', 'picture', 'json', 'elf', 'pe', 'pem', 'details', 'compare'] satisfies Tab[];

/** Reads a fragment. What makes no sense is as if it were not there. */
export function parse(fragment: string): Route {
    const match = /^#\/r\/([^/?]+)\/(.+?)(?:\/-(\/[^?]*))?(?:\?(.*))?$/.exec(fragment);
    if (!match) return start;
    const [, registry = '', image = '', path = '/', parameters = ''] = match;
    const place = split(placeIn(decode(registry), decode(image)));
    if (!place) return start;
    const query = new URLSearchParams(parameters);
    const numbers = (name: string): [number, number] | null => {
        const found = /^(\d{1,15})(?:-(\d{1,15}))?$/.exec(query.get(name) ?? '');
        return found ? [Number(found[1]), Number(found[2] ?? found[1])] : null;
    };
    const other = written(query.get('with') ?? '');
    const panel = query.get('panel') ?? '';
    const tab = query.get('tab') ?? '';
    return {
        ...place,
        platform: query.get('platform'),
        view: numbers('layer')?.[0] ?? 'merged',
        path: decode(path) || '/',
        panel: panels.includes(panel) ? (panel as Panel) : 'files',
        tab: tabs.includes(tab) ? (tab as Tab) : null,
        lines: numbers('lines'),
        offset: numbers('offset')?.[0] ?? 0,
        query: query.get('q') ?? '',
        compare: numbers('compare'),
        other: other && { ...other, platform: query.get('with-platform') },
    };
}

/** Writes a fragment; `parse` gives the same route back. */
export function format(route: Route): string {
    if (!route.place) return '#/';
    const { registry, repository } = route.place;
    const image = repository + suffix(route.place, route.tag);
    const query = new URLSearchParams();
    const set = (name: string, value: unknown, unless: unknown): void => {
        if (value !== unless && value !== null) query.set(name, Array.isArray(value) ? value.join('-') : String(value));
    };
    set('platform', route.platform, null);
    set('layer', route.view, 'merged');
    set('panel', route.panel, 'files');
    set('q', route.query, '');
    set('tab', route.tab, null);
    set('lines', route.lines, null);
    set('offset', route.offset, 0);
    set('compare', route.compare, null);
    set('with', route.other && `${route.other.place.registry}/${route.other.place.repository}${suffix(route.other.place, route.other.tag)}`, null);
    set('with-platform', route.other?.platform, undefined);
    const path = route.path === '/' ? '' : `/-${encode(route.path)}`;
    const parameters = query.toString();
    return `#/r/${encodeURIComponent(registry).replace(/%3A/g, ':')}/${encode(image)}${path}${parameters ? `?${parameters}` : ''}`;
}

/** What to say when {@link typed} finds nothing. */
export const NO_IMAGE = 'This is no image: HOST/REPOSITORY:TAG, HOST/REPOSITORY@sha256:DIGEST, or the URL of an OCI layout.';

/** Reads what people type, as Docker understands it. */
export function typed(text: string): { place: Place; tag: string | null } | null {
    return split(parseReference(text));
}

/** Reads the other image of an address: as people type it, or a file of this computer. */
function written(text: string): { place: Place; tag: string | null } | null {
    const file = `${FILE}/`;
    return text.startsWith(file) ? split(placeIn(FILE, text.slice(file.length))) : typed(text);
}

/** Of a tag with a digest the digest says which image, and the tag what it is called. */
function split(place: Place | null): { place: Place; tag: string | null } | null {
    if (!place) return null;
    const [, tag = null, digest = null] = /^(?:([^@:]+))?@?(sha256:.*)?$/.exec(place.reference) ?? [];
    return { place: { ...place, reference: digest ?? place.reference }, tag };
}

function suffix({ reference }: Place, tag: string | null): string {
    return `${tag ? `:${tag}` : ''}${reference.includes(':') ? `@${reference}` : ''}`;
}

function encode(path: string): string {
    return encodeURI(path.toWellFormed()).replace(/[?#]/g, encodeURIComponent);
}

function decode(text: string): string {
    try {
        return decodeURIComponent(text);
    } catch {
        return '';
    }
}

/** What is shown now. */
export const route = signal<Route>(parse(location.hash));

addEventListener('hashchange', () => (route.value = parse(location.hash)));

/** Shows something else. `replace` leaves no step in the history, for what follows from what is shown already. */
export function go(change: Partial<Route>, replace = false): void {
    const next = { ...route.value, ...change };
    const address = format(next);
    if (address !== location.hash) history[replace ? 'replaceState' : 'pushState'](null, '', address);
    route.value = next;
}

/** Where a link to something else of this page leads. */
export function link(change: Partial<Route>): string {
    return format({ ...route.value, ...change });
}
