/** Brings the documents and blobs of an image. What it brings needs no trust: the engine checks it. */
export interface Source {
    /** The bytes of the manifest or index with this tag or digest. */
    document(name: string): Promise<Uint8Array>;
    /** Exactly these bytes of a blob. */
    blob(digest: string, offset: number, length: number): Promise<Uint8Array>;
}

/** A source did not give what was asked for. */
export class SourceError extends Error {
    override readonly name = 'SourceError';
}

// OCI types alone: a longer header would make browsers ask the registry for permission first.
const oci = ['index', 'manifest'].map((kind) => `application/vnd.oci.image.${kind}.v1+json`).join();
const docker = ['manifest.list', 'manifest']
    .map((kind) => `application/vnd.docker.distribution.${kind}.v2+json`)
    .join();

/** A repository in a registry, with an anonymous token where the registry asks for one. */
export class Registry implements Source {
    readonly #base: string;
    readonly #repository: string;
    readonly #headers: Record<string, string>;

    /** @param headers sent with every request, such as `authorization` */
    constructor(url: string, repository: string, headers: Record<string, string> = {}) {
        this.#base = `${url.replace(/\/$/, '')}/v2/${repository}`;
        this.#repository = repository;
        this.#headers = { ...headers };
    }

    async document(name: string): Promise<Uint8Array> {
        const url = `${this.#base}/manifests/${name}`;
        const first = await this.#get(url, { accept: oci });
        const response = first.status === 404 ? await this.#get(url, { accept: docker }) : first;
        if (!response.ok) throw new SourceError(`${url}: status ${response.status}`);
        return new Uint8Array(await response.arrayBuffer());
    }

    async blob(digest: string, offset: number, length: number): Promise<Uint8Array> {
        const url = `${this.#base}/blobs/${digest}`;
        const response = await this.#get(url, { range: `bytes=${offset}-${offset + length - 1}` });
        if (response.status !== 206) {
            throw new SourceError(`${url} does not give parts of blobs: status ${response.status}`);
        }
        const bytes = new Uint8Array(await response.arrayBuffer());
        if (bytes.length !== length) {
            throw new SourceError(`${url} gives ${bytes.length} bytes instead of the ${length} asked for`);
        }
        return bytes;
    }

    async #get(url: string, headers: Record<string, string>): Promise<Response> {
        const send = () => fetch(url, { headers: { ...this.#headers, ...headers } });
        const response = await send();
        const challenge = response.headers.get('www-authenticate') ?? '';
        const realm = /realm="([^"]*)"/.exec(challenge)?.[1];
        if (response.status !== 401 || !/^bearer /i.test(challenge) || !realm) return response;
        const token = new URL(realm);
        token.searchParams.set('service', /service="([^"]*)"/.exec(challenge)?.[1] ?? '');
        token.searchParams.set('scope', `repository:${this.#repository}:pull`);
        const answer = (await (await fetch(token)).json()) as { token?: string; access_token?: string };
        this.#headers.authorization = `Bearer ${answer.token ?? answer.access_token}`;
        return send();
    }
}
