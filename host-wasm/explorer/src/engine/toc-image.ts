/** External tables of contents: an image `TAG-esgztoc` has those of the layers of the image `TAG`. */
import type { Place } from '../api';
import type { Library } from './documents';
import type { Root } from './instance';
import { engine, problem } from './problems';
import { files } from './untar';

const SUFFIX = '-esgztoc';
/** Names the layer that a table of contents is of. */
const LAYER = 'containerd.io/snapshot/stargz/layer.digest';
const FILE = 'stargz.index.json';
const LARGEST_BLOB = 64 << 20;
const LARGEST_TOC = 256 << 20;

export class TocImage {
    readonly #root: Root;
    readonly #library: Library;
    readonly #tag: string | null;
    #tables: Promise<Map<string, { digest: string; size: number }>> | null = null;

    constructor(root: Root, library: Library, place: Place) {
        this.#root = root;
        this.#library = library;
        this.#tag = /^([^:@]+)(?:@|$)/.exec(place.reference)?.[1] ?? null;
    }

    /** The JSON for the layer with this digest. */
    async toc(layer: string): Promise<Uint8Array> {
        const found = (await (this.#tables ??= this.#find())).get(layer);
        if (!found) throw problem('malformed', `The image ${this.#tag}${SUFFIX} has no table of contents for layer ${layer}. Convert the image again.`);
        if (found.size > LARGEST_BLOB) throw problem('limit-exceeded', `The table of contents of layer ${layer} has ${found.size} bytes, more than is allowed.`);
        const blob = await this.#library.blob(found.digest, LARGEST_BLOB);
        const plain = new Blob([blob as BlobPart]).stream().pipeThrough(new DecompressionStream('gzip'));
        for await (const { name, content } of files(plain, LARGEST_TOC)) {
            if (name.replace(/^\.\//, '') === FILE) return content;
        }
        throw problem('malformed', `The table of contents of layer ${layer} is not in its blob. Convert the image again.`);
    }

    async #find(): Promise<Map<string, { digest: string; size: number }>> {
        if (this.#tag === null) {
            throw problem('not-found', 'The table of contents is in another image, which is found by the tag: open this image by its tag.');
        }
        const { oci } = this.#root;
        let { bytes, digest } = await this.#library.tagged(`${this.#tag}${SUFFIX}`);
        let parsed = engine(() => oci.parse(bytes, digest));
        if (parsed.tag === 'index') {
            const first = parsed.val[0]?.manifest.digest;
            if (!first) throw problem('malformed', `The image ${this.#tag}${SUFFIX} is empty. Convert the image again.`);
            digest = first;
            bytes = await this.#library.document(first);
            parsed = engine(() => oci.parse(bytes, digest));
        }
        const layers = parsed.tag === 'manifest' ? parsed.val.layers : [];
        return new Map(
            layers.flatMap(({ digest: toc, size, annotations }) => {
                const of = annotations.find(([name]) => name === LAYER)?.[1];
                return of ? [[of, { digest: toc, size: Number(size) }] as const] : [];
            }),
        );
    }
}
