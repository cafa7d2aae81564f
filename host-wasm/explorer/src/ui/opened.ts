/** An image in an engine of its own, and what the engine tells of it, as signals. */
import { proxy } from 'comlink';
import { batch, computed, signal } from '@preact/signals';
import { ApiError, type Access, type Events, type LayerFacts, type Meter, type OpenImage, type Place, type Problem } from '../api';
import { startEngine } from '../engine/client';
import { server } from '../server';
import { fileAt } from './given';

type Engine = ReturnType<typeof startEngine>;

/** Which image, and as what. */
export interface Wanted {
    place: Place;
    /** The tag, also when `place.reference` is the digest that it led to. */
    tag: string | null;
    platform: string | null;
}

export class Opened {
    readonly engine = signal<Engine['engine'] | null>(null);
    readonly image = signal<OpenImage | null>(null);
    readonly layers = signal<LayerFacts[]>([]);
    /** Why the image cannot be opened. */
    readonly refused = signal<Problem | null>(null);
    readonly opening = signal(false);
    readonly meter = signal<Meter | null>(null);
    /** Layers whose tree can be shown. */
    readonly openLayers = computed(() => this.layers.value.filter(({ state }) => state === 'open'));
    /** Whether layers are still on their way. */
    readonly settling = computed(() => this.layers.value.some(({ state }) => state === 'opening'));
    /** Changes when the merged tree does: layers are opened one after the other. */
    readonly generation = computed(() => this.openLayers.value.map(({ index }) => index).join());
    #running: Engine | null = null;

    /** Closes what is open. */
    close(): void {
        void this.#running?.close();
        this.#running = null;
        batch(() => {
            this.engine.value = this.image.value = this.refused.value = this.meter.value = null;
            this.layers.value = [];
            this.opening.value = false;
        });
    }

    /** Opens another image instead. `null` when it cannot be, or when something else was to be opened meanwhile. */
    async open({ place, tag, platform }: Wanted, authorization?: string, hear: (event: Events) => void = () => undefined): Promise<OpenImage | null> {
        this.close();
        this.opening.value = true;
        const started = (this.#running = startEngine());
        const current = (): boolean => this.#running === started;
        const access: Access = { proxy: (await server).proxy, authorization, file: fileAt(place) };
        try {
            const onEvent = proxy((event: Events) => {
                if (!current()) return;
                hear(event);
                if (event.type === 'meter') this.meter.value = event.meter;
                else if (event.type === 'layer') this.layers.value = merge(this.layers.value, [event.layer]);
            });
            const found = await started.engine.open(asked(place, tag), access, platform, onEvent);
            if (!current()) return null;
            batch(() => {
                this.engine.value = started.engine;
                this.image.value = found;
                this.layers.value = merge(found.layers, this.layers.value);
                this.opening.value = false;
            });
            // What it cost until now; it is told only when more is fetched.
            const cost = await started.engine.meter();
            if (current()) this.meter.value ??= cost;
            return found;
        } catch (thrown) {
            if (!current()) return null;
            batch(() => {
                this.opening.value = false;
                this.refused.value = problem(thrown);
            });
            return null;
        }
    }
}

/** What an image is, whatever it is called: another one has to be opened when this is another. */
export function key({ place, platform }: Omit<Wanted, 'tag'>): string {
    return `${place.registry}/${place.repository}@${place.reference} ${platform}`;
}

/** The same place by the digest that it led to: what addresses have. */
export function pinned(found: OpenImage, place: Place): Place {
    return { ...place, reference: found.indexDigest ?? found.digest };
}

/** The engine finds tables of contents that are in another image by the tag. */
function asked(place: Place, tag: string | null): Place {
    return place.reference.includes(':') && tag ? { ...place, reference: `${tag}@${place.reference}` } : place;
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
