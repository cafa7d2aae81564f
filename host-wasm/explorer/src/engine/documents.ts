/** From the name of an image to its layers: tag, index, manifest, configuration, each checked by the digest before it. */
import type { OpenImage, Place, Platform } from '../api';
import type { Store } from './cache';
import type { Configuration, Descriptor, Root } from './instance';
import { asProblem, engine, problem } from './problems';
import type { Source } from './source';

/** What the documents of an image say. */
export interface Documents extends Pick<OpenImage, 'digest' | 'indexDigest' | 'offline' | 'platforms' | 'platform' | 'created'> {
    configuration: Configuration;
    layers: Descriptor[];
}

/** Reads documents, from the registry or as they were kept. */
export class Library {
    readonly #root: Root;
    readonly #source: Source;
    readonly #store: Store;
    readonly #place: Place;
    /** Whether something could only be had from what was kept. */
    offline = false;

    constructor(root: Root, source: Source, store: Store, place: Place) {
        this.#root = root;
        this.#source = source;
        this.#store = store;
        this.#place = place;
    }

    /** Reads the documents of an image. `wanted` is `OS/ARCHITECTURE[/VARIANT]` or the digest of a manifest. */
    async read(wanted: string | null): Promise<Documents> {
        const { oci } = this.#root;
        const first = await this.#named(this.#place.reference);
        let { bytes, digest } = first;
        let parsed = engine(() => oci.parse(bytes, digest), { path: `document ${digest}` });
        let indexDigest: string | null = null;
        let platforms: Platform[] = [];
        let chosen: Platform | null = null;
        if (parsed.tag === 'index') {
            indexDigest = digest;
            platforms = parsed.val.flatMap(({ manifest, platform }) =>
                platform && platform.os !== 'unknown' ? [{ ...platform, digest: manifest.digest, size: Number(manifest.size) }] : [],
            );
            chosen = choose(platforms, wanted);
            if (!chosen) {
                const has = platforms.map(({ os, architecture }) => `${os}/${architecture}`).join(', ') || 'none at all';
                throw problem('not-found', `The image has nothing for ${wanted ?? 'any platform'}; it has ${has}.`);
            }
            digest = chosen.digest;
            bytes = await this.document(digest);
            parsed = engine(() => oci.parse(bytes, digest), { path: `manifest ${digest}` });
        }
        if (parsed.tag !== 'manifest') throw problem('unsupported', 'The image is an index in an index, which nothing can run.');
        const { config, layers } = parsed.val;
        const configBytes = await this.#kept(config.digest, () => this.#source.blob(config.digest));
        const configuration = engine(() => oci.parseConfiguration(configBytes, config.digest), { path: `configuration ${config.digest}` });
        chosen ??= { ...configuration.platform, digest, size: bytes.length };
        if (platforms.length === 0) platforms = [chosen];
        return {
            digest,
            indexDigest,
            offline: this.offline,
            platforms,
            platform: chosen,
            created: created(configBytes),
            configuration,
            layers,
        };
    }

    /** The document that a name leads to: the digest of `TAG@DIGEST` if there is one. */
    async #named(reference: string): Promise<{ bytes: Uint8Array; digest: string }> {
        const pinned = /sha256:[0-9a-f]{64}$/.exec(reference)?.[0];
        if (pinned) return { bytes: await this.document(pinned), digest: pinned };
        if (reference.includes(':')) throw problem('unsupported', `${reference} is no digest that can be checked here: only those of SHA-256 can.`);
        return this.tagged(reference);
    }

    /** The document with a tag. What a tag led to is remembered, for when the registry cannot be asked. */
    async tagged(tag: string): Promise<{ bytes: Uint8Array; digest: string }> {
        const name = `${this.#place.registry}/${this.#place.repository}:${tag}`;
        try {
            const bytes = await this.#source.document(tag);
            const digest = this.#root.oci.digestOf(bytes);
            await this.#store.put(digest, bytes);
            await this.#store.setTag(name, digest);
            return { bytes, digest };
        } catch (thrown) {
            const { kind } = asProblem(thrown);
            const digest = kind === 'offline' || kind === 'unreachable' ? await this.#store.tag(name) : null;
            const bytes = digest && (await this.#checked(digest));
            if (!bytes) throw thrown;
            this.offline = true;
            return { bytes, digest };
        }
    }

    /** The index or manifest with this digest; the engine checks it when it is parsed. */
    document(digest: string): Promise<Uint8Array> {
        return this.#kept(digest, () => this.#source.document(digest));
    }

    /** A small blob, checked. */
    blob(digest: string, most: number): Promise<Uint8Array> {
        return this.#kept(digest, () => this.#source.blob(digest, most));
    }

    async #kept(digest: string, fetch: () => Promise<Uint8Array>): Promise<Uint8Array> {
        const kept = await this.#checked(digest);
        if (kept) return kept;
        const bytes = await fetch();
        engine(() => this.#root.oci.verify(bytes, digest), { path: `document ${digest}` });
        await this.#store.put(digest, bytes);
        return bytes;
    }

    /** What was kept, if it still is what it was. */
    async #checked(digest: string): Promise<Uint8Array | null> {
        const bytes = await this.#store.get(digest);
        if (!bytes) return null;
        try {
            this.#root.oci.verify(bytes, digest);
            return bytes;
        } catch {
            this.#store.forget(digest);
            return null;
        }
    }
}

/** What is shown of an image, without its layers. */
export function facts(place: Place, documents: Documents): Omit<OpenImage, 'layers'> {
    const { configuration, layers: _, ...rest } = documents;
    return {
        place,
        ...rest,
        env: configuration.env,
        entrypoint: configuration.entrypoint,
        cmd: configuration.cmd,
        workingDir: configuration.workingDir,
        user: configuration.user,
        labels: configuration.labels,
        history: configuration.history.map(({ createdBy, emptyLayer }) => ({ command: createdBy, emptyLayer })),
    };
}

/** The command that made each layer, where the history tells. */
export function commands({ configuration, layers }: Documents): string[] {
    const steps = configuration.history.filter(({ emptyLayer }) => !emptyLayer);
    return layers.map((_, index) => (steps.length === layers.length ? (steps[index]?.createdBy ?? '') : ''));
}

function choose(platforms: Platform[], wanted: string | null): Platform | null {
    const named = (name: string): Platform | undefined =>
        platforms.find(({ os, architecture, variant, digest }) =>
            [`${os}/${architecture}/${variant}`, `${os}/${architecture}`, digest].includes(name),
        );
    if (wanted !== null) return named(wanted) ?? null;
    return named('linux/amd64') ?? platforms[0] ?? null;
}

/** The one thing in a configuration that the engine does not read; the bytes were checked. */
function created(configuration: Uint8Array): string | null {
    try {
        const value = (JSON.parse(new TextDecoder().decode(configuration)) as { created?: unknown }).created;
        return typeof value === 'string' && !Number.isNaN(Date.parse(value)) ? value : null;
    } catch {
        return null;
    }
}
