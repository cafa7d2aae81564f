/** The image that is open: its engine, and what the engine tells, as signals. */
import { proxy } from 'comlink';
import { batch, computed, effect, signal } from '@preact/signals';
import { ApiError, type Access, type Events, type LayerFacts, type Meter, type OpenImage, type Place, type Problem, type View } from '../api';
import { startEngine } from '../engine/client';
import { publish } from '../vfs';
import { fileAt } from './given';
import { say } from './live';
import { remember } from './recent';
import { go, route, type Route } from './route';
import { isFile } from '../reference';
import { server } from '../server';

type Engine = ReturnType<typeof startEngine>;

export const engine = signal<Engine['engine'] | null>(null);
export const image = signal<OpenImage | null>(null);
export const layers = signal<LayerFacts[]>([]);
export const meter = signal<Meter | null>(null);
/** Why the image cannot be opened. */
export const refused = signal<Problem | null>(null);
export const opening = signal(false);
/** Whether registries are asked without a proxy, which has credentials of its own. */
export const isDirect = signal(false);
/** Chunks and tables that failed their check. */
export const failures = signal<{ problem: Problem; path: string | null }[]>([]);
/** For each view, how often more became known of its rows, as sizes of directories: whoever shows them reads them again. */
export const sizes = signal<ReadonlyMap<View, number>>(new Map());

/** Layers whose tree can be shown. */
export const openLayers = computed(() => layers.value.filter(({ state }) => state === 'open'));
/** Whether layers are still on their way. */
export const settling = computed(() => layers.value.some(({ state }) => state === 'opening'));
/** Changes when the merged tree does: layers are opened one after the other. */
export const generation = computed(() => layers.value.filter(({ state }) => state === 'open').map(({ index }) => index).join());

let running: Engine | null = null;
let shown = '';

const key = ({ place, platform }: Route): string =>
    place ? `${place.registry}/${place.repository}@${place.reference} ${platform}` : '';

/** Opens what the address says, whenever it says something else. */
export function follow(): void {
    effect(() => {
        const next = route.value;
        if (key(next) !== shown) void open(next);
    });
}

/** Opens the image of the address once more, after a failure. */
export function retry(authorization?: string): void {
    void open(route.peek(), authorization);
}

async function open(next: Route, authorization?: string): Promise<void> {
    shown = key(next);
    void running?.close();
    running = null;
    batch(() => {
        engine.value = image.value = meter.value = refused.value = null;
        layers.value = failures.value = [];
        sizes.value = new Map();
        opening.value = next.place !== null;
    });
    publish(null);
    if (!next.place) return;
    const { place } = next;
    const started = (running = startEngine());
    const current = (): boolean => running === started;
    const { proxy: path } = await server;
    isDirect.value = path === null;
    const access: Access = { proxy: path, authorization, file: fileAt(place) };
    try {
        const hear = proxy((event: Events) => current() && heard(event));
        const found = await started.engine.open(asked(place, next.tag), access, next.platform, hear);
        if (!current()) return;
        batch(() => {
            engine.value = started.engine;
            image.value = found;
            layers.value = merge(found.layers, layers.value);
            opening.value = false;
        });
        publish({ place: found.place, digest: found.digest, engine: started.engine });
        pin(found, place, next.tag);
        const before = await started.engine.meter();
        if (current()) meter.value ??= before;
        say(`${place.repository}: ${found.layers.length} layers`);
    } catch (thrown) {
        if (!current()) return;
        batch(() => {
            opening.value = false;
            refused.value = problem(thrown);
        });
    }
}

/** A tag is asked for once: from then on the address has the digest that it led to. */
function pin(found: OpenImage, place: Place, tag: string | null): void {
    const reference = found.indexDigest ?? found.digest;
    const pinned = { ...place, reference };
    shown = key({ ...route.peek(), place: pinned });
    go({ place: pinned }, true);
    if (!isFile(place)) remember({ ...place, reference: tag ?? reference });
}

/** The engine finds tables of contents that are in another image by the tag. */
function asked(place: Place, tag: string | null): Place {
    return place.reference.includes(':') && tag ? { ...place, reference: `${tag}@${place.reference}` } : place;
}

function heard(event: Events): void {
    switch (event.type) {
        case 'layer': {
            const { index, changes } = event.layer;
            const isNew = changes !== null && layers.value[index]?.changes === null;
            layers.value = merge(layers.value, [event.layer]);
            if (isNew) learned(index);
            break;
        }
        case 'meter':
            meter.value = event.meter;
            break;
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

/** Facts by layer, the later ones winning. */
function merge(before: LayerFacts[], later: LayerFacts[]): LayerFacts[] {
    const facts = new Map([...before, ...later].map((layer) => [layer.index, layer]));
    return [...facts.values()].sort((one, other) => one.index - other.index);
}

/** What went wrong, whatever was thrown. */
export function problem(thrown: unknown): Problem {
    if (thrown instanceof ApiError) return thrown.problem;
    return { kind: 'internal', message: thrown instanceof Error ? thrown.message : String(thrown) };
}
