/** The image that is open, as the address says it, and the one that it is compared with. */
import { batch, effect, signal } from '@preact/signals';
import type { Events, OpenImage, Problem, View } from '../api';
import { isFile } from '../reference';
import { server } from '../server';
import { publish } from '../vfs';
import { say } from './live';
import { key, Opened, pinned, type Wanted } from './opened';
import { remember } from './recent';
import { go, route, type Route } from './route';

export { problem } from './opened';

const shown = new Opened();
export const { engine, image, layers, refused, opening, openLayers, settling, generation, meter } = shown;
/** The image that the open one is compared with. */
export const other = new Opened();

/** Whether registries are asked without a proxy, which has credentials of its own. */
export const isDirect = signal(false);
/** Chunks and tables that failed their check. */
export const failures = signal<{ problem: Problem; path: string | null }[]>([]);
/** For each view, how often more became known of its rows, as sizes of directories: whoever shows them reads them again. */
export const sizes = signal<ReadonlyMap<View, number>>(new Map());

void server.then(({ proxy }) => (isDirect.value = proxy === null));

const keys = { shown: '', other: '' };
const keyOf = (wanted: Wanted | null): string => (wanted ? key(wanted) : '');

/** Opens what the address says, whenever it says something else. */
export function follow(): void {
    effect(() => {
        const next = route.value;
        if (keyOf(wanted(next)) !== keys.shown) void open(next);
    });
    effect(() => {
        const { other: next } = route.value;
        if (keyOf(next) !== keys.other) void openOther(next);
    });
}

/** Opens the image of the address once more, after a failure. */
export function retry(authorization?: string): void {
    void open(route.peek(), authorization);
}

/** The same for the one that it is compared with. */
export function retryOther(): void {
    void openOther(route.peek().other);
}

function wanted({ place, tag, platform }: Route): Wanted | null {
    return place && { place, tag, platform };
}

async function open(next: Route, authorization?: string): Promise<void> {
    const image = wanted(next);
    keys.shown = keyOf(image);
    batch(() => {
        failures.value = [];
        sizes.value = new Map();
    });
    publish(null);
    if (!image) return shown.close();
    const found = await shown.open(image, authorization, heard);
    const opened = shown.engine.peek();
    if (!found || !opened) return;
    publish({ place: found.place, digest: found.digest, engine: opened });
    pin(found, image);
    say(`${image.place.repository}: ${found.layers.length} layers`);
}

async function openOther(image: Wanted | null): Promise<void> {
    keys.other = keyOf(image);
    if (!image) return other.close();
    const found = await other.open(image);
    if (!found) return;
    const place = pinned(found, image.place);
    keys.other = keyOf({ ...image, place });
    go({ other: { ...image, place } }, true);
}

/** A tag is asked for once: from then on the address has the digest that it led to. */
function pin(found: OpenImage, { place, tag, platform }: Wanted): void {
    const exact = pinned(found, place);
    keys.shown = keyOf({ place: exact, tag, platform });
    go({ place: exact }, true);
    if (!isFile(place)) remember({ ...place, reference: tag ?? exact.reference });
}

function heard(event: Events): void {
    switch (event.type) {
        case 'layer': {
            const { index, changes } = event.layer;
            if (changes !== null && layers.value[index]?.changes === null) learned(index);
            break;
        }
        case 'sizes':
            learned(event.view);
            break;
        case 'failure':
            failures.value = [...failures.value, event];
            say(event.problem.message);
    }
}

function learned(view: View): void {
    sizes.value = new Map(sizes.value).set(view, (sizes.value.get(view) ?? 0) + 1);
}
