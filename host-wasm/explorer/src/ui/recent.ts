/** Images that were opened in this browser, the last one first. */
import { signal } from '@preact/signals';
import type { Place } from '../api';

const KEY = 'lazystar.recent';
const MOST = 12;

export const recent = signal<Place[]>(load());

export function remember(place: Place): void {
    const name = JSON.stringify(place);
    store([place, ...recent.value.filter((other) => JSON.stringify(other) !== name)].slice(0, MOST));
}

export function forget(): void {
    store([]);
}

function load(): Place[] {
    try {
        const places: unknown = JSON.parse(localStorage.getItem(KEY) ?? '[]');
        return Array.isArray(places) ? places.filter(isPlace).map(only) : [];
    } catch {
        return [];
    }
}

function store(places: Place[]): void {
    recent.value = places.map(only);
    try {
        localStorage.setItem(KEY, JSON.stringify(recent.value));
    } catch {
        // A browser that keeps nothing still shows the list of this visit.
    }
}

function isPlace(value: unknown): value is Place {
    const place = value as Record<keyof Place, unknown> | null;
    return [place?.registry, place?.repository, place?.reference].every((part) => typeof part === 'string');
}

function only({ registry, repository, reference }: Place): Place {
    return { registry, repository, reference };
}
